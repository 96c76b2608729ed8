"""Labels that lie beside videos are read, whatever lists them; a set of one class must be meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.recognise import recognise
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]


def rows(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(v.id, None if v.label is None else dataset.class_names[v.label]) for v in dataset.videos]


def write(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("___", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


HF = {
    "metadata.csv": "file_name,label\na.mp4,walk\nin/b.mp4,run\n",
    "metadata.jsonl": lines({"file_name": "a.mp4", "label": "walk"}, {"file_name": "in/b.mp4", "label": "run"}),
}


@pytest.mark.parametrize("name", HF)
@pytest.mark.parametrize("word", ["val", "validation", "valid", "dev"])
def test_hugging_face_has_one_metadata_file_per_split(touch: Touch, name: str, word: str) -> None:
    root = touch(*(f"{split}/{path}" for split in ("train", word, "test") for path in ("a.mp4", "in/b.mp4")))
    for split in ("train", word, "test"):
        (root / split / name).write_text(HF[name])
    for split, folder in (("train", "train"), ("val", word), ("test", "test")):
        found = load_dataset("auto", root, split)
        assert (found.name, rows(found)) == ("csv", [(f"{folder}/a.mp4", "walk"), (f"{folder}/in/b.mp4", "run")])
        assert all(video.path.is_file() for video in found.videos)


def test_one_metadata_file_for_all_splits_goes_by_the_folders_of_its_paths(touch: Touch) -> None:
    root = touch("train/a.mp4", "validation/b.mp4", "test/c.mp4")
    (root / "metadata.csv").write_text("file_name,label\ntrain/a.mp4,x\nvalidation/b.mp4,y\ntest/c.mp4,x\n")
    found = [rows(load_dataset("auto", root, split)) for split in ("train", "val", "test")]
    assert found == [[("train/a.mp4", "x")], [("validation/b.mp4", "y")], [("test/c.mp4", "x")]]


def test_numbers_in_jsonl_and_no_label_as_null_or_minus_one(touch: Touch) -> None:
    root = touch("a.mp4", "b.mp4", "c.mp4")
    entries = [{"file_name": "a.mp4", "label": 1}, {"file_name": "b.mp4", "label": -1}, {"file_name": "c.mp4"}]
    (root / "train.jsonl").write_text(lines(*entries))
    assert rows(load_dataset("csv", root, "train")) == [("a.mp4", "1"), ("b.mp4", None), ("c.mp4", None)]


@pytest.mark.parametrize("ending", [".mp4", ".webm", "/00001.jpg"])
def test_jester_as_files_or_pictures(touch: Touch, ending: str) -> None:
    root = touch(*(f"20bn-jester-v1/{number}{ending}" for number in range(4)))
    (root / "jester-v1-labels.csv").write_text("Swiping Right\nSwiping Left\nNo gesture\n")
    (root / "jester-v1-train.csv").write_text("0;Swiping Left\n1;Swiping Right\n")
    (root / "jester-v1-validation.csv").write_text("2;Swiping Left\n")
    (root / "jester-v1-test.csv").write_text("3\n")
    train, val, test = (load_dataset("auto", root, split) for split in ("train", "val", "test"))
    assert train.name == "jester"
    assert train.class_names == ("No gesture", "Swiping Left", "Swiping Right")
    assert [rows(one) for one in (train, val, test)] == [
        [("0", "Swiping Left"), ("1", "Swiping Right")], [("2", "Swiping Left")], [("3", None)]
    ]  # fmt: skip
    (root / "jester-v1-labels.csv").unlink()
    assert load_dataset("auto", root, "val").class_names == ("Swiping Left", "Swiping Right")


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("splits", [("",), ("train/", "val/")])
def test_fiftyone_is_no_something_something(touch: Touch, classes: bool, splits: tuple[str, ...]) -> None:
    root = touch(*(f"{split}data/{number}.mp4" for split in splits for number in range(9)))
    labels = {str(number): number % 3 if classes else f"c{number % 3}" for number in range(8)} | {"8": None}
    table = {"classes": ["c0", "c1", "c2"], "labels": labels} if classes else {"labels": labels}
    for split in splits:
        (root / f"{split}labels.json").write_text(json.dumps(table))
    found = [row for split in ("train", "val") for row in rows(load_dataset("auto", root, split, val_fraction=0.5))]
    expected = [(f"{split}data/{n}.mp4", f"c{n % 3}" if n < 8 else None) for split in splits for n in range(9)]
    assert sorted(found) == sorted(expected)


BESIDE = {
    "gestures.csv": "clip_path,gesture\n1.mp4,x\n2.mp4,y\n",
    "gestures.tsv": "1.mp4\tx\n2.mp4\ty\n",
    "annotations/all.txt": "1.mp4 x\n2.mp4 y\n",
    "gestures.json": '{"1.mp4": "x", "2.mp4": "y"}',
    "labels/what.json": '[{"video": "1.mp4", "category": "x"}, {"video": "2.mp4", "category": "y"}]',
    "train.json": '[{"path": "1.mp4", "label": "x"}, {"path": "2.mp4", "label": "y"}]',
}


@pytest.mark.parametrize("name", BESIDE)
def test_any_list_that_names_the_videos_is_read(touch: Touch, name: str) -> None:
    root = write(touch("1.mp4", "2.mp4"), **{name: BESIDE[name]})
    recognised = recognise(root)
    assert (recognised.kind, recognised.because) == ("csv", f"{name} is there")
    found = load_dataset("csv", root, "train", val_fraction=1e-9)
    assert rows(found) == [("1.mp4", "x"), ("2.mp4", "y")]


def test_lists_of_any_name_are_told_apart_by_the_word_for_the_split(touch: Touch) -> None:
    root = write(
        touch("1.mp4", "2.mp4"), my_train_v2__csv="", **{"my_train.csv": "1.mp4,x\n", "my_eval.csv": "2.mp4,y\n"}
    )
    assert rows(load_dataset("auto", root, "val")) == [("2.mp4", "y")]
    write(root, **{"other_eval.csv": "2.mp4,z\n"})
    with pytest.raises(DatasetError, match=r"my_eval.csv and other_eval.csv both list videos of val.*--labels"):
        load_dataset("auto", root, "val")


def test_a_list_that_cannot_be_read_stops_auto_and_is_named_by_folder(touch: Touch) -> None:
    root = write(touch("x/1.mp4", "y/2.mp4"), **{"marks.csv": "who,what\n1.mp4,x\n2.mp4,y\n"})
    with pytest.raises(DatasetError, match=r"(?s)cannot be read as lists of them:\n  .*marks.csv:1.*--dataset folder"):
        load_dataset("auto", root, "train")
    found = load_dataset("folder", root, "train", val_fraction=1e-9)
    assert rows(found) == [("x/1.mp4", "x"), ("y/2.mp4", "y")]
    assert "files that name these videos are not read, folders say the classes: marks.csv" in found.notes


def test_words_about_the_data_are_no_list_of_it(touch: Touch) -> None:
    root = write(touch("x/1.mp4", "y/2.mp4"), **{"README.txt": "1. download\nall else is in the paper\nhave fun\n"})
    assert recognise(root).kind == "folder"
    assert not any(
        "are not read" in note and "name these" in note for note in load_dataset("folder", root, "train").notes
    )


@pytest.mark.parametrize("names", [["data/1.mp4", "data/2.mp4"], ["1.mp4", "2.mp4"], ["train/1.mp4", "val/2.mp4"]])
def test_one_class_stops_with_the_way_on(touch: Touch, names: list[str]) -> None:
    root = write(touch(*names), **{"who.csv": "who,what\n1.mp4,x\n2.mp4,y\n"})
    with pytest.raises(DatasetError, match=r"would be of one class, '.*'\. Beside them lie who.csv, which .*--labels"):
        load_dataset("folder", root, "train")


def test_a_folder_called_train_in_capitals_is_a_split(touch: Touch) -> None:
    root = touch("Train/a/1.mp4", "Train/b/2.mp4", "Test/a/3.mp4", "Val/b/4.mp4")
    assert [rows(load_dataset("folder", root, split)) for split in ("train", "val", "test")] == [
        [("Train/a/1.mp4", "a"), ("Train/b/2.mp4", "b")], [("Val/b/4.mp4", "b")], [("Test/a/3.mp4", "a")]
    ]  # fmt: skip


NAMED = [
    ("label,label_name", "1,walk", "0,run"), ("class_id,class_name", "1,walk", "0,run"), ("classindex,classname",
    "1,walk", "0,run"),
    ("label_name,label", "walk,1", "run,0"), ("target,category", "7,walk", "9,run"), ("label,action", "1.0,walk",
    "0.0,run"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "a", "b"), NAMED)
def test_names_beside_numbers_are_the_classes(touch: Touch, header: str, a: str, b: str) -> None:
    root = write(touch("a.mp4", "b.mp4", "c.mp4"), **{"train.csv": f"path,{header}\na.mp4,{a}\nb.mp4,{b}\n"})
    found = load_dataset("csv", root, "train")
    assert (found.class_names, rows(found)) == (("run", "walk"), [("a.mp4", "walk"), ("b.mp4", "run")])
    assert found.notes == ()


def test_a_row_with_only_its_number_takes_the_name_from_the_others(touch: Touch) -> None:
    root = write(touch("a.mp4", "b.mp4"), **{"train.csv": "path,label,label_name\na.mp4,3,walk\nb.mp4,3,\n"})
    assert rows(load_dataset("csv", root, "train")) == [("a.mp4", "walk"), ("b.mp4", "walk")]


def test_numbers_and_names_that_contradict_each_other_name_both_rows(touch: Touch) -> None:
    root = touch("a.mp4", "b.mp4")
    for second, message in (
        ("1,run", r"csv:3: class number 1 is 'run' here and 'walk' at .*csv:2; a number has one name"),
        ("2,walk", r"csv:3: 'walk' has the class number 2 here and 1 at .*csv:2; a name has one number"),
    ):
        (root / "train.csv").write_text(f"path,label,label_name\na.mp4,1,walk\nb.mp4,{second}\n")
        with pytest.raises(DatasetError, match=message):
            load_dataset("csv", root, "train")
    (root / "train.csv").write_text("path,label,label_name\na.mp4,0,walk\n")
    (root / "classes.txt").write_text("run\nwalk\n")
    with pytest.raises(DatasetError, match=r"csv:2: 'walk' has the class number 0, but in classes.txt its line.* is 1"):
        load_dataset("csv", root, "train")
