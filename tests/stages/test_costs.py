"""The arithmetic of `vidxfer plan`: what must hold for all machines, and two worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.stages.planning.costs import (
    WAYS,
    ClipCost,
    Rates,
    break_even_gb_per_second,
    epochs,
    epochs_until_it_paid,
    extract_seconds,
)

rate = st.floats(1e-3, 1e6)
rates = st.builds(
    lambda values: Rates(**dict(zip(Rates.__dataclass_fields__, values, strict=True))),
    st.lists(rate, min_size=7, max_size=7),
)
clips = st.builds(
    lambda token_bytes, alpha, sparse, frame_bytes: ClipCost(
        token_bytes=token_bytes, frame_bytes=frame_bytes, sparse_frames=sparse, seen_frames=alpha * sparse,
    ),
    st.integers(1_000, 10**9), st.integers(1, 8), st.integers(1, 64), st.integers(100, 10**5),
)  # fmt: skip
B16 = ClipCost(token_bytes=14_600_000, frame_bytes=15_625, sparse_frames=8, seen_frames=16)


@given(clips, rates, st.integers(1, 10**6))
def test_an_epoch_takes_as_long_as_its_slowest_part(clip: ClipCost, machine: Rates, videos: int) -> None:
    for way, one in zip(WAYS, epochs(clip, machine, videos), strict=True):
        assert one.way == way
        assert one.seconds is not None
        assert one.seconds > 0
        assert one.not_counted == ()
        assert one.seconds == pytest.approx(videos * (epochs(clip, machine, 1)[WAYS.index(way)].seconds or 0))


@given(clips, rates, st.sampled_from(list(Rates.__dataclass_fields__)), st.floats(1.0, 100.0))
def test_a_faster_machine_never_makes_an_epoch_slower(clip: ClipCost, machine: Rates, name: str, times: float) -> None:
    faster = replace(machine, **{name: getattr(machine, name) * times})
    for before, after in zip(epochs(clip, machine, 100), epochs(clip, faster, 100), strict=True):
        assert after.seconds is not None
        assert before.seconds is not None
        assert after.seconds <= before.seconds * (1 + 1e-12)


@given(clips, rates)
def test_at_the_break_even_both_ways_take_as_long_and_on_either_side_one_wins(clip: ClipCost, machine: Rates) -> None:
    even = break_even_gb_per_second(clip, machine)
    cached, online, *_ = epochs(clip, machine, 10)
    assert cached.seconds is not None
    assert online.seconds is not None
    if even is None:
        assert cached.seconds >= online.seconds * (1 - 1e-12)
        return
    there = epochs(clip, replace(machine, disk_read_gb_per_second=even), 10)
    assert there[0].seconds == pytest.approx(there[1].seconds)
    slower = epochs(clip, replace(machine, disk_read_gb_per_second=even / 2), 10)
    assert (slower[0].seconds or 0) > (slower[1].seconds or 0)
    faster = epochs(clip, replace(machine, disk_read_gb_per_second=even * 1.01), 10)
    assert (faster[0].seconds or 0) < (faster[1].seconds or 0)


@given(clips, st.lists(st.one_of(st.none(), rate), min_size=7, max_size=7))
def test_what_is_not_known_is_not_counted_and_said(clip: ClipCost, values: list[float | None]) -> None:
    machine = Rates(**dict(zip(Rates.__dataclass_fields__, values, strict=True)))
    unknown = {name for name, value in vars(machine).items() if value is None}
    for one in epochs(clip, machine, 5):
        assert set(one.not_counted) <= unknown
        assert "disk_read_gb_per_second" not in one.not_counted or one.way != "online"
        assert (one.seconds is None) == (one.bound_by == "nothing known")


def test_the_house_rule_of_thumb_comes_out() -> None:
    """281 GFLOP per view at 100 TFLOP/s: 356 views/s; of 29.05 MB (float16) each: about 10 GB/s, of int8 half."""
    machine = Rates(clip_frames_per_second=8 * 100e12 / 281e9)
    assert break_even_gb_per_second(replace(B16, token_bytes=29_050_000), machine) == pytest.approx(10.3, rel=0.01)
    assert break_even_gb_per_second(B16, machine) == pytest.approx(5.2, rel=0.01)
    with_head = replace(machine, head_clips_per_second=100e12 / 121e9)  # the step that CLIP is a part of
    assert break_even_gb_per_second(B16, with_head) == pytest.approx(14.6e6 / 1e9 / ((281 + 121) / 100e3), rel=0.01)


def test_decoding_that_is_slower_than_clip_makes_every_cache_useless() -> None:
    machine = Rates(clip_frames_per_second=10_000, dense_clips_per_second=20, disk_read_gb_per_second=100)
    assert break_even_gb_per_second(B16, machine) is None
    cached, online, frames, _ = epochs(B16, replace(machine, jpeg_frames_per_second=1e4), 100)
    assert (cached.seconds, cached.bound_by, online.seconds, online.bound_by) == (5, "CPU", 5, "CPU")
    assert frames.seconds == pytest.approx(100 * 16 / 1e4)
    assert epochs_until_it_paid(60, (cached, online)) is None


def test_jpegs_of_a_view_are_read_with_their_whole_chunk_and_decoded_as_far_as_they_are_seen() -> None:
    """Of 48 kept frames a head sees 16: 48 are read, 16 decoded; one that sees none reads none."""
    machine = Rates(disk_read_gb_per_second=1e-3, jpeg_frames_per_second=1e9)
    bytes_read = {}
    for name, clip in {
        "alone": B16,
        "kept": replace(B16, kept_frames=48),
        "blind": replace(B16, seen_frames=0, kept_frames=48),
    }.items():
        both = epochs(clip, machine, 1)[3].seconds
        assert both is not None
        bytes_read[name] = round(both * 1e6) - 14_600_000
    assert bytes_read == {"alone": 16 * 15_625, "kept": 48 * 15_625, "blind": 0}
    slow = replace(machine, jpeg_frames_per_second=1e-3)
    assert epochs(replace(B16, kept_frames=48), slow, 1)[3].seconds == 16 / 1e-3


def test_extraction_takes_as_long_as_the_slowest_of_decoding_clip_and_writing() -> None:
    machine = Rates(clip_frames_per_second=800, decode_videos_per_second=50, disk_write_gb_per_second=0.5)
    for changes, seconds in (
        ({}, 20), ({"decode_videos_per_second": 200}, 10), ({"disk_write_gb_per_second": 0.2}, 36.5),
    ):  # fmt: skip
        slower = replace(machine, **{**{"decode_videos_per_second": 50}, **changes})
        took = extract_seconds(videos=1000, frames=8000, total_bytes=7_300_000_000, rates=slower)
        assert took == pytest.approx(max(seconds, 14.6 if "disk_write_gb_per_second" not in changes else 0))
    assert extract_seconds(videos=1, frames=8, total_bytes=1, rates=Rates()) is None


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="clip_frames_per_second=0"):
        Rates(clip_frames_per_second=0)


def test_a_head_without_pixels_decodes_nothing_cached_and_online_what_clip_sees() -> None:
    """A probe on 8 frames: 8 kB of embeddings at 1 GB/s; online 8 frames through CLIP at 800/s; JPEGs at 100/s."""
    probe = ClipCost(token_bytes=8_000, frame_bytes=10_000, sparse_frames=8, seen_frames=0)
    machine = Rates(
        disk_read_gb_per_second=1, clip_frames_per_second=800, dense_clips_per_second=20, jpeg_frames_per_second=100
    )
    cached, online, frames, both = epochs(probe, replace(machine, head_clips_per_second=1e6), 1)
    assert (cached.bound_by, cached.seconds) == ("disk", pytest.approx(8e-6))
    assert (online.bound_by, online.seconds) == ("CPU", pytest.approx(1 / 20))
    assert (frames.bound_by, frames.seconds) == ("CPU", pytest.approx(8 / 100))
    assert (both.bound_by, both.seconds) == ("disk", pytest.approx(8e-6))
    unknown = epochs(probe, replace(machine, dense_clips_per_second=None, jpeg_frames_per_second=None), 1)
    assert [one.not_counted for one in unknown] == [
        ("head_clips_per_second",),
        ("dense_clips_per_second", "head_clips_per_second"),
        ("jpeg_frames_per_second", "head_clips_per_second"),
        ("head_clips_per_second",),
    ]
