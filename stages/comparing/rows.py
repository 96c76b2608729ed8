"""What a comparison holds: a row per run, a row per head of several seeds, and pairs over the same videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidxfer.pipeline.heads.systems import Figure
from vidxfer.pipeline.training.resampled import Interval


@dataclass(frozen=True, kw_only=True)
class HeadCost:
    """The cost of a head, computed from its shapes; nothing is measured here.

    Attributes:
        parameters: numbers that are trained.
        forward_gflop, training_gflop: of one view, CLIP not counted; a multiply-accumulate is two operations.
        bytes_per_view: of codes and embeddings that are read; 0 online.
        frames_per_view: that the head sees as pixels.
        frame_bytes_per_view: of their JPEGs; None: not in the cache.
        sees_order: whether another order of the frames changes what the head says.
    """

    parameters: int
    forward_gflop: float
    training_gflop: float
    bytes_per_view: int
    frames_per_view: int
    frame_bytes_per_view: int | None
    sees_order: bool


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run, or CLIP alone.

    Attributes:
        name: of its recipe, with what tells it from the other runs of that recipe: settings of the head, epochs, seed.
        recipe: its name alone.
        run: folder.
        seed: of the recipe.
        top1, top5: on the split; None: not scored.
        scored, listed: videos.
        top1_interval, top5_interval: 95 %, over videos.
        top1_of_listed: the same with missing videos counted as wrong.
        factors: name -> its top-1, where the classes are made of factors.
        tokens: "cache", or "CLIP, every step".
        online: whether it is the latter.
        epochs: of the recipe.
        epoch_seconds: median; None: not measured.
        clips_per_second: median of the journal's lines.
        peak_memory_bytes: of the device's allocator, on a CPU of the process; None: not in the journal.
        cost: of its head; None: CLIP alone was not trained.
        settings: what may differ between runs side by side, by name.
        not_compared: fields that the run does not record.
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
    seed: int = 0
    top5: float | None = None
    top1_interval: Interval | None = None
    top5_interval: Interval | None = None
    clips_per_second: float | None = None
    peak_memory_bytes: int | None = None
    cost: HeadCost | None = None
    factors: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Runs that differ in the seed alone.

    Attributes:
        name: as of the runs, without the seed.
        runs: their folders.
        top1, top5, factors: mean and standard deviation over the runs (n − 1).
        top1_interval: from the least to the most of their intervals' ends.
    """

    name: str
    runs: tuple[Path, ...]
    top1: tuple[float, float]
    top5: tuple[float, float] | None
    top1_interval: Interval | None
    factors: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class PairedRow:
    """A run beside the one that the others are compared with, over the videos that both scored.

    Attributes:
        run, name: of the run.
        videos: that both scored.
        difference: its top-1 minus the other's, as a share.
        interval: 95 %, over videos.
        only_other, only_this: videos that only the other one, and only this one, has right.
        p: McNemar's exact test, two-sided.
    """

    run: Path
    name: str
    videos: int
    difference: float
    interval: Interval
    only_other: int
    only_this: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs beside chance. `views` and `cache_bytes` are over all splits of the caches.

    Attributes:
        split: that was scored.
        chance: one over the number of classes.
        factor_chance: the same over a factor's values.
        differing: names of the settings in which the runs differ.
        seeds: heads of which there are runs of several seeds.
        against: the run that the others are compared with;
        pairs: the others.
        notes: what else a person must know, a sentence each.
        published: results of others, where they were asked for; they are over other videos, views and code.
    """

    split: str
    classes: int
    chance: float
    views: int
    cache_bytes: int
    runs: tuple[RunRow, ...]
    factor_chance: dict[str, float] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    seeds: tuple[Seeds, ...] = ()
    against: Path | None = None
    pairs: tuple[PairedRow, ...] = ()
    notes: tuple[str, ...] = ()
    published: tuple[Figure, ...] = ()
