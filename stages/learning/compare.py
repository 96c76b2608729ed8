"""Finished runs side by side: only those that were scored on the same videos, labels and classes.

runs ─▶ what each was scored on ─▶ the cache's validation split? ─┬▶ a row: score, and the settings that differ
                                                                  └▶ UsageError: the field and both values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.agree import differing_fields
from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import RunError, UsageError, difference
from vidxfer.pipeline.reading import lines, opened, parsed
from vidxfer.pipeline.training.build import offer_of
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.validation import validation_kept, validation_of
from vidxfer.stages.learning.union import source_of

SIDES = ("the run has", "the others have")
NOT_RECORDED = "not recorded"

MOST_LINE_BYTES = 1 << 20
"""Of one video in a file of predictions: its id and the names of six classes."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run.

    Attributes:
        name, recipe: of its recipe, with its epochs and alone. run: folder.
        top1: on the split; None: not scored. scored, listed: videos.
        top1_of_listed: the same with missing videos counted as wrong.
        factors: name -> its top-1, where the classes are made of factors.
        tokens: "cache", or "CLIP, every step". online: whether it is the latter.
        epochs: of the recipe. epoch_seconds: median; None: not measured.
        settings: what may differ between runs side by side, by name. not_compared: fields that the run does not record.
    """

    name: str
    recipe: str
    run: Path
    top1: float | None
    top1_of_listed: float | None
    scored: int | None
    listed: int | None
    tokens: str
    online: bool
    epochs: int
    epoch_seconds: float | None
    factors: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs beside chance. `views` and `cache_bytes` are over all splits of the caches.

    Attributes:
        split: that was scored. chance: one over the number of classes. factor_chance: the same over a factor's values.
        differing: names of the settings in which the runs differ.
    """

    split: str
    classes: int
    chance: float
    views: int
    cache_bytes: int
    runs: tuple[RunRow, ...]
    factor_chance: dict[str, float] = field(default_factory=dict)
    differing: tuple[str, ...] = ()


def compare(
    runs: tuple[Path, ...],
    cache: Path,
    *,
    more_caches: tuple[Path, ...] = (),
    labels_as: str | None = None,
    split: str = "val",
) -> Comparison:
    """Read what the runs kept of themselves; nothing is computed again.

    Args:
        runs: folders. cache, more_caches, labels_as: as in training. split: "val", as scored at the end of the
            training; or another one, as `evaluate --split` scored it.

    Raises:
        RunError: a folder is no run, or its run is not finished, or was not evaluated on the split.
        UsageError: a run was scored on other videos, labels or classes than the cache has. CacheError: no cache.
    """
    caches = (cache, *more_caches)
    opened = [open_split(one, name) for one in caches for name in splits(one)] or [open_split(cache, "train")]
    scored_on = opened[0]
    if any(split in splits(one) for one in caches):
        scored_on = source_of(caches, split, labels_as=labels_as).split
    reference = validation_of(scored_on) if scored_on.spec.split == split else {}
    reference["class_names"] = list(scored_on.class_names)
    rows = []
    for path in runs:
        rows.append(_row(path, split, reference))
        if "ids" not in reference:  # a cache without the split: the first run says what it is
            reference |= validation_kept(path) or {}
    return Comparison(
        split=split,
        classes=len(scored_on.class_names),
        chance=1 / len(scored_on.class_names),
        views=sum(one.video_count * one.spec.stored_views for one in opened),
        cache_bytes=sum(held_bytes(one) for one in opened),
        runs=tuple(rows),
        factor_chance={name: 1 / len(set(values)) for name, values in scored_on.factors.items()},
        differing=_differing(rows),
    )


def _differing(rows: list[RunRow]) -> tuple[str, ...]:
    """Settings of which two runs record different values."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    return tuple(name for name in names if len({row.settings[name] for row in rows} - {NOT_RECORDED}) > 1)


def _row(path: Path, split: str, reference: Mapping[str, Any]) -> RunRow:
    run = Run.open(path)
    result = run.result()
    if result is None:
        raise RunError(f"{path} is not finished: its result.json is missing. The same `vidxfer train` goes on with it.")
    score = (result["score"] or {}) if split == "val" else _evaluated(run, split, reference)
    found = _scored_on(run, split, score)
    _expect_comparable(path, found, reference)
    epochs = f", {run.recipe.epochs} epoch" + ("s" if run.recipe.epochs > 1 else "")
    return RunRow(
        name=run.recipe.name + epochs,
        recipe=run.recipe.name,
        run=path,
        top1=score.get("top1"),
        top1_of_listed=score.get("top1_of_listed"),
        scored=score.get("scored"),
        listed=score.get("listed"),
        tokens="CLIP, every step" if run.made_from["online"] else "cache",
        online=bool(run.made_from["online"]),
        epochs=run.recipe.epochs,
        epoch_seconds=result["epoch_seconds"],
        factors=score.get("factors", {}),
        settings=_settings(run),
        not_compared=tuple(name for name in ("ids", "labels") if score and found.get(name) is None),
    )


def _scored_on(run: Run, split: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's score is over, as far as the run says so."""
    if split != "val":
        return {}  # compared line by line, see `_evaluated`
    kept = validation_kept(run.path) or {"class_names": run.made_from.get("class_names")}
    return {**kept, "videos": score.get("listed")}


