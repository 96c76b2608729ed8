"""Several seeds of one head as one row: mean and standard deviation; and a name for each run that tells it from others.

runs that differ in the seed alone ─▶ Seeds               runs of one recipe with other settings of the head ─▶ named so
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.stages.comparing.rows import RunRow, Seeds

SEED = "seed"


def named(rows: Sequence[RunRow], recipes: Sequence[Recipe | None]) -> list[RunRow]:
    """The rows, each named by its recipe and by what tells it from others: settings of the head, epochs, the seed."""
    settings_of = [{} if recipe is None else _told(recipe) for recipe in recipes]
    renamed = []
    for row, settings in zip(rows, settings_of, strict=True):
        like = [other for other, beside in zip(settings_of, rows, strict=True) if beside.recipe == row.recipe]
        differing = [name for name in settings if len({str(other[name]) for other in like if name in other}) > 1]
        words = ", ".join(f"{name}={settings[name]}" for name in differing)
        renamed.append(replace(row, name=f"{row.recipe} ({words})" if words else row.recipe))
    return renamed


def _told(recipe: Recipe) -> dict[str, Any]:
    return {**flat(recipe.head.to_dict()), "epochs": recipe.epochs, SEED: recipe.seed}


def grouped(rows: Sequence[RunRow], recipes: Sequence[Recipe | None]) -> tuple[Seeds, ...]:
    """Heads of which there are runs of several seeds, in the order of their first runs."""
    groups: dict[Any, list[RunRow]] = {}
    for row, recipe in zip(rows, recipes, strict=True):
        if recipe is not None and row.top1 is not None:
            groups.setdefault((replace(recipe, seed=0), tuple(row.settings.items()), row.online), []).append(row)
    return tuple(_seeds(group) for group in groups.values() if len({row.seed for row in group}) > 1)


def flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A table of tables as one, its names joined by dots."""
    flattened: dict[str, Any] = {}
    for name, value in table.items():
        flattened |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return flattened


def _seeds(group: Sequence[RunRow]) -> Seeds:
    tops = [row.top1 for row in group if row.top1 is not None]
    fives = [row.top5 for row in group if row.top5 is not None]
    ends = [end for row in group if row.top1_interval is not None for end in row.top1_interval]
    shared = [name for name in group[0].factors if all(name in row.factors for row in group)]
    return Seeds(
        name=re.sub(rf" \({SEED}=\d+\)$|, {SEED}=\d+(?=\)$)", "", group[0].name),
        runs=tuple(row.run for row in group),
        top1=_spread(tops),
        top5=_spread(fives) if len(fives) == len(group) else None,
        top1_interval=(min(ends), max(ends)) if ends else None,
        factors={name: _spread(row.factors[name] for row in group) for name in shared},
    )


def _spread(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    return mean(numbers), stdev(numbers)
