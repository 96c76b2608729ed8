"""`--dataset auto`: what is recognised, why, what was ruled out, and when nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import KINDS, load_dataset
from vidxfer.pipeline.datasets.recognise import recognise
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]
KINETICS = "label,youtube_id,time_start,time_end,split\n{},aaaaaaaaaaa,0,10,val\n"

SIGNS = {
    "ssv2": ["labels/labels.json", "20bn-something-something-v2/1.webm"],
    "ssv1": ["something-something-v1-train.csv", "20bn-something-something-v1/1/00001.jpg"],
    "jester": ["jester-v1-train.csv", "20bn-jester-v1/1/00001.jpg"],
    "ucf101": ["ucfTrainTestlist/trainlist01.txt", "UCF-101/A/v_A_g01_c01.avi"],
    "hmdb51": ["testTrainMulti_7030_splits/walk_test_split1.txt", "walk/a.avi"],
    "epic100": ["EPIC_100_train.csv", "EPIC-KITCHENS/P01/videos/P01_01.MP4"],
    "diving48": ["Diving48_V2_train.json", "rgb/a.mp4"],
    "csv": ["train.csv", "a.mp4"],
    "folder": ["train/a class/a.mp4"],
}


@pytest.mark.parametrize("kind", SIGNS)
def test_each_kind_is_recognised_by_what_only_it_has(kind: str, touch: Touch) -> None:
    found = recognise(touch(*SIGNS[kind]))
    assert found.kind == kind
    assert found.because.endswith(" is there")
    specific = set(KINDS) - {"csv", "folder"}
    assert specific - {kind} <= set(found.ruled_out)
    assert str(found).startswith(f"recognised as {kind}: ")


@pytest.mark.parametrize(
    ("file", "label", "kind"),
    [
        ("annotations/val.csv", "abseiling", "k400"),
        ("annotations/val.csv", "acting in play", "k600"),
        ("k600/annotations/val.csv", "abseiling", "k600"),
        ("kinetics700_val.csv", "abseiling", "k700"),
        ("kinetics700_2020/validate.csv", "abseiling", "k700"),
    ],
)
def test_kinetics_sizes_are_told_apart_by_name_or_classes(touch: Touch, file: str, label: str, kind: str) -> None:
    root = touch(file, "val/aaaaaaaaaaa_000000_000010.mp4")
    (root / file).write_text(KINETICS.format(label))
    assert recognise(root).kind == kind


def test_kinetics_lists_of_unknown_classes_are_not_guessed(touch: Touch) -> None:
    root = touch("annotations/val.csv", "val/aaaaaaaaaaa_000000_000010.mp4")
    (root / "annotations/val.csv").write_text(KINETICS.format("juggling geese"))
    with pytest.raises(DatasetError, match=r"lists of Kinetics, but which\?\n  k400: 'juggling geese' is none of its"):
        recognise(root)


def test_pictures_in_class_folders_are_a_folder(touch: Touch) -> None:
    root = touch("train/opening/a/00001.jpg", "train/opening/b/00001.jpg", "val/closing/c/00001.jpg")
    found = load_dataset("auto", root, "train")
    assert [(video.id, video.path.is_dir()) for video in found.videos] == [
        ("train/opening/a", True),
        ("train/opening/b", True),
    ]
    assert found.class_names == ("closing", "opening")


def test_what_was_recognised_is_a_note_and_the_data_set_is_the_same(tmp_path: Path) -> None:
    world = write_toy(tmp_path / "toy", train_videos=8, val_videos=8)
    found, named = (load_dataset(kind, world.root, "val") for kind in ("auto", "ssv2"))
    assert (found.fingerprint, found.name) == (named.fingerprint, "ssv2")
    assert found.notes[0].startswith("recognised as ssv2: labels/labels.json is there (ruled out: ssv1: no ")


def test_nothing_and_too_much_are_errors_that_list_what_was_tried(touch: Touch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError) as nothing:
        load_dataset("auto", empty, "train")
    assert all(f"  {kind}: no " in str(nothing.value) for kind in KINDS)
    both = touch(*SIGNS["ssv2"], *SIGNS["diving48"])
    with pytest.raises(DatasetError, match=r"(?s)may be any of\n  ssv2: labels/lab.*\n  diving48: .*Name"):
        load_dataset("auto", both, "train")


def test_a_list_file_and_labels_elsewhere_are_recognised(touch: Touch) -> None:
    root = touch("videos/a.mp4", "lists/my_train.txt", "official/something-something-v2-labels.json")
    (root / "lists/my_train.txt").write_text("a.mp4 x\n")
    assert recognise(root / "videos", root / "lists/my_train.txt").kind == "csv"
    assert recognise(root / "lists/my_train.txt").kind == "csv"
    assert recognise(root / "videos", root / "official").kind == "ssv2"
