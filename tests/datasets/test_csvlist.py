"""Lists of videos: headers, delimiters, splits, segments, lists of other toolkits, and rows that cannot be meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.errors import DatasetError

Touch = Callable[..., Path]


def read(root: Path, text: str | bytes, *, name: str = "train.csv", split: str = "train") -> Dataset:
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_dataset("csv", root, split)


def rows(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(v.id, None if v.label is None else dataset.class_names[v.label]) for v in dataset.videos]


WANTED = [("a.mp4", "open a door"), ("-b c.mp4", "Lift, then drop")]


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na.mp4,open a door\n-b c.mp4,"Lift, then drop"\n',
        'path,label\r\na.mp4,open a door\r\n-b c.mp4,"Lift, then drop"\r\n',
        '\ufeffpath,label\n"a.mp4",open a door\n\n-b c.mp4,"Lift, then drop"',
        "label\tfile_name\nopen a door\ta.mp4\nLift, then drop\t-b c.mp4\n",
        "Path;Class\na.mp4;open a door\n-b c.mp4;Lift, then drop\n",
        'a.mp4,open a door\n-b c.mp4,"Lift, then drop"\n',
        "a.mp4\topen a door\n-b c.mp4\tLift, then drop\n",
    ],
)
def test_headers_delimiters_and_line_ends_say_the_same(touch: Touch, text: str) -> None:
    assert rows(read(touch("a.mp4", "-b c.mp4"), text)) == WANTED


def test_a_blank_separated_list_takes_the_last_field_as_label(touch: Touch) -> None:
    dataset = read(touch("a, b.mp4", "c.mp4"), "a, b.mp4 door\r\nc.mp4 cup\r\n", name="train.txt")
    assert rows(dataset) == [("a, b.mp4", "door"), ("c.mp4", "cup")]


def test_quotes_inside_a_name_are_data(touch: Touch) -> None:
    dataset = read(touch("a.mp4"), 'path,label\na.mp4,"Saying ""hi"", twice"\n')
    assert dataset.class_names == ('Saying "hi", twice',)


def test_segments_get_ids_of_their_own(touch: Touch) -> None:
    text = "path,label,start,end,id\nlong.mp4,a,0,1.5,\nlong.mp4,b,1.5,,\nlong.mp4,a,3,4,third\nlong.mp4,a,,,\n"
    dataset = read(touch("long.mp4"), text)
    assert [(v.id, v.start_seconds, v.end_seconds) for v in dataset.videos] == [
        ("long.mp4@0.0-1.5", 0.0, 1.5),
        ("long.mp4@1.5-", 1.5, None),
        ("third", 3.0, 4.0),
        ("long.mp4", None, None),
    ]


def test_a_split_column_filters_and_class_names_come_from_every_row(touch: Touch) -> None:
    text = "path,label,split\na.mp4,x,train\nb.mp4,y,validate\nc.mp4,z,test\n"
    root = touch("a.mp4", "b.mp4", "c.mp4")
    train, val = read(root, text, name="list.csv"), load_dataset("csv", root / "list.csv", "val")
    assert rows(train) == [("a.mp4", "x")]
    assert rows(val) == [("b.mp4", "y")]
    assert train.class_names == val.class_names == ("x", "y", "z")


def test_test_rows_stand_in_for_val_with_a_note(touch: Touch) -> None:
    text = "path,label,split\na.mp4,x,train\nb.mp4,y,test\n"
    dataset = read(touch("a.mp4", "b.mp4"), text, name="list.csv", split="val")
    assert rows(dataset) == [("b.mp4", "y")]
    assert "test rows are used for val" in dataset.notes[0]


def test_without_a_split_column_train_and_val_are_a_partition_by_path(touch: Touch) -> None:
    names = [f"v{number}.mp4" for number in range(40)]
    text = "path,label,start,end\n" + "".join(f"{name},x,{s},{s + 1}\n" for name in names for s in (0, 1))
    root = touch(*names)
    train, val = read(root, text, name="list.csv"), load_dataset("csv", root, "val")
    paths = [{video.path.name for video in part.videos} for part in (train, val)]
    assert paths[0] | paths[1] == set(names)
    assert not paths[0] & paths[1]
    assert 0 < len(paths[1]) < 20
    assert "a share of 0.2 of the videos" in val.notes[0]


def test_train_and_val_lists_share_their_class_names(touch: Touch) -> None:
    root = touch("a.mp4", "b.mp4")
    (root / "val.csv").write_text("path,label\nb.mp4,a class of val only\n")
    train = read(root, "path,label\na.mp4,x\n")
    assert train.class_names == load_dataset("csv", root, "val").class_names == ("a class of val only", "x")


def test_the_list_may_lie_elsewhere_with_its_sibling_beside_it(touch: Touch) -> None:
    root = touch("videos/a.mp4", "videos/b.mp4")
    (root / "k400_train_list.txt").write_text("a.mp4 0\n")
    (root / "k400_val_list.txt").write_text("b.mp4 1\n")
    (root / "classes.txt").write_text("abseiling\nair drumming\n")
    val = load_dataset("csv", root / "videos", "val", labels=root / "k400_train_list.txt")
    assert rows(val) == [("b.mp4", "air drumming")]
    assert load_dataset("csv", root / "videos", "train", labels=root / "k400_val_list.txt").videos[0].id == "a.mp4"
    (root / "k400_val_list.txt").unlink()
    with pytest.raises(DatasetError, match=r"no val rows, only train\. Add a list for val beside it"):
        load_dataset("csv", root / "videos", "val", labels=root / "k400_train_list.txt")


def test_numbers_without_names_are_told(touch: Touch) -> None:
    dataset = read(touch("a.mp4", "b.mp4"), "path,label\na.mp4,2.0\nb.mp4,1\n")
    assert dataset.class_names == ("0", "1", "2")
    assert [video.label for video in dataset.videos] == [2, 1]
    assert dataset.notes == (
        "labels are numbers and there is no classes.txt: classes are called '0' to '2', "
        "which means nothing to a text encoder",
        "the smallest label is 1: class '0' has no videos",
    )


def test_a_class_file_gives_the_order_and_refuses_other_names(touch: Touch) -> None:
    root = touch("a.mp4")
    (root / "classes.txt").write_text("zebra\nape\n")
    assert read(root, "path,label\na.mp4,ape\n").videos[0].label == 1
    with pytest.raises(
        DatasetError, match=r"train.csv:2: label 'apes' is none of the 2 classes \(did you mean 'ape'\?\)"
    ):
        read(root, "path,label\na.mp4,apes\n")
    with pytest.raises(DatasetError, match=r"train.csv:2: label '2' is none of the 2 classes"):
        read(root, "path,label\na.mp4,2\n")


def test_rows_without_labels_and_videos_not_on_disk_are_counted(touch: Touch) -> None:
    dataset = read(touch("a.mp4"), "path,label\na.mp4,x\nb.mp4,\n")
    assert rows(dataset) == [("a.mp4", "x"), ("b.mp4", None)]
    assert dataset.notes == ("1 rows carry no label", "1 of 2 listed videos are not on disk: 'b.mp4'")


def test_a_row_repeated_word_for_word_counts_once_and_another_label_is_an_error(touch: Touch) -> None:
    root = touch("a.mp4")
    dataset = read(root, "path,label\na.mp4,x\na.mp4,x\n")
    assert len(dataset) == 1
    assert "1 rows repeat an earlier row word for word (first " in dataset.notes[0]
    with pytest.raises(
        DatasetError, match=r"train.csv:3: id 'a.mp4' stands already at .*train.csv:2, with other values"
    ):
        read(root, "path,label\na.mp4,x\na.mp4,y\n")


def test_absolute_paths_inside_the_root_are_taken(touch: Touch) -> None:
    root = touch("sub/a.mp4")
    dataset = read(root, f"path,label\n{root}/sub/a.mp4,x\n")
    assert dataset.videos[0].path == root / "sub/a.mp4"


def test_undecodable_bytes_find_their_file_and_a_clean_id(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    dataset = read(tmp_path, b"path,label\ncaf\xe9.mp4,d\xe9but\n")
    assert rows(dataset) == [("caf\\xe9.mp4", "d\\xe9but")]
    assert dataset.notes == ()
    assert dataset.videos[0].path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train.csv: the file is empty"),
        ("\n \r\n", "the file is empty"),
        ("path,label\n", "no rows are left for train"),
        (
            "path,label\na.mp4,x,y\n",
            r"train.csv:2: 3 fields, but the header has 2 \(path,label\)\. A field that holds ','",
        ),
        ("path,label\r\n\r\na.mp4\r\n", r"train.csv:3: 1 fields, but the header has 2"),
        ('path,label\n"a.mp4,x\n', r"train.csv:2: .*is a quote left open"),
        ('path,label\n"a\nb.mp4",x\nc.mp4\n', r"train.csv:4: 1 fields"),
        ("path,path,label\na,b,c\n", "header names 'path' more than once"),
        ("label,youtube_id,time_start\nx,abc,3\n", "header without a path column: 'label', 'youtube_id', 'time_start'"),
        ("path,label\n,x\n", r"train.csv:2: the path is empty"),
        ("path,label,start,end\na.mp4,x,zero,1\n", r"train.csv:2: start is 'zero', expected seconds such as 12\.5"),
        ("path,label,start,end\na.mp4,x,-1,1\n", "start is '-1'"),
        ("path,label,start,end\na.mp4,x,nan,1\n", "start is 'nan'"),
        ("path,label,start,end\na.mp4,x,2,2\n", "segment ends at 2 s, which is not after its start at 2 s"),
        ("path,label,split\na.mp4,x,training\na.mp4,x,\n", r"train.csv:3: split is '', expected train, val or test"),
        ("path,label\n../a.mp4,x\n", r"train.csv:2: '../a.mp4' leaves the data set"),
        ("path,label\nsub/../../a.mp4,x\n", "leaves the data set"),
        ("path,label\n/etc/passwd,x\n", "train.csv:2: '/etc/passwd' leaves the data set"),
        ("path,label\n.,x\n", "leaves the data set"),
        ("path,label\na\0.mp4,x\n", "is not a path"),
        ("path,label\nhttps://example.org/a.mp4,x\n", "is an address; download the video and list its file"),
        ("path,label\na.mp4,999999\n", "label '999999'; numbers must be below 100000"),
        ("a.mp4 0 3\n", r"train.csv:1: 'a.mp4 0' does not end like a video .* with one label per line"),
        ("a.mp4,0,3\n", "3 fields, expected 'path,label'"),
        ("a.mp4 0\nb.mp4\n", "train.csv:2: 1 fields, expected 'path label'"),
        ("a.mp4\nb.mp4 1\n", "train.csv:2: 2 fields, expected 'path'"),
        ("missing.mp4,0\n", "none of the 1 listed videos is on disk"),
        ("\x89PNG\r\n\x1a\n", "does not end like a video"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_what_was_expected(touch: Touch, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(touch("a.mp4", "b.mp4"), text)


def test_a_link_that_leaves_the_root_is_refused(touch: Touch, tmp_path_factory: pytest.TempPathFactory) -> None:
    root, outside = touch("a.mp4"), tmp_path_factory.mktemp("outside")
    (outside / "x.mp4").write_bytes(b"x")
    (root / "folder").symlink_to(outside)
    (root / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(DatasetError, match=r"train.csv:3: 'folder/x.mp4' leaves the data set"):
        read(root, "path,label\na.mp4,x\nfolder/x.mp4,x\n")
    assert len(read(root, "path,label\na.mp4,x\nloop.mp4,x\n").notes) == 1  # listed; reading it gives the reason


def test_no_list_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"(?s)no list of videos\. Looked for train, val and list .*\.csv, \.tsv, \.txt"
    ):
        load_dataset("csv", tmp_path, "train")


SAMPLES = "annotations/samples"


@pytest.mark.parametrize(
    ("name", "first", "label", "count"),
    [
        ("k400_kinetics_video_val_se320_sample.txt", "0wR5jVB-WPk.mp4", 0, 0),
        ("mmaction2_video_test_list.txt", "test.mp4", 0, 1),
        ("ucf101_testlist01_sample.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", None, 0),
    ],
)
def test_real_lists_parse(
    touch: Touch, fixtures_dir: Path, name: str, first: str, label: int | None, count: int
) -> None:
    file = fixtures_dir / SAMPLES / name
    dataset = load_dataset("csv", touch(first), "val", labels=file)
    assert (dataset.videos[0].id, dataset.videos[0].label) == (first, label)
    assert len(dataset) == (count or len(file.read_text().split("\n")) - file.read_text().endswith("\n"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip_video_encode_test_list.csv", r"csv:4: 'https://www.youtube.com/watch\?v=a8DM-tD9w2I' is an address"),
        ("mmaction2_rawframe_test_list_multi_label.txt", r"txt:2: 'imgs 5 3 5' does not fit the other lines"),
        ("mmaction2_video_test_list_multi_label.txt", r"txt:1: 'test.mp4 0' does not end like a video"),
        ("kinetics-400_val_sample.csv", r"csv:1: a header without a path column: 'label', 'youtube_id'"),
        ("mmaction2_audio_test_list.txt", r"none of the 1 listed videos is on disk"),
        ("mmaction2_rawvideo_test_anno.txt", r"none of the 1 listed videos is on disk"),
        ("mmaction2_rawvideo_test_anno.json", r"json: entry 1: positive_clip_inds is \[0\]; one value is read"),
    ],
)
def test_real_lists_of_other_forms_are_refused_with_the_reason(
    touch: Touch, fixtures_dir: Path, name: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset("csv", touch("tests/test_videos/vid1.mp4"), "val", labels=fixtures_dir / SAMPLES / name)
