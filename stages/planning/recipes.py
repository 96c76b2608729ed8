"""Every recipe, with what was published for it and what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.recipe import Published, Recipe
from vidxfer.pipeline.training.published import cache_spec, trainable_parameters


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One recipe.

    Attributes:
        recipe: its settings.
        published: None where nobody published it.
        trainable_parameters, int8_bytes_per_view, float16_bytes_per_view: at the published sizes; None without.
    """

    recipe: Recipe
    published: Published | None
    trainable_parameters: int | None
    int8_bytes_per_view: int | None
    float16_bytes_per_view: int | None


def catalogue() -> tuple[Entry, ...]:
    """All recipes in their order; nothing is read and nothing allocated."""
    rows = {row.recipe: row for row in PUBLISHED}
    return tuple(_entry(recipe, rows.get(recipe.name)) for recipe in RECIPES)


def _entry(recipe: Recipe, row: Published | None) -> Entry:
    return Entry(
        recipe=recipe,
        published=row,
        trainable_parameters=None if row is None else trainable_parameters(recipe, row),
        int8_bytes_per_view=None if row is None else cache_spec(row, "int8").bytes_per_view,
        float16_bytes_per_view=None if row is None else cache_spec(row, "float16").bytes_per_view,
    )
