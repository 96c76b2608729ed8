"""Finished runs side by side: only those that were scored on the same videos, labels and classes.

runs ─▶ what each was scored on ─▶ the cache's validation split? ─┬▶ a row: score, interval, cost, settings that differ
                                                                  └▶ UsageError: the field and both values

Scores, seconds and memory are read from what the runs kept; operations and order are found from the head (comparing/).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.heads.systems import figures
from vidxfer.pipeline.training.build import offer_of
from vidxfer.pipeline.training.predictions import predictions_file
from vidxfer.pipeline.training.resampled import Interval, share_interval
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.validation import validation_kept, validation_of
from vidxfer.stages.comparing.alike import expect_comparable, predicted, score_of_split
from vidxfer.stages.comparing.costs import cost_of, speed_of
from vidxfer.stages.comparing.paired import paired
from vidxfer.stages.comparing.rows import Comparison, PairedRow, RunRow
from vidxfer.stages.comparing.seeds import grouped, named
from vidxfer.stages.learning.union import source_of

__all__ = ["Comparison", "RunRow", "compare"]

NOT_RECORDED = "not recorded"

CLIP_ALONE = "zero-shot"
"""Name of the row of a folder that `vidxfer evaluate --zero-shot` filled."""

MOST_VIDEOS = 1 << 31
"""Videos in a split. No split is so large; the number in a damaged run folder may be."""


def compare(
    runs: tuple[Path, ...],
    cache: Path,
    *,
    more_caches: tuple[Path, ...] = (),
    labels_as: str | None = None,
    split: str = "val",
    against: Path | None = None,
    published: bool = False,
) -> Comparison:
    """Read what the runs kept of themselves, and count what their heads take; nothing is scored again.

    Args:
        runs: folders; also of what `evaluate` scored without a run, which is CLIP alone.
        cache, more_caches, labels_as: as in training.
        split: "val", as scored at the end of the training; or another one, as `evaluate --split` scored it.
        against: a run that each of the others is compared with, video by video.
        published: also give what others published.

    Raises:
        RunError: a folder is no run, or its run is not finished, or was not evaluated on the split.
        UsageError: a run was scored on other videos, labels or classes than the cache has. CacheError: no cache.
    """
    caches = (cache, *more_caches)
    opened = [open_split(folder, name) for folder in caches for name in splits(folder)] or [open_split(cache, "train")]
    scored_on = opened[0]
    if any(split in splits(folder) for folder in caches):
        scored_on = source_of(caches, split, labels_as=labels_as).split
    reference = validation_of(scored_on) if scored_on.spec.split == split else {}
    reference["class_names"] = list(scored_on.class_names)
    if against is not None and against not in runs:
        runs = (against, *runs)
    rows, recipes = [], []
    for path in runs:
        row, recipe = _row(path, split, reference, opened[0])
        rows.append(row)
        recipes.append(recipe)
        if "ids" not in reference:  # a cache without the split: the first run says what it is
            reference |= validation_kept(path) or {}
    rows = named(rows, recipes)
    pairs, notes = ((), ()) if against is None else _pairs(rows, against, split, reference)
    return Comparison(
        split=split,
        classes=len(scored_on.class_names),
        chance=1 / len(scored_on.class_names),
        views=sum(part.video_count * part.spec.stored_views for part in opened),
        cache_bytes=sum(held_bytes(part) for part in opened),
        runs=tuple(rows),
        factor_chance={name: 1 / len(set(values)) for name, values in scored_on.factors.items()},
        differing=_differing(rows),
        seeds=grouped(rows, recipes),
        against=against,
        pairs=pairs,
        notes=notes,
        published=figures() if published else (),
    )


def _differing(rows: list[RunRow]) -> tuple[str, ...]:
    """Settings of which two runs record different values."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    known = (None, NOT_RECORDED)
    return tuple(name for name in names if len({row.settings.get(name) for row in rows}.difference(known)) > 1)


def _pairs(
    rows: list[RunRow], against: Path, split: str, reference: Mapping[str, Any]
) -> tuple[tuple[PairedRow, ...], tuple[str, ...]]:
    """Each of the other runs compared with `against`; and a line on each run that was scored again since."""
    predictions = {row.run: predicted(row.run, split, reference) for row in rows}
    notes = []
    for row in rows:
        right = sum(prediction.right for prediction in predictions[row.run].values())
        score = round((row.top1 or 0.0) * (row.scored or 0))
        if (right, len(predictions[row.run])) != (score, row.scored):
            notes.append(
                f"{row.run}: scored again since its training: {right} of {len(predictions[row.run])} videos right in "
                f"{predictions_file(row.run, split).name}, which all that is said of single videos is taken from, "
                f"{score} of {row.scored} before"
            )
    others = [row for row in rows if row.run != against]
    return tuple(paired(row.run, row.name, predictions[row.run], predictions[against]) for row in others), tuple(notes)


