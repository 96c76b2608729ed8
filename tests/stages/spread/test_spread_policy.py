"""What is decided when workers die, fail or fall silent. The cluster is pretended, so that every case can be had."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.staging import SealedShard, staging_folder
from vidxfer.pipeline.errors import CacheFull, ClusterError, UsageError
from vidxfer.stages.engine import EngineChoice, SlurmChoice
from vidxfer.stages.progress import Silent
from vidxfer.stages.shards.extract import ShardTask, task_of
from vidxfer.stages.spread.clusters import Cluster, visible_gpus, worker_environments
from vidxfer.stages.spread.window import Spread


@dataclass
class FakeFuture:
    """Ends when its client says so."""

    status: str = "pending"
    value: Any = None
    told: list[Callable[[Any], None]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def add_done_callback(self, function: Callable[[Any], None]) -> None:
        with self.lock:
            if self.status == "pending":
                self.told.append(function)
                return
        function(self)

    def end(self, status: str, value: Any) -> None:
        with self.lock:
            self.value, self.status = value, status
        for function in self.told:
            function(self)

    def result(self, timeout: float) -> Any:
        return self.value

    def exception(self, timeout: float) -> Any:
        from distributed.client import FutureCancelledError

        if self.status == "cancelled":
            raise FutureCancelledError(key="key", reason="scheduler-connection-lost")
        return self.value


class FakeClient:
    """Runs each task in a thread of its own: `behave(task, nth attempt, say)` returns a result or an error."""

    def __init__(self, workers: int, behave: Callable[[ShardTask, int, Callable[..., None]], Any]) -> None:
        self.status, self._workers, self._behave = "running", workers, behave
        self.scheduler = self
        self.address = "tcp://nowhere:8786"
        self.attempts: Counter[int] = Counter()
        self.tasks: list[ShardTask] = []
        self.outstanding = self.most_outstanding = 0
        self._say: Callable[..., None] = lambda event: None

    def subscribe_topic(self, topic: str, handler: Callable[..., None]) -> None:
        self._say = lambda **event: handler((0.0, event))

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {str(n): {"resources": {"GPU": 1.0}} for n in range(self._workers)}}

    def submit(self, function: Any, task: ShardTask, run: str, **how: Any) -> FakeFuture:
        assert how["pure"] is False
        assert how["resources"] == {"GPU": 1}
        self.tasks.append(task)
        self.attempts[task.shard] += 1
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        future, nth = FakeFuture(), self.attempts[task.shard]

        def work() -> None:
            time.sleep(0.002)
            outcome = self._behave(task, nth, self._say)
            status = "finished" if isinstance(outcome, SealedShard) else "error"
            self.outstanding -= 1
            future.end("cancelled" if outcome == "cancelled" else status, outcome)

        threading.Thread(target=work).start()
        return future


class Counted:
    """A bar that adds up."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, done: int = 1, note: str | None = None) -> None:
        self.done += done


@pytest.fixture
def split(toy: Any, tmp_path: Path) -> Split:
    """A split of five shards whose folder is empty."""
    return replace(open_split(toy.int8, "train"), path=tmp_path / "cache" / "train")


def killed() -> BaseException:
    from distributed.scheduler import KilledWorker, WorkerState

    lost = object.__new__(WorkerState)
    lost.address = "tcp://nowhere:1"
    return KilledWorker("key", lost, 0)


def sealed(task: ShardTask) -> SealedShard:
    record = ShardRecord(
        shard=task.shard, first_row=0, last_row=0, stored=task.count, failed=(), bytes=0, crc32c={}, notes={}
    )
    return SealedShard(record=record, folder=None)


@dataclass
class Ran:
    """What came of a run."""

    done: list[int]
    left: dict[int, str]
    client: FakeClient
    videos: int


def spread(toy: Any, split: Split, behave: Callable[..., Any], *, workers: int = 2, **engine: Any) -> Ran:
    request = toy.request(split.path.parent, engine=EngineChoice(scheduler="tcp://nowhere:8786", **engine))
    dataset = request.data.load("train")
    tasks = [task_of(request, dataset.videos, split, shard) for shard in range(split.shard_count)]
    client, bar, done = FakeClient(workers, behave), Counted(), list[int]()
    left = Spread(Cluster(client, Silent()), request, Silent()).run(
        split, tasks, bar, lambda one: done.append(one.record.shard)
    )
    return Ran(done=sorted(done), left=left, client=client, videos=bar.done)


def test_every_shard_is_done_once_and_two_per_worker_are_out_at_most(toy: Any, split: Split) -> None:
    begun, second = [], threading.Event()

    def behave(task: ShardTask, nth: int, say: Callable[..., None]) -> Any:
        begun.append(task.shard)
        if len(begun) == 2:
            second.set()
        assert second.wait(60), "the first one waits for company"
        return sealed(task)

    ran = spread(toy, split, behave, workers=1)
    assert (ran.done, ran.left) == ([0, 1, 2, 3, 4], {})
    assert ran.client.most_outstanding == 2
    assert ran.videos == 24


def test_a_shard_whose_worker_died_is_given_to_another_and_the_bar_counts_its_videos_once(
    toy: Any, split: Split
) -> None:
    def behave(task: ShardTask, nth: int, say: Callable[..., None]) -> Any:
        say(kind="videos", attempt=task.attempt, done=3)
        time.sleep(0.01)
        return killed() if (task.shard, nth) == (2, 1) else sealed(task)

    ran = spread(toy, split, behave)
    assert (ran.done, ran.left) == ([0, 1, 2, 3, 4], {})
    assert ran.client.attempts == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    assert ran.videos == 24


