"""Kinetics as people have it: real rows of the official lists, every packing of the videos, and lists gone wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.kinetics_disk import parse_name
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import class_of_id, clip_of_id, write_toy
from vidxfer.pipeline.errors import DatasetError, UsageError

HEADER = "label,youtube_id,time_start,time_end,split"
VAL = f"""{HEADER}
abseiling,-aJHPlJTesM,734,744,val
"arm wrestling",a_b-c_d_e-f,0,10,validate
"passing American football (in game)",a_b-c_d_e-f,10,20,val
"""
FLAT = ("-aJHPlJTesM_000734_000744.mp4", "a_b-c_d_e-f_000000_000010.mp4", "a_b-c_d_e-f_000010_000020.mp4")
IDS = ("-aJHPlJTesM_734_744", "a_b-c_d_e-f_0_10", "a_b-c_d_e-f_10_20")


@pytest.fixture
def kinetics(tmp_path: Path) -> Callable[..., Path]:
    """Write a val split: a list (text or bytes) and empty video files, both with their paths below the root."""

    def make(*videos: str, val: str | bytes = VAL, list_at: str = "annotations/val.csv", **more: str) -> Path:
        for name, content in {list_at: val, **{f"annotations/{k}.csv": v for k, v in more.items()}}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        for name in videos:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"video")
        return tmp_path

    return make


def load(root: Path, split: str = "val", **settings: Path) -> Dataset:
    return load_dataset("k400", root, split, **settings)


def files(dataset: Dataset) -> list[str]:
    return [video.path.relative_to(dataset.root).as_posix() for video in dataset.videos]


def layout(dataset: Dataset) -> str:
    (found,) = [note for note in dataset.notes if note.startswith("layout: ")]
    return found.removeprefix("layout: ")


def flat(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in FLAT]


@pytest.mark.parametrize(
    ("stem", "parsed"),
    [
        ("---QUuC4vJs_000084_000094", ("---QUuC4vJs", 84, 94)),
        ("a_b_000001__000007_000017", ("a_b_000001_", 7, 17)),
        ("a_000001_00_000007_000017", ("a_000001_00", 7, 17)),
        ("-aJHPlJTesM_7_17", ("-aJHPlJTesM", 7, 17)),
        ("short_000007_000017", ("short", 7, 17)),
        ("jf7RDuUTrsQ", "jf7RDuUTrsQ"),
        ("a_123_45678", "a_123_45678"),  # eleven letters, not an id of one
    ],
)
def test_names_are_read_from_the_right(stem: str, parsed: object) -> None:
    assert parse_name(stem) == parsed


@pytest.mark.parametrize(
    ("folder", "shown"),
    [
        ("val", "CVDF flat in val/"),
        ("validate", "CVDF flat in validate/"),
        ("kinetics400/val_256", "CVDF flat in val_256/"),
        ("k400/videos_val", "CVDF flat in videos_val/"),
        ("videos", "CVDF flat in videos/"),
        ("videos/vol_00", "class folders in videos/"),
    ],
)
def test_flat_folders_of_all_packers_are_found(kinetics: Callable[..., Path], folder: str, shown: str) -> None:
    found = load(kinetics(*flat(folder)))
    assert files(found) == flat(folder)
    assert [video.id for video in found.videos] == list(IDS)
    assert [found.class_names[video.label or 0] for video in found.videos] == list(found.class_names)
    assert layout(found) == shown


PLACES = ("val.csv", "validate.csv", "kinetics400/validate.csv", "k400/annotations/val.csv", "val.txt",
          "annotations/kinetics_val.csv", "annotations/kinetics-400_val.csv")  # fmt: skip


@pytest.mark.parametrize("list_at", PLACES)
def test_lists_are_found_where_people_put_them(kinetics: Callable[..., Path], list_at: str) -> None:
    assert len(load(kinetics(*flat("val"), list_at=list_at))) == 3


def test_class_folders_with_blanks_or_underscores_and_mixed_containers(kinetics: Callable[..., Path]) -> None:
    names = (
        "val_256/abseiling/-aJHPlJTesM_000734_000744.mkv",
        "val_256/arm_wrestling/a_b-c_d_e-f_000000_000010.webm",
        "val_256/passing American football (in game)/a_b-c_d_e-f_000010_000020.mp4",
    )
    found = load(kinetics(*names))
    assert files(found) == list(names)
    assert layout(found) == "class folders in val_256/, endings .mkv .mp4 .webm"
    assert len(found.notes) == 2  # and that there are not 400 classes


def test_names_without_times_mean_the_one_clip_of_their_video(kinetics: Callable[..., Path]) -> None:
    found = load(kinetics("videos_val/-aJHPlJTesM.mp4", "videos_val/a_b-c_d_e-f.mp4"))
    assert files(found)[0] == "videos_val/-aJHPlJTesM.mp4"
    assert not any(video.path.exists() for video in found.videos[1:]), "two clips would be read from one file"
    assert layout(found) == "flat in videos_val/, 2 names without times"
    assert "2 of 3 listed videos are not on disk: 'a_b-c_d_e-f_000000_000010.mp4', " in " ".join(found.notes)
    assert "2 clips share one file without times" in " ".join(found.notes)


def test_replacements_stand_in_for_missing_and_for_corrupted_files(kinetics: Callable[..., Path]) -> None:
    place = "replacement/replacement_for_corrupted_k400"
    found = load(kinetics(*flat("val")[:2], *flat(place)[1:]))
    assert files(found) == [flat("val")[0], *flat(place)[1:]]
    assert "2 videos are from the replacement folder" in found.notes


def test_missing_left_over_and_misplaced_videos_are_counted(kinetics: Callable[..., Path]) -> None:
    found = load(
        kinetics(
            "val/arm wrestling/-aJHPlJTesM_000734_000744.mp4",  # the list says abseiling
            "val/abseiling/a_b-c_d_e-f_000000_000010.mp4",
            "val/arm_wrestling/a_b-c_d_e-f_000000_000010.mp4",
            "val/archery/zzzzzzzzzzz_000000_000010.mp4",
            "val/abseiling/._a_b-c_d_e-f_000010_000020.mp4",
        )
    )
    assert found.class_names[found.videos[0].label or 0] == "abseiling"
    assert files(found)[1] == "val/arm_wrestling/a_b-c_d_e-f_000000_000010.mp4"
    assert found.notes[2:] == (
        "1 of 3 listed videos are not on disk: 'a_b-c_d_e-f_000010_000020.mp4'",
        "1 clips are on disk more than once; the one in the folder of its class is read",
        "1 videos lie in the folder of another class than the list says; the list is believed",
        "1 videos on disk are not listed",
    )


def test_of_k600_the_txt_is_read_since_the_csv_lacks_rows(kinetics: Callable[..., Path]) -> None:
    rows = f"{HEADER}\nabseiling,aaaaaaaaaaa,0,10,val\n"
    root = kinetics("val/aaaaaaaaaaa_000000_000010.mp4", val=rows)
    (root / "annotations/val.txt").write_text(rows + "abseiling,bbbbbbbbbbb,0,10,val\n")
    assert len(load_dataset("k600", root, "val")) == 2
    assert len(load_dataset("k400", root, "val")) == 1
    (root / "annotations/val.txt").write_text("a list of something else\n")
    assert len(load_dataset("k600", root, "val")) == 1


def test_class_names_are_the_same_for_both_splits(kinetics: Callable[..., Path]) -> None:
    train = f"{HEADER}\nzumba,zzzzzzzzzzz,0,10,train\nabseiling,yyyyyyyyyyy,0,10,train\n"
    test = "youtube_id,time_start,time_end,split\nxxxxxxxxxxx,0,10,test\n"
    root = kinetics(*flat("val"), "train/zzzzzzzzzzz_000000_000010.mp4", train=train, test=test)
    assert load(root).class_names == load(root, "train").class_names
    assert load(root).class_names == ("abseiling", "arm wrestling", "passing American football (in game)", "zumba")
    assert load(root).notes[0] == "train.csv and val.csv and test.csv name 4 classes; the whole of k400 has 400"


def test_lists_that_lie_elsewhere_are_named_by_labels(kinetics: Callable[..., Path]) -> None:
    root = kinetics(*flat("here/val"), list_at="there/val.csv")
    assert len(load(root / "here", labels=root / "there")) == 3
    assert len(load(root / "here", labels=root / "there/val.csv")) == 3


@pytest.mark.parametrize(
    "val",
    [
        b"\xef\xbb\xbf" + VAL.encode(),
        VAL.replace("\n", "\r\n").encode(),
        VAL.replace("734,744", "734.0,744.0"),
        VAL.replace("734,744", " 734 , 744 "),
        VAL.upper().replace("ABSEILING", "abseiling").replace("ARM W", "arm w").splitlines()[0] + VAL[len(HEADER) :],
        VAL + "\n\n",
        "is_cc," + "\n0,".join(VAL.strip().splitlines()) + "\n",
    ],
    ids=["bom", "crlf", "floats", "blanks", "upper header", "empty lines", "other columns"],
)
def test_harmless_spellings_mean_the_same(kinetics: Callable[..., Path], val: str | bytes) -> None:
    found = load(kinetics(*flat("val"), val=val))
    assert [video.id for video in found.videos] == list(IDS)
    assert found.class_names[0] == "abseiling"


def test_quotes_and_commas_in_labels_are_kept(kinetics: Callable[..., Path]) -> None:
    rows = '"tying knot, loosely",AAAAAAAAAAA,0,10,val\n"saying ""hello""",BBBBBBBBBBB,0,10,val\n'
    rows += "massaging person's head,CCCCCCCCCCC,0,10,val\n"
    found = load(kinetics("val/AAAAAAAAAAA_000000_000010.mp4", val=f"{HEADER}\n{rows}"))
    assert found.class_names == ("massaging person's head", 'saying "hello"', "tying knot, loosely")


