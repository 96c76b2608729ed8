"""UCF101 and HMDB51 as they are downloaded: three folds, and the traps of their lists and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.names import official_names, spoken
from vidxfer.pipeline.errors import DatasetError, UsageError

Touch = Callable[..., Path]
UCF = "UCF-101/{0}/v_{0}_g{1:02d}_c01.avi"
CLASS_IND = b"1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n"


@pytest.fixture
def ucf(touch: Touch) -> Path:
    """Three classes, two folds; one class folder and its files are spelled differently."""
    root = touch(
        UCF.format("ApplyEyeMakeup", 1),
        UCF.format("ApplyEyeMakeup", 8),
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
        UCF.format("YoYo", 2),
    )
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(CLASS_IND)
    train = b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nHandstandPushups/v_HandstandPushups_g01_c01.avi 2\r\n"
    (lists / "trainlist01.txt").write_bytes(train)
    (lists / "testlist01.txt").write_bytes(
        b"ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\nYoYo/v_YoYo_g02_c01.avi\r\n"
    )
    (lists / "trainlist02.txt").write_bytes(b"YoYo/v_YoYo_g02_c01.avi 3\n")
    (lists / "testlist02.txt").write_bytes(b"HandstandPushups/v_HandStandPushups_g01_c01.avi\n")
    return root


def test_ucf_classes_count_from_one_and_are_words_here(ucf: Path) -> None:
    train, val = (load_dataset("ucf101", ucf, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("Apply Eye Makeup", "Handstand Pushups", "Yo Yo")
    assert [(v.id, v.label) for v in train.videos] == [
        ("v_ApplyEyeMakeup_g08_c01", 0),
        ("v_HandstandPushups_g01_c01", 1),
    ]
    assert [(v.id, v.label) for v in val.videos] == [("v_ApplyEyeMakeup_g01_c01", 0), ("v_YoYo_g02_c01", 2)]
    assert all(video.path.exists() for video in (*train.videos, *val.videos))
    assert train.videos[1].path.name == "v_HandStandPushups_g01_c01.avi"  # the list says Handstand


def test_ucf_folds_are_other_splits(ucf: Path) -> None:
    second = load_dataset("ucf101", ucf, "train", fold=2)
    assert [video.id for video in second.videos] == ["v_YoYo_g02_c01"]
    assert second.notes[0] == "fold 2 of 3"
    assert second.fingerprint != load_dataset("ucf101", ucf, "train").fingerprint
    assert load_dataset("ucf101", ucf, "val", fold=2).videos[0].label == 1
    with pytest.raises(DatasetError, match=r"(?s)no list of the val split of fold 3\. Looked for:\n.*testlist03\.txt"):
        load_dataset("ucf101", ucf, "val", fold=3)
    with pytest.raises(UsageError, match=r"csv has no fold 2\. Folds: ucf101 1 to 3, hmdb51 1 to 3"):
        load_dataset("csv", ucf, "val", fold=2)
    with pytest.raises(UsageError, match="no split test beside train and val"):
        load_dataset("ucf101", ucf, "test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("YoYo/v_YoYo_g02_c01.avi 2", r"trainlist01.txt:1: class number 2, but 'YoYo' has 3"),
        ("YoY/v_YoY_g02_c01.avi 3", "is of none of the 3 classes"),
        ("../../YoYo/v_YoYo_g99_c01.avi 3", "leaves the data set"),
    ],
)
def test_ucf_rows_that_cannot_be_meant_are_refused(ucf: Path, line: str, message: str) -> None:
    (ucf / "ucfTrainTestlist/trainlist01.txt").write_text(line)
    with pytest.raises(DatasetError, match=message):
        load_dataset("ucf101", ucf, "train")


def test_ucf_class_numbers_must_be_whole(ucf: Path) -> None:
    (ucf / "ucfTrainTestlist/classInd.txt").write_text("1 A\n3 B\n")
    with pytest.raises(DatasetError, match="their numbers are not 1 to 2"):
        load_dataset("ucf101", ucf, "train")
    (ucf / "ucfTrainTestlist/classInd.txt").write_text("1 A\n1 B\n")
    with pytest.raises(DatasetError, match=r"classInd.txt:2: expected a new number and a name"):
        load_dataset("ucf101", ucf, "train")


def test_real_ucf_lists_are_read_whole(touch: Touch, fixtures_dir: Path) -> None:
    lists = touch(UCF.format("ApplyEyeMakeup", 8), UCF.format("ApplyEyeMakeup", 1)) / "ucfTrainTestlist"
    lists.mkdir()
    annotations = fixtures_dir / "annotations"
    for name, source in {
        "classInd.txt": annotations / "labels/ucf101_classInd.txt",
        "trainlist01.txt": annotations / "samples/ucf101_trainlist01_sample.txt",
        "testlist01.txt": annotations / "samples/ucf101_testlist01_sample.txt",
    }.items():
        (lists / name).write_bytes(source.read_bytes())
    train, val = (load_dataset("ucf101", lists.parent, split) for split in ("train", "val"))
    assert (len(train), len(val), len(train.class_names)) == (202, 101, 101)
    assert all(train.class_names[v.label or 0].replace(" ", "").casefold() in v.id.casefold() for v in train.videos)
    assert train.class_names == tuple(map(spoken, official_names("ucf101")))


HMDB = {
    "brush_hair": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n#437_How (2)&_brush_hair_f_cm_np1_ri_med_0.avi 2 \n"
    "unused_brush_hair_0.avi 0 \n",
    "kick": "kick_0.avi 2\n",
    "kick_ball": "a b_kick_ball_0.avi 1 \r\n",
}


@pytest.fixture
def hmdb(touch: Touch) -> Path:
    """Three classes of one fold."""
    root = touch(
        "hmdb51_org/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "hmdb51_org/brush_hair/#437_How (2)&_brush_hair_f_cm_np1_ri_med_0.avi",
        "hmdb51_org/kick/kick_0.avi",
        "hmdb51_org/kick_ball/a b_kick_ball_0.avi",
    )
    (root / "testTrainMulti_7030_splits").mkdir()
    for name, text in HMDB.items():
        (root / f"testTrainMulti_7030_splits/{name}_test_split1.txt").write_bytes(text.encode())
    return root


def test_hmdb_takes_the_class_from_the_list_and_odd_names_as_they_are(hmdb: Path) -> None:
    train, val = (load_dataset("hmdb51", hmdb, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("brush hair", "kick", "kick ball")
    assert [(v.id, v.label) for v in train.videos] == [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", 0),
        ("a b_kick_ball_0", 2),
    ]
    assert [(v.id, v.label) for v in val.videos] == [("#437_How (2)&_brush_hair_f_cm_np1_ri_med_0", 0), ("kick_0", 1)]
    assert all(video.path.exists() for video in (*train.videos, *val.videos))
    assert train.notes == ("fold 1 of 3; it leaves 1 videos unused", "lists of 3 classes; the whole of hmdb51 has 51")


def test_hmdb_names_agree_with_both_published_lists(fixtures_dir: Path) -> None:
    labels = fixtures_dir / "annotations/labels"
    rows = [line.split(",", 1)[1].strip() for line in (labels / "hmdb51_labels.csv").read_text().splitlines()[1:]]
    ours = sorted(spoken(name) for name in official_names("hmdb51"))
    assert set(rows) == set(ours)
    assert rows != ours  # "kick ball" and "kick" stand in another order there


def test_hmdb_rows_and_folds_that_are_not_there_are_refused(hmdb: Path) -> None:
    with pytest.raises(DatasetError, match=r"(?s)no lists of fold 2\. Looked for:.*_test_split2\.txt"):
        load_dataset("hmdb51", hmdb, "train", fold=2)
    (hmdb / "testTrainMulti_7030_splits/kick_test_split1.txt").write_text("kick_0.avi 3\n")
    with pytest.raises(DatasetError, match=r"kick_test_split1.txt:1: expected 'file 0', '1' or '2'"):
        load_dataset("hmdb51", hmdb, "train")
