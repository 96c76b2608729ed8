"""A bank of cached frames: what an epoch draws is always cached, in order, and inside the video."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.training.bank import Bank

sizes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))


def view_of(stored: int, alpha: int, jumps: list[int]) -> View:
    indices, at = [], 0
    for place in range(stored * alpha):
        at += jumps[place % len(jumps)]
        indices.append(at)
    return View(indices=tuple(indices), crop=(0, 0, 4, 4), resize_first=False, flip=False, grey=False)


@given(sizes, st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 99))
def test_every_drawn_frame_is_cached_in_order_and_one_of_its_group(
    size: tuple[int, int, int], jumps: list[int], epoch: int
) -> None:
    used, group, alpha = size
    bank = Bank(stored=used * group, used=used, alpha=alpha)
    view = view_of(used * group, alpha, jumps)
    for drawn in (bank.draw(view, "a", 3, epoch), bank.fixed(view)):
        assert [place // group for place in drawn.places] == list(range(used))
        assert list(drawn.indices) == sorted(drawn.indices)
        assert len(drawn.indices) == used * alpha
        assert view.indices[0] <= drawn.indices[0] <= drawn.indices[-1] <= view.indices[-1]
        for number, place in enumerate(drawn.places):
            assert drawn.indices[number * alpha] == view.indices[place * alpha]


def test_epochs_draw_differently_and_the_same_epoch_draws_the_same() -> None:
    bank, view = Bank(stored=16, used=8, alpha=2), view_of(16, 2, [1, 3])
    draws = [bank.draw(view, "a", 0, epoch) for epoch in range(8)]
    assert len({drawn.places for drawn in draws}) > 4
    assert draws[5] == bank.draw(view, "a", 0, 5)
    assert draws[5] != bank.draw(view, "b", 0, 5)


def test_a_bank_of_the_heads_own_size_is_the_stored_view() -> None:
    bank, view = Bank(stored=8, used=8, alpha=2), view_of(8, 2, [2])
    assert bank.fixed(view).indices == view.indices
    assert bank.draw(view, "a", 0, 0).places == tuple(range(8))


def test_frames_that_do_not_divide_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"holds 16 sparse frames per view, and the head reads 6"):
        Bank(stored=16, used=6, alpha=2)
