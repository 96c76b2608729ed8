"""What is odd in how a picture is to be shown: whole, in part, by PyAV or by decord, the picture is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from vidxfer.pipeline.video.reader import open_video

from .odd_files import HEVC, ORIENTATION, VP9, X264, colours, filtered, joined, made, together, turned, with_sei

BASE, OTHER, FLAT = "base.mp4", "other.mp4", "flat.mp4"
NOT_FIRST = [Disposition(0), Disposition.default]
Maker = Callable[[Path, Path], object]
"""(folder of the files above, the file to make)"""


def metadata(text: str, source: str = BASE) -> Maker:
    codec = "hevc" if source.startswith("hevc") else "h264"
    return lambda sources, path: filtered(sources / source, path, f"{codec}_metadata={text}")


def matrix(degrees: float, source: str = BASE, **mirror: bool) -> Maker:
    return lambda sources, path: filtered(sources / source, path, "null", change=turned(degrees, **mirror))


def coded(**options: str) -> Maker:
    return lambda sources, path: made(path, colours(), options={**X264, **options})


def sei(codec: str, numbers: set[int]) -> Maker:
    source = BASE if codec == "h264" else "hevc.mp4"
    return lambda sources, path: with_sei(sources / source, path, ORIENTATION[codec], numbers)


KEYS = {0, 8, 16, 24, 32}
# name -> (how it is made, what the gate has against it; None: decord reads it, and its frames are PyAV's)
ODD: dict[str, tuple[Maker, str | None]] = {
    "roll 90.mkv": (matrix(90), "outside mov/mp4"),
    "roll 180.mkv": (matrix(180), "outside mov/mp4"),
    "roll 180 vp9.webm": (matrix(180, "vp9.webm"), "outside mov/mp4"),
    "roll 180 hevc.mkv": (matrix(180, "hevc.mp4"), "outside mov/mp4"),
    "mirrored.mkv": (matrix(0, hflip=True), "outside mov/mp4"),
    "flat, roll 180.mkv": (matrix(180, FLAT), "outside mov/mp4"),
    "turned 90.mp4": (matrix(90), None),
    "turned 180.mp4": (matrix(180), None),
    "turned 270.mp4": (matrix(-90), None),
    "mirrored.mp4": (matrix(0, hflip=True), None),
    "second of two.mp4": (lambda s, p: together(p, [s / BASE, s / OTHER], NOT_FIRST), "2 video streams"),
    "second of two.mkv": (lambda s, p: together(p, [s / BASE, s / OTHER], NOT_FIRST), "2 video streams"),
    "first of two.mkv": (lambda s, p: together(p, [s / BASE, s / OTHER], NOT_FIRST[::-1]), "2 video streams"),
    "hearing impaired.mkv": (
        lambda s, p: together(p, [s / BASE, s / OTHER], [Disposition.hearing_impaired, Disposition(0)]),
        "2 video streams",
    ),
    "top field first.mp4": (coded(**{"x264-params": "tff=1"}), "interlaced frames"),
    "bottom field first.mkv": (coded(**{"x264-params": "bff=1"}), "interlaced frames"),
    "interlaced in the middle.mkv": (
        lambda s, p: joined(p, [(s / BASE, 16), (s / "fields.mp4", 8), (s / BASE, 40)]),
        "sequence headers that change",
    ),
    "orientation, all h264.mp4": (sei("h264", set(range(40))), "other pixels"),
    "orientation, all h264.mkv": (sei("h264", set(range(40))), "outside mov/mp4"),
    "orientation, key frames.mp4": (sei("h264", KEYS), "change on the way"),
    "orientation, first frame.mp4": (sei("h264", {0}), "change on the way"),
    "orientation, one later.mp4": (sei("h264", {8}), "change on the way"),
    "orientation, hevc first.mp4": (sei("hevc", {0}), "other pixels"),
    "orientation, hevc later.mp4": (sei("hevc", {16}), "change on the way"),
    "cropped.mp4": (metadata("crop_left=8:crop_top=6:crop_right=4:crop_bottom=2"), "frame"),
    "cropped two columns.mkv": (metadata("crop_left=2:crop_right=2"), "frame"),
    "cropped hevc.mp4": (metadata("crop_left=8:crop_top=6", "hevc.mp4"), "frame"),
    "full range.mp4": (metadata("video_full_range_flag=1"), None),
    "bt709.mkv": (metadata("matrix_coefficients=1"), None),
    "bt2020.mp4": (metadata("matrix_coefficients=9", "hevc.mp4"), None),
    "range on the way.mkv": (
        lambda s, p: joined(p, [(s / BASE, 16), (s / "full.mp4", 8), (s / BASE, 40)]),
        "sequence headers that change",
    ),
    "matrix on the way.mkv": (
        lambda s, p: joined(p, [(s / BASE, 16), (s / "bt709.mp4", 8), (s / BASE, 40)]),
        "sequence headers that change",
    ),
    "full range vp9.webm": (lambda s, p: filtered(s / "vp9.webm", p, "vp9_metadata=color_range=pc"), None),
    "bt2020 vp9.webm": (lambda s, p: filtered(s / "vp9.webm", p, "vp9_metadata=color_space=bt2020"), None),
    "wide pixels.mp4": (metadata("sample_aspect_ratio=4/3"), None),
    "alpha vp9.webm": (lambda s, p: made(p, colours(), codec="libvpx-vp9", options=VP9, pix_fmt="yuva420p"), None),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    made(folder / BASE, colours())
    made(folder / OTHER, colours(seed=3))
    flat = colours()
    flat[[0, 19, 39]] = 40  # what is compared first, in the middle and last, looks the same upside down
    made(folder / FLAT, flat, options={"preset": "veryfast", "g": "8", "bf": "2", "qp": "0"})  # without loss
    made(folder / "hevc.mp4", colours(), codec="libx265", options=HEVC)
    made(folder / "vp9.webm", colours(), codec="libvpx-vp9", options=VP9)
    made(folder / "fields.mp4", colours(), options={**X264, "x264-params": "tff=1"})
    filtered(folder / BASE, folder / "full.mp4", "h264_metadata=video_full_range_flag=1")
    filtered(folder / BASE, folder / "bt709.mp4", "h264_metadata=matrix_coefficients=1")
    return folder


def turned_as_the_first(path: Path) -> np.ndarray:
    """The reference: every frame on its own, by PyAV with nothing kept from one to the next, turned as the first."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.best("video")))
    turns = (int(frames[0].rotation) // 90) % 4
    return np.stack([np.rot90(frame.to_ndarray(format="rgb24"), turns) for frame in frames])


@pytest.mark.parametrize("name", ODD)
def test_every_way_to_a_frame_leads_to_the_same_picture(sources, tmp_path, name):
    maker, against = ODD[name]
    path = tmp_path / name
    maker(sources, path)
    reference = turned_as_the_first(path)
    for decoder in ("auto", "decord"):
        with open_video(path, decoder=decoder) as source:
            assert (source.decoder == "decord") == (decoder == "decord" and against is None), source.why
            assert against is None or decoder == "auto" or against in source.why
            frames = source.read(range(source.frame_count))
            assert frames.decoder == source.decoder
        assert np.array_equal(frames.pixels, reference)
    for start in (0.0, 0.64, 1.2):
        with open_video(path, start_seconds=start, end_seconds=start + 0.3) as segment:
            part = segment.read(range(segment.frame_count))
        inside = (frames.pts_seconds >= start) & (frames.pts_seconds < start + 0.3)
        assert np.array_equal(part.pixels, reference[inside])
    with open_video(path, known_good=True) as again:  # as training does
        assert np.array_equal(again.read([39, 17, 5]).pixels, reference[[39, 17, 5]])


def test_matroska_roll_is_the_file_turned(sources, tmp_path):
    matrix(180)(sources, tmp_path / "roll.mkv")
    with open_video(sources / BASE) as upright, open_video(tmp_path / "roll.mkv", decoder="decord") as roll:
        expected = upright.read(range(40)).pixels[:, ::-1, ::-1]
        assert np.array_equal(roll.read(range(40)).pixels, expected)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_two_streams_the_default_one_is_read(sources, tmp_path, suffix):
    path = together(tmp_path / f"two.{suffix}", [sources / BASE, sources / OTHER], NOT_FIRST)
    with open_video(sources / OTHER) as alone, open_video(path, decoder="decord") as both:
        assert np.array_equal(both.read(range(40)).pixels, alone.read(range(40)).pixels)


def test_the_frames_compared_include_one_that_is_not_flat(sources, tmp_path):
    """Turned in the bitstream, which decord does not read: the three flat frames alone would not show it."""
    path = with_sei(sources / FLAT, tmp_path / "flat.mp4", ORIENTATION["h264"], set(range(40)))
    with open_video(path, decoder="decord") as source:
        assert source.decoder == "pyav-sequential"
        assert "other pixels" in source.why
