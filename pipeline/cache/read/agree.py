"""The table of comparisons: each comparison of caches, splits, runs and towers is one row.

    facts of one   {"channels": 768, "class_names": (…), …} ─┐                ┌▶ differs, must agree: CacheMismatch
    facts of the other                                       ├─▶ AGREE[pair] ─┼▶ differs, may: a line that says so
                                                             ┘                └▶ one of them is not recorded: a line

A fact that is None, or absent, is not recorded: caches and runs of older versions lack some. Values are compared as
JSON has them, so that a list is equal to a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.spec import BEFORE_THERE_WAS_A_CHOICE, CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheMismatch, difference
from vidxfer.pipeline.spelled import spelled

Facts = Mapping[str, Any]

TOWER = ("clip_weights_sha256", "channels", "tokens", "embed", "class_row", "left_out", "blocks_of", "textless")
PICTURE = ("pixel_mean", "pixel_std", "sampling.image_px", "interpolation", "antialias", "resize_mode")
FRAMES = ("sampling.alpha", "sampling.dense_frames", "layers", "pool")
"""Of these a head may read a part, or average further: training/build.py says which."""
DRAWS = (
    "sampling.crop_scale",
    "sampling.crop_ratio",
    "sampling.flip_probability",
    "sampling.grey_probability",
    "sampling.rule",
)
NAMES = ("class_names", "templates")
HOW_MANY = ("view_kind", "views", "crops", "first_view")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two things that are compared.

    Attributes:
        sides: words for the owners of the two values.
        must: fields that must agree.
        said: fields that may differ; a difference is reported in a line.
        what: first line of the error.
        remedy: last line of the error.
        extract: the remedy is to extract with the settings of the second side; the error then names the options.
    """

    sides: tuple[str, str]
    must: tuple[str, ...]
    said: tuple[str, ...] = ()
    what: str
    remedy: str
    extract: bool = False


AGREE = {
    "val with train": Pair(
        sides=("val has", "train has"),
        must=(*TOWER, "clip_precision", *PICTURE, "square_pixels", *FRAMES, *NAMES),
        said=("clip_model",),
        what="validation does not agree with training",
        remedy="Scores would be wrong. Extract both splits anew from one data set with the same settings (--cache).",
        extract=True,
    ),
    "cache with run": Pair(
        sides=("cache has", "run needs"),
        must=(*TOWER, *PICTURE, "square_pixels", *FRAMES, "class_names"),
        said=("clip_model", "clip_precision", "codec", "templates"),
        what="this cache was made with other settings than the run's",
        remedy="Score the run on a cache that agrees: extract one with the run's settings (--cache).",
        extract=True,
    ),
    "cache with cache": Pair(
        sides=("it has", "the first cache has"),
        must=(
            *TOWER,
            "clip_precision",
            "clip_model",
            *PICTURE,
            "square_pixels",
            *FRAMES,
            *DRAWS,
            *HOW_MANY,
            "templates",
        ),
        what="this cache cannot be read as one with the first",
        remedy="Give caches of equal settings, or extract this one again with the first one's.",
        extract=True,
    ),
    "beginning with run": Pair(
        sides=("that run has", "this one has"),
        must=("head", "any_classes", *TOWER, *PICTURE, "square_pixels", *FRAMES, "class_names"),
        said=("clip_precision", "codec", "templates"),
        what="a run of other settings cannot lend its weights (--init-from)",
        remedy="Begin with a run of the same CLIP, frames and layers, or without --init-from.",
    ),
    "cache with tower": Pair(
        sides=("cache has", "run needs"),
        must=(*TOWER, "clip_precision", *PICTURE),
        what="this cache was made with another CLIP",
        remedy="Give the CLIP it was made with (--model, --pretrained), or extract into another folder (--cache).",
    ),
    "run with tower": Pair(
        sides=("run has", "the CLIP here has"),
        must=(*TOWER, *PICTURE),
        said=("clip_precision",),
        what="this run was trained with another CLIP",
        remedy="Give the CLIP it was trained with: --model, --pretrained.",
    ),
    "cache with weights": Pair(
        sides=("cache has", "run needs"),
        must=("channels", "embed", "patch_px", "textless", *FRAMES),
        what="this cache does not hold what the weights were trained on",
        remedy="Extract a cache for these weights (--cache).",
        extract=True,
    ),
    "run with run": Pair(
        sides=("the run has", "you ask for"),
        must=("cache_fingerprint", "world", "online", "precision", *NAMES),
        what="holds a run with other settings",
        remedy="Choose another folder with --run.",
    ),
}
"""Who is compared with whom, and in what. `codec` and the like change how tokens are stored, not which are meant."""


