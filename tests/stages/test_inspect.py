"""`vidxfer data inspect`: counts, holes, left-overs, repeats across splits and sets, mirror classes, fingerprint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.survey import recording
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.settings import DataSource
from vidxfer.stages.videos.inspect import InspectRequest, inspect

HEADER = "label,youtube_id,time_start,time_end,split\n"


def kinetics(root: Path, **rows: list[tuple[str, str, int]]) -> Path:
    """Lists of (class, YouTube id, start) per split, and every video of them."""
    for split, clips in rows.items():
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / split).mkdir(exist_ok=True)
        lines = [f"{label},{id_},{start},{start + 10},{split}\n" for label, id_, start in clips]
        (root / f"annotations/{split}.csv").write_text(HEADER + "".join(lines))
        for _, id_, start in clips:
            (root / split / f"{id_}_{start:06d}_{start + 10:06d}.mp4").write_bytes(b"x")
    return root


@pytest.fixture
def k400(tmp_path: Path) -> Path:
    """Five training and three validation clips; one recording lies on both sides."""
    train = [("abseiling", "aaaaaaaaaaa", 0), ("abseiling", "-bbbbbbbb_b", 0), ("abseiling", "ccccccccccc", 7),
             ("zumba", "ddddddddddd", 0), ("zumba", "ccccccccccc", 20)]  # fmt: skip
    val = [("zumba", "aaaaaaaaaaa", 50), ("zumba", "eeeeeeeeeee", 0), ("abseiling", "fffffffffff", 0)]
    return kinetics(tmp_path / "k400", train=train, val=val)


def test_counts_holes_and_left_overs(k400: Path) -> None:
    (k400 / "train/ddddddddddd_000000_000010.mp4").unlink()
    (k400 / "val/ggggggggggg_000000_000010.mp4").write_bytes(b"x")
    (k400 / "val/notes.txt").write_bytes(b"x")
    found = inspect(InspectRequest(data=DataSource(kind="k400", root=k400)))
    train, val = found.splits
    assert (train.videos, train.per_class) == (5, {"abseiling": 3, "zumba": 2})
    assert (train.smallest, train.median, train.largest) == (2, 2.5, 3)
    assert (train.missing.count, train.missing.first) == (1, ("ddddddddddd_0_10",))
    assert val.missing.count == 0
    assert (found.left_over.count, found.left_over.first) == (1, ("val/ggggggggggg_000000_000010.mp4",))
    assert train.fingerprint == load_dataset("k400", k400, "train").fingerprint


def test_recordings_on_both_sides_are_named(k400: Path) -> None:
    (repeat,) = inspect(InspectRequest(data=DataSource(kind="k400", root=k400))).repeats
    assert (repeat.here, repeat.there, repeat.what, repeat.videos_here) == ("val", "train", "recordings", 1)
    assert repeat.shared.first == ("aaaaaaaaaaa",)


def test_val_inside_the_train_of_another_set_is_counted(k400: Path, tmp_path: Path) -> None:
    k700 = kinetics(tmp_path / "k700", train=[("x", "eeeeeeeeeee", 0), ("x", "fffffffffff", 99)])
    found = inspect(InspectRequest(data=DataSource(kind="k400", root=k400), against=DataSource(kind="k700", root=k700)))
    leaks = [(one.here, one.there, one.what, one.videos_here) for one in found.repeats if one.there == "k700 train"]
    assert leaks == [("val", "k700 train", "ids", 1), ("val", "k700 train", "recordings", 2)]


@pytest.mark.parametrize(
    ("kind", "id_", "source"),
    [
        ("k400", "-a_b-c_d_e-_84_94", "-a_b-c_d_e-"),
        ("k600", "plain", "plain"),
        ("ucf101", "v_YoYo_g02_c01", "v_YoYo_g02"),
        ("ssv2", "78687", "78687"),
    ],
)
def test_a_recording_is_what_a_set_cuts_clips_from(kind: str, id_: str, source: str) -> None:
    assert recording(kind, Video(id=id_, path=Path("/x/a.mp4"), label=0, split="val")) == source


def test_frame_folders_are_counted_as_videos(tmp_path: Path) -> None:
    for name in ("opening/a", "opening/b", "closing/c"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "00001.jpg").write_bytes(b"x")
    (tmp_path / "val/opening/d").mkdir(parents=True)
    (tmp_path / "val/opening/d/00001.jpg").write_bytes(b"x")
    found = inspect(InspectRequest(data=DataSource(kind="auto", root=tmp_path)))
    assert [(one.split, one.videos, one.missing.count) for one in found.splits] == [("train", 3, 0), ("val", 1, 0)]
    assert (found.kind, found.left_over.count) == ("folder", 0)


def test_links_in_circles_are_not_walked(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"x")
    (tmp_path / "videos/loop").symlink_to("..")
    (tmp_path / "train.csv").write_text("path,label\nvideos/a.mp4,x\n")
    found = inspect(InspectRequest(data=DataSource(kind="csv", root=tmp_path)))
    assert found.left_over.first == ("videos/b.mp4",)


def test_a_split_that_is_not_there_is_named_and_the_other_one_shown(k400: Path) -> None:
    (k400 / "annotations/train.csv").unlink()
    found = inspect(InspectRequest(data=DataSource(kind="k400", root=k400)))
    assert [one.split for one in found.splits] == ["val"]
    assert "no list of the train split" in found.absent["train"]
    (k400 / "annotations/val.csv").unlink()
    with pytest.raises(DatasetError, match="no list of the train split"):
        inspect(InspectRequest(data=DataSource(kind="k400", root=k400)))
    with pytest.raises(UsageError, match="Give its folder with --root"):
        inspect(InspectRequest(data=DataSource(kind="k400", root=None)))


def test_the_command_prints_tables_and_json_of_the_same(toy: Any, invoke: Callable[..., Any]) -> None:
    shown = invoke("data", "inspect", "--root", toy.root, "--all-classes")
    assert shown.exit_code == 0, shown.stderr
    for text in ("ssv2 in", "24", "3 / 3 / 3", "recognised as ssv2", "▇ 3", "no id and no recording is in two splits",
                 "mirror: Moving right with a red triangle <-> Moving left with a red triangle",
                 "on disk and listed nowhere: 0"):  # fmt: skip
        assert text in shown.stdout, text
    report = json.loads(invoke("data", "inspect", "--root", toy.root, "--json").stdout)
    assert (report["kind"], report["classes"], len(report["flip_pairs"])) == ("ssv2", 8, 2)
    wrong = invoke("data", "inspect", "--root", toy.root, "--against", "k700")
    assert wrong.exit_code == 2
    assert "--against and --against-root belong together" in wrong.stderr
