"""EVL's frames, from its spec (docs/spec/evl.md §6) and by hand: evl-k400 and evl-ss."""

from __future__ import annotations

import numpy as np
import pytest

from vidxfer.pipeline.video import sampling as frames_of
from vidxfer.pipeline.video.sampling import Sampling, train_indices

KINETICS = Sampling(dense_frames=8, alpha=1, rule="evl-k400")


class Always:
    """A generator that draws one number for ever."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.number)


def drawn(frame_count: int, sampling: Sampling, number: float) -> tuple[int, ...]:
    return train_indices(frame_count, sampling, Always(number))  # type: ignore[arg-type]


def test_a_short_video_repeats_its_last_strided_frame_in_training_as_the_release_does() -> None:
    for number in (0.0, 0.999):
        assert drawn(60, KINETICS, number) == (0, 16, 32, 48, 48, 48, 48, 48)  # the spec's own example
        assert drawn(113, KINETICS, number) == (0, 16, 32, 48, 64, 80, 96, 112)
        assert drawn(64, KINETICS, number) == (0, 16, 32, 48, 48, 48, 48, 48)
        assert drawn(1, KINETICS, number) == (0,) * 8


@pytest.mark.parametrize(("frames", "stride"), [(8, 16), (16, 16), (32, 8)])
def test_a_training_clip_begins_anywhere_in_its_room(frames: int, stride: int) -> None:
    """Starts are drawn from [0, length − rate · (T − 1)): the last one still ends inside."""
    sampling = Sampling(dense_frames=frames, alpha=1, rule="evl-k400")
    length = stride * (frames - 1) + 100
    for number, start in ((0.0, 0), (0.5, 50), (0.999999, 99)):
        assert drawn(length, sampling, number) == tuple(start + stride * place for place in range(frames))
    assert max(drawn(length, sampling, np.nextafter(1.0, 0.0))) == length - 1


def test_test_clips_lie_evenly_and_one_is_in_the_middle() -> None:
    # 200 frames, a clip of 8 every 16 spans 113: 87 starts are left.
    starts = [frames_of.test_indices(200, KINETICS, views=3, view=view)[0] for view in range(3)]
    assert starts == [0, round(43.5), 87]
    one = frames_of.test_indices(200, KINETICS, views=1, view=0)
    assert one == tuple(43 + 16 * place for place in range(8))
    assert frames_of.test_indices(60, KINETICS, views=3, view=2) == (0, 16, 32, 48, 59, 59, 59, 59)


def test_segments_share_an_end_in_training_and_are_tested_in_the_middle() -> None:
    sampling = Sampling(dense_frames=4, alpha=1, rule="evl-ss")  # of 41 frames: parts of 10
    assert drawn(41, sampling, 0.0) == (0, 10, 20, 30)
    assert drawn(41, sampling, np.nextafter(1.0, 0.0)) == (10, 20, 30, 40)
    assert frames_of.test_indices(41, sampling, views=1, view=0) == (5, 15, 25, 35)
    assert frames_of.test_indices(121, sampling, views=2, view=0) == (10, 40, 70, 100)
    assert frames_of.test_indices(121, sampling, views=2, view=1) == (20, 50, 80, 110)
