"""The result of a comparison of runs, in a few sentences below its table."""

from __future__ import annotations

from vidxfer.stages.comparing.rows import Comparison, RunRow

MOST_NAMED = 6
"""Scores in a sentence; of more, the best and the least."""


def learned(comparison: Comparison) -> list[str]:
    """The best run, where the runs differ most, what CLIP in every step costs, and which scores are no match.

    Scores are set beside each other only among the runs of as many epochs as the longest.
    """
    longest = max((row.epochs for row in comparison.runs), default=0)
    like = sorted((row for row in comparison.runs if row.epochs == longest and row.top1 is not None), key=_top1)[::-1]
    sentences = []
    if like:
        best = f"{like[0].name}: {_top1(like[0]):.1%} of the videos right"
        sentences.append(f"{best}, where chance is {comparison.chance:.1%}.")
    if len(like) > 1:
        sentences.append(f"The runs of {longest} epochs differ most in {_widest(comparison, like)}.")
    return [*sentences, *_slower(comparison), *_no_match(comparison, longest)]


def _top1(row: RunRow) -> float:
    return row.top1 or 0.0


def _widest(comparison: Comparison, like: list[RunRow]) -> str:
    """The factor in which the scores are furthest apart, with them; top-1 where classes have no factors."""
    scores = {name: [row.factors[name] for row in like] for name in comparison.factor_chance if _all_have(like, name)}
    scores = scores or {"top-1": [_top1(row) for row in like]}
    name = max(scores, key=lambda factor: max(scores[factor]) - min(scores[factor]))
    unique = len({row.recipe for row in like}) == len(like)
    called = [row.recipe if unique else row.name for row in like]
    words = [f"{each} {score:.1%}" for each, score in zip(called, scores[name], strict=True)]
    if len(words) > MOST_NAMED:
        best, *_, least = sorted(zip(scores[name], words, strict=True), reverse=True)
        words = [best[1], f"at least {least[1]}"]
    return f"{name}: {', '.join(words)}"


def _all_have(rows: list[RunRow], factor: str) -> bool:
    return all(factor in row.factors for row in rows)


def _slower(comparison: Comparison) -> list[str]:
    """How much longer an epoch takes with CLIP in every step, for each recipe that was timed both ways."""
    cached = {row.recipe: row.epoch_seconds for row in comparison.runs if not row.online and row.epoch_seconds}
    return [
        f"An epoch of {row.recipe} takes {row.epoch_seconds / cached[row.recipe]:.1f} times as long with CLIP in "
        "every step as from the cache."
        for row in comparison.runs
        if row.online and row.epoch_seconds and row.recipe in cached
    ]


def _no_match(comparison: Comparison, longest: int) -> list[str]:
    return [
        f"{row.name}, tokens from {row.tokens}: look at its seconds, not at its score."
        for row in comparison.runs
        if 0 < row.epochs < longest
    ]
