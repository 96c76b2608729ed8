"""Clips of frames a fixed number apart: docs/spec/evl.md §6, with its own example."""

from __future__ import annotations

import numpy as np
import pytest

from vidxfer.pipeline.video.sampling import Sampling, test_indices
from vidxfer.pipeline.video.strided import strided_test_indices, strided_train_indices


class Fixed:
    """A generator that draws one number."""

    def __init__(self, share: float) -> None:
        self.share = share

    def random(self) -> float:
        return self.share


def test_a_short_video_repeats_its_last_strided_frame_in_training_as_the_release_does() -> None:
    rng = np.random.default_rng(0)
    assert strided_train_indices(60, 8, 16, rng) == (0, 16, 32, 48, 48, 48, 48, 48)
    assert strided_train_indices(113, 8, 16, rng) == (0, 16, 32, 48, 64, 80, 96, 112)
    assert strided_train_indices(64, 8, 16, rng) == (0, 16, 32, 48, 48, 48, 48, 48)
    assert strided_train_indices(1, 3, 2, rng) == (0, 0, 0)


def test_a_training_clip_begins_anywhere_in_its_room() -> None:
    """Starts are drawn from [0, length − rate · (T − 1)): the last one still ends inside."""
    for share, start in ((0.0, 0), (0.5, 50), (0.999999, 99)):
        found = strided_train_indices(100 + 6, 4, 2, Fixed(share))  # type: ignore[arg-type]
        assert found == tuple(start + 2 * place for place in range(4))
    rng = np.random.default_rng(0)
    starts = {strided_train_indices(10, 4, 2, rng)[0] for _ in range(200)}
    assert starts == {0, 1, 2, 3}
    assert max(max(strided_train_indices(10, 4, 2, rng)) for _ in range(200)) == 9


def test_test_clips_lie_evenly_and_one_is_in_the_middle() -> None:
    # 200 frames, a clip of 8 every 16 spans 113: 87 starts are left.
    starts = [strided_test_indices(200, 8, 16, views=3, view=view)[0] for view in range(3)]
    assert starts == [0, round(43.5), 87]
    assert strided_test_indices(200, 8, 16, views=1, view=0) == tuple(43 + 16 * place for place in range(8))
    assert strided_test_indices(60, 8, 16, views=3, view=2) == (0, 16, 32, 48, 59, 59, 59, 59)


def test_by_segment_the_middle_of_each_is_the_sane_rule() -> None:
    assert test_indices(80, Sampling(dense_frames=8, alpha=1), views=1, view=0) == (5, 15, 25, 35, 45, 55, 65, 75)


@pytest.mark.parametrize("numbers", [(0, 8, 16), (10, 0, 1), (10, 8, 0)])
def test_numbers_below_one_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="each must be at least 1"):
        strided_train_indices(*numbers, np.random.default_rng(0))
    with pytest.raises(ValueError, match="each must be at least 1"):
        strided_test_indices(*numbers, views=1, view=0)
    with pytest.raises(ValueError, match="view=3 of views=3"):
        strided_test_indices(10, 2, 1, views=3, view=3)
