"""Named recipes, settings from the command line, and recipes read from run folders of this and older versions.

    recipe = named("dist-ssv2-b16-8f")              published settings of DiST, docs/spec/dist.md §5–6
    short  = with_settings(recipe, ["epochs=2", "head.pooling_layers=1"])

`dist-ssv2-b16` and `dist-k400-b16` are the same settings for any number of frames and any CLIP. No recipe switches on
the published mixing of pixels, because training from a cache cannot do it: see `mixing`.

Order of precedence: a named recipe, then --set field=value. A run folder stores the resolved recipe.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.base import HeadConfig
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.own_heads import add_head, known_heads
from vidxfer.pipeline.typed import checked

PARTS = ("head", "optimiser", "mixing", "clip")
"""Fields of a recipe that have own fields."""

RENAMED = {
    "betas": "optimiser.betas",
    "eps": "optimiser.eps",
    "warmup_learning_rate": "optimiser.warmup_from",
    "clip_channels": "clip",
}
"""Field of 0.1.0 -> its path now. `dist.x` is now `head.x` of a DiST head."""


def nearest(name: str, known: list[str]) -> str:
    """ " Did you mean a, b?" or the whole list when nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(known)}."


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: no such recipe; the text names the nearest ones.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    if name not in by_name:
        raise UsageError(f"no recipe {name!r}. {nearest(name, list(by_name))}")
    return by_name[name]


def recipe(
    name: str | None = None,
    *settings: str,
    head: type[HeadConfig] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Recipe:
    """A named recipe with some settings changed, for a head of your own too.

    Args:
        name: one of `vidxfer recipes`; None: "dist-ssv2-b16", or with `head` what a `Recipe` says by itself.
        settings: as of `--set`: "epochs=10", "head.layer=2".
        head: class of settings of a head of your own; it is made known (`add_head`), and its kind names the recipe.
        tell: as of `with_settings`.

    Raises:
        UsageError: no such recipe, a setting that cannot be meant, or no class of settings.
    """
    if head is None:
        return with_settings(named(name or "dist-ssv2-b16"), list(settings), tell)
    add_head(head)
    chosen = head()
    plain = Recipe(name=head.kind, head=chosen) if name is None else replace(named(name), name=head.kind, head=chosen)
    return with_settings(plain, list(settings), tell)


def with_settings(recipe: Recipe, settings: list[str], tell: Callable[[str], None] = lambda line: None) -> Recipe:
    """Apply settings like `field=value` or `head.field=value` (any of `PARTS`). Values are JSON or a bare word.

    `head=KIND` takes the default settings of that kind. Later settings `head.field` are then fields of that kind.

    Args:
        recipe: the recipe to change.
        settings: the settings in order; of two for the same field, the last one counts.
        tell: receives one line if names of 0.1.0 are used.

    Raises:
        UsageError: another form, an unknown field, or a value of another type than the default's.
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
    # All settings at once: epochs and warmup_epochs must fit each other, and not each other's default.
    own = chosen.pop("")
    parts = {part: replace(getattr(recipe, part), **new) for part, new in chosen.items() if new}
    return replace(recipe, **{**parts, **own})


def _split(setting: str) -> tuple[str, Any, str]:
    """The field's path, its value, and the setting as it was given."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting!r} is not field=value")
    try:
        value = json.loads(text.strip())
    except json.JSONDecodeError:
        value = text.strip()
    return path.strip(), value, setting


def _renamed(path: str, recipe: Recipe, setting: str) -> str:
    """The present path of a field of 0.1.0. A present field is returned unchanged."""
    outer, dot, inner = path.partition(".")
    if outer == "dist" and dot:
        if recipe.head.kind != "dist":
            raise UsageError(f"--set {setting}: the head of recipe {recipe.name} is of kind {recipe.head.kind!r}")
        return f"head.{inner}"
    return RENAMED.get(path, path)


def _kind(name: Any) -> type[HeadConfig]:
    """The class of settings of a kind of head."""
    known = known_heads()
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"head={name!r} is none of {', '.join(known)}")
    return known[name]


def _checked(target: Any, name: str, value: Any, setting: str) -> Any:
    """The value, converted to the field's type. The error names the field's type and value."""
    if not is_dataclass(target):
        raise UsageError(f"--set {setting}: this recipe is for any CLIP. It has no CLIP shape with a field {name!r}.")
    known = {field.name: field for field in fields(target)}
    if name == "classifier" and name not in known and isinstance(target, HeadConfig):
        raise UsageError(
            f"--set {setting}: the classifier of heads of kind {target.kind!r} is always linear; leave it out"
        )
    if name not in known:
        raise UsageError(
            f"--set {setting}: no field {name!r}. {nearest(name, list(known)) if known else 'It has none.'}"
        )
    old = getattr(target, name)
    if value is None and known[name].default is None:
        return None
    if isinstance(target, Recipe) and name in PARTS:
        raise UsageError(f"--set {setting}: {name} has own fields. Set one of them: {name}.FIELD=value")
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if old is not None and type(value) is not type(old):
        raise UsageError(f"--set {setting}: {name} is a {type(old).__name__} (now {old!r}), not {value!r}")
    return value


def from_dict(kept: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`, also for the recipes that 0.1.0 wrote.

    Raises:
        UsageError: unknown fields, an unknown kind of head, or a value of another type or range.
    """
    stored = _of_today(kept) if isinstance(kept.get("head"), str) or "dist" in kept else dict(kept)
    known = {field.name for field in fields(Recipe)}
    if unknown := sorted(set(stored) - known):
        raise UsageError(f"a recipe has no fields {unknown}. {nearest(unknown[0], sorted(known))}")
    if missing := [name for name in ("head", "epochs", "batch_clips") if name not in stored]:
        raise UsageError(f"a resolved recipe must also have the fields {', '.join(missing)}")
    try:
        head = dict(checked(stored.get("head"), Mapping, "recipe.head"))
        config = checked(head, _kind(head.pop("kind", None)), "recipe.head")
        recipe: Recipe = checked({**stored, "head": config}, Recipe, "recipe")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return recipe


def _of_today(stored_010: dict[str, Any]) -> dict[str, Any]:
    """A recipe of 0.1.0, with the present fields.

    It knew only CLIP's width. If the recipe of the same name has that width, its CLIP is taken. Otherwise the width is
    left out: the run folder also holds the settings of its cache, and these are compared too.
    """
    stored = {name: value for name, value in stored_010.items() if name not in ("dist", *RENAMED)}
    kind = stored_010.get("head", "dist")
    sizes = stored_010.get("dist", {}) if kind == "dist" else {}
    names = {"betas": "betas", "eps": "eps", "warmup_learning_rate": "warmup_from"}
    same = [recipe.clip for recipe in RECIPES if recipe.name == stored_010.get("name") and recipe.clip is not None]
    return {
        **stored,
        "head": {"kind": kind, **sizes},
        "optimiser": {now: stored_010[was] for was, now in names.items() if was in stored_010},
        "clip": next((clip for clip in same if clip.width == stored_010.get("clip_channels")), None),
    }
