"""Folders of videos: which folder is a split, which is a class, and what is said about the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]


def rows(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(v.id, None if v.label is None else dataset.class_names[v.label]) for v in dataset.videos]


@pytest.mark.parametrize("word", ["val", "valid", "validation", "test"])
def test_split_folders_share_their_class_names(touch: Touch, word: str) -> None:
    root = touch("train/door/a.mp4", "train/-cup, full/b.WEBM", f"{word}/door/c.avi", f"{word}/only here/d.mkv")
    train, val = load_dataset("folder", root, "train"), load_dataset("folder", root, "val")
    assert rows(train) == [("train/-cup, full/b.WEBM", "-cup, full"), ("train/door/a.mp4", "door")]
    assert rows(val) == [(f"{word}/door/c.avi", "door"), (f"{word}/only here/d.mkv", "only here")]
    assert train.class_names == val.class_names == ("-cup, full", "door", "only here")
    place = "test" if word == "test" else "val"
    unseen = () if place == "test" else ("1 classes have videos in val and none in train: 'only here'",)
    assert train.notes == unseen


def test_without_split_folders_videos_are_divided_by_their_id(touch: Touch) -> None:
    names = [f"{word}/{number}.mp4" for word in ("door", "cup") for number in range(30)]
    root = touch(*names)
    train, val = (load_dataset("folder", root, split, val_fraction=0.3) for split in ("train", "val"))
    ids = [{video.id for video in part.videos} for part in (train, val)]
    assert ids[0] | ids[1] == set(names)
    assert not ids[0] & ids[1]
    assert 8 < len(ids[1]) < 30
    assert "a share of 0.3" in train.notes[0]


def test_a_class_may_be_called_train(touch: Touch) -> None:
    root = touch(*(f"{word}/{number}.mp4" for word in ("train", "plane") for number in range(20)))
    assert load_dataset("folder", root, "train").class_names == ("plane", "train")


def test_a_train_folder_alone_is_divided(touch: Touch) -> None:
    root = touch(*(f"train/{word}/{number}.mp4" for word in ("a", "b") for number in range(20)))
    train, val = load_dataset("folder", root, "train"), load_dataset("folder", root, "val")
    assert len(train) + len(val) == 40
    assert val.class_names == ("a", "b")


def test_a_flat_folder_is_one_class_only_where_a_file_of_class_names_says_so(touch: Touch) -> None:
    root = touch(*(f"clips/{number}.mp4" for number in range(20))) / "clips"
    with pytest.raises(DatasetError, match=r"all videos would be of one class, 'clips'\. Give the list of labels"):
        load_dataset("folder", root, "train")
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfclips\r\n")
    train = load_dataset("folder", root, "train")
    assert train.class_names == ("clips",)
    assert "flat folder: all 20 videos are of the one class 'clips'" in train.notes


def test_a_table_gives_labels_by_path_name_or_stem(touch: Touch) -> None:
    root = touch("train/a.mp4", "train/b.mp4", "train/sub/c.mp4", "train/d.mp4", "val/e.mp4")
    table = root / "table.csv"
    table.write_bytes(b'file,label\r\na.mp4,"x, y"\r\nb,z\r\ntrain/sub/c.mp4,z\r\nnobody.mp4,z\r\ne,z\r\n')
    train = load_dataset("folder", root, "train", labels=table)
    assert rows(train) == [
        ("train/a.mp4", "x, y"),
        ("train/b.mp4", "z"),
        ("train/d.mp4", None),
        ("train/sub/c.mp4", "z"),
    ]
    assert train.notes == (
        "1 videos have no row in table.csv and therefore no label",
        "1 rows of table.csv name no video here",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,x\na.mp4,y\n", r"table.csv:2: 'a.mp4' has another label at .*table.csv:1"),
        ("zzz,x\n", r"names none of the 2 videos; expected rows like a\.mp4,label"),
        ("a.mp4\n", r"table.csv:1: 1 fields, expected 'path label'"),
        ("file,label\na.mp4,\n", r"table.csv:2: no label"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(touch: Touch, text: str, message: str) -> None:
    root = touch("train/a.mp4", "val/b.mp4")
    (root / "table.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_dataset("folder", root, "train", labels=root / "table.csv")


def test_what_is_left_out_is_told(touch: Touch) -> None:
    root = touch(
        "train/a/1.mp4", "train/a/deep/2.mp4", "train/a/notes.txt", "train/a/.hidden.mp4", "train/.hidden/x.mp4",
        "train/loose.mp4", "val/a/3.mp4", "val/b/4.mp4", "annotations/x.csv",
    )  # fmt: skip
    train = load_dataset("folder", root, "train")
    assert [video.id for video in train.videos] == ["train/a/1.mp4", "train/a/deep/2.mp4"]
    assert train.notes == (
        "folders beside the split folders are not read: 'annotations'",
        "train: 1 files are not videos by their name (1 .txt)",
        "1 videos outside of class folders are left out, 'loose.mp4' first",
        "1 videos lie deeper than their class folder; the first folder is taken as their class",
        "1 classes have videos in val and none in train: 'b'",
    )


def test_undecodable_names_get_clean_ids(tmp_path: Path) -> None:
    for folder in (b"train/caf\xe9", b"val/caf\xe9", b"val/other"):
        place = tmp_path / os.fsdecode(folder)
        place.mkdir(parents=True)
        (place / os.fsdecode(b"-a\xff b\n.mp4")).write_bytes(b"x")
    train = load_dataset("folder", tmp_path, "train")
    assert rows(train) == [("train/caf\\xe9/-a\\xff b\\n.mp4", "caf\\xe9")]
    assert train.videos[0].path.exists()
    assert len(train.fingerprint) == 16


def test_links_may_stay_inside_but_not_leave_or_go_round(
    touch: Touch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").mkdir()
    (outside / "a/x.mp4").write_bytes(b"x")
    root = touch("train/a/1.mp4", "val/a/2.mp4", "val/c/2.mp4")
    (root / "train/a/again.mp4").symlink_to("1.mp4")
    assert len(load_dataset("folder", root, "train")) == 2

    (root / "train/b").symlink_to(outside / "a")
    with pytest.raises(DatasetError, match=r"train/b: .* leaves the data set"):
        load_dataset("folder", root, "train")
    (root / "train/b").unlink()
    (root / "train/a/round").symlink_to("..")
    with pytest.raises(DatasetError, match=r"a/round: a second link to one folder|leaves the data set"):
        load_dataset("folder", root, "train")


def test_a_split_folder_may_be_a_link(touch: Touch, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("disk")
    (outside / "a").mkdir()
    (outside / "a/x.mp4").write_bytes(b"x")
    root = touch("val/a/2.mp4", "val/b/2.mp4")
    (root / "train").symlink_to(outside)
    assert [video.id for video in load_dataset("folder", root, "train").videos] == ["train/a/x.mp4"]


def test_nothing_to_read_draws_the_layout(touch: Touch) -> None:
    root = touch("readme.md")
    with pytest.raises(DatasetError, match=r"(?s)no videos here\. Expected:\n  <root>/.*opening a door"):
        load_dataset("folder", root, "train")
    touch("val/a/1.mp4")
    with pytest.raises(
        DatasetError, match=r"no videos for train\. Looked for the folders train, training; found val\."
    ):
        load_dataset("folder", root, "train")
    with pytest.raises(DatasetError, match="is a file, but the folder layout is a folder"):
        load_dataset("folder", root / "readme.md", "train")


def test_too_few_videos_for_a_share_say_so(touch: Touch) -> None:
    with pytest.raises(DatasetError, match="no videos are left for val"):
        load_dataset("folder", touch("a/1.mp4"), "val", val_fraction=0.01)


@pytest.mark.parametrize("hidden", ["", "train/a"])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    touch: Touch, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = touch("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")
    scandir = os.scandir

    def denied(place: str | Path) -> object:
        if Path(place) == root / hidden:
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DatasetError, match=rf"{root / hidden}: cannot be read: Permission denied"):
        load_dataset("folder", root, "train")
