"""Finished runs on one cache, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.run import Run


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run.

    Attributes:
        name: of its recipe. run: folder. top1: on the validation split; None: not scored. scored, listed: videos.
        factors: name -> its top-1, where the classes are made of factors.
        tokens: "cache", or "CLIP, every step". epochs: of the recipe. epoch_seconds: median; None: not measured.
    """

    name: str
    run: Path
    top1: float | None
    scored: int | None
    listed: int | None
    tokens: str
    epochs: int
    epoch_seconds: float | None
    factors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs beside chance. `views` and `cache_bytes` are over all splits of the cache.

    Attributes:
        chance: one over the number of classes. factor_chance: the same over each factor's values.
    """

    classes: int
    chance: float
    views: int
    cache_bytes: int
    runs: tuple[RunRow, ...]
    factor_chance: dict[str, float] = field(default_factory=dict)


def compare(runs: tuple[Path, ...], cache: Path) -> Comparison:
    """Read what the runs kept of themselves; nothing is computed again.

    Raises:
        RunError: a folder is no run, or its run is not finished.
        CacheError: no cache there.
    """
    opened = [open_split(cache, name) for name in splits(cache)] or [open_split(cache, "train")]
    classes = len(opened[0].class_names)
    return Comparison(
        classes=classes,
        chance=1 / classes,
        views=sum(split.video_count * split.spec.stored_views for split in opened),
        cache_bytes=sum(held_bytes(split) for split in opened),
        runs=tuple(_row(path) for path in runs),
        factor_chance={name: 1 / len(set(values)) for name, values in opened[0].factors.items()},
    )


def _row(path: Path) -> RunRow:
    run = Run.open(path)
    result = run.result()
    if result is None:
        raise RunError(f"{path} is not finished: its result.json is missing. The same `vidxfer train` goes on with it.")
    score = result["score"] or {}
    epochs = f", {run.recipe.epochs} epoch" + ("s" if run.recipe.epochs > 1 else "")
    return RunRow(
        name=run.recipe.name + epochs,
        run=path,
        top1=score.get("top1"),
        scored=score.get("scored"),
        listed=score.get("listed"),
        tokens="CLIP, every step" if run.made_from["online"] else "cache",
        epochs=run.recipe.epochs,
        epoch_seconds=result["epoch_seconds"],
        factors=score.get("factors", {}),
    )
