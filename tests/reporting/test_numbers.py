"""The numbers of a report, by hand: calibration, confusion, classes, which videos are shown, curves."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.resampled import mcnemar
from vidxfer.stages.reporting.answers import Answers, answers_of
from vidxfer.stages.reporting.calibration import calibration
from vidxfer.stages.reporting.classes import class_rows, matrix, most_confused
from vidxfer.stages.reporting.curves import MOST_POINTS, curves_of
from vidxfer.stages.reporting.hardest import chosen
from vidxfer.stages.reporting.strips import spread

CLASSES = ("open", "close", "never seen")


def answers(labels: list[int], *runs: list[tuple[int, float] | None]) -> Answers:
    """Runs that gave each video one class and a share, or said nothing; the rest goes to the next class."""
    shape = (len(runs), len(labels))
    made = Answers(
        ids=tuple(map(str, range(len(labels)))),
        labels=np.array(labels),
        scored=np.zeros(shape, bool),
        right=np.zeros(shape, bool),
        best=np.full((*shape, 5), -1),
        shares=np.zeros((*shape, 5)),
    )
    for run, said in enumerate(runs):
        for video, one in enumerate(said):
            if one is not None:
                made.scored[run, video], made.right[run, video] = True, one[0] == labels[video]
                made.best[run, video, :2] = one[0], (one[0] + 1) % 3
                made.shares[run, video, :2] = one[1], 1 - one[1]
    return made


def test_the_calibration_error_of_four_videos() -> None:
    # Bins of 1/15: 0.95 and 0.97 lie in the last, 0.52 and 0.53 in that of 7/15 to 8/15.
    found = calibration(np.array([0.95, 0.97, 0.52, 0.53]), np.array([True, False, True, True]))
    assert found is not None
    assert [(one.videos, one.right) for one in found.bins] == [(2, 1.0), (2, 0.5)]
    # |0.525 - 1| over two videos, |0.96 - 0.5| over two.
    assert found.ece == pytest.approx((2 * 0.475 + 2 * 0.46) / 4)
    assert (found.sure, found.right) == (pytest.approx(0.7425), 0.75)
    assert calibration(np.zeros(0), np.zeros(0, bool)) is None


def test_a_share_on_an_edge_counts_to_the_bin_below() -> None:
    found = calibration(np.array([0.0, 1 / 15, 2 / 15, 1.0]), np.array([True] * 4))
    assert found is not None
    assert [one.videos for one in found.bins] == [2, 1, 1]


def test_confusion_is_counted_down_the_labels_and_across_the_answers() -> None:
    two = answers(
        [0, 0, 0, 1, -1], [(0, 0.9), (1, 0.6), (1, 0.7), (1, 0.8), (0, 0.9)], [(2, 0.5), (1, 0.6), None, (0, 0.8), None]
    )
    assert matrix(two, 0, 3).tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert matrix(two, 1, 3).tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert [(one.label, one.answer, one.videos, one.listed) for one in most_confused(two, CLASSES)] == [
        ("open", "close", (2, 1), 3),
        ("open", "never seen", (0, 1), 3),
        ("close", "open", (0, 1), 1),
    ]


def test_classes_have_shares_over_the_scored_videos_and_pairs_over_the_shared_ones() -> None:
    first = [(1, 0.9)] * 7 + [(1, 0.9)]
    second = [(0, 0.9)] * 6 + [None] + [(0, 0.9)]
    rows = class_rows(answers([0, 0, 0, 0, 0, 0, 0, 1], first, second), CLASSES)
    assert [row.name for row in rows] == ["open", "close"]
    opened, closed = rows
    assert (opened.videos, opened.right, opened.taken_for) == (7, (0.0, 1.0), ("close", 7))
    # Six videos that both scored, only the second has right: p = 2 / 2 ** 6; two tests, so 0.025 is needed.
    (pair,) = opened.pairs
    assert pair is not None
    assert (pair.difference, pair.p, pair.holds) == (1.0, 2 / 64, False)
    assert (closed.right, closed.taken_for) == ((1.0, 0.0), None)
    assert class_rows(answers([0], [None], [(0, 1.0)]), CLASSES)[0].pairs == (None,)


def test_a_p_holds_when_it_is_below_its_part_of_five_per_cent() -> None:
    labels, wrong, right = [0] * 7 + [1] * 2, [(1, 0.9)] * 7 + [(1, 0.9)] * 2, [(0, 0.9)] * 7 + [(1, 0.9)] * 2
    opened, closed = (row.pairs[0] for row in class_rows(answers(labels, wrong, right), CLASSES))
    assert opened is not None
    assert closed is not None
    assert (opened.p, opened.holds) == (2 / 128, True)  # below 0.05 / 2
    assert (closed.p, closed.holds) == (1.0, False)


def test_the_hardest_are_surely_wrong_and_the_luckiest_right_by_a_hair() -> None:
    #        margins of class 0:  +0.8        -0.8       +0.02       -0.2        unlabelled
    found = answers([0, 0, 0, 0, -1, 0], [(0, 0.9), (1, 0.8), (0, 0.51), (1, 0.2), (0, 0.9), None])
    hard, lucky = chosen(found)
    assert [(one.place, round(one.margin, 2)) for one in hard] == [(1, -0.8), (3, -0.8)]
    assert [(one.place, round(one.margin, 2)) for one in lucky] == [(2, 0.02), (0, 0.8)]
    assert [one.place for one in chosen(found, most=1)[0]] == [1]


def test_a_video_that_one_of_two_runs_has_wrong_is_not_lucky() -> None:
    found = answers([0, 0], [(0, 0.6), (0, 0.6)], [(1, 0.9), (0, 0.7)])
    hard, lucky = chosen(found)
    assert [one.place for one in hard] == [0]
    assert [one.place for one in lucky] == [1]
    assert lucky[0].margin == pytest.approx((0.2 + 0.4) / 2)
    assert hard[0].margin == pytest.approx((0.2 - 0.9) / 2)


def test_a_long_journal_becomes_means_and_a_short_one_stays(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": float(step), "data_wait_share": 0.5} for step in range(1, 5001)]
    lines += [{"step": 5000, "val_top1": 0.25}, {"step": "x", "loss": 1.0}, {"step": 1, "loss": float("nan")}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = curves_of(tmp_path)
    assert 100 < len(found.loss.steps) <= MOST_POINTS["loss"]
    assert found.loss.steps == found.loss.values
    assert found.loss.steps[0] == (1 + 32) / 2, "5,000 steps, 16 each, are 313: so 32 each"
    assert set(found.wait.values) == {0.5}
    assert (found.top1.steps, found.top1.values) == ((5000.0,), (0.25,))
    assert curves_of(tmp_path / "none").loss.steps == ()
    (tmp_path / "metrics.jsonl").write_text("torn")
    with pytest.raises(RunError, match="damaged"):
        curves_of(tmp_path)


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert spread(3, 8) == (0, 1, 2)
    assert spread(9, 5) == (0, 2, 4, 6, 8)


@pytest.mark.parametrize(
    ("labels", "shares", "said"),
    [([0, 7], [0.5, 0.5], "class 7; there are 2"), ([0], [1.5], "no line"), ([0, 1], [0.5], "no line"), ([], [], "no")],
)
def test_a_damaged_answer_is_named(tmp_path: Path, labels: list[int], shares: list[float], said: str) -> None:
    line = {"id": "a", "label": 0, "label_name": "open", "right": True, "top5": [["x", one] for one in shares]}
    (tmp_path / "predictions.val.jsonl").write_text(json.dumps({**line, "top5_labels": labels}) + "\n")
    reference = {"ids": ["a"], "labels": [0], "class_names": ["open", "close"]}
    with pytest.raises(RunError, match=said):
        answers_of([tmp_path], "val", reference)


def test_mcnemar_over_thousands_of_videos_takes_no_time() -> None:
    began = time.process_time()
    # The normal distribution with continuity correction: (100 - 1) / sqrt(12100) = 0.9, two-sided 0.3681.
    assert mcnemar(6000, 6100) == pytest.approx(math.erfc(0.9 / math.sqrt(2)), abs=1e-4)
    assert time.process_time() - began < 2
    assert mcnemar(2, 4) == 2 * (1 + 6 + 15) / 64
