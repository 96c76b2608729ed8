"""Writing small videos: what goes in comes out, whole or not at all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.writer import write_video

from .conftest import barcoded, numbers_of


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx-vp9"), ("a.webm", "libvpx"), ("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.avi", "mpeg4")],
)
def test_frames_come_back_in_order_and_close(tmp_path, name, codec):
    frames = barcoded(24)
    write_video(tmp_path / name, frames, codec=codec)
    with open_video(tmp_path / name) as source:
        found = source.read(range(source.frame_count))
    assert numbers_of(found.pixels) == list(range(24))
    assert np.abs(found.pixels.astype(int) - frames).mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("fps", [12, 29.97, Fraction(30000, 1001), 0.5])
def test_the_rate_is_the_one_asked_for(tmp_path, fps):
    write_video(tmp_path / "a.mp4", barcoded(5), fps=fps, codec="libx264")
    with open_video(tmp_path / "a.mp4") as source:
        assert np.allclose(source.read(range(5)).pts_seconds, np.arange(5) / float(fps), rtol=1e-3)


def test_one_frame_and_an_odd_size_are_fine(tmp_path):
    write_video(tmp_path / "a.webm", barcoded(1)[:, :63, :95])
    with open_video(tmp_path / "a.webm") as source:
        assert (source.frame_count, source.height, source.width) == (1, 63, 95)


def test_an_existing_file_is_replaced_and_a_failure_leaves_it_alone(tmp_path):
    path = tmp_path / "a.webm"
    write_video(path, barcoded(3))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no_such_codec"):
        write_video(path, barcoded(3), codec="no_such_codec")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_frames_and_unknown_suffixes_are_errors(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.webm", np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "a.webm", np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.nonsense"):
        write_video(tmp_path / "a.nonsense", barcoded(2))
    with pytest.raises(OSError, match="No such file"):
        write_video(tmp_path / "no folder" / "a.webm", barcoded(2))
