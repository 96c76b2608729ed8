"""Sampling of Side4Video and TDS-CLIP: the release's numbers, in every golden case (tests/golden/README_tds.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.video import sampling as frames_of
from vidxfer.pipeline.video.published_rules import RULES
from vidxfer.pipeline.video.sampling import Sampling, train_indices, window_indices

NAMES = {"sth": "tds-ss", "kinetics": "tds-k400"}


class Always:
    """A generator that draws one number for ever."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.number)


FIRST, LAST = Always(0.0), Always(np.nextafter(1.0, 0.0))


@pytest.fixture(scope="module")
def official(golden: Any) -> Any:
    return golden("sampling_tds.json")


def ruled(name: str, case: Any) -> Sampling:
    return Sampling(dense_frames=case["T"], alpha=1, rule=name)


def from_one(found: tuple[int, ...]) -> list[int]:
    """As the release counts frames."""
    return [index + 1 for index in found]


def views_of(name: str, case: Any) -> list[int]:
    views = case["clips"]
    return [
        index
        for view in range(views)
        for index in from_one(frames_of.test_indices(case["N"], ruled(name, case), views=views, view=view))
    ]


def test_test_views_are_the_releases(official: Any) -> None:
    assert official["test_uniform"]
    for case in official["test_uniform"]:
        assert views_of(NAMES[case["dataset"]], case) == case["indices"], case


def test_test_views_of_the_dense_rule_are_the_releases(official: Any) -> None:
    assert official["test_dense"]
    for case in official["test_dense"]:
        assert views_of("tds-dense", case) == case["indices"], case


def test_validation_is_the_one_view(official: Any) -> None:
    assert official["val_uniform"]
    for case in official["val_uniform"]:
        assert views_of(NAMES[case["dataset"]], {**case, "clips": 1}) == case["indices"], case


def test_training_draws_reach_the_releases_bounds_and_no_further(official: Any) -> None:
    kinds = {case["kind"] for case in official["train_uniform_bounds"]}
    assert {"segment", "segment-inclusive"} <= kinds
    for case in official["train_uniform_bounds"]:
        sampling = ruled(NAMES[case["dataset"]], case)
        lowest, highest = (from_one(train_indices(case["N"], sampling, draw)) for draw in (FIRST, LAST))
        if not case["kind"].startswith("short"):
            assert (lowest, highest) == (case["low"], case["high_inclusive"]), case
            continue
        for found, again in ((lowest, 1), (highest, case["N"])):  # every frame, and one of them for what is lacking
            assert found == sorted([*range(1, case["N"] + 1), *[again] * (case["T"] - case["N"])]), case


def test_training_draws_of_the_dense_rule_begin_within_the_releases_bounds(official: Any) -> None:
    assert official["train_dense_bounds"]
    for case in official["train_dense_bounds"]:
        for draw, bound in ((FIRST, "first_index_low"), (LAST, "first_index_high")):
            found = train_indices(case["N"], ruled("tds-dense", case), draw)
            assert found[0] + 1 == case[bound], case
            assert list(found) == [(found[0] + i * case["stride"]) % case["N"] for i in range(case["T"])]


def test_windows_are_those_of_the_release_in_frame_folders(official: Any) -> None:
    """The other kind wraps around at the beginning of a video; ours is clamped, as the release does for folders."""
    cases = [case for case in official["local_windows"] if case["modality"] == "RGB"]
    assert cases
    for case in cases:
        centres = [centre - 1 for centre in case["centres"]]
        found = from_one(window_indices(centres, case["num_diff"], case["N"]))
        assert found == [index for window in case["windows"] for index in window], case


@pytest.mark.parametrize("name", RULES)
@given(st.integers(1, 700), st.integers(1, 64), st.integers(1, 5), st.integers(0, 2**32))
def test_every_frame_is_one_of_the_video(name: str, count: int, frames: int, views: int, seed: int) -> None:
    sampling = Sampling(dense_frames=frames, alpha=1, rule=name)
    drawn = train_indices(count, sampling, np.random.default_rng(seed))
    for found in (
        drawn,
        *(frames_of.test_indices(count, sampling, views=views, view=view) for view in range(views)),
    ):
        assert len(found) == frames
        assert min(found) >= 0
        assert max(found) < count


def test_draws_are_uniform() -> None:
    sampling = Sampling(dense_frames=2, alpha=1, rule="tds-k400")
    rng = np.random.default_rng(0)
    seen = np.bincount([train_indices(7, sampling, rng)[0] for _ in range(4000)])  # 0, 1, 2, 3: both ends among them
    assert len(seen) == 4
    assert seen.min() > 900


def test_a_rule_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"sampling\.rule='random' is none of segment, tds-ss"):
        Sampling(rule="random")


def test_one_view_of_the_dense_rule_stands_in_the_middle() -> None:
    sampling = Sampling(dense_frames=4, alpha=1, rule="tds-dense")
    assert frames_of.test_indices(328, sampling, views=1, view=0) == (100, 132, 164, 196)
