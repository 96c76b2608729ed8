"""Pixels that are not square: as they are stored, or, where asked, resized; in extraction, training and segments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.draw import draw
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.training.dense import dense_frames
from vidxfer.pipeline.video.reader import open_video

from .odd_files import colours, filtered, made, turned


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """96 x 128 stored pixels, each 4 wide and 3 high: a picture of 96 x 171 (128 * 4 / 3 = 170.67)."""
    folder = tmp_path_factory.mktemp("wide")
    made(folder / "base.mp4", colours())
    return filtered(folder / "base.mp4", folder / "wide.mp4", "h264_metadata=sample_aspect_ratio=4/3")


def stored(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_by_default_they_are_taken_as_stored(wide, decoder):
    with open_video(wide, decoder=decoder) as source:
        assert (source.height, source.width, source.pixel_aspect) == (96, 128, "4:3")
        assert np.array_equal(source.read([5, 30]).pixels, stored(wide)[[5, 30]])


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_where_asked_the_width_grows_by_the_aspect(wide, decoder):
    pictures = [Image.fromarray(picture).resize((171, 96), Image.Resampling.BILINEAR) for picture in stored(wide)]
    expected = np.stack([np.asarray(picture) for picture in pictures])
    with open_video(wide, decoder=decoder, square_pixels=True) as source:
        assert (source.height, source.width) == (96, 171)
        assert source.decoder.startswith("pyav-")
        found = source.read([5, 30])
        assert np.array_equal(found.pixels, expected[[5, 30]])
    with open_video(wide, start_seconds=0.64, square_pixels=True) as segment:
        assert np.array_equal(segment.read([0]).pixels, expected[[16]])
    with open_video(wide, known_good=True, square_pixels=True) as again:
        assert np.array_equal(again.read([33]).pixels, expected[[33]])


def test_the_stored_width_grows_and_then_the_picture_is_turned(wide, tmp_path):
    path = filtered(wide, tmp_path / "turned.mp4", "null", change=turned(90))
    with open_video(wide, square_pixels=True) as source, open_video(path, square_pixels=True) as upright:
        assert (upright.height, upright.width) == (171, 96)
        assert np.array_equal(upright.read([7]).pixels, np.rot90(source.read([7]).pixels, 1, axes=(1, 2)))


def test_narrow_pixels_make_it_narrower_and_square_ones_leave_it(wide, tmp_path):
    narrow = filtered(wide, tmp_path / "narrow.mkv", "h264_metadata=sample_aspect_ratio=8/9")
    square = filtered(wide, tmp_path / "square.mkv", "h264_metadata=sample_aspect_ratio=1/1")
    with open_video(narrow, square_pixels=True) as source:
        assert (source.height, source.width, source.pixel_aspect) == (96, 114, "8:9")  # 128 * 8 / 9 = 113.8
    with open_video(square, square_pixels=True, decoder="decord") as source:
        assert (source.height, source.width, source.pixel_aspect) == (96, 128, "1:1")
        assert source.decoder == "decord"


def test_views_are_drawn_and_replayed_on_the_square_picture(wide, request):
    """A training view is replayed from the dense frames as extraction saw them: the same numbers, by both ways."""
    spec = open_split(request.config.rootpath / "tests/cache/format1/int8", "train").spec
    spec = replace(spec, sampling=replace(spec.sampling, grey_probability=0.0))
    video = Video(id="x", path=wide, label=0, split="train")
    as_stored, squared = draw(video, spec), draw(video, replace(spec, square_pixels=True))
    assert (as_stored.source_px, squared.source_px) == ((96, 128), (96, 171))
    assert squared.pixel_aspect == "4:3"
    view = squared.views[0]
    replayed = dense_frames(video, view, replace(spec, square_pixels=True), 40)
    top, left, height, width = (int(side) for side in view.crop)
    with open_video(wide, square_pixels=True) as source:
        pixels = source.read(view.indices).pixels
    box = torch.from_numpy(pixels[:, top : top + height, left : left + width].copy()).permute(0, 3, 1, 2) / 255
    side = spec.sampling.image_px
    clip = torch.nn.functional.interpolate(box, size=(side, side), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (spec.pixel_mean, spec.pixel_std))
    expected = (clip - mean) / std
    assert torch.allclose(replayed, expected.flip(-1) if view.flip else expected, atol=1e-5)


def test_the_field_is_left_out_where_it_is_false(request):
    spec = open_split(request.config.rootpath / "tests/cache/format1/int8", "train").spec
    asked = replace(spec, square_pixels=True)
    assert "square_pixels" not in spec.to_dict()
    assert asked.to_dict()["square_pixels"] is True
    assert asked.fingerprint != spec.fingerprint
    assert type(spec).from_dict(asked.to_dict()) == asked
