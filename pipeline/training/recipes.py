"""Recipes: every setting of a training run as one typed, frozen value; variations by `replace`.

    recipe = named("dist-ssv2-b16-8f")              published settings of DiST, spec/dist.md §5–6
    short  = replace(recipe, epochs=2)

`dist-ssv2-b16` and `dist-k400-b16` are the same settings for any number of frames and any CLIP. The published mixing of
pixels is not switched on by any of them, because a cache cannot have it: see `mixing`.

Order of precedence: a named recipe, then --set field=value. A run folder keeps the resolved result.
"""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.dist import DistConfig
from vidxfer.pipeline.training.mixing import Mixing
from vidxfer.pipeline.training.published import PUBLISHED
from vidxfer.pipeline.typed import checked


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        name: of the recipe. head: one of `HEADS`. dist: sizes of the DiST branch.
        dense_frames, sparse_frames, clip_channels: what the cache must hold per view; None: any number.
        mixing: of the clips of a batch.
        epochs, warmup_epochs: passes over the training split; the warm-up is linear, then half a cosine to zero.
        batch_clips: clips per optimiser step over all devices together.
        learning_rate, warmup_learning_rate: peak of the cosine before warm-up cuts it, and where warm-up starts.
        weight_decay: of matrices; tokens, biases and norms have none. betas, eps: of AdamW.
        label_smoothing: share of the target spread over all classes.
        seed: of initialisation, order and view draws.
        evaluate_every_epochs: how often the validation split is scored; the last epoch always is.
        checkpoint_seconds: at most this much work is lost in a crash.
    """

    name: str
    head: str = "dist"
    dist: DistConfig = field(default_factory=DistConfig)
    dense_frames: int | None = None
    sparse_frames: int | None = None
    clip_channels: int | None = None
    mixing: Mixing = field(default_factory=Mixing)
    epochs: int = 36
    warmup_epochs: float = 6.0
    batch_clips: int = 256
    learning_rate: float = 3.2e-4
    warmup_learning_rate: float = 8e-7
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    label_smoothing: float = 0.1
    seed: int = 0
    evaluate_every_epochs: int = 4
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"recipe {self.name}: head={self.head!r} is none of {', '.join(HEADS)}")
        for name in ("epochs", "batch_clips", "evaluate_every_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"recipe {self.name}: {name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"recipe {self.name}: warmup_epochs={self.warmup_epochs} must be in [0, epochs={self.epochs})"
            )
        for name in ("learning_rate", "warmup_learning_rate", "weight_decay", "eps", "checkpoint_seconds", "seed"):
            if not 0 <= getattr(self, name) < math.inf:  # false for NaN too
                raise UsageError(f"recipe {self.name}: {name}={getattr(self, name)} must be a number of at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"recipe {self.name}: label_smoothing={self.label_smoothing} must be in [0, 1)")
        if len(self.betas) != 2 or not all(isinstance(beta, float) and 0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"recipe {self.name}: betas={list(self.betas)} must be two numbers in [0, 1), like 0.9")
        self._check_sizes()

    def _check_sizes(self) -> None:
        layers = self.dist.layers
        if layers is not None and (not layers or not all(isinstance(layer, int) for layer in layers)):
            raise UsageError(
                f"recipe {self.name}: dist.layers={layers!r} must be block numbers like [3, 7, 11], or null"
            )
        for name, size in asdict(self.dist).items():
            if not isinstance(size, int | float):
                continue
            if not 0 < size < math.inf and name != "pooling_layers":
                raise UsageError(f"recipe {self.name}: dist.{name}={size} must be above 0")
            if name.endswith("_frames") and size % 2 == 0:
                raise UsageError(
                    f"recipe {self.name}: dist.{name}={size} must be odd, so that a frame is in the middle"
                )
        wide = self.dist.integration_channels
        if self.dist.pooling_layers < 1 or (wide > 64 and wide % (wide // 64)):
            raise UsageError(
                f"recipe {self.name}: dist.pooling_layers={self.dist.pooling_layers} must be at least 1, and "
                f"dist.integration_channels={wide} must divide into heads of about 64"
            )

    def to_json(self) -> str:
        """The resolved recipe, as it is kept in the run folder."""
        return json.dumps(asdict(self), indent=1)


HEADS = ("dist", "probe", "attentive-probe")
PARTS = ("dist", "mixing")
"""Fields of a recipe that have fields of their own."""

RECIPES = (
    *(
        Recipe(
            name=row.recipe,
            dist=DistConfig(pooling_layers=row.pooling_layers),
            dense_frames=row.dense_frames,
            sparse_frames=row.sparse_frames,
            clip_channels=row.clip.channels,
            mixing=Mixing(kind="published"),
        )
        for row in PUBLISHED
    ),
    Recipe(name="dist-ssv2-b16", mixing=Mixing(kind="published")),
    Recipe(name="dist-k400-b16", dist=DistConfig(pooling_layers=4), mixing=Mixing(kind="published")),
    Recipe(
        name="dist-toy",
        dist=DistConfig(integration_channels=64, temporal_channels=32, pooling_layers=1),
        epochs=16,
        warmup_epochs=1,
        batch_clips=16,
        learning_rate=2e-3,
        warmup_learning_rate=1e-4,
        evaluate_every_epochs=4,
        checkpoint_seconds=30.0,
    ),
    Recipe(
        name="probe",
        head="probe",
        epochs=40,
        warmup_epochs=2,
        batch_clips=32,
        learning_rate=1e-2,
        warmup_learning_rate=1e-4,
        evaluate_every_epochs=20,
        checkpoint_seconds=30.0,
    ),
    Recipe(
        name="attentive-probe",
        head="attentive-probe",
        epochs=20,
        warmup_epochs=1,
        batch_clips=32,
        learning_rate=1e-3,
        warmup_learning_rate=1e-5,
        evaluate_every_epochs=10,
        checkpoint_seconds=30.0,
    ),
)


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


def with_settings(recipe: Recipe, settings: list[str]) -> Recipe:
    """Apply `field=value`, `dist.field=value` or `mixing.field=value` settings; values are JSON (or a bare word).

    Raises:
        UsageError: not of that form, an unknown field, or a value of another type than the default's.
    """
    chosen: dict[str, dict[str, Any]] = {"": {}, **{part: {} for part in PARTS}}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} is not field=value")
        outer, dot, inner = path.strip().partition(".")
        if dot and outer not in PARTS:
            raise UsageError(
                f"--set {setting}: only {' and '.join(PARTS)} have fields of their own, as in dist.pooling_layers=4"
            )
        part, target, name = (outer, getattr(recipe, outer), inner) if dot else ("", recipe, outer)
        chosen[part][name] = _checked(target, name, _value(text.strip()), setting)
    # All at once: epochs and warmup_epochs must fit each other, not each the other's default.
    own = chosen.pop("")
    return replace(recipe, **own, **{part: replace(getattr(recipe, part), **new) for part, new in chosen.items()})


def from_dict(found: dict[str, Any]) -> Recipe:
    """The inverse of `to_json` after parsing.

    Raises:
        UsageError: unknown fields, or a value of another type or range.
    """
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(found) - known):
        raise UsageError(f"a recipe has no fields {unknown}. {nearest(unknown[0], sorted(known))}")
    if missing := [name for name in ("head", "epochs", "batch_clips", "betas") if name not in found]:
        raise UsageError(f"a resolved recipe says {', '.join(missing)} too")
    try:
        recipe: Recipe = checked(found, Recipe, "recipe")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return recipe


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _checked(target: Any, name: str, value: Any, setting: str) -> Any:
    """The value as the field's type, or an error that names the field's type and value."""
    known = [f.name for f in fields(target) if f.name not in PARTS]
    if name not in known:
        raise UsageError(f"--set {setting}: no field {name!r}. {nearest(name, known)}")
    old = getattr(target, name)
    if value is None and next(f.default for f in fields(target) if f.name == name) is None:
        return None
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if old is not None and type(value) is not type(old):
        raise UsageError(f"--set {setting}: {name} is a {type(old).__name__} (now {old!r}), not {value!r}")
    return value
