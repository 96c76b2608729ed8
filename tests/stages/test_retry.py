"""`extract --retry-failed`: mended videos are added, nothing else changes, and a second owner is turned away."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheBusy, CacheCorrupt
from vidxfer.stages.extract import extract


@pytest.fixture
def broken(toy: Any, tmp_path: Path) -> tuple[Path, list[Path]]:
    """Eight training videos in shards of five; the second and the last are empty."""
    root = toy.smaller(tmp_path / "data", 8)
    names = open_split(toy.int8, "train").video_ids
    files = [root / toy.videos.name / f"{names[row]}.webm" for row in (1, 7)]
    for file in files:
        file.write_bytes(b"")
    return root, files


def mend(toy: Any, *files: Path) -> None:
    for file in files:
        shutil.copyfile(toy.videos / file.name, file)


def train(toy: Any, cache: Path, root: Path, **changes: Any) -> Any:
    """Float16 needs no statistics of a sample, so that what is stored does not depend on which videos were readable."""
    request = toy.request(cache, root=root, codec="float16", splits=("train",), decode_in="threads", **changes)
    return extract(request)[0]


def stamps(cache: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in (cache / "train").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("with_frames", [False, True])
def test_mended_videos_give_the_bytes_of_an_extraction_that_never_failed(
    toy: Any, broken: tuple[Path, list[Path]], content: Any, tmp_path: Path, with_frames: bool
) -> None:
    root, files = broken
    more = {"with_frames": True} if with_frames else {}
    report = train(toy, tmp_path / "cache", root, batch_frames=1, **more)
    assert sorted(report.failed) == sorted(file.stem for file in files)
    mend(toy, files[0])
    report = train(toy, tmp_path / "cache", root, batch_frames=1, retry_failed=True, **more)
    assert (report.stored, report.resumed, list(report.failed)) == (7, 6, [files[1].stem])
    mend(toy, files[1])
    report = train(toy, tmp_path / "cache", root, batch_frames=1, retry_failed=True, **more)
    assert (report.stored, report.resumed, report.failed) == (8, 7, {})
    train(toy, tmp_path / "calm", root, batch_frames=1, **more)
    found, calm = content(tmp_path / "cache"), content(tmp_path / "calm")
    found["train.ledger.jsonl"] = [line for line in found["train.ledger.jsonl"] if "dropped" not in line]
    last = {line["shard"]: line for line in found["train.ledger.jsonl"]}
    found["train.ledger.jsonl"] = [last[shard] for shard in sorted(last)]
    assert [name for name in calm if found.get(name) != calm[name]] == []
    assert found.keys() == calm.keys()


def test_where_all_fail_again_only_their_reasons_are_new(
    toy: Any, broken: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, files = broken
    train(toy, tmp_path / "cache", root)
    before = stamps(tmp_path / "cache")
    files[0].write_text("no video at all\n" * 200)
    report = train(toy, tmp_path / "cache", root, retry_failed=True)
    assert report.failed[files[0].stem].startswith("not_a_video")
    assert report.failed[files[1].stem].startswith("empty")
    assert stamps(tmp_path / "cache") == before
    assert train(toy, tmp_path / "cache", root).failed == report.failed, "the new reason is the one that is kept"


def test_without_the_option_and_without_failures_nothing_is_touched(
    toy: Any, broken: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, files = broken
    train(toy, tmp_path / "cache", root)
    mend(toy, *files)
    before = stamps(tmp_path / "cache")
    assert len(train(toy, tmp_path / "cache", root).failed) == 2
    assert stamps(tmp_path / "cache") == before
    train(toy, tmp_path / "cache", root, retry_failed=True)
    before = stamps(tmp_path / "cache")
    assert train(toy, tmp_path / "cache", root, retry_failed=True).stored == 8
    assert stamps(tmp_path / "cache") == before


def test_only_shards_with_failures_are_written_again(toy: Any, broken: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, files = broken
    mend(toy, files[1])
    train(toy, tmp_path / "cache", root)
    mend(toy, files[0])
    before = stamps(tmp_path / "cache")
    train(toy, tmp_path / "cache", root, retry_failed=True)
    after = stamps(tmp_path / "cache")
    changed = [Path(path).relative_to(tmp_path / "cache/train") for path in before if after[path] != before[path]]
    assert changed
    assert {path.parts[1:3] for path in changed} == {("c", "0")}


def test_damaged_neighbours_stop_a_retry_before_anything_is_replaced(
    toy: Any, broken: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, files = broken
    train(toy, tmp_path / "cache", root)
    tokens = tmp_path / "cache/train" / open_split(tmp_path / "cache", "train").layout.owned["tokens"].key(0)
    raw = bytearray(tokens.read_bytes())
    raw[9] ^= 1
    tokens.write_bytes(raw)
    mend(toy, *files)
    before = stamps(tmp_path / "cache")
    with pytest.raises(CacheCorrupt, match="cache verify --drop-damaged"):
        train(toy, tmp_path / "cache", root, retry_failed=True)
    assert stamps(tmp_path / "cache") == before
    assert 0 in open_split(tmp_path / "cache", "train").ledger.finished()


def test_a_second_extraction_of_the_same_cache_is_told_who_has_it(toy: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(toy.int8, cache)
    with (
        SplitWriter(open_split(cache, "train")),
        pytest.raises(CacheBusy, match=rf"pid {os.getpid()} on \S+ is writing"),
    ):
        extract(toy.request(cache))


def test_the_command_says_how_refused_videos_are_tried_again(
    toy: Any, broken: tuple[Path, list[Path]], tmp_path: Path, invoke: Any
) -> None:
    root, files = broken
    words = ["extract", "--root", root, "--cache", tmp_path / "cache", "--model", toy.clip, "--dense-frames", 8,
             "--decode-in", "threads"]  # fmt: skip
    first = invoke(*words)
    assert first.exit_code == 3
    assert "--retry-failed tries them again" in first.stdout
    mend(toy, *files)
    again = invoke(*words, "--retry-failed")
    assert again.exit_code == 0, again.stderr
    assert "refused:" not in again.stdout
    assert "extract train: 8/8 videos" in again.stderr


def test_shards_that_no_worker_could_finish_are_named_and_give_exit_code_3(
    toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = {3: "the worker tcp://node7:4242 died or was lost while it ran"}
    whole = [replace(report, left=left) for report in extract(toy.request(toy.int8, splits=("val",)))]
    monkeypatch.setattr("vidxfer.stages.extract.extract", lambda request, shown: tuple(whole))
    told = invoke("extract", "--root", toy.root, "--cache", tmp_path / "cache", "--workers", 2)
    assert told.exit_code == 3
    assert f"left: val, shard 3: {left[3]}. It is still pending: run the same command again." in told.stdout


def test_slurm_leaves_ctrl_c_as_it_was(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing dask-jobqueue made it a silent exit with code 0."""
    for name in [name for name in sys.modules if name.split(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    assert invoke("extract", "--slurm", 2, "--slurm-dry-run").exit_code == 0
    assert "dask_jobqueue.runner" in sys.modules
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_script_can_be_had_without_slurm(invoke: Any) -> None:
    script = invoke("extract", "--slurm", 2, "--slurm-dry-run", "--slurm-partition", "gpu", "--slurm-account", "lab",
                    "--slurm-walltime", "01:30:00", "--slurm-directive", "--qos=long", "--slurm-setup",
                    "module load cuda")  # fmt: skip
    assert script.exit_code == 0
    for line in ("#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH -t 01:30:00", "#SBATCH --gres=gpu:1",
                 "#SBATCH --qos=long", "module load cuda"):  # fmt: skip
        assert line in script.stdout.splitlines()
    assert "--nthreads 1" in script.stdout
    assert "--resources GPU=1" in script.stdout
    refused = invoke("extract", "--slurm-dry-run")
    assert refused.exit_code == 2
    assert "--slurm JOBS" in refused.stderr
