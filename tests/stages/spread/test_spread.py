"""Real dask workers: the bytes of one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import ClusterError
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.extract import extract
from vidxfer.stages.spread import clusters

pytestmark = pytest.mark.slow

VIDEOS = 8  # training videos of the small data set: two shards of five rows
BAD_DAY = """
import os, sys, time

def notice(event, args):
    path = str(args[0]) if event == "open" else ""
    if "slowly" in path and path.endswith(".webm"):
        time.sleep(0.2)
    if "poisoned" in path and path.endswith(os.environ["POISON"]):
        os._exit(66)  # what a segmentation fault in a decoder comes to
    if "sickly" in path and path.endswith(os.environ["POISON"]):
        note = path.split("sickly")[0] + "seen"
        with open(note, "a") as file:
            file.write(f"{os.getpid()} ")
        if open(note).read().count(" ") == 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

sys.addaudithook(notice)
"""
"""Loaded by every Python process of the cluster before anything else: a slow disk, and a file that kills its reader."""


@dataclass
class Dask:
    """A scheduler and two workers as a person starts them."""

    file: Path
    processes: list[subprocess.Popen[bytes]]
    poison: str

    @property
    def engine(self) -> EngineChoice:
        return EngineChoice(scheduler_file=self.file)


def wait_until(true: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def small(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two training shards."""
    root: Path = toy.smaller(tmp_path_factory.mktemp("small") / "data", VIDEOS)
    return root


