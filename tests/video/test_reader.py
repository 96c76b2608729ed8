"""The reader on generated videos whose pixels are their frame numbers: the right frame or an error."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video import paths, reader
from vidxfer.pipeline.video.decode import Decoding
from vidxfer.pipeline.video.decord_path import DecordPath
from vidxfer.pipeline.video.paths import PathFailed, PtsPath
from vidxfer.pipeline.video.reader import open_video

from .conftest import FRAMES, KINDS, X264, barcoded, decoded_in_sequence, encode, numbers_of

DECORD_KINDS = {"vp9.webm", "vp9 lagged.webm", "vp8.webm", "vp8 lagged.webm", "h264 b-frames.mp4"}


def reason_of(path: Path, **options: Any) -> VideoReason:
    with pytest.raises(VideoError) as caught, open_video(path, **options) as source:
        source.read(range(source.frame_count))
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_asked_for_is_the_frame_that_comes(generated, kind, decoder):
    reference = decoded_in_sequence(generated[kind])
    rng = np.random.default_rng(0)
    with open_video(generated[kind], decoder=decoder) as source:
        assert source.frame_count == len(reference) == FRAMES
        assert (source.height, source.width) == reference.shape[1:3]
        for count in (1, 5, 40):
            indices = rng.integers(0, FRAMES, count).tolist()
            frames = source.read(indices)
            assert numbers_of(frames.pixels) == indices
            assert np.array_equal(frames.pixels, reference[indices])
            assert frames.indices.tolist() == indices
            assert frames.decoder == source.decoder
        assert source.decoder != "decord" or decoder == "decord"
        assert source.why


@pytest.mark.parametrize("kind", sorted(DECORD_KINDS))
def test_decord_reads_what_passes_the_gate(generated, kind):
    with open_video(generated[kind], decoder="decord") as source:
        assert numbers_of(source.read([59, 0, 31]).pixels) == [59, 0, 31]
        assert source.decoder == "decord"
    with open_video(generated[kind]) as source:
        assert source.decoder == "pyav-sequential"  # the faster one, so the one that is chosen


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=20), st.sampled_from(sorted(KINDS)))
def test_any_order_and_any_repeats_give_the_frames_named(generated, indices, kind):
    with open_video(generated[kind], decoder="pyav") as source:
        assert numbers_of(source.read(indices).pixels) == indices


def test_indices_outside_the_video_are_an_error_that_names_both(generated):
    with open_video(generated["vp9.webm"]) as source:
        for wrong in ([60], [-1], [0, 99], []):
            with pytest.raises(ValueError, match=r"it has 0 … 59"):
                source.read(wrong)


def test_time_stamps_are_seconds_from_the_start_also_with_a_variable_rate(tmp_path):
    pts = [0, 3, 4, 20, 21, 60, 61, 62, 100, 140]
    for suffix, codec in [(".mp4", "libx264"), (".webm", "libvpx-vp9")]:
        path = encode(tmp_path / f"vfr{suffix}", barcoded(10), codec=codec, options={}, pts=pts)
        for decoder in ("auto", "pyav"):
            with open_video(path, decoder=decoder) as source:
                frames = source.read(range(10))
            assert numbers_of(frames.pixels) == list(range(10))
            assert np.allclose(frames.pts_seconds, np.array(pts) / 100, atol=2e-3)


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
@pytest.mark.parametrize("segment", [(1.0, 2.0), (None, 0.5), (4.2, None), (0.96, 2.88), (0.0, 0.3)])
def test_a_segment_is_the_part_of_the_whole_shown_in_its_time(generated, kind, segment):
    start, end = segment
    with open_video(generated[kind], decoder="pyav") as whole:
        frames = whole.read(range(FRAMES))
    inside = (frames.pts_seconds >= (start or 0)) & (frames.pts_seconds < (end or np.inf))
    with open_video(generated[kind], start_seconds=start, end_seconds=end) as source:
        assert source.frame_count == inside.sum()
        found = source.read(range(source.frame_count)[::-1])
    assert np.array_equal(found.pixels[::-1], frames.pixels[inside])
    assert np.array_equal(found.pts_seconds[::-1], frames.pts_seconds[inside])


@pytest.mark.parametrize("segment", [(100.0, 101.0), (3.0, 2.0), (2.0, 2.0), (0.3, 0.31), (float("nan"), None)])
def test_a_segment_without_frames_is_refused(generated, segment):
    for kind in ("vp9.webm", "h264.ts"):
        assert reason_of(generated[kind], start_seconds=segment[0], end_seconds=segment[1]) == VideoReason.BAD_SEGMENT


def remuxed(source: Path, target: Path, *, earlier_seconds: float = 0.0, skip: int = 0) -> Path:
    """Copy packets without decoding; time stamps below zero become an edit list in mp4, as in `-c copy` trims."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = int(earlier_seconds / stream.time_base)
        for number, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            if number >= skip:
                packet.stream, packet.pts, packet.dts = copy, packet.pts - shift, packet.dts - shift
                new.mux(packet)
    return target


def test_a_stream_copied_trim_shows_what_players_show(generated, tmp_path):
    trim = remuxed(generated["h264 b-frames.mp4"], tmp_path / "trim.mp4", earlier_seconds=2.0)
    with open_video(trim, decoder="decord") as source:
        assert numbers_of(source.read(range(source.frame_count)).pixels) == list(range(25, 60))
        assert "edit list" in source.why
        assert source.decoder != "decord"


