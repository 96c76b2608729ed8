"""Real files: every readable one frame by frame against the reference, every broken one refused."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.reader import open_video

from .conftest import decoded_in_sequence

# name -> (who reads it where decord is asked for, frames)
READABLE = {
    "shared-assets__flower.webm": ("decord", 150),
    "VALI__test_hevc10.mkv": ("pyav-pts", 110),
    "VALI__test_multires.mkv": ("pyav-pts", 96),
    "VALI__test_mpeg4.mpg": ("pyav-sequential", 96),
    "torchcodec__nasa_13013.mp4": ("pyav-pts", 390),
    "torchcodec__av1_video.mkv": ("pyav-pts", 125),
    "media__bbb_642x642_768kbps_30fps_vp9.webm": ("decord", 90),
    "media__bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4": ("decord", 120),
    "media__h265_bframes.mp4": ("decord", 30),
    "media__sample.avi": ("pyav-sequential", 96),
    "media__sd-hls0000000000.ts": ("pyav-sequential", 58),
    "media__sample_android_slow_motion.mp4": ("decord", 7),
    "media__sample_partially_fragmented.mp4": ("decord", 30),
    "media__sample_rotate_and_reflect.mp4": ("decord", 30),
    "media__sample_vvc.mp4": ("pyav-sequential", 120),
    "moviepy__no_duration.webm": ("pyav-pts", 74),
    "moviepy__test_video.mp4": ("pyav-pts", 5),
    "mp4parse-rust__minimal.mp4": ("decord", 1),
    "decord__video_90.mov": ("decord", 3),
}
REFUSED = {
    "videos/decord__corrupted.mp4": VideoReason.DECODE_FAILED,
    "videos/media__sample_audio_only.mp4": VideoReason.NO_VIDEO_STREAM,
    "videos/VALI__test_bad_task_info_ffmpeg.wmv": VideoReason.DECODE_FAILED,  # FFmpeg conceals errors in every frame
    "broken/audio_only.mp4": VideoReason.NO_VIDEO_STREAM,
    "broken/bitflip_middle.mp4": VideoReason.DECODE_FAILED,
    "broken/header_only_faststart.mp4": VideoReason.DECODE_FAILED,
    "broken/png_renamed.mp4": VideoReason.NOT_A_VIDEO,
    "broken/text_renamed.mp4": VideoReason.NOT_A_VIDEO,
    "broken/truncated60_faststart.mp4": VideoReason.DECODE_FAILED,
    "broken/zero_bytes.mp4": VideoReason.EMPTY,
}


def test_every_stored_video_is_named_here(fixtures_dir):
    named = {Path(name).name for name in [*READABLE, *REFUSED]} | {"media__long_180p_av1.mp4"}
    assert {path.name for path in (fixtures_dir / "videos").iterdir()} <= named
    assert {path.name for path in (fixtures_dir / "broken").glob("*.mp4")} <= named


@pytest.mark.parametrize("name", READABLE)
def test_frames_of_a_real_video_are_the_references(fixtures_dir, name):
    path = fixtures_dir / "videos" / name
    way, count = READABLE[name]
    reference = decoded_in_sequence(path)
    rng = np.random.default_rng(len(name))
    with open_video(path, decoder="decord") as source:
        assert (source.decoder, source.frame_count) == (way, count), source.why
        assert (source.height, source.width) == reference.shape[1:3]
        for size in (1, 8, 24):
            indices = rng.integers(0, count, size)
            found = source.read(indices)
            assert found.decoder == way, source.why
            assert np.array_equal(found.pixels, reference[indices])
    for known_good in (False, True):
        with open_video(path, known_good=known_good) as source:
            indices = [count - 1, 0, count // 2]
            assert np.array_equal(source.read(indices).pixels, reference[indices])
            assert source.decoder.startswith("pyav-")


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_exactly_is_refused_quickly_and_quietly(fixtures_dir, name, capfd):
    path = fixtures_dir / name
    started = time.monotonic()
    with pytest.raises(VideoError) as caught, open_video(path) as source:
        source.read(range(source.frame_count))
    assert caught.value.reason == REFUSED[name]
    assert time.monotonic() - started < 5
    assert capfd.readouterr() == ("", "")


def test_six_minutes_are_read_by_seeking(fixtures_dir):
    path = fixtures_dir / "videos" / "media__long_180p_av1.mp4"
    with open_video(path, known_good=True) as source:
        assert source.frame_count == 21766
        far = source.read([21000, 21003])
        assert source.decoder == "pyav-pts"
        with open_video(path, start_seconds=far.pts_seconds[0], end_seconds=far.pts_seconds[1] + 1e-4) as segment:
            assert segment.frame_count == 4
            assert np.array_equal(segment.read([0, 3]).pixels, far.pixels)


def test_a_portrait_phone_video_comes_upright(fixtures_dir):
    path = fixtures_dir / "videos" / "decord__video_90.mov"
    with open_video(path) as source:
        assert (source.height, source.width) == (568, 320)
        assert source.read([0]).pixels.shape == (1, 568, 320, 3)
