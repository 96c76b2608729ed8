"""Is a file all there: decided by where its samples lie, not by what its boxes state; the demuxer says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.boxes import Samples, Track, take_moof, take_moov
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.wholeness import cut_off

from .conftest import X264, barcoded, encode, numbers_of

FRAMES = 24
FLAGS = {
    "fast": {"movflags": "faststart"},
    "slow": {},
    "fragments": {"movflags": "frag_keyframe+empty_moov"},
    "bases": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same barcoded frames: index first, index last, and in fragments of two kinds."""
    folder = tmp_path_factory.mktemp("whole")
    made = encode(folder / "a.mp4", barcoded(FRAMES), codec="libx264", options={**X264, "g": "6", "bf": "0"})
    found = {}
    for name, options in FLAGS.items():
        with (
            av.open(str(made)) as source,
            av.open(str(folder / f"{name}.mp4"), "w", options=options) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        found[name] = (folder / f"{name}.mp4").read_bytes()
    return found


def outermost(data: bytes) -> list[tuple[bytes, int, int]]:
    """(type, first byte, bytes) of each box of a whole file with 32-bit sizes."""
    found, start = [], 0
    while start < len(data):
        found.append((data[start + 4 : start + 8], start, int.from_bytes(data[start : start + 4], "big")))
        start += found[-1][2]
    return found


def stating(data: bytes, kind: bytes, change: Callable[[int], int]) -> bytes:
    """The file whose last box of a kind states another size."""
    start, size = [(start, size) for one, start, size in outermost(data) if one == kind][-1]
    return data[:start] + change(size).to_bytes(4, "big") + data[start + 4 :]


def read(data: bytes, path: Path) -> list[int]:
    """The numbers of all frames that come out of it."""
    path.write_bytes(data)
    with open_video(path) as source:
        return numbers_of(source.read(range(source.frame_count)).pixels)


def refusal(data: bytes, path: Path) -> str:
    """Why it is refused as cut off."""
    path.write_bytes(data)
    with pytest.raises(VideoError) as caught, open_video(path):
        pass
    assert caught.value.reason == VideoReason.DECODE_FAILED
    return caught.value.detail


@pytest.mark.parametrize("kind", ["fast", "fragments", "bases"])
@pytest.mark.parametrize("more", [1, 8, 4096, 2**31])
def test_an_mdat_that_states_too_many_bytes_misses_no_picture(kind, more, whole, tmp_path):
    data = stating(whole[kind], b"mdat", lambda size: size + more)
    assert read(data, tmp_path / "a.mp4") == list(range(FRAMES))


def test_sizes_of_64_bits_and_to_the_end_of_the_file_and_what_stands_behind_are_read(whole, tmp_path):
    data = whole["fast"]
    (_, free, _), (_, _, size) = outermost(data)[-2:]  # 8 bytes of free in front of the mdat are there for this
    for stated in (size + 8, size + 8 + 77, 2**40):
        wide = data[:free] + (1).to_bytes(4, "big") + b"mdat" + stated.to_bytes(8, "big") + data[free + 16 :]
        assert read(wide, tmp_path / "a.mp4") == list(range(FRAMES))
        assert "picture number 24" in refusal(wide[:-1], tmp_path / "a.mp4")
    open_end = stating(data, b"mdat", lambda _: 0)
    assert read(open_end, tmp_path / "a.mp4") == list(range(FRAMES))
    assert "picture number 24" in refusal(open_end[:-1], tmp_path / "a.mp4")
    for junk in (b"\0" * 40, b"junk" * 10, b"\xff" * 7):
        assert read(data + junk, tmp_path / "a.mp4") == list(range(FRAMES))


@pytest.mark.parametrize("kind", ["fast", "fragments", "bases"])
def test_a_file_that_ends_inside_a_picture_says_which_and_where(kind, whole, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(whole[kind])
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.pos + packet.size) for packet in container.demux(video=0) if packet.size]
    assert len(spans) == FRAMES
    for number in (0, 7, 17, 23):
        begin, end = spans[number]
        for cut in (begin + 1, end - 1):
            expected = (
                f"picture number {number + 1} in the order of its bytes, ends at byte {end}, the file at byte {cut}"
            )
            assert refusal(whole[kind][:cut], path) == f"{expected}: cut off"
    path.write_bytes(whole[kind][: spans[-1][1]])  # the index of fragments behind the last picture is needed by nobody
    assert cut_off(path) is None


