"""EPIC-KITCHENS in small, end to end: segments by time, a probe, and scores of verb, noun and action."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.video.writer import write_video
from vidxfer.stages.extract import extract

FPS = 10
COLOURS = {(0, 0): (230, 20, 20), (0, 1): (20, 230, 20), (1, 0): (20, 20, 230), (1, 1): (240, 240, 240)}
HEADER = "narration_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb,verb_class,noun,noun_class\n"
VERBS, NOUNS = ("take", "put"), ("plate", "cup")


def segments(video: str, count: int) -> list[tuple[str, float, int, int]]:
    """(id, start in seconds, verb, noun) of two-second segments one after the other."""
    return [(f"{video}_{n}", 2.0 * n, n % 2, n // 2 % 2) for n in range(count)]


def write_kitchen(root: Path, video: str, count: int) -> str:
    """One long video whose colour changes with verb and noun every two seconds; returns its rows."""
    pictures, rows = [], ""
    for id_, start, verb, noun in segments(video, count):
        pictures += [np.full((48, 64, 3), COLOURS[verb, noun], np.uint8)] * (2 * FPS)
        times = f"00:00:{start:05.2f},00:00:{start + 2:05.2f}"
        rows += f"{id_},{video},{times},1,2,{VERBS[verb]},{verb},{NOUNS[noun]},{noun}\n"  # the frame numbers lie
    path = root / f"EPIC-KITCHENS/P01/videos/{video}.MP4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path.with_suffix(".mp4"), np.stack(pictures), fps=FPS, codec="libx264", crf=12)
    path.with_suffix(".mp4").rename(path)
    return rows


@pytest.fixture
def cache(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of 8 training segments of two videos, and 4 of one for validation."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "epic"
    train = write_kitchen(root, "P01_01", 4) + write_kitchen(root, "P01_101", 4)
    (root / "EPIC_100_train.csv").write_text(HEADER + train)
    (root / "EPIC_100_validation.csv").write_text(HEADER + write_kitchen(root, "P01_02", 4))
    extract(toy.request(tmp_path / "zarr", root=root, kind="epic100", train_views=1, decode_in="threads"))
    return tmp_path / "zarr"


def test_segments_are_cut_by_time_and_scored_by_verb_noun_and_action(cache: Path, invoke: Callable[..., Any]) -> None:
    split = open_split(cache, "train")
    with CacheReader(split) as reader:
        assert [reader.source_of(row)[0] for row in range(8)] == [2 * FPS] * 8  # of each segment, not of the video
    assert split.class_names == ("take plate", "take cup", "put plate", "put cup")
    words = ("--recipe", "probe", "--run", "runs/probe", "--set", "epochs=60", "--set", "warmup_epochs=0",
             "--set", "batch_clips=8", "--set", "learning_rate=0.05")  # fmt: skip
    assert invoke("train", "--cache", cache, *words).exit_code == 0
    shown = invoke("evaluate", "--cache", cache, "--run", "runs/probe")
    assert shown.exit_code == 0, shown.stderr
    score = json.loads(invoke("evaluate", "--cache", cache, "--run", "runs/probe", "--json").stdout)["score"]
    assert set(score["factors"]) == {"verb", "noun"}
    assert f"verb {score['factors']['verb']:.1%}, noun {score['factors']['noun']:.1%} (4 scored" in shown.stdout
    assert score["top1"] <= min(score["factors"].values())
    assert score["top1"] == 1.0, score  # the colours tell all