@pytest.fixture(scope="module")
def calm(toy: Any, small: Path, content: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one undisturbed process writes of it."""
    cache = tmp_path_factory.mktemp("calm")
    extract(toy.request(cache, root=small, decode_in="threads"))
    found: dict[str, Any] = content(cache)
    return found


@pytest.fixture(scope="module")
def dask(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """Started once for this file: importing torch in two workers is what takes long."""
    folder = tmp_path_factory.mktemp("dask")
    (folder / "sitecustomize.py").write_text(BAD_DAY)
    ids = [entry["id"] for entry in json.loads((toy.root / "labels" / "train.json").read_text())]
    poison = f"{ids[2]}.webm"
    environment = {**os.environ, "PYTHONPATH": str(folder), "POISON": poison, "OMP_NUM_THREADS": "1",
                   "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}  # fmt: skip
    file = folder / "scheduler.json"
    words = {
        "dask_scheduler": ["--port", "0", "--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"],
        "dask_worker": ["--scheduler-file", str(file), "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard"],
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *words[name]],
            env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        for name in ("dask_scheduler", "dask_worker", "dask_worker")
    ]  # fmt: skip
    try:
        wait_until(file.is_file)
        yield Dask(file=file, processes=processes, poison=poison)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):  # the last test has ended some
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def slowly(small: Path, folder: Path) -> Path:
    """The data set on a disk that takes 0.2 s for every file."""
    return Path(shutil.copytree(small, folder / "slowly"))


def same_arrays(found: dict[str, Any], calm: dict[str, Any]) -> list[str]:
    """Names of files that differ."""
    assert found.keys() == calm.keys()
    return [name for name in found if found[name] != calm[name]]


def until_idle(dask: Dask) -> None:
    """Until no worker is busy any more, with the tasks of a process that is gone either."""
    from distributed import Client

    def busy(dask_worker: Any) -> int:
        return len(dask_worker.state.all_running_tasks)

    with Client(scheduler_file=str(dask.file)) as client:
        wait_until(lambda: not any(client.run(busy).values()))


def swept(cache: Path) -> None:
    """What the next run does first."""
    for split in ("train", "val"):
        with SplitWriter(open_split(cache, split)) as writer:
            assert writer.pending() == []


def begun(cache: Path) -> list[Path]:
    """Folders of shards that some worker is writing: .train.<shard>-<attempt>-<pid>-<random>.part"""
    return [path for path in cache.glob(".train.*-*.part") if not (path / "shard.json").exists()]


def test_workers_of_this_machine_write_the_bytes_of_one_process(
    toy: Any, small: Path, calm: dict[str, Any], content: Any, started: Any, tmp_path: Path
) -> None:
    words = ["extract", "--root", small, "--model", toy.clip, "--cache", tmp_path, "--dense-frames", 8, "--views", 2,
             "--shard-videos", 5, "--calibration-videos", 8, "--batch-frames", 32]  # fmt: skip
    process = started(*words, "--workers", 2, "--device", "cpu", "--json", env={**os.environ, "OMP_NUM_THREADS": "1"})
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert [(one["stored"], one["left"]) for one in json.loads(out)] == [(VIDEOS, {}), (2, {})]
    assert same_arrays(content(tmp_path), calm) == []
    assert "distributed" not in err, "dask's own log lines are for dask's own users"
    assert f"extract train: {VIDEOS}/{VIDEOS} videos" in err


def test_a_worker_killed_in_the_middle_of_a_shard_costs_nothing(
    toy: Any, small: Path, calm: dict[str, Any], content: Any, dask: Dask, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: begun(tmp_path / "cache"))
        time.sleep(0.3)
        killed.append(int(begun(tmp_path / "cache")[0].name.split("-")[-2]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reports = extract(toy.request(tmp_path / "cache", root=slowly(small, tmp_path), engine=dask.engine))
    killer.join()
    assert len(killed) == 1
    assert [(one.stored, one.failed, one.left) for one in reports] == [(VIDEOS, {}, {}), (2, {}, {})]
    assert same_arrays(content(tmp_path / "cache"), calm) == []


def test_a_video_that_kills_whoever_opens_it_becomes_a_row_with_a_reason(
    toy: Any, small: Path, dask: Dask, tmp_path: Path
) -> None:
    """Decoded in threads it takes worker after worker with it; the second attempt decodes in child processes."""
    root = shutil.copytree(small, tmp_path / "poisoned")
    request = toy.request(tmp_path / "cache", root=root, engine=dask.engine, decode_in="threads", splits=("train",))
    (report,) = extract(request)
    guilty = dask.poison.removesuffix(".webm")
    assert {name: text.split(":")[0] for name, text in report.failed.items()} == {guilty: "crashed"}
    assert (report.stored, report.left) == (VIDEOS - 1, {})
    mended = toy.request(tmp_path / "cache", root=root, retry_failed=True, splits=("train",))
    (report,) = extract(mended)  # in this process, where the file is as good as any
    assert (report.stored, report.failed) == (VIDEOS, {})


def test_a_worker_with_a_broken_device_is_replaced_and_its_shard_done_elsewhere(
    toy: Any, small: Path, calm: dict[str, Any], content: Any, dask: Dask, tmp_path: Path
) -> None:
    root = shutil.copytree(small, tmp_path / "sickly")
    reports = extract(toy.request(tmp_path / "cache", root=root, engine=dask.engine, decode_in="threads"))
    assert [(one.stored, one.left) for one in reports] == [(VIDEOS, {}), (2, {})]
    assert same_arrays(content(tmp_path / "cache"), calm) == []
    first, *others = (tmp_path / "seen").read_text().split()
    assert others
    assert first not in others, "the process that had met the error was used again"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_the_leading_process_ended_the_next_one_goes_on(
    toy: Any, small: Path, calm: dict[str, Any], content: Any, dask: Dask, started: Any, tmp_path: Path,
    number: signal.Signals,
) -> None:  # fmt: skip
    root, cache = slowly(small, tmp_path), tmp_path / "cache"
    words = ["extract", "--root", root, "--model", toy.clip, "--cache", cache, "--dense-frames", 8, "--views", 2,
             "--shard-videos", 5, "--calibration-videos", 8, "--batch-frames", 32, "--scheduler-file",
             dask.file]  # fmt: skip
    process = started(*words)
    wait_until(lambda: begun(cache) or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0, err
    assert "Traceback" not in err
    request = toy.request(cache, root=root, engine=dask.engine)
    (report, _) = extract(request)
    assert (report.stored, report.left) == (VIDEOS, {})
    # A worker may begin a shard of the process that is gone when all is done. Its folder goes with the next writer.
    until_idle(dask)
    swept(cache)
    assert same_arrays(content(cache), calm) == []


def test_a_lost_scheduler_is_said_and_what_is_finished_stays(
    toy: Any, small: Path, calm: dict[str, Any], content: Any, dask: Dask, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cache = tmp_path / "cache"
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 3.0)

    def kill() -> None:
        wait_until(lambda: begun(cache))
        dask.processes[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    request = toy.request(cache, root=slowly(small, tmp_path), engine=dask.engine)
    with pytest.raises(ClusterError, match=r"is gone. Finished shards are safe.*run the same command: it goes on"):
        extract(request)
    killer.join()
    with pytest.raises(ClusterError, match=r"(?s)no dask scheduler answers.*dask scheduler.*--resources GPU=1"):
        extract(request)
    alone = replace(request, engine=EngineChoice())
    (report, _) = extract(alone)
    assert (report.stored, report.failed) == (VIDEOS, {})
    for process in dask.processes[1:]:  # without a scheduler they go on with their shards, each in its own folder
        process.kill()
        process.wait()
    swept(cache)
    assert same_arrays(content(cache), calm) == []