@pytest.mark.parametrize("begun", [True, False])
def test_only_a_task_that_had_begun_is_tried_again_video_by_video(toy: Any, split: Split, begun: bool) -> None:
    """Dask calls waiting tasks of a dead worker suspects too; they are innocent, and stay fast."""

    def behave(task: ShardTask, nth: int, say: Callable[..., None]) -> Any:
        if (task.shard, nth) != (1, 1):
            return sealed(task)
        if begun:
            staging_folder(split, task.attempt).mkdir(parents=True)
        return killed()

    ran = spread(toy, split, behave)
    assert ran.done == [0, 1, 2, 3, 4]
    first, second = (task.request for task in ran.client.tasks if task.shard == 1)
    assert first.decode_threads == 2
    assert (second.decode_threads, second.decode_in) == ((1, "processes") if begun else (2, first.decode_in))


def test_a_shard_that_loses_worker_after_worker_is_left_and_the_others_are_done(toy: Any, split: Split) -> None:
    ran = spread(toy, split, lambda task, nth, say: killed() if task.shard == 3 else sealed(task), losses_most=2)
    assert ran.done == [0, 1, 2, 4]
    assert ran.left == {3: "the worker tcp://nowhere:1 died or was lost while it ran"}
    assert ran.client.attempts[3] == 3
    assert ran.videos == 24 - 5


def test_an_error_of_one_machine_is_tried_elsewhere_and_told(toy: Any, split: Split) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    ran = spread(toy, split, lambda task, nth, say: error if task.shard == 0 else sealed(task), losses_most=1)
    assert ran.done == [1, 2, 3, 4]
    assert ran.left == {0: f"a worker failed: RuntimeError: {error}"}


def test_an_error_for_people_ends_the_run(toy: Any, split: Split) -> None:
    def behave(task: ShardTask, nth: int, say: Callable[..., None]) -> Any:
        return CacheFull("the disk is full") if task.shard == 1 else sealed(task)

    with pytest.raises(CacheFull, match="the disk is full"):
        spread(toy, split, behave)


def test_tasks_that_the_scheduler_forgot_mean_that_it_is_gone(toy: Any, split: Split) -> None:
    with pytest.raises(ClusterError, match=r"scheduler at tcp://nowhere:8786 is gone. Finished shards are safe"):
        spread(toy, split, lambda task, nth, say: "cancelled")


def test_tasks_and_their_records_are_small(toy: Any) -> None:
    import pickle

    request = toy.request(Path("cache"))
    split = open_split(toy.int8, "train")
    task = task_of(request, request.data.load("train").videos, split, 0)
    assert len(pickle.dumps(task)) < 1500 + 300 * task.count
    record = split.ledger.finished()[0]
    assert len(pickle.dumps(SealedShard(record=record, folder=Path("x")))) < 2000


@pytest.mark.parametrize(
    ("outer", "found"),
    [
        ("0,1,2,3", ["0", "1", "2", "3"]),
        ("GPU-8a56, MIG-3eb8/7/0", ["GPU-8a56", "MIG-3eb8/7/0"]),
        ("2,-1,3", ["2"]),
        ("", []),
    ],
)
def test_the_outer_choice_of_gpus_stands(outer: str, found: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": outer}) == found


def test_every_worker_has_one_gpu_or_none() -> None:
    outer = {"CUDA_VISIBLE_DEVICES": "3,GPU-8a56,1"}
    for workers, seen in ((0, ["3", "GPU-8a56", "1"]), (2, ["3", "GPU-8a56"])):
        assert [one["CUDA_VISIBLE_DEVICES"] for one in worker_environments(workers, "auto", outer)] == seen
    assert [one["CUDA_VISIBLE_DEVICES"] for one in worker_environments(3, "cpu", outer)] == ["", "", ""]
    with pytest.raises(UsageError, match=r"--workers 4, but 3 GPUs are visible \(3, GPU-8a56, 1\)"):
        worker_environments(4, "auto", outer)
    with pytest.raises(UsageError, match="choose GPUs with CUDA_VISIBLE_DEVICES"):
        worker_environments(2, "cuda:1", outer)


def test_cores_are_divided_among_workers_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    assert [one["OMP_NUM_THREADS"] for one in worker_environments(4, "cpu", {})] == ["3"] * 4


def test_one_engine_is_meant_or_the_contradiction_is_named() -> None:
    assert EngineChoice().name == "inline"
    assert EngineChoice(engine="inline").name == "inline"
    assert EngineChoice(workers=0).name == "local"
    assert EngineChoice(engine="slurm", slurm=SlurmChoice(jobs=2)).name == "slurm"
    for wrong, said in (
        (EngineChoice(workers=2, scheduler="tcp://a:1"), "give one of --workers, --scheduler"),
        (EngineChoice(scheduler="tcp://a:1", scheduler_file=Path("f")), "not several"),
        (EngineChoice(engine="local"), "--engine local goes with --workers N"),
        (EngineChoice(engine="inline", workers=2), "--engine inline goes with neither"),
        (EngineChoice(engine="ray"), "'ray' is none of inline, local, scheduler, slurm"),
    ):
        with pytest.raises(UsageError, match=said):
            _ = wrong.name
