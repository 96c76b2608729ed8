"""What others published is what the survey says, number by number, and each number has one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidxfer.pipeline.heads import FAMILIES
from vidxfer.pipeline.heads.systems import OTHERS, figures

SURVEY = (Path(__file__).parents[2] / "docs/spec/systems.md").read_text(encoding="utf-8")
SECTION = SURVEY.partition("## 1. Table")[2].partition("## 2.")[0]
ROWS = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if "|" in line][2:]
"""Cells of the survey's table: system, mechanism, cacheable, bytes, parameters, SSv2, K400, share."""


def numbers(data: str) -> list[float]:
    """Every accuracy in the column of a data set."""
    column = {"SSv2": 5, "K400": 6}[data]
    cells = [re.sub(r"16f number.*", "", row[column]) for row in ROWS if len(row) > column]
    return sorted(float(one) for cell in cells for one in re.findall(r"\d\d\.\d", cell))


@pytest.mark.parametrize("data", ["SSv2", "K400"])
def test_every_accuracy_of_the_survey_is_there_and_no_other(data: str) -> None:
    own = {float(row.top1) for family in FAMILIES for row in family.published if row.data == data}
    found = sorted(one.top1 for one in OTHERS if one.data == data and one.top1 is not None)
    surveyed = numbers(data)
    assert len(surveyed) > 15
    assert sorted({*found, *own}.intersection(surveyed)) == sorted(set(surveyed))
    assert [one for one in found if one not in surveyed] == []


@pytest.mark.parametrize(
    ("system", "data", "clip", "frames", "top1"),
    [
        ("TDS-CLIP", "SSv2", "B/16", 16, 72.1), ("UniFormerV2, frozen", "K400", "L/14@336", 8, 86.7),
        ("ST-Adapter", "K400", "B/16", 32, 82.7), ("BIKE", "K400", "L/14", 16, 88.1), ("AIM", "SSv2", "L/14", 16, 69.4),
        ("DiST", "SSv2", "L/14", 16, 72.5), ("DiST", "SSv2", "B/16", 8, 68.7), ("MViT", "SSv2", None, None, 68.7),
        ("ILA", "SSv2", "L/14", 8, 67.8),
    ],
)  # fmt: skip
def test_some_rows_read_in_the_survey(system: str, data: str, clip: str, frames: int, top1: float) -> None:
    found = [one for one in figures() if (one.system, one.data, one.clip, one.frames) == (system, data, clip, frames)]
    assert [one.top1 for one in found] == [top1]


def test_a_configuration_that_a_family_publishes_stands_there_alone() -> None:
    ours = {(one.system, one.data, one.clip, one.frames) for one in figures() if one not in OTHERS}
    assert len(ours) >= 8
    twice = [(o.system, o.data, o.clip, o.frames) for o in OTHERS if (o.system, o.data, o.clip, o.frames) in ours]
    assert twice == [], "their numbers stand in heads/*/published.py: take these rows out of heads/systems.py"


@pytest.mark.parametrize(
    ("system", "words"),
    [("UniFormerV2", "84.4"), ("EVL", "444 GFLOPs"), ("S-ViT", "X-CLIP"), ("X-CLIP", "287"), ("ILA", "336 px")],
)
def test_the_caveats_of_the_survey_go_with_their_rows(system: str, words: str) -> None:
    assert any(words in (one.caveat or "") for one in figures() if one.system == system)


def test_what_is_not_said_is_blank() -> None:
    zero_shot = next(one for one in figures() if one.system == "CLIP zero-shot")
    assert (zero_shot.top1, zero_shot.data, zero_shot.source, zero_shot.views) == (None, None, None, None)
    assert all(one.source for one in figures() if one.top1 is not None)
    assert all(one.top5 is None for one in OTHERS)