def facts_of(split: Split) -> dict[str, Any]:
    """The facts of a split. Caches from before templates existed hold embeddings of the bare names."""
    templates = tuple(split.informs.get("templates", ("{}",)))
    return {**facts_of_spec(split.spec), "class_names": split.class_names, "templates": templates}


def facts_of_spec(spec: CacheSpec) -> dict[str, Any]:
    """The facts in a cache's settings. A field that an old cache lacks has the only value of its time.

    The tokens are those that the tower makes. The pool says how many of them a stored one is the mean of.
    """
    return {**BEFORE_THERE_WAS_A_CHOICE, **spec.passport["tokens"], "tokens": spec.tower_tokens}


def facts_of_run(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in `run.json` about the data that the run was trained on."""
    spec = CacheSpec.from_dict(made_from["spec"])
    return {**facts_of_spec(spec), **{name: made_from.get(name) for name in NAMES}}


def facts_of_tower(info: Any) -> dict[str, Any]:
    """The facts of a loaded tower, from its `TowerInfo`."""
    return {
        "clip_weights_sha256": info.weights_sha256,
        "clip_precision": info.precision,
        "channels": info.channels,
        "tokens": info.tokens,
        "embed": info.embed,
        "pixel_mean": info.pixel_mean,
        "pixel_std": info.pixel_std,
        "sampling.image_px": info.image_px,
        "interpolation": info.resize.interpolation,
        "antialias": info.resize.antialias,
        "resize_mode": info.resize.resize_mode,
        "class_row": info.class_row,
        "left_out": info.left_out,
        "blocks_of": info.blocks_of,
        "textless": not info.has_text,
    }


def expect_tower(split: Split, info: Any) -> None:
    """Check that a loaded tower (its `TowerInfo`) gives the tokens that the split holds.

    Raises:
        CacheMismatch: names each field in which it differs.
    """
    expect_agree("cache with tower", split.path, facts_of(split), facts_of_tower(info))


def expect_agree(pair: str, where: object, first: Facts, second: Facts, *, may: Sequence[str] = ()) -> list[str]:
    """Compare two things, in the order of the pair's sides.

    Args:
        pair: key of `AGREE`.
        where: the place that the error names.
        first: facts of the first side.
        second: facts of the second side.
        may: fields that may differ in this call, although the table lists them under `must`.

    Returns:
        Lines for the user: fields that differ and may differ, and fields that one of the two does not record.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    row = AGREE[pair]
    must = [name for name in row.must if name not in may]
    differing = differing_fields(must, first, second)
    if differing:
        raise CacheMismatch(where, differing, row.remedy + _options(row, differing, second), row.sides, row.what)
    told = differing_fields([*row.said, *may], first, second)
    lines = [difference(name, *values, row.sides) for name, values in told.items()]
    unknown = [name for name in (*must, *row.said) if None in (first.get(name), second.get(name))]
    return lines + [f"{', '.join(unknown)}: not recorded by an older version, so not compared"] * bool(unknown)


def _options(row: Pair, differing: Mapping[str, tuple[object, object]], second: Facts) -> str:
    """The options of `vidxfer extract` that give what the second side has, as one more sentence."""
    together = ("sampling.dense_frames", "sampling.alpha")  # frames that CLIP sees: the first over the second
    names = dict.fromkeys([*together, *differing] if set(together) & set(differing) else differing)
    options = spelled({name: second.get(name) for name in names}) if row.extract else ""
    return f" Its options: {options}." if options else ""


def differing_fields(names: Sequence[str], first: Facts, second: Facts) -> dict[str, tuple[object, object]]:
    """The named fields that both sides record with different values, with both values."""
    pairs = {name: (_plain(first.get(name)), _plain(second.get(name))) for name in names}
    return {name: values for name, values in pairs.items() if None not in values and values[0] != values[1]}


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


SAME_TEXT = 0.998
"""Least cosine of two embeddings of one text, in whatever arithmetic they were computed."""


def other_text(
    names: Sequence[str],
    text: np.ndarray[Any, np.dtype[np.float32]],
    other_names: Sequence[str],
    other: np.ndarray[Any, np.dtype[np.float32]],
) -> str | None:
    """Words on the class whose two embeddings [class embed] are furthest apart, if any: other prompts made them."""
    place = {name: row for row, name in enumerate(other_names)}
    rows = [(row, place[name]) for row, name in enumerate(names) if name in place]
    if not rows or text.shape[1] != other.shape[1]:
        return None
    ours, theirs = (array[list(chosen)] for array, chosen in zip((text, other), zip(*rows, strict=True), strict=True))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = (ours * theirs).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    worst = int(cosine.argmin())
    if cosine[worst] >= SAME_TEXT:
        return None
    return f"text embeddings differ: of {names[rows[worst][0]]!r} the cosine is {cosine[worst]:.3f}: other prompts"
