"""Refusals: damage, cut ends, limits and files that are no videos are typed errors, and quick ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.reader import Limits, open_video

from .conftest import X264, barcoded, decoded_in_sequence, encode


def reason_of(path: Path, **options: Any) -> VideoReason:
    with pytest.raises(VideoError) as caught, open_video(path, **options) as source:
        source.read(range(source.frame_count))
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_pictures_that_change_size_are_refused(tmp_path):
    parts = [
        encode(tmp_path / f"{width}.h264", barcoded(10, 64, width), codec="libx264", options=X264).read_bytes()
        for width in (96, 192)
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    assert reason_of(path) == VideoReason.CHANGING_SIZE


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("kind", ["vp9.webm", "h264 b-frames.mkv", "h264 b-frames.mp4", "mpeg4 b-frames.avi"])
def test_a_file_cut_off_at_the_end_is_refused(generated, tmp_path, kind, share):
    whole = generated[kind].read_bytes()
    path = tmp_path / f"cut{generated[kind].suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert reason_of(path) == VideoReason.DECODE_FAILED


def test_a_flipped_byte_never_gives_other_frames_than_the_reference_in_silence(generated, tmp_path):
    """Where FFmpeg sees the damage there is an error; where it does not, the frames are FFmpeg's."""
    whole = generated["h264 b-frames.mp4"].read_bytes()
    refused = 0
    for at in range(600, 3600, 150):
        path = tmp_path / "flipped.mp4"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with open_video(path) as source:
                found = source.read(range(source.frame_count)).pixels
        except VideoError:
            refused += 1
        else:
            assert np.array_equal(found, decoded_in_sequence(path))
    assert refused > 10


def test_damaged_vp8_is_noticed(generated, tmp_path):
    """With one thread FFmpeg's vp8 decodes most damage without a word."""
    whole, rng, refused = generated["vp8.webm"].read_bytes(), np.random.default_rng(0), 0
    for _ in range(12):
        damaged = bytearray(whole)
        for at in rng.integers(400, len(whole), 6):
            damaged[at] ^= 0x5A
        path = tmp_path / "damaged.webm"
        path.write_bytes(damaged)
        try:
            with open_video(path) as source:
                source.read(range(source.frame_count))
        except VideoError:
            refused += 1
    assert refused >= 6


def test_limits_refuse_large_pictures_many_frames_and_slow_videos(generated):
    path = generated["vp9.webm"]
    assert reason_of(path, limits=Limits(picture_px=1000)) == VideoReason.TOO_LARGE
    assert reason_of(path, limits=Limits(frames=59)) == VideoReason.TOO_LARGE
    assert reason_of(path, limits=Limits(seconds=1e-9)) == VideoReason.TOO_SLOW


def test_only_regular_files_are_opened_and_quickly(tmp_path):
    pipe, loop, empty, link = (tmp_path / f"{name}.mp4" for name in ("pipe", "loop", "empty", "link"))
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    empty.touch()
    link.symlink_to(pipe)
    assert reason_of(pipe) == reason_of(loop) == reason_of(link) == reason_of(tmp_path) == VideoReason.NOT_REGULAR
    assert reason_of(Path("/dev/zero")) == VideoReason.NOT_REGULAR
    assert reason_of(empty) == VideoReason.EMPTY
    assert reason_of(tmp_path / "missing.mp4") == VideoReason.MISSING
    assert reason_of(empty / "below.mp4") == VideoReason.MISSING


def test_lists_that_point_elsewhere_are_not_videos(generated, tmp_path):
    for name, text in {
        "a.mp4": f"ffconcat version 1.0\nfile '{generated['vp9.webm']}'\n",
        "b.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{generated['h264.ts']}\n#EXT-X-ENDLIST\n",
        "c.mp4": "<!DOCTYPE html><html><body>404</body></html>",
    }.items():
        (tmp_path / name).write_text(text)
        assert reason_of(tmp_path / name) == VideoReason.NOT_A_VIDEO