def test_a_cut_behind_a_whole_moof_is_seen_although_every_box_is_whole(whole, tmp_path):
    last = [start for kind, start, _ in outermost(whole["fragments"]) if kind == b"mdat"][-1]
    assert "picture number 19 " in refusal(whole["fragments"][:last], tmp_path / "a.mp4")


def test_the_end_of_a_moov_may_lack_what_lists_no_samples(whole, tmp_path):
    data = whole["slow"]
    (kind, moov, _) = outermost(data)[-1]
    assert kind == b"moov"
    udta = data.rindex(b"udta") - 4
    for cut in (len(data) - 1, udta + 9):
        assert read(data[:cut], tmp_path / "a.mp4") == list(range(FRAMES))
    for more in (1, 8, 64):
        assert read(stating(data, b"moov", lambda size, more=more: size + more), tmp_path / "a.mp4") == list(
            range(FRAMES)
        )
    longer = data[:udta] + (10**6).to_bytes(4, "big") + data[udta + 4 :]
    assert read(longer, tmp_path / "a.mp4") == list(range(FRAMES))
    for cut in (udta - 1, data.rindex(b"stsz") + 20, moov + 200, moov + 9):
        assert "its moov box ends" in refusal(data[:cut], tmp_path / "a.mp4")
    assert "its mdat box ends" in refusal(data[: moov - 1], tmp_path / "a.mp4")


@pytest.mark.parametrize("more", [1, 8, 64])
def test_a_matroska_segment_may_be_miscounted_by_a_little_and_not_be_cut(more, generated, tmp_path):
    data = generated["h264 b-frames.mkv"].read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    size = int.from_bytes(data[at + 1 : at + 8], "big")
    assert data[at] == 1
    assert at + 8 + size == len(data)
    longer = data[: at + 1] + (size + more).to_bytes(7, "big") + data[at + 8 :]
    assert read(longer, tmp_path / "a.mkv") == list(range(60))
    assert "its Segment ends" in refusal(longer[:-1], tmp_path / "a.mkv")
    assert "its Segment ends" in refusal(data[:-more], tmp_path / "a.mkv")


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def numbers(*values: int, width: int = 4) -> bytes:
    return b"".join(value.to_bytes(width, "big") for value in values)


def moov_of(*tables: bytes, handler: bytes = b"vide") -> bytes:
    """A moov with one track of the given tables."""
    stbl = box(b"mdia", box(b"hdlr", bytes(8), handler), box(b"minf", box(b"stbl", *tables)))
    return box(b"moov", box(b"trak", box(b"tkhd", bytes(12), numbers(1), bytes(64)), stbl))


def lost(file_bytes: int, *tables: bytes, handler: bytes = b"vide") -> tuple[bool, str | None]:
    samples = Samples(file_bytes=file_bytes)
    take_moov(moov_of(*tables, handler=handler), samples)
    return samples.known, samples.lost


STSC = box(b"stsc", numbers(0, 2, 1, 2, 1, 2, 1, 1))  # two samples in the first chunk, one in each later one
STCO = box(b"stco", numbers(0, 3, 1000, 500, 2000))


