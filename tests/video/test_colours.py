"""Frames whose tags FFmpeg cannot convert are read as decord and older FFmpeg read them, or refused as that video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video import decode
from vidxfer.pipeline.video.reader import open_video

from .conftest import X264, encode


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of saturated blocks, in h264 without any colour tag."""
    rng = np.random.Generator(np.random.PCG64(3))
    blocks = rng.integers(0, 256, (12, 4, 6, 3), dtype=np.uint8)
    frames = blocks.repeat(16, axis=1).repeat(16, axis=2)
    return encode(tmp_path_factory.mktemp("colours") / "a.mp4", frames, codec="libx264", options={**X264, "bf": "0"})


def tagged(source: Path, target: Path, **tags: int) -> Path:
    """A copy of an h264 file with other colour tags in its stream; not one picture is encoded again."""
    settings = ":".join(f"{name}={value}" for name, value in tags.items())
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        written = BitStreamFilterContext(f"h264_metadata={settings}", stream, copied)
        for packet in [*container.demux(stream), None]:
            for changed in written.filter(packet if packet is not None and packet.size else None):
                changed.stream = copied
                out.mux(changed)
    return target


@pytest.mark.parametrize("matrix", range(16))
def test_every_colour_matrix_is_read_alike_by_both_decoders_whole_and_in_part(matrix, coloured, tmp_path):
    path = tagged(coloured, tmp_path / "tagged.mp4", matrix_coefficients=matrix)
    with open_video(path, decoder="decord") as whole:
        expected = whole.read([0, 5])
        assert whole.decoder == "decord", whole.why
    with open_video(path, decoder="pyav") as source:
        np.testing.assert_array_equal(source.read([0, 5]).pixels, expected.pixels)
    start = float(expected.pts_seconds[1])
    with open_video(path, start_seconds=start, end_seconds=start + 0.2) as segment:
        np.testing.assert_array_equal(segment.read([0]).pixels, expected.pixels[1:])


def test_constant_luminance_is_read_as_bt2020_and_not_as_an_older_standard(coloured, tmp_path):
    """The one matrix that has a near relative: the others fall back to what an untagged file is read as."""
    seen = {}
    for matrix in (1, 2, 8, 9, 10):
        path = tagged(coloured, tmp_path / f"{matrix}.mp4", matrix_coefficients=matrix)
        with open_video(path, decoder="pyav") as source:
            seen[matrix] = source.read([3]).pixels
    assert not np.array_equal(seen[9], seen[2])
    assert not np.array_equal(seen[1], seen[2])
    np.testing.assert_array_equal(seen[10], seen[9])
    np.testing.assert_array_equal(seen[8], seen[2])


@pytest.mark.parametrize("tags", [{"colour_primaries": 22}, {"transfer_characteristics": 99}, {"colour_primaries": 3}])
def test_primaries_and_transfer_change_no_pixel(tags, coloured, tmp_path):
    with open_video(tagged(coloured, tmp_path / "t.mp4", **tags), decoder="pyav") as source:
        changed = source.read([3]).pixels
    with open_video(coloured, decoder="pyav") as source:
        np.testing.assert_array_equal(source.read([3]).pixels, changed)


@pytest.mark.parametrize("window", [{}, {"start_seconds": 0.3}])
def test_a_conversion_that_fails_is_a_reason_for_that_video(window, coloured, tmp_path, monkeypatch):
    """As with a matrix that a later FFmpeg gives up: here the list of those it converts is made wrong."""
    monkeypatch.setattr(decode, "MATRICES", set(range(256)))
    path = tagged(coloured, tmp_path / "t.mp4", matrix_coefficients=8)
    with pytest.raises(VideoError) as caught, open_video(path, decoder="pyav", **window) as source:
        source.read([0])
    assert (caught.value.reason, caught.value.path) == (VideoReason.DECODE_FAILED, str(path))
    assert caught.value.detail.startswith("no rgb from a frame in yuv420p, colour matrix 8: ")