def test_repeated_rows_count_once_and_other_splits_are_left_out(kinetics: Callable[..., Path]) -> None:
    row = "abseiling,-aJHPlJTesM,734,744,val\n"
    found = load(kinetics(*flat("val"), val=VAL + row + row + "x,zzzzzzzzzzz,0,10,holdout\n"))
    assert len(found) == 3
    assert found.notes[:2] == (
        "2 rows of val.csv are repeated and count once",
        "rows of val.csv that name another split are left out: 'holdout' 1",
    )


@pytest.mark.parametrize(
    ("val", "said"),
    [
        (VAL + "archery,-aJHPlJTesM,734,744,val\n", r"val\.csv:5: .*'archery' here and 'abseiling' in line 2"),
        (VAL + ",zzzzzzzzzzz,0,10,val\n", r"val\.csv:5: the label is empty"),
        (VAL + "x,#NAME?,0,10,val\n", r"val\.csv:5: '#NAME\?' is no YouTube id.*spreadsheet"),
        (VAL + "x,../../secret,0,10,val\n", r"'\.\./\.\./secret' is no YouTube id"),
        (VAL + "x,,0,10,val\n", r"'' is no YouTube id"),
        (VAL + "x,zzzzzzzzzzz,10,10,val\n", r"ends at 10 s, which is not after its start"),
        (VAL + "x,zzzzzzzzzzz,1.5,10,val\n", r"time_start is '1\.5', expected whole seconds"),
        (VAL + "x,zzzzzzzzzzz,0,nan,val\n", r"time_end is 'nan'"),
        (VAL + "x,zzzzzzzzzzz,0,inf,val\n", r"time_end is 'inf'"),
        (VAL + "x,zzzzzzzzzzz,-1,10,val\n", r"time_start is '-1'"),
        (VAL + "x, y,zzzzzzzzzzz,0,10,val\n", r"6 fields, but the header has 5 .*must be quoted"),
        (VAL + '"x,zzzzzzzzzzz,0,10,val\n', r"val\.csv:5: .*quote left open"),
        ("abseiling,-aJHPlJTesM,734,744,val\n", r"val\.csv:1: expected the header label,youtube_id"),
        ("youtube_id,time_start,time_end,split\n-aJHPlJTesM,734,744,val\n", r"val\.csv:2: no label"),
        (HEADER + "\n", r"val\.csv: lists no clips of val"),
        ("", r"val\.csv: the file is empty"),
        (VAL.encode("utf-16"), r"UTF-16"),
    ],
)
def test_lists_gone_wrong_are_refused_with_their_line(
    kinetics: Callable[..., Path], val: str | bytes, said: str
) -> None:
    root = kinetics(*flat("val"), val=val)
    with pytest.raises(DatasetError, match=said):
        load(root)


