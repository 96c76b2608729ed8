"""A run folder: on which videos it goes on, and whose it is while somebody writes there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.disk import FolderLock
from vidxfer.pipeline.errors import CacheBusy, RunError, UsageError
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.extract import extract
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.settings import ClipChoice
from vidxfer.stages.upkeep.verify import VerifyRequest, verify


class Lines:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        from vidxfer.stages.progress import Silent

        self.said: list[str] = []
        self.bar = Silent().bar

    def line(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def cache(toy: Any, tmp_path: Path) -> Path:
    """A copy of the toy cache, to be damaged: 24 training videos in shards of 5."""
    return Path(shutil.copytree(toy.int8, tmp_path / "zarr"))


def request(toy: Any, cache: Path, run: Path, *settings: str, **changes: Any) -> TrainRequest:
    """Two epochs of six steps of four videos, a checkpoint after each."""
    recipe = toy.recipe(
        "batch_clips=4", "warmup_epochs=0", "evaluate_every_epochs=2", "checkpoint_seconds=0", *settings
    )
    return TrainRequest(recipe=recipe, cache=cache, run=run, device="cpu", **changes)


def stopped_at(step: int, asked: TrainRequest, monkeypatch: pytest.MonkeyPatch, said: Any = None) -> None:
    """Train, and end with SIGTERM after `step` steps."""
    real = trainer_module.Trainer._step

    def stop(self: Any, *words: Any) -> float:
        if self.place.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_step", stop)
        report = train(asked, said)
    assert report is not None
    assert (report.finished, report.global_step) == (False, step)


def drop_shard(cache: Path, shard: int) -> list[str]:
    """Damage a shard of five training videos and have it dropped; returns their ids."""
    (cache / "train" / "grey" / "c" / str(shard) / "0").unlink()
    verify(VerifyRequest(cache=cache, drop_damaged=True))
    return list(open_split(cache, "train").video_ids[5 * shard : 5 * shard + 5])


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def as_of_0_1_0(run: Path) -> None:
    """What an older version leaves: no list of rows."""
    (run / "rows.json").unlink()
    made = json.loads((run / "run.json").read_text())
    del made["rows"]
    (run / "run.json").write_text(json.dumps(made))


def test_fewer_videos_stop_a_run_and_are_named(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on for ever: the step to go on at lay behind the last one of the epoch."""
    asked = request(toy, cache, tmp_path / "run", allow_incomplete=True)
    stopped_at(5, asked, monkeypatch)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    gone = drop_shard(cache, 0) + drop_shard(cache, 1)
    with pytest.raises(RunError) as found:
        train(asked)
    text = str(found.value)
    assert re.search(r"is trained on 24 videos, and \S+ does not hold 10 of them any more", text)
    assert f"{', '.join(gone[:5])} and 5 more" in text
    assert f"--run OTHER --init-from {tmp_path / 'run'}" in text
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before, "nothing is lost"
    other = train(request(toy, cache, tmp_path / "other", allow_incomplete=True, init_from=tmp_path / "run"))
    assert other is not None
    assert (other.finished, other.global_step) == (True, 2 * (14 // 4))
    extract(toy.request(cache))
    again = train(asked)
    assert again is not None
    assert again.finished, "put back, they are trained on"


def test_videos_stored_in_between_do_not_change_the_curve(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_shard(cache, 1)  # as if the extraction had not come to them yet
    few = {"allow_incomplete": True}
    train(request(toy, cache, tmp_path / "whole", **few))
    stopped_at(3, request(toy, cache, tmp_path / "run", **few), monkeypatch)
    extract(toy.request(cache))
    said = Lines()
    report = train(request(toy, cache, tmp_path / "run"), said)
    assert report is not None
    assert report.finished
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert "train: 5 videos this run did not begin with are left out; a new run would take them" in said.said
    kept = Run.open(tmp_path / "run").rows()
    assert kept is not None
    assert len(kept.ids) == 19


def test_the_order_is_that_of_the_run_wherever_the_rows_lie_now(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extracted again from a list in another order, rows have other numbers; ids are what counts."""
    from vidxfer.stages.learning.take_up import rows_of_run

    stopped_at(2, request(toy, cache, tmp_path / "run"), monkeypatch)
    run = Run.open(tmp_path / "run")
    kept = run.rows()
    assert kept is not None

    class Moved:
        split = open_split(cache, "train")

        @staticmethod
        def row_ids() -> tuple[str, ...]:
            return ("new", *reversed(kept.ids))

    rows, views = rows_of_run(run, Moved, list(range(25)), None, Lines())  # type: ignore[arg-type]
    assert [Moved.row_ids()[row] for row in rows] == list(kept.ids)
    assert views == kept.views == 2


def test_fewer_stored_views_stop_a_run(toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch draws one of the stored views: with fewer of them the unbroken run's draws cannot be had."""
    asked = request(toy, cache, tmp_path / "run")
    stopped_at(2, asked, monkeypatch)
    made = json.loads((tmp_path / "run" / "run.json").read_text())
    made["rows"]["views"] = 3
    (tmp_path / "run" / "run.json").write_text(json.dumps(made))
    with pytest.raises(RunError, match=r"draws from 3 stored views of each video, .* holds 2\. .*--init-from"):
        train(asked)


def test_an_online_run_keeps_its_rows_too(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = toy.smaller(tmp_path / "set", count=8)
    from vidxfer.stages.settings import CacheChoice, DataSource

    def asked() -> TrainRequest:
        return request(
            toy, tmp_path / "none", tmp_path / "run", "batch_clips=2", online=True,
            data=DataSource(kind="ssv2", root=root), clip=ClipChoice(model=str(toy.clip)),
            store=CacheChoice(dense_frames=8),
        )  # fmt: skip

    stopped_at(3, asked(), monkeypatch)
    entries = json.loads((root / "labels" / "train.json").read_text())
    (root / "labels" / "train.json").write_text(json.dumps(entries[:-1]))
    with pytest.raises(RunError) as found:
        train(asked())
    assert "dataset_fingerprint" in str(found.value) or entries[-1]["id"] in str(found.value)
    assert Run.open(tmp_path / "run").made_from["rows"]["videos"] == 8


def test_a_run_over_several_caches_knows_each_row_by_its_cache(toy: Any, cache: Path, tmp_path: Path) -> None:
    from vidxfer.pipeline.cache.read.union import unite
    from vidxfer.stages.learning.sources import cached_source
    from vidxfer.stages.learning.union import UnionSource

    members = [cached_source(folder, "train", None) for folder in (cache, toy.int8)]
    first = members[0].split
    union = unite(
        [one.split for one in members], ["x", "y"], keep=[[2, 0], [5]], label_maps=[range(8), range(8)],
        class_names=first.class_names, text=first.text, flip_pairs={}, labels_as="x",
    )  # fmt: skip
    source = UnionSource(split=union.split, union=union, members=tuple(members), label_maps=())
    ids = first.video_ids
    assert source.row_ids() == (f"1/{ids[2]}", f"1/{ids[0]}", f"2/{ids[5]}")


def test_an_old_run_says_once_that_its_rows_cannot_be_checked(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(toy, cache, tmp_path / "run")
    stopped_at(3, asked, monkeypatch)
    as_of_0_1_0(tmp_path / "run")
    said = Lines()
    stopped_at(5, asked, monkeypatch, said)
    train(asked, said)
    assert sum("keeps no list of its videos" in line for line in said.said) == 1, "once, not at every resumption"
    kept = Run.open(tmp_path / "run").rows()
    assert kept is not None
    assert kept.ids == open_split(cache, "train").video_ids


def test_an_old_run_with_fewer_videos_ends_with_a_sentence(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(toy, cache, tmp_path / "run", allow_incomplete=True)
    stopped_at(5, asked, monkeypatch)
    as_of_0_1_0(tmp_path / "run")
    drop_shard(cache, 0)
    drop_shard(cache, 1)
    with pytest.raises(RunError, match=r"goes on at epoch 1, step 6, but 14 videos make 3 steps .*--init-from"):
        train(asked)
    assert not (tmp_path / "run" / "rows.json").exists(), "what cannot be right is not remembered"


@pytest.mark.parametrize("damage", ["missing", "cut off", "another list", "not a list"])
def test_a_damaged_list_of_rows_is_an_error_of_ours(
    toy: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    asked = request(toy, cache, tmp_path / "run")
    stopped_at(1, asked, monkeypatch)
    file = tmp_path / "run" / "rows.json"
    text = file.read_text()
    if damage == "missing":
        file.unlink()
    else:
        file.write_text({"cut off": text[:-30], "another list": json.dumps(json.loads(text)[1:])}.get(damage, "7"))
    with pytest.raises(RunError, match=r"rows.json .*\n?.*--init-from"):
        train(asked)


def test_a_run_belongs_to_one_process(toy: Any, cache: Path, tmp_path: Path, started: Callable[..., Any]) -> None:
    """Two trainings in one folder: one died with a traceback, and metrics were lost."""
    run = tmp_path / "run"
    train(request(toy, cache, run, "epochs=1"))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "run.lock"}
    with FolderLock(run / "run.lock", what="run"):
        for second in (
            lambda: train(request(toy, cache, run, "epochs=1")),
            lambda: evaluate(EvaluateRequest(run=run, cache=cache, device="cpu")),
        ):
            with pytest.raises(CacheBusy, match=rf"pid {os.getpid()} on .* is writing this run\. Wait for it to end"):
                second()
        words = ["--cache", cache, "--recipe", "dist-toy", "--run", run, "--device", "cpu", "--devices", 2]
        both = started("train", *words)
        out, err = both.communicate(timeout=240)
        assert (both.returncode, out) == (1, "")
        assert err.count("is writing this run") == 1, err
        assert "Traceback" not in err
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name in before} == before
    assert evaluate(EvaluateRequest(run=run, cache=cache, device="cpu")).score.scored == 16


def test_reading_a_run_renames_nothing_in_it(toy: Any, cache: Path, tmp_path: Path) -> None:
    """Its owner may stand between the two renames of a checkpoint."""
    train(request(toy, cache, tmp_path / "run", "epochs=1"))
    (tmp_path / "run" / "checkpoint").rename(tmp_path / "run" / "checkpoint.new")
    run = Run.open(tmp_path / "run")
    assert run.progress().finished
    assert run.text().shape[0] == 8
    assert (tmp_path / "run" / "checkpoint.new").is_dir()
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize("kind", ["cache", "other", "file", "link to nowhere"])
def test_a_folder_that_is_no_run_is_not_trained_into(toy: Any, cache: Path, tmp_path: Path, kind: str) -> None:
    folder = {"cache": cache}.get(kind, tmp_path / "there")
    if kind == "other":
        folder.mkdir()
        (folder / "thesis.tex").write_text("x")
    elif kind == "file":
        folder.write_text("x")
    elif kind == "link to nowhere":
        folder.symlink_to(tmp_path / "nowhere")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    text = {"cache": r"is a cache, with the splits train, val, and not a run", "other": "it holds thesis.tex"}
    with pytest.raises(UsageError, match=text.get(kind, "is not a folder")):
        train(request(toy, cache, folder))
    if kind in ("cache", "other"):
        with pytest.raises(UsageError, match=text[kind]):
            evaluate(EvaluateRequest(run=folder, cache=toy.int8, device="cpu"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_run_that_ended_before_it_had_begun_is_begun(toy: Any, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.lock", "rows.json", "run.json", "recipe.json.part"):
        (run / name).write_text("")
    report = train(request(toy, cache, run, "epochs=1"))
    assert report is not None
    assert report.finished


def test_a_run_is_not_extracted_into(toy: Any, cache: Path, tmp_path: Path) -> None:
    train(request(toy, cache, tmp_path / "run", "epochs=1"))
    with pytest.raises(UsageError, match="is the folder of a training run, not a cache"):
        extract(toy.request(tmp_path / "run", clip=ClipChoice(model="nowhere")))  # said before CLIP is loaded
    assert not (tmp_path / "run" / "train").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="flock")
def test_a_lock_ends_with_its_process(toy: Any, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.lock").write_text("pid 1 on nowhere\n")
    report = train(request(toy, cache, run, "epochs=1"))
    assert report is not None
    assert (run / "run.lock").read_text() == ""