def test_tables_are_read_as_the_standard_says():
    sizes = box(b"stsz", numbers(0, 0, 4, 10, 20, 30, 40))  # at 1000..1010, ..1030, 500..530, 2000..2040
    assert lost(2040, sizes, STSC, STCO) == (True, None)
    assert lost(2039, sizes, STSC, STCO)[1] == (
        "picture number 4 in the order of its bytes, ends at byte 2040, the file at byte 2039: cut off"
    )
    assert "picture number 2 in the order of its bytes, ends at byte 1030," in (lost(1029, sizes, STSC, STCO)[1] or "")
    far = box(b"co64", numbers(0, 3), numbers(1000, 500, 2**40, width=8))
    assert f"ends at byte {2**40 + 40}," in (lost(2040, sizes, STSC, far)[1] or "")
    small = box(b"stz2", numbers(0, 8, 4), bytes([10, 20, 30, 40]))
    assert lost(2040, small, STSC, STCO) == (True, None)
    assert "picture number 4 " in (lost(2039, small, STSC, STCO)[1] or "")
    half = box(b"stz2", numbers(0, 4, 4), bytes([0x12, 0x34]))  # 1, 2, 3 and 4 bytes
    assert lost(2004, half, STSC, STCO) == (True, None)
    assert "ends at byte 2004," in (lost(2003, half, STSC, STCO)[1] or "")
    alike = box(b"stsz", numbers(0, 16, 4))
    assert lost(2016, alike, STSC, STCO) == (True, None)
    assert "picture number 2 in the order of its bytes, ends at byte 1032," in (lost(1031, alike, STSC, STCO)[1] or "")


def test_sound_counts_where_its_bytes_are_known():
    sizes = box(b"stsz", numbers(0, 0, 4, 10, 20, 30, 40))
    assert (lost(2039, sizes, STSC, STCO, handler=b"soun")[1] or "").startswith("a sample of another stream")
    assert lost(10, box(b"stsz", numbers(0, 1, 4)), STSC, STCO, handler=b"soun") == (False, None)


def test_tables_of_nonsense_are_no_error_and_take_no_memory():
    rng = np.random.default_rng(0)
    huge = box(b"stsz", numbers(0, 1, 2**32 - 1))
    assert "ends at byte" in (lost(2040, huge, box(b"stsc", numbers(0, 1, 1, 2**32 - 1, 1)), STCO)[1] or "")
    good = moov_of(box(b"stsz", numbers(0, 0, 4, 10, 20, 30, 40)), STSC, STCO)
    for _ in range(2000):
        data = bytearray(good)
        for at in rng.integers(8, len(data), 4):
            data[at] = int(rng.integers(256))
        take_moov(bytes(data), Samples(file_bytes=2040))


def traf(number: int, flags: int, *fields: int, run: bytes) -> bytes:
    return box(b"traf", box(b"tfhd", numbers(flags, number, *fields)), box(b"trun", run))


def test_fragments_are_found_by_their_own_base_the_moof_or_the_track_before():
    """A run of two samples of 10 and 20 bytes, then, in the second track, two of five bytes each."""
    sized = numbers(0x201, 2, 100, 10, 20)
    plain = numbers(0, 2)
    cases = {
        (0x20000, 0x20000 | 0x10): (1130, 1010),  # both from the moof, at byte 1000; the second run has no offset
        (0, 0x10): (1130, 1140),  # the second goes on where the first ended
    }
    for (first, second), ends in cases.items():
        moof = box(b"moof", traf(1, first, run=sized), traf(2, second, 5, run=plain))
        for short in (0, 1):
            samples = Samples(file_bytes=max(ends) - short)
            for number in (1, 2):
                samples.tracks[number] = Track(pictures=number == 1, sound=False, counted=7)
            take_moof(moof, 1000, samples)
            assert samples.known
            number, end = (9, ends[0]) if ends[0] > ends[1] else (9, ends[1])
            assert (samples.lost is None) == (short == 0)
            assert short == 0 or f"number {number} in the order of its bytes, ends at byte {end}," in samples.lost