def test_without_the_data_every_place_that_was_tried_is_named(kinetics: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, "train")
    for words in ("train.csv", f"{tmp_path}/annotations\n", f"{tmp_path}/kinetics400\n", "cvdfoundation"):
        assert words in str(caught.value)
    with pytest.raises(DatasetError) as caught:
        load(kinetics("train/zzzzzzzzzzz_000000_000010.mp4"))
    for words in ("val/, ", "validate/", "videos_…", "cvdfoundation"):
        assert words in str(caught.value)
    with pytest.raises(DatasetError, match="none of the 3 listed videos is on disk"):
        load(kinetics("val/zzzzzzzzzzz_000000_000010.mp4"))


def test_links_must_not_leave_their_folder(kinetics: Callable[..., Path], tmp_path: Path) -> None:
    root = kinetics(*flat("data/val"), list_at="data/annotations/val.csv") / "data"
    (tmp_path / "secret").mkdir()
    (root / "val/abseiling").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match="leaves the data set"):
        load(root)


def test_a_split_folder_may_be_a_link_and_links_in_a_circle_end(kinetics: Callable[..., Path], tmp_path: Path) -> None:
    root = kinetics(*flat("disk2"), list_at="data/val.csv") / "data"
    (root / "val").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2/again").symlink_to(tmp_path / "disk2/again")
    assert [video.path.name for video in load(root).videos] == list(FLAT)


