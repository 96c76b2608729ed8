"""EPIC-KITCHENS-100 and Diving48: classes that are made of factors, segments by time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.epic import parse_time
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]
HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
TRAIN = (
    HEADER + "P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.89,1,113,take plate,take,0,plate,2,['plate'],[2]\n"
    "P01_101_1,P01,P01_101,nan,00:01:02.50,00:01:03.00,3750,3780,pick-up plate,pick-up,0,plate,2,['plate'],[2]\n"
    'P01_11_2,P01,P01_11,,01:00:00.00,01:00:02.00,1,2,"put board, x",put,1,board:chopping,5,"[\'a\', \'b\']","[5]"\n'
)
VAL = HEADER + "P02_01_0,P02,P02_01,,00:00:00.00,00:00:00.50,1,2,put plate,put,1,plate,2,['plate'],[2]\n"
TEST = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame\n"
    "P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193\n"
)


@pytest.fixture
def kitchens(touch: Touch) -> Path:
    """Videos of 2018, of the extension, and one that lies where 2018's packing had it."""
    root = touch(
        "EPIC-KITCHENS/P01/videos/P01_11.MP4",
        "EPIC-KITCHENS/P01/videos/P01_101.MP4",
        "EPIC-KITCHENS/videos/train/P02/P02_01.MP4",
    )
    for name, text in {"train": TRAIN, "validation": VAL, "test_timestamps": TEST}.items():
        (root / f"EPIC_100_{name}.csv").write_text(text)
    return root


def test_segments_follow_times_and_actions_are_pairs(kitchens: Path) -> None:
    train, val = (load_dataset("epic100", kitchens, split) for split in ("train", "val"))
    assert [(v.id, v.start_seconds, v.end_seconds, v.path.name) for v in train.videos] == [
        ("P01_11_0", 0.0, 1.89, "P01_11.MP4"),
        ("P01_101_1", 62.5, 63.0, "P01_101.MP4"),
        ("P01_11_2", 3600.0, 3602.0, "P01_11.MP4"),
    ]
    assert train.class_names == val.class_names == ("pick up plate", "put plate", "put chopping board")
    assert train.factors == val.factors
    assert train.factors == {"verb": ("pick-up", "put", "put"), "noun": ("plate", "plate", "board:chopping")}
    assert [video.label for video in (*train.videos, *val.videos)] == [0, 0, 2, 1]
    assert val.videos[0].path == kitchens / "EPIC-KITCHENS/videos/train/P02/P02_01.MP4"
    assert val.notes == ("1 segments of 1 videos",)


def test_two_classes_of_one_word_are_numbered(kitchens: Path) -> None:
    (kitchens / "EPIC_100_train.csv").write_text(TRAIN.replace("board:chopping,5", "plate,5"))
    assert load_dataset("epic100", kitchens, "train").factors["noun"] == ("plate 2", "plate 2", "plate 5")


def test_official_names_of_verbs_and_nouns_win(kitchens: Path) -> None:
    header = "id,key,instances,category\n"
    verbs, nouns = "0,take,\"['take', 'pick-up']\",x\n1,put,[],x\n", "2,plate,[],x\n5,board:chopping,[],x\n"
    (kitchens / "EPIC_100_verb_classes.csv").write_text(header + verbs)
    (kitchens / "EPIC_100_noun_classes.csv").write_text(header + nouns)
    found = load_dataset("epic100", kitchens, "train")
    assert found.class_names == ("take plate", "put plate", "put chopping board")


def test_the_test_list_has_no_labels(kitchens: Path) -> None:
    found = load_dataset("epic100", kitchens, "test")
    assert [(v.id, v.label, v.start_seconds) for v in found.videos] == [("P01_101_0", None, 2.86)]
    assert len(found.class_names) == 3
    assert "the list has no labels" in found.notes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("00:00:01.89", "00:00:00.00", r"train.csv:2: the segment ends at 0 s, which is not after its start"),
        ("00:00:01.89", "1.89", r"stop_timestamp is '1.89', expected hours:minutes:seconds"),
        ("00:00:01.89", "00:61:00", "expected hours:minutes:seconds"),
        (",take,0,", ",take,zero,", r"verb_class and noun_class are \['zero', '2'\]"),
        ("['plate'],[2]\nP01_101", "['plate']\nP01_101", "not as many fields as the header has"),
        ("verb_class", "verb_class_", "x"),
        ("stop_timestamp", "stop", r"csv:1: no column stop_timestamp"),
        ("P01_11,00", "../../../x,00", "leaves the data set"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(kitchens: Path, old: str, new: str, message: str) -> None:
    (kitchens / "EPIC_100_train.csv").write_text(TRAIN.replace(old, new, 1))
    if message == "x":  # a list without labels
        assert load_dataset("epic100", kitchens, "train").videos[0].label is None
        return
    with pytest.raises(DatasetError, match=message):
        load_dataset("epic100", kitchens, "train")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_times_are_hours_minutes_seconds(hours: int, minutes: int, seconds: int, thousandths: int) -> None:
    text = f"{hours:02d}:{minutes:02d}:{seconds:02d}.{thousandths:03d}"
    assert parse_time("x", "start", text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + thousandths / 1000)


@pytest.mark.parametrize("version", ["_V2", ""])
def test_diving_classes_have_four_factors(touch: Touch, version: str) -> None:
    root = touch("rgb/vgEqb7JIdRM_00000.mp4", "rgb/-x_1.mp4")
    entries = [
        {"vid_name": "vgEqb7JIdRM_00000", "label": 26, "start_frame": 0, "end_frame": 140},
        {"vid_name": "-x_1", "label": 0, "start_frame": 0, "end_frame": 9},
    ]
    (root / f"Diving48{version}_train.json").write_text(json.dumps(entries))
    found = load_dataset("diving48", root, "train")
    assert found.class_names == official_names("diving48")
    assert list(found.factors) == ["take-off", "somersaults", "twists", "position"]
    assert found.factors["position"][0] == "FREE"
    assert [(v.id, v.label, v.start_seconds, v.path.exists()) for v in found.videos] == [
        ("vgEqb7JIdRM_00000", 26, None, True),
        ("-x_1", 0, None, True),
    ]
    (root / "Diving48_vocab.json").write_text(json.dumps([["Back", "15som", "05Twis", "FREE"]] * 1 + [["x"]] * 1))
    with pytest.raises(DatasetError, match="label 26 is not among the 2 classes"):
        load_dataset("diving48", root, "train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"vid_name": "a", "label": 0, "start_frame": 7}', "entry 1: starts at frame 7"),
        ('{"vid_name": "a", "label": 48}', "label 48 is not among the 48 classes"),
        ('{"vid_name": "a", "label": true}', 'entry 1: expected {"vid_name"'),
        ('{"vid_name": "../../b", "label": 1}', "leaves the data set"),
        ("7", 'expected {"vid_name"'),
    ],
)
def test_diving_entries_that_cannot_be_meant_are_refused(touch: Touch, entry: str, message: str) -> None:
    root = touch("rgb/a.mp4")
    (root / "Diving48_V2_test.json").write_text(f"[{entry}]")
    with pytest.raises(DatasetError, match=message):
        load_dataset("diving48", root, "val")
