"""`vidxfer data check`: every video is read once, a killed check goes on, and what would fail is listed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vidxfer.cli.main import PARTIAL, app
from vidxfer.pipeline.errors import ClusterError, RunError, UsageError
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.writer import write_video
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.settings import DataSource
from vidxfer.stages.videos.check import CheckRequest, check, failed_path
from vidxfer.stages.videos.check_work import How, lines_from

FRAMES = 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six small videos in two classes; one is an AVI, one is damaged, one is a pipe."""
    folder = tmp_path / "data"
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 64, 96, 3), np.uint8)
    for split, name in (("train", "a/1.mp4"), ("train", "b/2.mp4"), ("val", "a/3.mp4"), ("val", "b/4.mp4")):
        (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / split / name, frames, codec="libx264")
    write_video(folder / "train/a/5.avi", frames, codec="mpeg4")
    whole = (folder / "train/a/1.mp4").read_bytes()
    (folder / "train/b/6.mp4").write_bytes(whole[:-300])
    return folder


def request_for(root: Path, **options) -> CheckRequest:
    return CheckRequest(data=DataSource(kind="folder", root=root), out=root.parent / "check.jsonl", **options)


def test_a_check_names_what_would_fail_and_how_the_rest_is_read(root):
    train, val = check(request_for(root))
    assert train.decoders == {"pyav-sequential": 3}
    assert train.why == {"decoded whole, once": 3}
    train, val = check(request_for(root, decoder="decord"))
    assert (train.videos, train.known, train.frames) == (4, 0, 3 * FRAMES)
    assert train.decoders == {"decord": 2, "pyav-sequential": 1}
    assert train.pixel_aspects == {}
    assert list(train.failed) == ["train/b/6.mp4"]
    assert train.failed["train/b/6.mp4"].startswith("decode_failed: ")
    assert list(train.why.values()) == [1]
    assert next(iter(train.why)).startswith("no decord: avi is not")
    assert (val.videos, val.failed, val.decoders) == (2, {}, {"decord": 2})
    rows = failed_path(root.parent / "check.jsonl").read_text().splitlines()
    assert rows[0].split("\t") == ["split", "id", "reason", "detail", "path"]
    assert [row.split("\t")[:3] for row in rows[1:]] == [["train", "train/b/6.mp4", "decode_failed"]]


def test_a_repeat_reads_only_what_is_new_changed_or_may_have_passed(root):
    check(request_for(root))
    assert [one.known for one in check(request_for(root))] == [4, 2]
    whole = (root / "train/a/1.mp4").read_bytes()
    (root / "train/b/6.mp4").write_bytes(whole)
    train, _ = check(request_for(root))
    assert (train.known, train.failed) == (3, {})
    (root / "val/a/3.mp4").write_bytes(whole[:-300])
    assert [one.known for one in check(request_for(root, quick=True))] == [4, 1]
    assert [one.known for one in check(request_for(root))] == [4, 1], "a quick look is no answer to a whole one"


def test_a_torn_line_is_dropped_and_another_file_is_refused(root):
    check(request_for(root))
    out = root.parent / "check.jsonl"
    lines = out.read_bytes()
    out.write_bytes(lines[:-20])
    assert [one.known for one in check(request_for(root))] in ([4, 1], [3, 2])
    assert sorted(map(json.loads, out.read_bytes().splitlines()), key=lambda line: line["id"])
    out.write_text('{"something": "else"}\n')
    with pytest.raises(RunError, match=r"line 1: not a line of `vidxfer data check`.*--out"):
        check(request_for(root))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_an_ended_check_goes_on(root, number):
    out = root.parent / "check.jsonl"
    many = root / "train/a"
    for copy in range(60):
        os.link(many / "1.mp4", many / f"copy{copy}.mp4")
    words = ["data", "check", "--dataset", "folder", "--root", str(root), "--out", str(out), "--workers", "1"]
    command = [sys.executable, "-c", "import sys; from vidxfer.cli.main import app; app(sys.argv[1:])", *words]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.read_bytes().count(b"\n") >= 3):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode == (-9 if number == signal.SIGKILL else 75)
    if number != signal.SIGKILL:
        assert f"Stopped: ended by {number.name} after" in said
    done = out.read_bytes().count(b"\n")
    assert done < 66
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == PARTIAL
    report = json.loads(found.stdout)
    assert sum(one["known"] for one in report) == done
    assert [one["videos"] for one in report] == [64, 2]


def test_a_cluster_finds_the_same(root):
    from distributed import LocalCluster

    here = check(request_for(root))
    (root.parent / "check.jsonl").unlink()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", resources={"GPU": 1},
        dashboard_address=":0", memory_limit=0,
    ) as cluster:  # fmt: skip
        there = check(request_for(root, engine=EngineChoice(scheduler=cluster.scheduler_address)))
    for a, b in zip(here, there, strict=True):
        assert (a.videos, a.failed, a.decoders, a.why, a.frames) == (b.videos, b.failed, b.decoders, b.why, b.frames)
    assert [one.known for one in check(request_for(root))] == [4, 2]
    with pytest.raises(UsageError, match="--scheduler"):
        check(request_for(root, engine=EngineChoice(workers=2)))


class _Lost:
    """A cluster whose workers die with every batch."""

    def __init__(self) -> None:
        self.client, self.given = self, 0

    def workers(self) -> int:
        return 1

    def submit(self, function, videos, how, **_):
        self.given += 1
        return self._Gone(str(self.given))

    class _Gone:
        status = "error"

        def __init__(self, key: str) -> None:
            self.key = key

        def add_done_callback(self, call) -> None:
            call(self)

        def exception(self, timeout: float) -> Exception:
            return RuntimeError("the worker is gone")


def test_a_batch_that_loses_every_worker_ends_the_check_and_names_it():
    lost, video = _Lost(), Video(id="a/1", path=Path("a.mp4"), label=None, split="val")
    with pytest.raises(ClusterError, match=r"4 workers were lost with the batch that begins with 'a/1'.*goes on"):
        list(lines_from(lost, [video], How(quick=False, decoder="auto", processes=1)))
    assert lost.given == 4
