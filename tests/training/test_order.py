"""Which clip at which step: every row at most once, ranks share a batch, and a tail is the tail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.training.order import epoch_order, rank_batches, steps_per_epoch

ROWS = st.lists(st.integers(0, 5000), min_size=1, max_size=200, unique=True)
SEEDS, EPOCHS = st.integers(0, 2**32), st.integers(0, 500)


@given(ROWS, st.integers(1, 5), SEEDS, EPOCHS)
def test_an_epoch_shows_every_row_once_in_one_of_its_views(rows: list[int], views: int, seed: int, epoch: int) -> None:
    order = epoch_order(rows, views, seed=seed, epoch=epoch)
    assert sorted(row for row, _ in order) == sorted(rows)
    assert {view for _, view in order} <= set(range(views))


@given(ROWS, st.integers(1, 40), SEEDS)
def test_no_row_is_in_two_batches_and_fewer_than_a_batch_are_left_out(rows: list[int], batch: int, seed: int) -> None:
    batches = rank_batches(epoch_order(rows, 2, seed=seed, epoch=3), batch)
    shown = [row for clips in batches for row, _ in clips]
    assert len(shown) == len(set(shown))
    assert len(batches) == steps_per_epoch(len(rows), batch)
    assert len(rows) - len(shown) < batch
    assert all(len(clips) == min(batch, len(rows)) for clips in batches)


@given(ROWS, st.integers(1, 10), st.integers(1, 5), SEEDS)
def test_ranks_partition_the_global_batch(rows: list[int], per_rank: int, world: int, seed: int) -> None:
    order = epoch_order(rows, 3, seed=seed, epoch=0)
    whole = rank_batches(order, per_rank * world)
    parts = [rank_batches(order, per_rank * world, rank=rank, world=world) for rank in range(world)]
    for step, clips in enumerate(whole):
        assert sorted(clip for part in parts for clip in part[step]) == sorted(clips)


@given(ROWS, st.integers(1, 20), st.integers(0, 30), st.integers(1, 3))
def test_going_on_at_a_step_gives_the_tail_of_the_epoch(rows: list[int], batch: int, step: int, world: int) -> None:
    order = epoch_order(rows, 2, seed=1, epoch=7)
    for rank in range(world):
        whole = rank_batches(order, batch * world, rank=rank, world=world)
        assert rank_batches(order, batch * world, first_step=step, rank=rank, world=world) == whole[step:]


@given(st.integers(2, 2**31), EPOCHS)
def test_another_epoch_or_seed_is_another_order(seed: int, epoch: int) -> None:
    rows = list(range(300))
    this = epoch_order(rows, 1, seed=seed, epoch=epoch)
    assert this == epoch_order(rows, 1, seed=seed, epoch=epoch)
    assert this != epoch_order(rows, 1, seed=seed, epoch=epoch + 1)
    assert this != epoch_order(rows, 1, seed=seed - 1, epoch=epoch)


def test_over_many_epochs_every_view_is_shown_about_equally_often() -> None:
    shown = [view for epoch in range(200) for _, view in epoch_order(range(20), 4, seed=0, epoch=epoch)]
    counts = [shown.count(view) for view in range(4)]
    assert min(counts) > 850  # 1000 expected, standard deviation 27
    assert max(counts) < 1150
