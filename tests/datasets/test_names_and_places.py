"""What is equal to the eye is equal, only what is named a split is one, ids lie below the root, litter is no video."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.names import looks_like, one_spelling
from vidxfer.pipeline.datasets.survey import files_on_disk, left_over
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]
CAFE = {form: unicodedata.normalize(form, "café") for form in ("NFC", "NFD")}


def rows(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(v.id, None if v.label is None else dataset.class_names[v.label]) for v in dataset.videos]


def test_class_folders_in_two_forms_are_one_class_and_ids_keep_their_bytes(touch: Touch) -> None:
    root = touch(f"train/{CAFE['NFD']}/1.mp4", "train/b/1.mp4", f"val/{CAFE['NFC']}/2.mp4")
    train, val = load_dataset("folder", root, "train"), load_dataset("folder", root, "val")
    assert train.class_names == val.class_names == ("b", CAFE["NFC"])
    assert rows(val) == [(f"val/{CAFE['NFC']}/2.mp4", CAFE["NFC"])]
    assert train.videos[1].id == f"train/{CAFE['NFD']}/1.mp4"
    assert any(note.startswith("2 spellings look like 'café' and are one class") for note in val.notes)


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_a_list_of_one_form_finds_files_of_the_other(touch: Touch, disk: str, listed: str) -> None:
    root = touch(f"{CAFE[disk]}/{CAFE[disk]}.mp4")
    (root / "train.csv").write_text(f"path,label\n{CAFE[listed]}/{CAFE[listed]}.mp4,{CAFE[listed]}\n")
    found = load_dataset("csv", root, "train")
    assert (found.videos[0].id, found.videos[0].path.is_file()) == (f"{CAFE[disk]}/{CAFE[disk]}.mp4", True)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b", "a  b"),
        ("a b", "a\xa0b"),
        ("ab", "a\u200bb"),
        ("ab", "\ufeffab"),
        ("a", "a\u00ad"),
        ("\uac00", "\u1100\u1161"),
    ],
)
def test_names_that_look_the_same_are_one_class(touch: Touch, one: str, other: str) -> None:
    root = touch("1.mp4", "2.mp4", "3.mp4")
    (root / "train.csv").write_text(f"path,label\n1.mp4,{one}\n2.mp4,{other}\n3.mp4,z\n")
    found = load_dataset("csv", root, "train")
    assert len(found.class_names) == 2
    assert [video.label for video in found.videos][:2] == [found.videos[0].label] * 2
    assert "are one class" in found.notes[0]
    (root / "classes.txt").write_bytes(f"\ufeff{other}\r\nz\r\n\u200b\r\n".encode())
    found = load_dataset("csv", root, "train")
    assert (len(found.class_names), [video.label for video in found.videos]) == (2, [0, 0, 1])
    (root / "classes.txt").write_text(f"{one}\n{other}\nz\n")
    with pytest.raises(DatasetError, match="stands there twice, or two names look the same"):
        load_dataset("csv", root, "train")


@pytest.mark.parametrize(("one", "other"), [("c0", "C0"), ("straße", "STRASSE"), ("ＡＢ", "ab")])
def test_twins_in_other_letters_stay_two_and_are_said(touch: Touch, one: str, other: str) -> None:
    root = touch(f"train/{one}/1.mp4", f"val/{other}/2.mp4")
    found = load_dataset("folder", root, "val")
    assert len(found.class_names) == 2
    assert any("differ only in case or in the width of letters, and are 2 classes" in note for note in found.notes)
    assert f"1 classes have videos in val and none in train: {other!r}" in found.notes


def test_classes_without_a_training_video_are_said_of_lists(touch: Touch) -> None:
    root = touch("1.mp4", "2.mp4")
    (root / "list.csv").write_text("path,label,split\n1.mp4,x,train\n2.mp4,y,val\n")
    for split in ("train", "val"):
        assert "1 classes have videos in val and none in train: 'y'" in load_dataset("csv", root, split).notes


@given(st.text(max_size=8), st.sampled_from(["NFC", "NFD"]))
def test_looks_are_stable_and_do_not_depend_on_the_form(name: str, form: str) -> None:
    assert looks_like(looks_like(name)) == looks_like(name)
    assert looks_like(unicodedata.normalize(form, name)) == looks_like(name)


def test_a_look_with_one_spelling_keeps_it() -> None:
    assert one_spelling([CAFE["NFD"], "a  b"]) == ({CAFE["NFD"]: CAFE["NFD"], "a  b": "a  b"}, [])


def test_without_split_names_nothing_is_test(touch: Touch) -> None:
    root = touch(*(f"{name}/{number}.mp4" for name in "xy" for number in range(9)))
    (root / "list.csv").write_text("path,label\n" + "".join(f"{n}/{i}.mp4,{n}\n" for n in "xy" for i in range(9)))
    with pytest.raises(DatasetError, match=r"list.csv: no test rows, and no split column: a share of them is val"):
        load_dataset("csv", root, "test")
    with pytest.raises(DatasetError, match=r"no videos for test\. Looked for the folders test, testing; found all"):
        load_dataset("folder", root, "test")
    (root / "train").mkdir()
    with pytest.raises(DatasetError, match="no videos for test"):
        load_dataset("folder", root, "test")


def test_a_list_of_a_known_set_must_name_its_split(touch: Touch) -> None:
    root = touch("val/aaaaaaaaaaa.mp4")
    (root / "mine.txt").write_text("aaaaaaaaaaa.mp4 0\n")
    with pytest.raises(DatasetError, match=r"neither its name nor a column says of which split .*mine_val.txt"):
        load_dataset("k400", root, "val", labels=root / "mine.txt")
    (root / "mine.csv").write_text("path,label,split\naaaaaaaaaaa.mp4,0,dev\n")
    assert len(load_dataset("k400", root, "val", labels=root / "mine.csv")) == 1
    with pytest.raises(DatasetError, match="no rows of train"):
        load_dataset("k400", touch("train/b.mp4"), "train", labels=root / "mine.csv")


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Training", "train"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("testing", "test"),
    ],
)
@pytest.mark.parametrize("column", ["split", "subset", "partition", "set"])
def test_spellings_of_splits_in_a_column(touch: Touch, word: str, split: str, column: str) -> None:
    root = touch("1.mp4", "2.mp4")
    (root / "list.csv").write_text(f"path,label,{column}\n1.mp4,x,{word}\n")
    assert rows(load_dataset("csv", root, split)) == [("1.mp4", "x")]


def test_a_word_that_is_no_split_is_named(touch: Touch) -> None:
    root = touch("1.mp4")
    (root / "list.csv").write_text("path,label,split\n1.mp4,x,train\n1.mp4,x,holdout\n")
    with pytest.raises(DatasetError, match=r"csv:3: split is 'holdout', expected train, val or test"):
        load_dataset("csv", root, "train")
    (root / "list.csv").write_text("path,label,set\n1.mp4,x,A\n")
    assert "columns that are not read: set" in load_dataset("csv", root, "train", val_fraction=1e-9).notes[0]


def test_rows_of_another_split_in_the_list_of_one_are_counted(touch: Touch) -> None:
    root = touch("1.mp4", "2.mp4")
    (root / "train.csv").write_text("path,label,split\n1.mp4,x,train\n2.mp4,x,val\n")
    assert "1 rows of train.csv name another split and are left out" in load_dataset("csv", root, "train").notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "{0}/nw/a.avi 0\n"), ("train.csv", "path,label\n{0}/nw/a.avi,x\n"), ("train.txt",
        "{0}/nw/frames 3 0\n"),
        ("train.jsonl", '{{"path": "{0}/nw/a.avi", "label": "x"}}\n'), ("train.csv", "{0}/nw/a.avi,x\n"),
        ("train.json", '{{"{0}/nw/a.avi": "x"}}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("through", ["root", "real root", "link in the list"])
def test_absolute_paths_inside_the_root_are_ids_below_it(
    touch: Touch, tmp_path_factory: pytest.TempPathFactory, name: str, text: str, through: str
) -> None:
    real = touch("nw/a.avi", "nw/frames/1.jpg")
    linked = tmp_path_factory.mktemp("elsewhere") / "linked"
    linked.symlink_to(real)
    root, written = {"root": (real, real), "real root": (linked, real), "link in the list": (real, linked)}[through]
    (real / name).write_text(text.format(written))
    found = load_dataset("csv", root, "train")
    assert found.videos[0].id == ("nw/frames" if "frames" in text else "nw/a.avi")
    assert found.videos[0].path == root / found.videos[0].id
    moved = tmp_path_factory.mktemp("moved") / "videos"
    real.rename(moved)
    (moved / name).write_text(text.format(moved))
    assert load_dataset("csv", moved, "train").fingerprint == found.fingerprint
    (moved / name).write_text(text.format(linked.parent))
    with pytest.raises(DatasetError, match="leaves the data set"):
        load_dataset("csv", moved, "train")


LITTER = ["@eaDir", "#recycle", ".Trashes", ".AppleDouble", "lost+found", "Thumbs", ".ipynb_checkpoints",
"$RECYCLE.BIN",
          "__MACOSX", "@Recycle", ".thumbnails", "#snapshot"]  # fmt: skip


@pytest.mark.parametrize("name", LITTER)
def test_what_a_nas_or_a_system_leaves_is_no_video(touch: Touch, name: str) -> None:
    root = touch(
        "train/a/1.mp4", f"train/a/{name}/1.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg", f"train/a/{name}/2.mp4",
        f"{name}/x.mp4",
        f"train/{name}/3.mp4", "train/a/._1.mp4", "val/b/2/1.jpg", f"val/b/2/{name}/1.jpg", f"val/b/{name}/2.jpg",
        "train/a/SYNOFILE_THUMB_M.mp4",
    )  # fmt: skip
    train, val = (load_dataset("folder", root, split) for split in ("train", "val"))
    assert (train.class_names, rows(train), rows(val)) == (("a", "b"), [("train/a/1.mp4", "a")], [("val/b/2", "b")])
    assert left_over([train, val], root, files_on_disk([train, val], root)).count == 0
    hidden = name.startswith(".")
    assert any("folders of previews and leftovers are not read" in note for note in train.notes) != hidden