@pytest.mark.parametrize(
    ("kind", "sample", "split", "rows"),
    [
        ("k400", "kinetics-400_val_sample.csv", "val", 120),
        ("k600", "kinetics-600_val_sample.csv", "val", 60),
        ("k400", "kinetics-400_rows_of_our_clips.csv", "val", 2),
    ],
)
def test_rows_of_the_official_lists(
    tmp_path: Path, fixtures_dir: Path, kind: str, sample: str, split: str, rows: int
) -> None:
    real = fixtures_dir / "annotations/samples" / sample
    (tmp_path / f"{split}.csv").write_bytes(real.read_bytes())
    (tmp_path / "test.csv").write_bytes((real.parent / "kinetics-400_test_head.csv").read_bytes())
    with real.open(newline="") as file:
        listed = list(csv.DictReader(file))
    (tmp_path / split).mkdir()
    for row in listed:
        name = "{youtube_id}_{0:06d}_{1:06d}.mp4".format(int(row["time_start"]), int(row["time_end"]), **row)
        (tmp_path / split / name).write_bytes(b"video")
    found = load_dataset(kind, tmp_path, split)
    assert len(found) == len(listed) == rows
    assert [found.class_names[video.label or 0] for video in found.videos] == [row["label"] for row in listed]
    assert all(video.path.is_file() for video in found.videos)
    assert [note for note in found.notes if not note.startswith(("layout", "val.csv"))] == []


@pytest.mark.parametrize(("kind", "names"), [("k400", "k400_mmaction2_label_map.txt"),
                                             ("k600", "k600_mmaction2_label_map.txt"),
                                             ("k700", "k700_mmaction2_label_map.txt")])  # fmt: skip
def test_sorted_names_are_numbered_as_others_number_them(
    tmp_path: Path, fixtures_dir: Path, kind: str, names: str
) -> None:
    classes = (fixtures_dir / "annotations/labels" / names).read_text().splitlines()
    with (tmp_path / "val.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER.split(","))
        rows.writerows([name, f"{place:011d}", 0, 10, "val"] for place, name in reversed(list(enumerate(classes))))
    (tmp_path / "val").mkdir()
    (tmp_path / "val/00000000000_000000_000010.mp4").write_bytes(b"video")
    found = load_dataset(kind, tmp_path, "val")
    assert found.class_names == tuple(classes)
    assert not any("classes" in note for note in found.notes)


def test_the_toy_world_in_this_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []

    def write(path: Path, frames: object, *, fps: float, codec: str, crf: int) -> None:
        path.write_bytes(b"video")
        written.append((path.name, codec))

    monkeypatch.setattr("vidxfer.pipeline.video.writer.write_video", write)
    write_toy(tmp_path, layout="k400", train_videos=80, val_videos=16)
    train, val = load(tmp_path, "train"), load(tmp_path)
    assert (len(train), len(val), {codec for _, codec in written}) == (80, 16, {"libx264"})
    names = ToyDesign().class_names
    assert train.class_names == val.class_names == tuple(sorted(names))
    assert train.notes[1:] == ("layout: CVDF flat in train/",)
    for place, video in enumerate(train.videos):
        assert train.class_names[video.label or 0] == names[class_of_id(100_001 + place)]
    ids = [clip_of_id(100_001 + place)[0] for place in range(80)]
    assert all(len(id_) == 11 for id_ in ids)
    assert sum(id_.startswith("-") for id_ in ids) >= 10
    assert len(set(ids)) == 70, "clips that share their video"
    with pytest.raises(DatasetError, match="layout: the folder has 'k400'"):
        write_toy(tmp_path, train_videos=80, val_videos=16)
    with pytest.raises(UsageError, match="unknown layout 'k600'"):
        write_toy(tmp_path, layout="k600")
