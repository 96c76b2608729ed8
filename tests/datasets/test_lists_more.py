"""Lists beyond csv: parquet, frame folders with and without an offset, `::`, metadata files; hostile paths."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.kinetics_disk import parse_name
from vidxfer.pipeline.datasets.paths import clean_text
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.video.reader import open_video

Touch = Callable[..., Path]


def read(root: Path, text: str, *, name: str = "train.txt") -> Dataset:
    (root / name).write_text(text)
    return load_dataset("csv", root / name, "train")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of eight pictures whose grey is ten times their number."""
    from PIL import Image

    (tmp_path / "imgs").mkdir()
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(tmp_path / f"imgs/img_{number + 1:05d}.png")
    return tmp_path


def greys(dataset: Dataset, row: int = 0) -> list[int]:
    video = dataset.videos[row]
    with open_video(video.path, start_seconds=video.start_seconds, end_seconds=video.end_seconds) as source:
        return [int(value) // 10 for value in source.read(range(source.frame_count)).pixels[:, 0, 0, 0]]


@given(st.integers(0, 7), st.integers(1, 8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12, deadline=None)
def test_an_offset_means_the_pictures_behind_it_and_no_others(pictures: Path, offset: int, frames: int) -> None:
    dataset = read(pictures, f"imgs {offset} {frames} 3\n")
    assert dataset.videos[0].id == f"imgs@{offset}+{frames}"
    if offset + frames <= 8:
        assert greys(dataset) == list(range(offset, offset + frames))
    else:
        with pytest.raises(Exception, match="8 pictures, asked for those from"):
            greys(dataset)


def test_without_an_offset_the_folder_is_the_video_whatever_the_list_counts(pictures: Path) -> None:
    dataset = read(pictures, "imgs 5 3\n")
    assert (dataset.videos[0].id, dataset.videos[0].start_seconds) == ("imgs", None)
    assert greys(dataset) == list(range(8))


def test_seconds_do_not_cut_a_folder_of_pictures(pictures: Path) -> None:
    with pytest.raises(DatasetError, match=r"csv:2: seconds cannot cut 'imgs', a folder of pictures without a clock"):
        read(pictures, "path,label,end\nimgs,x,1.5\n", name="train.csv")


@pytest.mark.parametrize("name", ["mmaction2_rawframe_test_list.txt", "mmaction2_rawframe_test_list_with_offset.txt"])
def test_real_lists_of_frame_folders_are_read(pictures: Path, fixtures_dir: Path, name: str) -> None:
    dataset = load_dataset("csv", pictures, "val", labels=fixtures_dir / "annotations/samples" / name)
    offset = "offset" in name
    assert [(v.id, v.label, v.path) for v in dataset.videos] == [
        ("imgs@2+5" if offset else "imgs", 127, pictures / "imgs")
    ]
    assert greys(dataset) == (list(range(2, 7)) if offset else list(range(8)))
    assert "1 rows repeat an earlier row word for word" in dataset.notes[-1]


def test_a_real_list_of_kinetics_frames_keeps_ids_that_begin_with_a_dash(touch: Touch, fixtures_dir: Path) -> None:
    labels = fixtures_dir / "annotations/samples/k400_kinetics_rgb_val_se320_sample.txt"
    root = touch("val/--07WQ2iBlw/img_00001.jpg", "val/-1XzFG0hqAI/img_00001.jpg", "val/x.mp4")
    dataset = load_dataset("k400", root, "val", labels=labels)
    assert len(dataset) == 200
    found = {video.id: video for video in dataset.videos}
    assert found["--07WQ2iBlw"].path == root / "val/--07WQ2iBlw"
    assert dataset.class_names[found["--07WQ2iBlw"].label or 0] == "javelin throw"


def test_a_real_list_of_kinetics_files_finds_clips_whose_names_have_times(touch: Touch, fixtures_dir: Path) -> None:
    labels = fixtures_dir / "annotations/samples/k400_kinetics_video_val_se320_sample.txt"
    root = touch("val/0wR5jVB-WPk_000417_000427.mp4", "val/__NrybzYzUg.mkv")
    dataset = load_dataset("k400", root, "val", labels=labels)
    assert len(dataset) == 400
    assert dataset.videos[0].path.name == "0wR5jVB-WPk_000417_000427.mp4"
    assert dataset.videos[1].path.name == "__NrybzYzUg.mkv"
    assert (dataset.class_names[0], dataset.videos[0].label) == ("abseiling", 0)


def test_two_colons_divide_where_paths_hold_blanks(touch: Touch) -> None:
    dataset = read(touch("a b.mp4", "c::d.mp4"), "a b.mp4::open a door\nc::d.mp4::close it\n")
    assert [(v.id, dataset.class_names[v.label or 0]) for v in dataset.videos] == [
        ("a b.mp4", "open a door"),
        ("c::d.mp4", "close it"),
    ]


def test_metadata_files_mean_paths_beside_themselves(touch: Touch) -> None:
    root = touch("train/a.mp4", "validation/b.mp4")
    (root / "train/metadata.csv").write_text("file_name,label\na.mp4,x\n")
    (root / "validation/metadata.csv").write_text("file_name,label\nb.mp4,x\n")
    found = load_dataset("csv", root, "val")
    assert [(v.id, v.path.exists()) for v in found.videos] == [("validation/b.mp4", True)]


def test_parquet_is_a_list_with_a_header(touch: Touch) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    root = touch("a.mp4", "-b, c.mp4")
    columns = {
        "video_path": ["a.mp4", "-b, c.mp4"],
        "label": ["x", "y, z"],
        "start": [0.5, float("nan")],
        "end": [2.0, None],
        "split": ["train", "validation"],
        "other": [1, 2],
    }
    parquet.write_table(pyarrow.table(columns), root / "list.parquet")
    train, val = (load_dataset("csv", root, split) for split in ("train", "val"))
    assert [(v.id, v.start_seconds, v.end_seconds) for v in train.videos] == [("a.mp4@0.5-2.0", 0.5, 2.0)]
    assert [(v.id, v.start_seconds, v.label) for v in val.videos] == [("-b, c.mp4", None, 1)]
    parquet.write_table(pyarrow.table({"label": [1]}), root / "list.parquet")
    with pytest.raises(DatasetError, match="no path column among label"):
        load_dataset("csv", root, "train")
    (root / "list.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DatasetError, match="cannot be read as parquet"):
        load_dataset("csv", root, "train")


def test_parquet_without_its_extra_says_what_to_install(touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch("list.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"reading parquet needs pyarrow: pip install 'vidxfer\[parquet\]'"):
        load_dataset("csv", root, "train")


def test_several_labels_per_video_are_refused(touch: Touch) -> None:
    with pytest.raises(DatasetError, match=r"csv:2: '0;3' are several labels; one label per video is read"):
        read(touch("a.mp4"), "path,label\na.mp4,0;3\n", name="train.csv")
    with pytest.raises(DatasetError, match="a list of single frames, as PySlowFast has them"):
        read(touch("a.mp4"), 'original_vido_id video_id frame_id path labels\n1 0 0 1/1_000001.jpg ""\n')


YOUTUBE = st.text("ABCXYZabcxyz0129_-", min_size=11, max_size=11)


@given(YOUTUBE, st.integers(0, 999_999), st.integers(0, 999_999))
def test_any_youtube_id_is_read_back_from_its_file_name(id_: str, start: int, end: int) -> None:
    assert parse_name(f"{id_}_{start:06d}_{end:06d}") == (id_, start, end)


@given(st.text(min_size=1, max_size=30))
def test_clean_text_is_one_printable_line_of_utf8_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    assert "\n" not in cleaned
    assert "\0" not in cleaned
    cleaned.encode("utf-8")
    if text.isprintable():
        assert cleaned == text


@given(st.lists(st.sampled_from(["..", ".", "a", "/", "b\\..\\c", "link", "\0", "~"]), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_path_of_a_list_leaves_the_root(tmp_path: Path, parts: list[str]) -> None:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("..")
    listed = "/".join(parts) + "/x.mp4"
    (root / "x.mp4").touch()
    try:
        dataset = read(root, f'path,label\n"{listed}",1\nx.mp4,1\n', name="train.csv")
    except DatasetError:
        return
    assert all(video.path.resolve().is_relative_to(root.resolve()) for video in dataset.videos)