def _expect_comparable(path: Path, found: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    differing = differing_fields(["class_names"], found, reference)
    if "ids" in reference and found.get("ids") is None:
        differing |= differing_fields(["videos"], found, {"videos": len(reference["ids"])})
    elif "ids" in reference:  # in any order
        shared = set(found["ids"]) & set(reference["ids"])
        differing |= differing_fields(["ids"], *(_ids(one, shared) for one in (found, reference)))
        if not differing:
            differing = differing_fields(["labels"], _labels(found), _labels(reference))
    if differing:
        raise _unlike(path, differing)


def _unlike(path: Path, differing: Mapping[str, tuple[object, object]]) -> UsageError:
    return UsageError("\n".join([
        f"{path} cannot stand in this table; scores go side by side over the same videos, labels and classes:",
        *(f"  {difference(_TITLES[name], *pair, SIDES)}" for name, pair in differing.items()),
        "Name the cache that its scores are over (--cache), or compare it with runs of its own kind.",
    ]))  # fmt: skip


_TITLES = {
    "class_names": "class_names",
    "ids": "validation videos",
    "labels": "validation labels",
    "videos": "number of validation videos",
}


def _ids(known: Mapping[str, Any], shared: set[str]) -> dict[str, Any]:
    """The ids, those that the other side lacks first."""
    return {"ids": sorted(known["ids"], key=lambda id_: (id_ in shared, id_))}


def _labels(known: Mapping[str, Any]) -> dict[str, Any]:
    """The labels in the order of ids, as texts that name their video."""
    names = known["class_names"]
    labelled = sorted(zip(known["ids"], known["labels"], strict=True))
    return {"labels": [f"{id_}: {names[label] if label >= 0 else 'no label'}" for id_, label in labelled]}


def _evaluated(run: Run, split: str, reference: Mapping[str, Any]) -> dict[str, Any]:
    """The score that `evaluate --split` left in the run folder, over the reference's videos and labels."""
    file = run.path / f"predictions.{split}.jsonl"
    if "ids" not in reference:
        raise UsageError(f"the cache has no split {split!r}, so there is nothing to compare scores over")
    if not file.exists():
        raise RunError(f"{file} is missing. Score the run: vidxfer evaluate --run {run.path} --split {split}")
    names = reference["class_names"]
    known = dict(zip(reference["ids"], reference["labels"], strict=True))
    right = scored = 0
    with opened(file) as stream:
        for number, line in enumerate(lines(stream, file, most=MOST_LINE_BYTES, error=RunError), start=1):
            try:
                entry = parsed(line)
                name, label, called = str(entry["id"]), entry["label"], entry["label_name"]
                right, scored = right + bool(entry["right"]), scored + 1
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{file}:{number}: no line of an evaluation. Score again: vidxfer evaluate") from error
            if name not in known:
                raise _unlike(run.path, {"ids": (name, "no such video")})
            if (label, called) != (known[name], names[known[name]]):
                said = f"{name}: {names[known[name]]} ({known[name]})"
                raise _unlike(run.path, {"labels": (f"{name}: {called} ({label})", said)})
    top1 = right / scored if scored else 0.0
    listed = len(known)
    return {"top1": top1, "top1_of_listed": right / max(1, listed), "scored": scored, "listed": listed}


def _settings(run: Run) -> dict[str, str]:
    """What may differ between runs that are compared, in few words."""
    made = run.made_from
    spec = CacheSpec.from_dict(made["spec"])
    layers = run.recipe.head.needs(offer_of(spec, run.recipe, classes=1)).layers or spec.layers
    templates = made.get("templates")
    return {
        "codec": spec.codec,
        "layers": ",".join(map(str, layers)),
        "tower": f"{spec.clip_model} {spec.clip_weights_sha256[:8]} {spec.clip_precision}",
        "prompts": NOT_RECORDED if templates is None else " | ".join(templates),
        "grid": f"{spec.sampling.image_px} px, {spec.tokens - 1} patches",
        "frames": f"{run.recipe.dense_frames or spec.sampling.dense_frames}, every {spec.sampling.alpha}. to CLIP",
        "views": str(spec.stored_views),
        "trained on": f"{spec.dataset} {spec.dataset_fingerprint[:8]}",
        "precision": str(made.get("precision", NOT_RECORDED)),
    }
