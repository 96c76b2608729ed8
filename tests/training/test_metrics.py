"""Scores: what was not scored is counted, named, and wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.training.metrics import RunningMean, factor_top1, ranked, score, topk

SIZES = st.tuples(st.integers(1, 20), st.integers(2, 12), st.integers(0, 10_000))


def drawn(sizes: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    clips, classes, seed = sizes
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(clips, classes, generator=generator)
    return probabilities / probabilities.sum(1, keepdim=True), torch.randint(classes, (clips,), generator=generator)


@given(SIZES, st.integers(1, 5))
def test_topk_is_the_share_of_rows_with_fewer_than_k_better_classes(sizes: tuple[int, int, int], k: int) -> None:
    probabilities, labels = drawn(sizes)
    own = probabilities.gather(1, labels[:, None])
    better = (probabilities > own).sum(1)
    assert topk(probabilities, labels, k) == pytest.approx(float((better < k).float().mean()))


@given(SIZES)
def test_top5_of_five_classes_or_fewer_is_always_right(sizes: tuple[int, int, int]) -> None:
    probabilities, labels = drawn((sizes[0], min(sizes[1], 5), sizes[2]))
    assert topk(probabilities, labels, 5) == 1.0


def test_a_single_class_is_always_right() -> None:
    assert topk(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), 1) == 1.0


def test_missing_videos_are_named_and_count_as_wrong() -> None:
    probabilities = torch.eye(4)[:3]
    found = score(probabilities, torch.tensor([0, 1, 3]), {"a": "missing: gone", "b": "empty"})
    assert (found.top1, found.scored, found.listed) == (pytest.approx(2 / 3), 3, 5)
    assert found.top1_of_listed == pytest.approx(2 / 5)
    assert found.missing == {"a": "missing: gone", "b": "empty"}
    assert "3 scored / 5 listed" in str(found)


def test_nothing_scored_is_zero_and_not_an_error() -> None:
    found = score(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), {"a": "empty"})
    assert (found.top1, found.top1_of_listed, found.scored, found.listed) == (0.0, 0.0, 0, 1)


@given(SIZES, st.floats(0.1, 30))
def test_ranked_shares_are_normalised_and_falling(sizes: tuple[int, int, int], factor: float) -> None:
    row = drawn(sizes)[0][0]
    classes, shares = ranked(row * factor, k=3)
    assert shares == sorted(shares, reverse=True)
    assert classes[0] == int(row.argmax())
    assert sum(ranked(row * factor, k=len(row))[1]) == pytest.approx(1.0, abs=1e-5)


def test_a_running_mean_begins_anew_after_each_take() -> None:
    mean = RunningMean()
    mean.add(1.0)
    mean.add(3.0)
    assert (mean.take(), mean.take()) == (2.0, 0.0)
    mean.add(5.0)
    assert mean.take() == 5.0


@given(SIZES, st.integers(1, 4))
def test_a_factor_is_right_where_its_values_share_of_probability_is_the_largest(
    sizes: tuple[int, int, int], values: int
) -> None:
    probabilities, labels = drawn(sizes)
    of_class = [f"value {(number * 7) % values}" for number in range(sizes[1])]
    right = 0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        share = {value: sum(p for p, own in zip(row, of_class, strict=True) if own == value) for value in of_class}
        right += max(share, key=lambda value: share[value]) == of_class[label]
    assert factor_top1(probabilities, labels, of_class) == pytest.approx(right / sizes[0])


def test_a_factor_is_summed_over_its_classes_not_read_off_the_best_one() -> None:
    probabilities = torch.tensor([[0.4, 0.3, 0.3]])  # the best class is "take cup", the best verb is "put"
    found = score(probabilities, torch.tensor([1]), {}, {"verb": ("take", "put", "put"), "noun": ("cup", "cup", "lid")})
    assert found.top1 == 0.0
    assert found.factors == {"verb": 1.0, "noun": 1.0}
    assert str(found) == "top-1 0.0%, top-5 100.0%, verb 100.0%, noun 100.0% (1 scored / 1 listed)"


def test_without_factors_a_score_reads_as_it_did() -> None:
    assert str(score(torch.eye(2), torch.tensor([0, 1]), {})) == "top-1 100.0%, top-5 100.0% (2 scored / 2 listed)"
