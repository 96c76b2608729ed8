"""Something-Something V1, and V2 by the lists of other toolkits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]
FEATHER = "Something falling like a feather or paper"


def v1(root: Path, **lists: str) -> Path:
    for stem, text in lists.items():
        (root / f"something-something-v1-{stem}.csv").write_text(text)
    return root


def test_v1_folders_are_videos_and_labels_are_sorted(touch: Touch) -> None:
    root = v1(
        touch("20bn-something-something-v1/100218/00001.jpg", "20bn-something-something-v1/24413/00001.jpg"),
        labels=f"Unfolding something\n{FEATHER}\nHolding something\n",
        train=f"100218;{FEATHER}\n24413;Unfolding something\n7;Holding something\n",
    )
    found = load_dataset("ssv1", root, "train")
    assert found.class_names == ("Holding something", FEATHER, "Unfolding something")
    assert [(v.id, v.label, v.path.is_dir()) for v in found.videos] == [
        ("100218", 1, True),
        ("24413", 2, True),
        ("7", 0, False),
    ]
    assert found.notes == ("1 of 3 listed videos are not on disk: '7'",)


def test_v1_without_its_labels_takes_the_official_names(touch: Touch) -> None:
    root = v1(touch("frames/1/00001.jpg"), validation=f"1;{FEATHER}\n", test="1\n")
    found = load_dataset("ssv1", root, "val")
    assert len(found.class_names) == 174
    assert found.class_names.index(FEATHER) == found.videos[0].label == 134  # TSM's number, not MMAction2's
    assert "the official class names are used" in found.notes[0]
    assert load_dataset("ssv1", root, "test").videos[0].label is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,Holding something", r"train.csv:1: expected id;class name"),
        ("1;Holding somethin", "is no class of something-something-v1-labels.csv"),
        ("../1;Holding something", "expected id;class name"),
        ("..;Holding something", "leaves the data set"),
    ],
)
def test_v1_rows_that_cannot_be_meant_are_refused(touch: Touch, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("ssv1", v1(touch("frames/1/00001.jpg"), train=line), "train")


def test_v1_the_label_list_of_mmaction2_sorts_to_the_official_names(fixtures_dir: Path) -> None:
    in_file_order = (fixtures_dir / "annotations/labels/ssv1_mmaction2_label_map.txt").read_text().splitlines()
    assert in_file_order != sorted(in_file_order)
    assert tuple(sorted(in_file_order)) == official_names("ssv1")


@pytest.mark.parametrize("kind", ["ssv1", "ssv2", "k400", "k600", "k700", "k710", "ucf101", "hmdb51", "diving48"])
def test_the_names_here_are_the_lists_of_the_fixtures(fixtures_dir: Path, kind: str) -> None:
    stem = "ssv2" if kind == "ssv1" else kind
    lines = (fixtures_dir / f"annotations/labels/{stem}_mmaction2_label_map.txt").read_text().splitlines()
    assert official_names(kind) == tuple(lines)


def test_a_real_list_of_v1_folders_is_read_with_its_ids(touch: Touch, fixtures_dir: Path) -> None:
    root = touch("26834/00001.jpg", "85/00001.jpg")
    found = load_dataset("csv", root, "val", labels=fixtures_dir / "annotations/samples/ssv1_val_rgb_sample.txt")
    assert len(found) == 300
    videos = {video.id: video for video in found.videos}
    assert (videos["26834"].path, videos["26834"].label, videos["26834"].start_seconds) == (root / "26834", 134, None)
    assert sorted(official_names("ssv1"))[134] == FEATHER


@pytest.mark.parametrize("text", ["78687 54 19\n", "78687.webm 19\n", "78687 Falling\n"])
def test_v2_is_read_by_the_lists_of_other_toolkits(touch: Touch, text: str) -> None:
    root = touch("20bn-something-something-v2/78687.webm", "val_videofolder.txt")
    (root / "val_videofolder.txt").write_text(text)
    if "Falling" in text:
        with pytest.raises(DatasetError, match="does not end like a video"):
            load_dataset("ssv2", root, "val", labels=root / "val_videofolder.txt")
        return
    found = load_dataset("ssv2", root, "val", labels=root / "val_videofolder.txt")
    (video,) = found.videos
    assert (video.id, video.label, video.path.name) == ("78687", 19, "78687.webm")
    assert found.class_names == official_names("ssv2")
    with pytest.raises(DatasetError, match="no list of train beside it, only of val"):
        load_dataset("ssv2", root, "train", labels=root / "val_videofolder.txt")


def test_v2_frames_in_folders_are_found_by_id(touch: Touch) -> None:
    root = touch("videos/78687/img_00001.jpg", "x/train_list.txt")
    (root / "x/train_list.txt").write_text("78687 54 19\n")
    (video,) = load_dataset("ssv2", root, "train", labels=root / "x/train_list.txt").videos
    assert (video.path, video.id) == (root / "videos/78687", "78687")


def test_v2_test_labels_come_from_the_answers(ssv2_root: Callable[..., Path]) -> None:
    root = ssv2_root(videos=("78687.webm", "1420.webm", "1421.webm"))
    (root / "labels/test.json").write_text('[{"id": "1420"}, {"id": "1421"}]')
    assert [video.label for video in load_dataset("ssv2", root, "test").videos] == [None, None]
    (root / "labels/test-answers.csv").write_text("1420;Something falling like a rock\n")
    assert [video.label for video in load_dataset("ssv2", root, "test").videos] == [2, None]
    (root / "labels/test-answers.csv").write_text("1420;Something falling like a rok\n")
    with pytest.raises(DatasetError, match=r"answers.csv:1: .* names no class \(did you mean"):
        load_dataset("ssv2", root, "test")
