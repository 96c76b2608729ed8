"""The published result, the result here, and every known cause of the difference.

    recipe ─▶ published row ─┐
    run ─▶ predictions ──────┼─▶ published, obtained, difference, views, coverage
    cache ─▶ settings, rows ─┴─▶ known causes of a gap, one sentence each

Nothing is computed again: the numbers are those of the run's last evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.recipe import Published
from vidxfer.pipeline.reading import lines, opened, parsed
from vidxfer.pipeline.training.run import Run

MOST_LINE_BYTES = 1 << 20  # of a prediction

COPY_COUNTED = {"K400": "CVDF's copy", "SSv2": "the official list", "SSv1": "the official list"}
"""Whose training videos `Published` counts."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One run beside the published result of its recipe.

    Attributes:
        recipe: name.
        published: its row; None where nobody published one.
        top1, top5: obtained, in percent of the scored videos.
        top1_of_listed: missing videos count as wrong.
        views, crops: stored per validation video; their softmax is summed.
        scored, listed: validation videos.
        causes: known reasons for a gap, one sentence each.
    """

    recipe: str
    published: Published | None
    top1: float
    top5: float
    top1_of_listed: float
    views: int
    crops: int
    scored: int
    listed: int
    causes: tuple[str, ...]


def reproduction(run_path: Path, cache: Path) -> Reproduction:
    """Read what a run, its evaluation and its cache say.

    Raises:
        RunError: no run there, or it was not evaluated since it was trained, or with another cache.
        CacheError: no cache there.
    """
    run = Run.open(run_path)
    train, val = open_split(cache, "train"), open_split(cache, "val")
    right1, right5, scored = _read_predictions(run, val)
    listed = val.video_count
    row = next((row for row in PUBLISHED if row.recipe == run.recipe.name), None)
    return Reproduction(
        recipe=run.recipe.name,
        published=row,
        top1=100 * right1 / scored,
        top5=100 * right5 / scored,
        top1_of_listed=100 * right1 / listed,
        views=val.spec.views,
        crops=val.spec.crops,
        scored=scored,
        listed=listed,
        causes=(
            *_causes_in_the_data(train, val, scored, row),
            *_causes_in_the_views(train, val, row),
            *_causes_in_the_training(run, row),
        ),
    )


def _read_predictions(run: Run, val: Split) -> tuple[int, int, int]:
    """Videos whose label is the first guess, is among the first five, and all of them."""
    file = run.path / "predictions.val.jsonl"
    if not file.is_file():
        raise RunError(f"{file} is missing. Score the run first: vidxfer evaluate --run {run.path}")
    weights = run.checkpoint / "weights.safetensors"
    if weights.is_file() and weights.stat().st_mtime > file.stat().st_mtime:
        raise RunError(f"{file} is older than {weights}. Score it again: vidxfer evaluate --run {run.path}")
    right1 = right5 = 0
    label_of = dict(zip(val.video_ids, val.labels.tolist(), strict=True))
    seen = set()
    with opened(file, error=RunError) as stream:
        for number, line in enumerate(lines(stream, file, most=MOST_LINE_BYTES, error=RunError), start=1):
            try:
                entry = parsed(line)
                name, label, guesses = entry["id"], entry["label"], entry["top5_labels"]
                right1, right5 = right1 + (label == guesses[0]), right5 + (label in guesses)
                seen.add(name)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise RunError(f"{file}:{number}: no line of an evaluation. Score again: vidxfer evaluate") from error
            if number > len(label_of) or name not in label_of:
                seen.clear()
                break
            if label_of[name] != label:
                raise RunError(
                    f"{file}:{number}: the label of {name} is {label}, in {val.path} it is {label_of[name]}. "
                    "Score the run with this cache first."
                )
    if not seen:
        raise RunError(f"{file} is not of the validation videos in {val.path}. Score the run with this cache first.")
    return right1, right5, len(seen)


def _causes_in_the_data(train: Split, val: Split, scored: int, row: Published | None) -> list[str]:
    causes = []
    stored = len(Rows(train).stored_rows())
    official = "" if row is None else f"; {COPY_COUNTED[row.data]} has {row.train_videos:,}"
    if stored != (train.video_count if row is None else row.train_videos):
        causes.append(f"trained on {stored:,} of {train.video_count:,} listed videos of this copy{official}")
    if row is not None and val.video_count != row.val_videos:
        causes.append(
            f"this copy lists {val.video_count:,} validation videos, the published count is {row.val_videos:,}"
        )
    if scored < val.video_count:
        causes.append(f"{val.video_count - scored:,} listed validation videos could not be scored")
    return causes


def _causes_in_the_views(train: Split, val: Split, row: Published | None) -> list[str]:
    causes = []
    views = train.spec.stored_views
    causes.append(f"{views} stored training view{'s' * (views > 1)} per video; published: a new one in every epoch")
    released = (3, 1) if row is None else row.test_views
    if (val.spec.views, val.spec.crops) != released:
        causes.append("tested on {} x {} views; the release's settings say {} x {}".format(
            val.spec.views, val.spec.crops, *released))  # fmt: skip
    if train.spec.codec == "int8":
        causes.append("tokens are int8 with one scale each; published: never stored")
    elif not train.spec.form.is_exact:
        causes.append(f"tokens are stored as {train.spec.codec}; published: never stored")
    if row is not None and train.spec.clip_model != row.clip.model:
        causes.append(f"CLIP is {train.spec.clip_model}; published: {row.clip.model}")
    if row is not None and train.spec.sampling.dense_frames != row.dense_frames:
        causes.append(f"{train.spec.sampling.dense_frames} dense frames per view; published: {row.dense_frames}")
    return causes


def _causes_in_the_training(run: Run, row: Published | None) -> list[str]:
    causes = []
    online = bool(run.made_from["online"])
    recipe, *named = (replace(known, mixing=known.mixing.resolved(online=online)) for known in (run.recipe, *RECIPES))
    mixing = recipe.mixing.kind
    mixed = row is None or any(entry.mixing.kind != "none" for entry in RECIPES if entry.name == row.recipe)
    if mixing != "pixels" and mixed:
        kind = "no mixing of clips" if mixing == "none" else f"clips are mixed as {mixing}"
        causes.append(f"{kind}; published: mixup and CutMix on pixels before CLIP, which a cache cannot have")
    if (recipe.pool or 1) > 1:
        causes.append(f"the head sees means over {recipe.pool} x {recipe.pool} patches; published: CLIP's own patches")
    base = next((published.to_dict() for published in named if published.name == recipe.name), None)
    changed = [f"{name}={value}" for name, value in recipe.to_dict().items() if base and base[name] != value]
    if changed:
        causes.append(f"settings differ from the recipe: {', '.join(changed)}")
    if row is not None and row.note:
        causes.append(row.note)
    if run.result() is None:
        causes.append(f"the run is not finished: epoch {run.progress().epoch} of {recipe.epochs}")
    causes.append(f"one run with seed {recipe.seed}: the spread over seeds is not known")
    return causes
