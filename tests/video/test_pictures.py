"""Folders of pictures: read through the same door, in the order of their numbers, and never with a hole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.pictures import _missing
from vidxfer.pipeline.video.reader import Limits, open_video

from .conftest import barcoded, numbers_of


def folder_of(path: Path, names: list[str], frames: np.ndarray | None = None, **save) -> Path:
    """A folder whose i-th name holds barcoded frame i."""
    path.mkdir(exist_ok=True)
    for name, picture in zip(names, barcoded(len(names)) if frames is None else frames, strict=True):
        Image.fromarray(picture).save(path / name, **save)
    return path


def refusal(path: Path, **options) -> VideoError:
    with pytest.raises(VideoError) as caught, open_video(path, **options) as source:
        source.read(range(source.frame_count))
    return caught.value


@pytest.mark.parametrize("pattern", ["{:05d}.jpg", "img_{:05d}.jpg", "{}.png", "image-{}.JPEG", "frame 2 {:03d}.bmp"])
@pytest.mark.parametrize("first", [0, 1, 8])
def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path, pattern, first):
    names = [pattern.format(first + number) for number in range(12)]
    folder = folder_of(tmp_path / "12", names)
    for other in (".hidden_00001.jpg", "Thumbs.db", "flow_x_00001.jpg", "x_00001.jpg", "n_frames"):
        (folder / other).touch()
    with open_video(folder) as source:
        assert (source.frame_count, source.height, source.width, source.decoder) == (12, 64, 96, "pictures")
        found = source.read([11, 0, 3, 3, 10])
        assert numbers_of(found.pixels) == [11, 0, 3, 3, 10]
        assert (found.decoder, list(found.indices)) == ("pictures", [11, 0, 3, 3, 10])
        assert np.isnan(found.pts_seconds).all()
        assert names[0] in source.why
        source.decode_all()


def test_pictures_have_pillows_pixels_turned_by_their_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    folder = folder_of(tmp_path / "turned", ["1.jpg", "2.jpg"], exif=exif)
    with open_video(folder) as source:
        assert (source.height, source.width) == (96, 64)
        stored = np.asarray(Image.open(folder / "2.jpg"))
        assert np.array_equal(source.read([1]).pixels[0], np.rot90(stored, -1))


def test_a_gap_is_an_error_that_lists_what_is_missing(tmp_path):
    folder = folder_of(tmp_path / "gaps", ["1.png", "2.png", "5.png", "20.png"])
    error = refusal(folder)
    assert error.reason == VideoReason.MISSING_FRAMES
    assert error.detail == "pictures 1 to 20, missing: 3, 4, 6, 7, 8 and 11 more"


@given(st.sets(st.integers(0, 60), min_size=2))
def test_the_first_missing_numbers_are_listed(numbers):
    ordered = sorted(numbers)
    expected = [number for number in range(ordered[0], ordered[-1]) if number not in numbers]
    assert _missing(ordered) == expected[:5]


def test_two_series_repeats_sizes_and_depths_are_refused(tmp_path):
    assert refusal(folder_of(tmp_path / "a", ["a_1.png", "b_1.png"])).reason == VideoReason.NOT_A_VIDEO
    twice = refusal(folder_of(tmp_path / "b", ["01.png", "1.png"]))
    assert (twice.reason, twice.detail) == (VideoReason.NOT_A_VIDEO, "number 1 twice: 01.png, 1.png")
    mixed = folder_of(tmp_path / "c", ["1.png", "2.png"])
    Image.new("RGB", (10, 20)).save(mixed / "3.png")
    error = refusal(mixed)
    assert (error.reason, error.detail) == (VideoReason.CHANGING_SIZE, "1.png has 96 x 64 px, 3.png 10 x 20 px")
    deep = tmp_path / "d"
    deep.mkdir()
    Image.new("I;16", (10, 20)).save(deep / "1.png")
    assert refusal(deep).detail == "1.png: I;16 pixels, expected 8 bits per colour"


def test_damaged_pictures_and_things_that_are_none_are_refused(tmp_path):
    for number, (damage, reason) in enumerate(
        [
            (lambda path: path.write_bytes(path.read_bytes()[:-200]), VideoReason.DECODE_FAILED),
            (lambda path: path.write_bytes(b"no picture"), VideoReason.DECODE_FAILED),
            (lambda path: path.write_bytes(b""), VideoReason.EMPTY),
            (lambda path: (path.unlink(), os.mkfifo(path)), VideoReason.NOT_REGULAR),
            (lambda path: (path.unlink(), path.symlink_to(path)), VideoReason.NOT_REGULAR),
        ]
    ):
        folder = folder_of(tmp_path / str(number), ["1.jpg", "2.jpg", "3.jpg"])
        damage(folder / "2.jpg")
        error = refusal(folder)
        assert error.reason == reason
        assert "2.jpg" in str(error)


def test_folders_have_limits(tmp_path):
    folder = folder_of(tmp_path / "l", ["1.jpg", "2.jpg", "3.jpg"])
    assert refusal(folder, limits=Limits(frames=2)).reason == VideoReason.TOO_LARGE
    assert refusal(folder, limits=Limits(picture_px=100)).reason == VideoReason.TOO_LARGE
    assert refusal(folder, limits=Limits(seconds=0)).reason == VideoReason.TOO_SLOW
    assert refusal(folder, start_seconds=1.0).reason == VideoReason.BAD_SEGMENT
    cut = refusal(folder, start_seconds=0.5 / 30, end_seconds=3.5 / 30)
    assert "3 pictures, asked for those from 1 up to 4" in str(cut)
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").reason == VideoReason.NOT_REGULAR
