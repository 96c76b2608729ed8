"""An error that nobody foresaw, in the process that decodes: one row, one line, one answer; never the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import UnforeseenError
from vidxfer.pipeline.video.guard import shared_guard
from vidxfer.stages.extract import extract

THREADS = 7
"""A guard that no other test has: its children see this module's fault, and it counts from nothing."""

FAULT = """
import json, os
from pathlib import Path
import vidxfer.pipeline.video.examine as examine
import vidxfer.pipeline.draw as draw
bad, real = json.loads(os.environ["BAD_VIDEOS"]), draw.open_video
def open_video(path, **options):
    if bad == "all" or Path(path).stem in bad:
        raise LookupError(f"no such colour in {path}")
    return real(path, **options)
draw.open_video = examine.open_video = open_video
"""


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """Make children, and commands, fail over some videos as no code of ours foresees."""

    def make(bad: object) -> None:
        (tmp_path / "faulty").mkdir()
        (tmp_path / "faulty" / "sitecustomize.py").write_text(FAULT)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faulty"))
        monkeypatch.setenv("BAD_VIDEOS", json.dumps(bad))

    yield make
    from vidxfer.pipeline.video import guard

    shared_guard(THREADS).close()
    guard._shared.cache_clear()


def ids(root: Path, split: str) -> list[str]:
    return [entry["id"] for entry in json.loads((root / "labels" / f"{split}.json").read_text())]


def test_extraction_notes_the_video_and_stores_the_others(toy, tmp_path, fault):
    root = toy.smaller(tmp_path / "data")
    bad = ids(root, "train")[1]
    fault([bad])
    request = toy.request(tmp_path / "cache", root=root, decode_threads=THREADS, splits=("train",))
    (report,) = extract(request)
    assert report.stored == 5
    assert list(report.failed) == [bad]
    assert report.failed[bad].startswith(
        f"unexpected: LookupError: no such colour in {root / toy.videos.name / bad}.webm (in "
    )
    assert open_split(tmp_path / "cache", "train").failures()[bad].reason == "unexpected"


def test_extraction_stops_where_every_video_fails_alike(toy, tmp_path, fault):
    fault("all")
    request = toy.request(tmp_path / "cache", decode_threads=THREADS, splits=("train",), codec="float16")
    # Twenty are enough; some more may have ended by then, since seven are read at a time.
    with pytest.raises(
        UnforeseenError, match=r"(?s)(2\d) of the \1 videos read.*Traceback.*LookupError: no such colour"
    ):
        extract(request)


def test_a_check_names_the_video_and_goes_on(toy, tmp_path, fault, vidxfer):
    root = toy.smaller(tmp_path / "data")
    bad = ids(root, "train")[0]
    fault([bad])
    done = vidxfer("data", "check", "--dataset", "ssv2", "--root", root, "--out", tmp_path / "check.jsonl")
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in lines if line["reason"]} == {bad: "unexpected"}
    assert "Traceback" not in done.stderr
