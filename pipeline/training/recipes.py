"""Named recipes, settings from the command line, and recipes out of run folders of this version and older ones.

    recipe = named("dist-ssv2-b16-8f")              published settings of DiST, docs/spec/dist.md §5–6
    short  = with_settings(recipe, ["epochs=2", "head.pooling_layers=1"])

`dist-ssv2-b16` and `dist-k400-b16` are the same settings for any number of frames and any CLIP. The published mixing of
pixels is not switched on by any of them, because a cache cannot have it: see `mixing`.

Order of precedence: a named recipe, then --set field=value. A run folder keeps the resolved result.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads import HEADS, RECIPES
from vidxfer.pipeline.heads.base import HeadConfig
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.typed import checked

PARTS = ("head", "optimiser", "mixing", "clip")
"""Fields of a recipe that have fields of their own."""

RENAMED = {
    "betas": "optimiser.betas",
    "eps": "optimiser.eps",
    "warmup_learning_rate": "optimiser.warmup_from",
    "clip_channels": "clip",
}
"""Fields of 0.1.0 -> where they are now. `dist.x`, for a head of that kind, is `head.x`."""


def nearest(name: str, known: list[str]) -> str:
    """ " Did you mean a, b?" or the whole list when nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: no such recipe; names the nearest ones.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    if name not in by_name:
        raise UsageError(f"no recipe {name!r}. {nearest(name, list(by_name))}")
    return by_name[name]


def with_settings(recipe: Recipe, settings: list[str], tell: Callable[[str], None] = lambda line: None) -> Recipe:
    """Apply `field=value` or `head.field=value` settings (any of `PARTS`); values are JSON (or a bare word).

    `head=KIND` takes the default settings of that kind; settings of the head then are those of that kind.

    Args:
        recipe: to be changed.
        settings: in order; the last of two equal ones counts.
        tell: given one line where names of 0.1.0 are used.

    Raises:
        UsageError: not of that form, an unknown field, or a value of another type than the default's.
    """
    split = [_split(setting) for setting in settings]
    for kind in [value for path, value, _ in split if path == "head"]:
        recipe = replace(recipe, head=_kind(kind)())
    chosen: dict[str, dict[str, Any]] = {"": {}, **{part: {} for part in PARTS}}
    old: dict[str, str] = {}
    for given, value, setting in split:
        path = _renamed(given, recipe, setting)
        if path != given:
            old[given] = path
        outer, dot, inner = path.partition(".")
        if path == "head":
            continue
        if dot and outer not in PARTS:
            raise UsageError(
                f"--set {setting}: only {', '.join(PARTS)} have fields of their own, as in head.pooling_layers=4"
            )
        part, target, name = (outer, getattr(recipe, outer), inner) if dot else ("", recipe, outer)
        chosen[part][name] = _checked(target, name, value, setting)
    if old:
        tell("names of 0.1.0, still understood: " + ", ".join(f"{was} is now {now}" for was, now in old.items()))
    # All at once: epochs and warmup_epochs must fit each other, not each the other's default.
    own = chosen.pop("")
    parts = {part: replace(getattr(recipe, part), **new) for part, new in chosen.items() if new}
    return replace(recipe, **{**parts, **own})


def _split(setting: str) -> tuple[str, Any, str]:
    """Path of the field, its value, and the setting as it was given."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting!r} is not field=value")
    try:
        value = json.loads(text.strip())
    except json.JSONDecodeError:
        value = text.strip()
    return path.strip(), value, setting


def _renamed(path: str, recipe: Recipe, setting: str) -> str:
    """Where a field of 0.1.0 is now; a field of today as it is."""
    outer, dot, inner = path.partition(".")
    if outer == "dist" and dot:
        if recipe.head.kind != "dist":
            raise UsageError(f"--set {setting}: the head of recipe {recipe.name} is of kind {recipe.head.kind!r}")
        return f"head.{inner}"
    return RENAMED.get(path, path)


def _kind(name: Any) -> type[HeadConfig]:
    """The class of settings of a kind of head."""
    if not isinstance(name, str) or name not in HEADS:
        raise UsageError(f"head={name!r} is none of {', '.join(HEADS)}")
    return HEADS[name]


def _checked(target: Any, name: str, value: Any, setting: str) -> Any:
    """The value as the field's type, or an error that names the field's type and value."""
    if not is_dataclass(target):
        raise UsageError(f"--set {setting}: this recipe is for any CLIP; there is no shape of which to set {name!r}")
    known = [one.name for one in fields(target)]
    if name == "classifier" and name not in known and isinstance(target, HeadConfig):
        raise UsageError(
            f"--set {setting}: the classifier of heads of kind {target.kind!r} is always linear; leave it out"
        )
    if name not in known:
        raise UsageError(f"--set {setting}: no field {name!r}. {nearest(name, known) if known else 'It has none.'}")
    old = getattr(target, name)
    if value is None and next(one.default for one in fields(target) if one.name == name) is None:
        return None
    if isinstance(target, Recipe) and name in PARTS:
        raise UsageError(f"--set {setting}: {name} has fields of its own: set {name}.FIELD=value")
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if old is not None and type(value) is not type(old):
        raise UsageError(f"--set {setting}: {name} is a {type(old).__name__} (now {old!r}), not {value!r}")
    return value


def from_dict(found: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`, also for the recipes that 0.1.0 wrote.

    Raises:
        UsageError: unknown fields, a kind of head there is not, or a value of another type or range.
    """
    stored = _of_today(found) if isinstance(found.get("head"), str) or "dist" in found else dict(found)
    known = {one.name for one in fields(Recipe)}
    if unknown := sorted(set(stored) - known):
        raise UsageError(f"a recipe has no fields {unknown}. {nearest(unknown[0], sorted(known))}")
    if missing := [name for name in ("head", "epochs", "batch_clips") if name not in stored]:
        raise UsageError(f"a resolved recipe says {', '.join(missing)} too")
    try:
        head = dict(checked(stored.get("head"), Mapping, "recipe.head"))
        config = checked(head, _kind(head.pop("kind", None)), "recipe.head")
        recipe: Recipe = checked({**stored, "head": config}, Recipe, "recipe")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return recipe


def _of_today(found: dict[str, Any]) -> dict[str, Any]:
    """A recipe of 0.1.0 in today's fields.

    It knew CLIP's width alone. Where that is the width of the recipe of the same name, its CLIP is meant; elsewhere the
    width is left out: the run folder holds the whole settings of the cache it was made from, which are compared too.
    """
    stored = {name: value for name, value in found.items() if name not in ("dist", *RENAMED)}
    kind = found.get("head", "dist")
    sizes = found.get("dist", {}) if kind == "dist" else {}
    names = {"betas": "betas", "eps": "eps", "warmup_learning_rate": "warmup_from"}
    same = [recipe.clip for recipe in RECIPES if recipe.name == found.get("name") and recipe.clip is not None]
    return {
        **stored,
        "head": {"kind": kind, **sizes},
        "optimiser": {now: found[was] for was, now in names.items() if was in found},
        "clip": next((clip for clip in same if clip.width == found.get("clip_channels")), None),
    }
