"""The demux gate: what decord may read, and why not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.video.bitstream import nal_length_bytes, shown_pictures, slice_types
from vidxfer.pipeline.video.container import Deadline, Limits, opened
from vidxfer.pipeline.video.gate import Verdict, judge
from vidxfer.pipeline.video.packets import Packets, start_before, survey
from vidxfer.pipeline.video.paths import plan_stretches
from vidxfer.pipeline.video.wholeness import cut_off

from .conftest import FRAMES, KINDS, numbers_of

REFUSALS = {
    "h264 open gop.mp4": "key frames are not IDR",
    "h264 intra refresh.mp4": "key frames are not IDR",
    "h264.ts": "mpegts",
    "hevc.mp4": "key frames are not IDR",
    "mpeg4 b-frames.avi": "avi",
    "mpeg4 b-frames.mp4": "mpeg4",
    "mpeg2 b-frames.mpg": "mpeg is not",
}


def verdict_on(path: Path) -> Verdict:
    with opened(path, Limits()) as video:
        return judge(video, survey(video, Deadline(path, Limits())))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_passes_only_what_decord_reads_exactly(generated, kind):
    verdict = verdict_on(generated[kind])
    assert verdict.passes == (kind not in REFUSALS)
    assert REFUSALS.get(kind, "IDR") in verdict.why
    if verdict.passes:
        assert verdict.frame_count == FRAMES
        assert list(verdict.pts) == sorted(set(verdict.pts))


@pytest.mark.parametrize("kind", ["hevc.mp4", "mpeg4 b-frames.mp4", "mpeg4 b-frames.avi", "h264 intra refresh.mp4"])
def test_decord_is_wrong_without_an_error_on_files_the_gate_refuses(generated, kind):
    """The reason for the gate: if this ever fails, decord has changed."""
    decord = pytest.importorskip("decord", exc_type=ImportError)
    reader = decord.VideoReader(str(generated[kind]), ctx=decord.cpu(0), num_threads=1)
    indices = np.random.default_rng(0).permutation(FRAMES).tolist()
    assert [numbers_of(reader.get_batch([index]).asnumpy())[0] for index in indices] != indices


def test_vp8_and_vp9_packets_say_how_many_pictures_they_show(generated):
    hidden, shown, again = bytes([0b10000000, 0]), bytes([0b10000010, 0]), bytes([0b10001000, 0])
    assert [shown_pictures("vp9", packet) for packet in (hidden, shown, again)] == [0, 1, 1]
    index = bytes([0b11000001, len(hidden), len(shown), 0b11000001])
    assert shown_pictures("vp9", hidden + shown + index) == 1  # a superframe: a hidden frame rides along
    assert shown_pictures("vp9", shown + shown + index) == 2
    assert [shown_pictures("vp8", bytes([tag])) for tag in (0b00000000, 0b00010000)] == [0, 1]
    assert shown_pictures("h264", b"") == 0
    with av.open(str(generated["vp9.webm"])) as container:
        assert {shown_pictures("vp9", bytes(packet)) for packet in container.demux(video=0) if packet.size} == {1}


def test_slices_are_found_behind_lengths_and_behind_start_codes():
    assert slice_types("h264", b"\0\0\0\2\x09\xf0\0\0\0\3\x65\1\2", 4) == {5}
    assert slice_types("h264", b"\0\0\0\1\x09\xf0\0\0\1\x41\1\2", 0) == {1}
    assert slice_types("hevc", b"\0\0\0\3\x2a\1\1", 4) == {21}
    assert nal_length_bytes("h264", b"\1\x42\0\x1e\xff\xe1") == 4
    assert nal_length_bytes("h264", b"\0\0\0\1\x67") == 0
    assert nal_length_bytes("hevc", None) == 0


@given(st.binary(max_size=200), st.sampled_from(["h264", "hevc"]), st.sampled_from([0, 1, 2, 3, 4]))
def test_no_bytes_upset_the_parsers(packet, codec, length_bytes):
    slice_types(codec, packet, length_bytes)
    for name in ("vp8", "vp9"):
        assert shown_pictures(name, packet) >= 0


@given(st.sampled_from([b"\0\0\0\x18ftyp", b"\x1a\x45\xdf\xa3", b"RIFF", b""]), st.binary(max_size=300))
def test_no_bytes_upset_the_search_for_the_end(tmp_path_factory, start, rest):
    path = tmp_path_factory.getbasetemp() / "bytes.mp4"
    path.write_bytes(start + rest)
    assert cut_off(path) is None or "cut off" in cut_off(path)


def closed_groups(sizes: list[int]) -> Packets:
    """Packets of key frames each followed by sizes-1 others, without reordering."""
    starts = [int(start) for start in np.cumsum([0, *sizes[:-1]])]
    count = sum(sizes)
    return Packets(
        order=[10 * number for number in range(count)],
        decode_position={10 * number: number for number in range(count)},
        starts=[(start, 10 * start) for start in starts],
        faults=[],
        open_key_frames=0,
        leading=0,
    )


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_runs_hold_every_wanted_frame_once_each_behind_its_start(sizes, data):
    packets = closed_groups(sizes)
    numbers = sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1), min_size=1)))
    runs = plan_stretches(packets, packets.order, numbers)
    assert [number for run in runs for number in run.numbers] == numbers
    for run in runs:
        assert run.start in packets.starts
        assert run.start == start_before(packets, packets.order[run.numbers[0]])
    decoded = sum(run.numbers[-1] - run.start[0] + 1 for run in runs)
    assert decoded <= numbers[-1] + 1  # never more than decoding on from the beginning


def test_a_frame_shown_before_its_key_frame_starts_at_the_key_frame_before():
    packets = Packets(
        order=[0, 10, 20, 30, 40],
        decode_position={0: 0, 10: 1, 40: 2, 20: 3, 30: 4},  # 20 and 30 are leading pictures of the key frame 40
        starts=[(0, 0), (2, 40)],
        faults=[],
        open_key_frames=1,
        leading=2,
    )
    assert [start_before(packets, pts) for pts in packets.order] == [(0, 0)] * 4 + [(2, 40)]
