"""What is said below a comparison: numbers by hand, and nothing set side by side that is not alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidxfer.stages.learning.compare import Comparison, RunRow
from vidxfer.stages.learning.learned import learned


def row(recipe: str, epochs: int, **values: Any) -> RunRow:
    given = {"top1": None, "epoch_seconds": None, "factors": {}, "online": False, **values}
    tokens = "CLIP, every step" if given["online"] else "cache"
    return RunRow(
        name=f"{recipe}, {epochs} epochs", recipe=recipe, run=Path(recipe), top1_of_listed=given["top1"], scored=4,
        listed=4, tokens=tokens, epochs=epochs, **given,
    )  # fmt: skip


def compared(*rows: RunRow, **values: Any) -> Comparison:
    return Comparison(split="val", classes=8, chance=0.125, views=9, cache_bytes=10, runs=rows, **values)


def test_the_best_the_widest_factor_the_slower_path_and_what_is_no_match_are_said() -> None:
    found = compared(
        row("probe", 8, top1=0.375, factors={"thing": 0.95, "motion": 0.4}, epoch_seconds=0.5),
        row("dist", 8, top1=0.625, factors={"thing": 0.96, "motion": 0.7}, epoch_seconds=2.0),
        row("dist", 1, top1=0.9, factors={"thing": 1.0, "motion": 1.0}, epoch_seconds=7.0, online=True),
        factor_chance={"thing": 0.25, "motion": 0.5},
    )
    assert learned(found) == [
        "dist, 8 epochs: 62.5% of the videos right, where chance is 12.5%.",
        "The runs of 8 epochs differ most in motion: dist 70.0%, probe 40.0%.",
        "An epoch of dist takes 3.5 times as long with CLIP in every step as from the cache.",
        "dist, 1 epochs, tokens from CLIP, every step: look at its seconds, not at its score.",
    ]


def test_without_factors_top_1_is_compared_and_without_scores_nothing_is_said() -> None:
    two = compared(row("a", 3, top1=0.25), row("b", 3, top1=0.5))
    assert learned(two)[1] == "The runs of 3 epochs differ most in top-1: b 50.0%, a 25.0%."
    assert learned(compared(row("a", 3))) == []
    assert learned(compared()) == []