def test_a_file_that_begins_between_key_frames_equals_the_reference(generated, tmp_path):
    for suffix in (".mp4", ".mkv"):
        path = remuxed(generated["h264 b-frames.mp4"], tmp_path / f"late{suffix}", skip=5)
        with open_video(path) as source:
            found = source.read(range(source.frame_count)).pixels
        assert np.array_equal(found, decoded_in_sequence(path))


def test_frames_without_time_stamps_are_counted_and_have_no_seconds(tmp_path):
    path = encode(tmp_path / "raw.h264", barcoded(10), codec="libx264", options=X264)
    with open_video(path) as source:
        frames = source.read([7, 2])
    assert numbers_of(frames.pixels) == [7, 2]
    assert np.isnan(frames.pts_seconds).all()
    assert reason_of(path, start_seconds=0.0, end_seconds=1.0) == VideoReason.BAD_SEGMENT


def test_odd_sizes_go_to_pyav_because_decord_colours_them_differently(tmp_path):
    path = encode(tmp_path / "odd.webm", barcoded(12, 65, 97)[:, :, :95], codec="libvpx-vp9", options={})
    with open_video(path, decoder="decord") as source:
        assert source.decoder == "pyav-pts"
        assert "odd sizes" in source.why
        assert np.array_equal(source.read(range(12)).pixels, decoded_in_sequence(path))


def test_when_decord_fails_pyav_reads_and_says_so(generated, monkeypatch):
    def fails(self: object, numbers: object, deadline: object) -> None:
        raise PathFailed("decord failed: DECORDError: as an example")

    with open_video(generated["vp9.webm"], decoder="decord") as source:
        assert source.decoder == "decord"
        monkeypatch.setattr(DecordPath, "read", fails)
        frames = source.read([3, 50])
        assert numbers_of(frames.pixels) == [3, 50]
        assert frames.decoder == source.decoder == "pyav-pts"
        assert "as an example" in source.why
    with open_video(generated["vp9.webm"], decoder="decord") as source:  # when it fails at once, too
        assert numbers_of(source.read([3, 50]).pixels) == [3, 50]
        assert source.decoder == "pyav-sequential"
        assert "as an example" in source.why


def test_a_file_too_big_to_keep_is_decoded_once_and_damage_anywhere_in_it_is_found(generated, tmp_path, monkeypatch):
    """Frames are then taken on the way; the damage lies behind the frame that is asked for."""
    monkeypatch.setattr(paths, "KEPT_BYTES", 0)
    opened: list[Path] = []
    demuxed = Decoding._packets
    monkeypatch.setattr(Decoding, "_packets", lambda self: opened.append(self._video.path) or demuxed(self))
    good = generated["h264 b-frames.mp4"]
    with open_video(good) as source:
        frames = source.read([50, 3])
        assert (source.decoder, source.why) == ("pyav-pts", "decoded whole, once")
    assert numbers_of(frames.pixels) == [50, 3]
    assert len(opened) == 2  # the first frame, for its size; then all
    with av.open(str(good)) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.size][50]
    data = bytearray(good.read_bytes())
    data[at + 4 : at + 24] = bytes(20)
    (bad := tmp_path / "bad.mp4").write_bytes(data)
    assert reason_of_first_frame(bad) == VideoReason.DECODE_FAILED
    with open_video(bad, known_good=True) as source:  # read before, it is said: only what leads to the frame is decoded
        assert numbers_of(source.read([3]).pixels) == [3]
    monkeypatch.setattr(reader, "WHOLE_PX", 0)
    with open_video(bad) as source:
        assert numbers_of(source.read([3]).pixels) == [3]
        assert source.why == "what leads to the frames wanted is decoded"


def reason_of_first_frame(path: Path) -> VideoReason:
    with pytest.raises(VideoError) as caught, open_video(path) as source:
        source.read([3])
    return caught.value.reason


def test_when_seeking_fails_frames_are_counted_from_the_start_and_it_says_so(generated, monkeypatch):
    with open_video(generated["h264 b-frames.mp4"], known_good=True) as source:
        monkeypatch.setattr(PtsPath, "_seek", lambda self, pts: None)  # stays where it is
        assert numbers_of(source.read([40, 3]).pixels) == [40, 3]
        assert source.decoder == "pyav-sequential"
        assert "pyav-pts failed" in source.why


def test_without_decord_everything_is_read_by_pyav(generated, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    for decoder in ("auto", "decord"):
        with open_video(generated["vp9.webm"], decoder=decoder) as source:
            assert numbers_of(source.read([9]).pixels) == [9]
            assert source.decoder == "pyav-sequential"


def test_a_decoder_that_does_not_exist_is_an_error(generated):
    with pytest.raises(ValueError, match="auto, decord and pyav"), open_video(generated["vp9.webm"], decoder="opencv"):
        pass


def test_many_threads_read_at_once_each_its_own_source(generated):
    kinds = ["vp9.webm", "h264 b-frames.mp4", "mpeg4 b-frames.avi", "hevc.mp4"] * 4
    together = threading.Barrier(8)

    def read(kind: str) -> list[int]:
        together.wait(30)
        with open_video(generated[kind]) as source:
            return numbers_of(source.read([5, 55, 30]).pixels)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, kinds)) == [[5, 55, 30]] * len(kinds)


def test_the_package_loads_neither_decord_nor_av():
    modules = "vidxfer.pipeline.video.reader, vidxfer.pipeline.video.writer, vidxfer.pipeline.video.replay"
    code = f"import sys, {modules}; print({{'av', 'decord'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
