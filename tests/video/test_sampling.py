"""Segment sampling: DiST's numbers exactly, and never outside the video."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.video import sampling as rules
from vidxfer.pipeline.video.sampling import Sampling, train_indices, view_rng


def dense(frames: int) -> Sampling:
    return Sampling(dense_frames=frames, alpha=1)


class Ends:
    """A generator that always draws one end of the interval."""

    def __init__(self, end: float) -> None:
        self.end = end

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.end)


@pytest.fixture(scope="module")
def official(golden):
    return golden("sampling.json")


def test_test_views_are_dists_numbers(official):
    assert official["segment_test"]
    for case in official["segment_test"]:
        found = rules.test_indices(
            case["num_video_frames"], dense(case["num_input_frames"]), views=case["num_views"], view=case["view"]
        )
        assert list(found) == case["index"], case


@pytest.mark.parametrize("end", ["min", "max"])
def test_train_views_reach_dists_bounds_and_no_further(official, end):
    assert official["segment_train_bounds"]
    for case in official["segment_train_bounds"]:
        found = train_indices(
            case["num_video_frames"], dense(case["num_input_frames"]), Ends(0.0 if end == "min" else 1.0)
        )
        assert list(found) == case[end], case


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 2**32))
def test_train_indices_are_ordered_inside_the_video_and_inside_their_segments(frame_count, frames, seed):
    drawn = train_indices(frame_count, dense(frames), np.random.default_rng(seed))
    assert len(drawn) == frames
    assert list(drawn) == sorted(drawn)
    assert drawn[0] >= 0
    assert drawn[-1] < frame_count
    for number, index in enumerate(drawn):
        low, high = number * frame_count / frames, (number + 1) * frame_count / frames
        assert min(low, frame_count - 1) - 0.5 <= index <= high + 0.5


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 8), st.data())
def test_test_indices_equal_the_rule_written_out(frame_count, frames, views, data):
    view = data.draw(st.integers(0, views - 1))
    dumb = []
    for number in range(frames):
        low, high = number * frame_count / frames, (number + 1) * frame_count / frames
        point = (low + high) / 2 if views == 1 else low + (high - low) * (view + 1) / views
        dumb.append(min(max(point, 0), frame_count - 1))
    found = rules.test_indices(frame_count, dense(frames), views=views, view=view)
    assert list(found) == sorted(found)
    # Half-way points may fall either way where i·L/T rounds differently; elsewhere the numbers are the same.
    assert all(abs(index - point) <= 0.5 + 1e-9 for index, point in zip(found, dumb, strict=True))


def test_a_video_without_frames_and_a_view_that_does_not_exist_are_errors():
    with pytest.raises(ValueError, match="frame_count=0"):
        train_indices(0, Sampling(), np.random.default_rng(0))
    with pytest.raises(ValueError, match="view=3 of views=3"):
        rules.test_indices(10, Sampling(), views=3, view=3)


def test_a_draw_depends_on_seed_video_and_view_alone():
    first = view_rng(0, "abc", 1).random()
    assert first == view_rng(0, "abc", 1).random()
    others = {view_rng(*key).random() for key in [(1, "abc", 1), (0, "abd", 1), (0, "abc", 2), (0, "1\nabc", 1)]}
    assert len(others | {first}) == 5


def test_draws_are_the_same_as_when_this_was_written():
    assert view_rng(0, "78687", 0).random(2).tolist() == [0.8704189577970715, 0.20770561022533895]


def test_the_interval_rule_equals_the_release_on_every_golden_case(official: dict) -> None:
    assert official["interval_test"]
    for row in official["interval_test"]:
        views, view = row["num_views"], row["view"]
        assert row["minus_interval"] is False
        position = 0.5 if views == 1 else view / views
        assert list(interval_of(row, position)) == row["index"]
    assert official["interval_train_bounds"]
    for row in official["interval_train_bounds"]:
        assert list(interval_of(row, 0.0)) == row["min"]
        assert list(interval_of(row, 1.0)) == row["max"]


def interval_of(row: dict, position: float) -> tuple[int, ...]:
    return rules.interval_indices(
        row["num_video_frames"],
        Sampling(dense_frames=row["num_input_frames"], alpha=1),
        stride_frames=row["sampling_rate"],
        fps=row["fps"],
        target_fps=row["target_fps"],
        position=position,
    )


def test_local_windows_are_those_of_the_tds_release_in_both_forms(golden):
    cases = golden("sampling_tds.json")["local_windows"]
    assert {case["modality"] for case in cases} == {"RGB", "video"}
    for case in cases:
        centres = [centre - 1 for centre in case["centres"]]  # the release counts from 1
        ends = {"RGB": "clamp", "video": "wrap"}[case["modality"]]
        found = rules.window_indices(centres, case["num_diff"], case["N"], ends)
        assert [frame + 1 for frame in found] == [frame for window in case["windows"] for frame in window], case


@given(st.integers(1, 40), st.sampled_from((1, 3, 5, 7)), st.sampled_from(("clamp", "wrap")), st.data())
def test_windows_lie_inside_the_video_around_their_frames(frame_count, width, ends, data):
    middles = data.draw(st.lists(st.integers(0, frame_count - 1), min_size=1, max_size=8))
    found = rules.window_indices(middles, width, frame_count, ends)
    assert found[width // 2 :: width] == tuple(middles)
    for place, frame in enumerate(found):
        wanted = middles[place // width] + place % width - width // 2
        assert 0 <= frame < frame_count
        if 0 <= wanted < frame_count:
            assert frame == wanted
        elif wanted >= frame_count:
            assert frame == frame_count - 1
        else:
            assert frame == (0 if ends == "clamp" else wanted % frame_count)