def _row(path: Path, split: str, reference: Mapping[str, Any], cache: Split) -> tuple[RunRow, Recipe | None]:
    if not (path / "recipe.json").exists() and predictions_file(path, split).is_file():
        return _clip_alone(path, split, reference), None
    run = Run.open(path)
    result = run.result()
    if result is None:
        raise RunError(f"{path} is not finished: its result.json is missing. The same `vidxfer train` goes on with it.")
    score = (result["score"] or {}) if split == "val" else score_of_split(path, split, reference)
    scored_on = _scored_on(run, split, score)
    expect_comparable(path, scored_on, reference)
    clips_per_second, peak_memory_bytes = speed_of(run)
    row = RunRow(
        name=run.recipe.name,
        recipe=run.recipe.name,
        run=path,
        seed=run.recipe.seed,
        tokens="CLIP, every step" if run.made_from["online"] else "cache",
        online=bool(run.made_from["online"]),
        epochs=run.recipe.epochs,
        epoch_seconds=result["epoch_seconds"],
        clips_per_second=clips_per_second,
        peak_memory_bytes=peak_memory_bytes,
        cost=cost_of(run, cache),
        settings=_settings(run),
        not_compared=tuple(name for name in ("ids", "labels") if score and scored_on.get(name) is None),
        factors=score.get("factors", {}),
        **_shares(path, score),
    )
    return row, run.recipe


def _clip_alone(path: Path, split: str, reference: Mapping[str, Any]) -> RunRow:
    """What `evaluate` scored without a run: nothing was trained."""
    shares = _shares(path, score_of_split(path, split, reference))
    return RunRow(
        name=CLIP_ALONE, recipe=CLIP_ALONE, run=path, tokens="cache", online=False, epochs=0, epoch_seconds=None,
        **shares,
    )  # fmt: skip


def _shares(path: Path, score: Mapping[str, Any]) -> dict[str, Any]:
    """Top-1 and top-5 with their intervals, and their coverage; nothing where the run was not scored."""
    shares: dict[str, Any] = {name: score.get(name) for name in ("top1", "top5", "top1_of_listed", "scored", "listed")}
    for name in ("top1", "top5"):
        if shares[name] is not None:
            shares[f"{name}_interval"] = _interval(path, name, shares[name], score["scored"])
    return shares


def _interval(path: Path, name: str, share: float, scored: int) -> Interval | None:
    if not (0 <= share <= 1 and 0 <= scored < MOST_VIDEOS):
        raise RunError(f"{path}: {name}={share} of {scored} videos is no score; result.json is damaged. Train again.")
    return share_interval(round(share * scored), scored)


def _scored_on(run: Run, split: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's score is over, as far as the run says so."""
    if split != "val":
        return {}  # compared line by line, see `predicted`
    kept = validation_kept(run.path) or {"class_names": run.made_from.get("class_names")}
    return {**kept, "videos": score.get("listed")}


def _settings(run: Run) -> dict[str, str]:
    """What may differ between runs that are compared, in few words."""
    made = run.made_from
    spec = CacheSpec.from_dict(made["spec"])
    offer = offer_of(spec, run.recipe, classes=1)
    layers = run.recipe.head.needs(offer).layers
    templates = made.get("templates")
    return {
        "codec": spec.codec,
        "layers": ",".join(map(str, layers)) or "none",
        "tower": f"{spec.clip_model} {spec.clip_weights_sha256[:8]} {spec.clip_precision}",
        "prompts": NOT_RECORDED if templates is None else " | ".join(templates) or "none: the tower has no text",
        "grid": f"{spec.sampling.image_px} px, {offer.tokens - 1} patches",
        "frames": f"{run.recipe.dense_frames or spec.sampling.dense_frames}, every {spec.sampling.alpha}. to CLIP",
        "views": str(spec.stored_views),
        "trained on": f"{spec.dataset} {spec.dataset_fingerprint[:8]}",
        "precision": str(made.get("precision", NOT_RECORDED)),
    }
