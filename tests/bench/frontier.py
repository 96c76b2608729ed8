"""Results of real_order.py in pairs: top-1, bytes per view and training GFLOP of each candidate, beside float16.

    predictions of a candidate's runs ─┬─ the same videos, seed by seed ─▶ source video ─▶ sum of differences, count
    predictions of float16's runs ─────┘      source videos drawn with replacement, 10,000 times ─▶ 2.5 and 97.5 %

Windows of one recording are alike, so recordings are drawn and not windows. A point passes where the lower end is above
`PASS_POINTS` for every head that was trained on it. Sizes at B/16 and L/14 are the product's own arithmetic.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from codec_accuracy import cache_of
from codec_table import EXACT
from stored import decoding_gflop
from token_motion import TokenMotionConfig

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tower import TowerInfo
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.training.own_heads import add_head
from vidxfer.pipeline.training.predictions import read_predictions
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.resampled import ENDS, RESAMPLES
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.comparing.costs import cost_of
from vidxfer.stages.comparing.rows import HeadCost
from vidxfer.stages.describe import describe_split
from vidxfer.stages.planning.costs import ClipCost, Rates, break_even_gb_per_second
from vidxfer.stages.planning.operations import operations
from vidxfer.stages.planning.plan import bytes_read, needs_of
from vidxfer.stages.settings import CacheChoice

BEGIN, END = "<!-- frontier: begin -->\n", "<!-- frontier: end -->\n"
PASS_POINTS, GAUGE_PERCENT = -2.0, 55.0
"""A head that finds the right one of forward and backward less often than this (chance 50) has no order to lose."""

TOWERS = {"B/16": "ViT-B-16-quickgelu", "L/14": "ViT-L-14-quickgelu"}
DEVICE_TFLOPS = 100
"""Operations a second, in 10^12, of the device that break-even is worked out for: CLIP's and the head's alike."""

SSV2_CLASSES, SCALED = 174, "dist-ssv2-b16"
HEADS = {
    "dist": "DiST",
    "motion": "motion of tokens",
    "evl": "EVL",
    "probe": "linear probe",
    "attentive": "attentive d1",
}
BLIND = {"order": ("probe", "attentive")}
"""Task -> heads that cannot see what it asks for."""

add_head(TokenMotionConfig)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run: its line of results.jsonl, and its folder."""

    line: Mapping[str, Any]
    run: Path

    def right(self) -> dict[str, bool]:
        """Id of a validation video -> whether its class was the most probable."""
        return {one.id: one.right for one in read_predictions(self.run, "val")}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """In points, and the ends of its 95 % interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def difference(pairs: Sequence[tuple[Mapping[str, bool], Mapping[str, bool]]], source: Mapping[str, str]) -> Difference:
    """Second minus first of runs on the same videos, a pair per seed; source videos are what is drawn.

    Args:
        pairs: id -> right, of float16 and of the candidate.
        source: id -> source video; an id that is missing is its own.

    Raises:
        ValueError: two runs were scored on other videos.
    """
    sums: dict[str, list[float]] = {}
    for first, second in pairs:
        if first.keys() != second.keys():
            raise ValueError(
                f"two runs of a pair were scored on {len(first)} and {len(second)} videos, not on the same"
            )
        for one, right in first.items():
            entry = sums.setdefault(source.get(one, one), [0.0, 0.0])
            entry[0] += float(second[one]) - float(right)
            entry[1] += 1
    change, count = 100 * np.array([*sums.values()]).T
    drawn = np.random.default_rng(0).integers(len(change), size=(RESAMPLES, len(change)))
    shares = 100 * change[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(shares, ENDS, method="inverted_cdf")
    return Difference(points=100 * float(change.sum() / count.sum()), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate under one head of one task.

    Attributes:
        tops: top-1 of each seed, in percent.
        against: difference to float16; None for float16.
        decoding_gflop: what turning the tokens of one view back takes.
        within_pair: how often the right one of two orders is the more probable, in percent.
        in_its_pool: difference to float16 with the same means of patches; None without such means.
    """

    task: str
    head: str
    candidate: str
    tops: tuple[float, ...]
    against: Difference | None
    cost: HeadCost
    decoding_gflop: float = 0.0
    within_pair: float | None = None
    in_its_pool: Difference | None = None

    @property
    def top1(self) -> float:
        """Mean over seeds, in percent."""
        return statistics.mean(self.tops)

    @property
    def passes(self) -> bool:
        """Whether the lower end is above the bound; float16 does."""
        return self.against is None or self.against.low > PASS_POINTS


def rows_of(work: Path, results: Sequence[Result], source: Callable[[str], Mapping[str, str]]) -> list[Row]:
    """A row per task, head and candidate, over the seeds that it and float16 both have."""
    grouped: dict[tuple[str, str, str], dict[int, Result]] = {}
    for result in results:
        line = result.line
        grouped.setdefault((line["task"], line["head"], line["candidate"]), {})[line["seed"]] = result
    rows = []
    for (task, head, candidate), seeds in grouped.items():
        _, pooled, side = candidate.partition("@pool")
        differences = {}
        for base in {EXACT, EXACT + pooled + side} - {candidate}:
            exact = grouped.get((task, head, base), {})
            if pairs := [(exact[seed].right(), seeds[seed].right()) for seed in sorted(seeds.keys() & exact.keys())]:
                differences[base] = difference(pairs, source(task))
        first, split = next(iter(seeds.values())), open_split(cache_of(work / task, candidate), "val")
        rows.append(
            Row(
                task=task, head=head, candidate=candidate,
                tops=tuple(100 * seeds[seed].line["top1"] for seed in sorted(seeds)),
                against=differences.get(EXACT),
                in_its_pool=differences.get(EXACT + pooled + side) if pooled else None,
                within_pair=_mean([seed.line.get("within_pair") for seed in seeds.values()]),
                cost=cost_of(Run.open(first.run), split),
                decoding_gflop=decoding_gflop(split.spec),
            )
        )  # fmt: skip
    return rows


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [100 * share for share in shares if share is not None]
    return statistics.mean(known) if known else None


def table(rows: Sequence[Row]) -> list[str]:
    """One row per candidate and head of one task, float16 first; heads that cannot see order are left out."""
    lines = [
        "| head | candidate | kB per view | smaller | training GFLOP | fewer | decoding GFLOP | top-1 (each seed) "
        "| within a pair | against float16 | against float16 of its pool | passes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    exact = {row.head: row.cost for row in rows if row.candidate == EXACT}
    for row in rows:
        if row.head in BLIND.get(row.task, ()) or row.head not in exact:
            continue
        passes = "yes" if row.passes else "no"
        if row.task == "order" and row.head not in gauges(rows):
            passes = "no gauge: finds no order"
        seeds = f" ({', '.join(f'{top:.1f}' for top in row.tops)})" if len(row.tops) > 1 else ""
        cells = [HEADS[row.head], f"`{row.candidate}`", f"{row.cost.bytes_per_view / 1e3:.1f}",
                 f"{exact[row.head].bytes_per_view / row.cost.bytes_per_view:.1f}x", f"{row.cost.training_gflop:.3f}",
                 f"{exact[row.head].training_gflop / row.cost.training_gflop:.1f}x",
                 f"{row.decoding_gflop:.3f}" if row.decoding_gflop else "", f"{row.top1:.1f}{seeds}",
                 "-" if row.within_pair is None else f"{row.within_pair:.1f}",
                 "-" if row.against is None else str(row.against),
                 "" if row.in_its_pool is None else str(row.in_its_pool), passes]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gauges(rows: Sequence[Row]) -> set[str]:
    """Heads that see what the order task asks for, and have learned it on float16."""
    order = [row for row in rows if row.task == "order" and row.candidate == EXACT]
    return {row.head for row in order if row.head not in BLIND["order"] and (row.within_pair or 0) >= GAUGE_PERCENT}


def smallest(rows: Sequence[Row]) -> str | None:
    """Of the candidates that pass the order task under every head, the one of fewest bytes; None: only float16 does."""
    heads = gauges(rows)
    order = [row for row in rows if row.task == "order" and row.head in heads]
    sizes = {}
    for candidate in {row.candidate for row in order} - {EXACT}:
        own = [row for row in order if row.candidate == candidate]
        if {row.head for row in own} == heads and all(row.passes for row in own):
            sizes[candidate] = max(row.cost.bytes_per_view for row in own)
    return min(sizes, key=lambda one: sizes[one], default=None)


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A candidate on a published tower: bytes of a view, GFLOP of a training step and of decoding, break-even."""

    bytes_per_view: int
    training_gflop: float
    decoding_gflop: float
    break_even: float | None


def at_scale(candidate: str, model: str, layers: Sequence[int] | None) -> Scaled:
    """What `vidxfer plan` would say of DiST's SSv2 settings on this tower with 8 + 16 frames.

    Args:
        candidate: codec, and `@pool2` behind it.
        model: of open_clip.
        layers: blocks; None: all.
    """
    codec, _, pooled = candidate.partition("@pool")
    spec, tower = _spec_at_scale(codec, model, layers, int(pooled or 1))
    training_gflop = _training_gflop(model, None if layers is None else tuple(layers), int(pooled or 1))
    read = bytes_read(spec, needs_of(spec, named(SCALED), SSV2_CLASSES))
    per_second = DEVICE_TFLOPS * 1e12
    rates = Rates(
        clip_frames_per_second=per_second / tower.flop_per_frame(),
        head_clips_per_second=per_second / (1e9 * training_gflop),
    )
    clip = ClipCost(token_bytes=read, frame_bytes=0.0, sparse_frames=spec.sparse_frames, seen_frames=0)
    return Scaled(
        bytes_per_view=read,
        training_gflop=training_gflop,
        decoding_gflop=decoding_gflop(spec),
        break_even=break_even_gb_per_second(clip, rates),
    )


@cache
def _training_gflop(model: str, layers: Sequence[int] | None, pool: int) -> float:
    """Of one clip, counted once: the codec does not change it."""
    spec, _ = _spec_at_scale(EXACT, model, layers, pool)
    return operations(named(SCALED), spec, SSV2_CLASSES).training_gflop


def _spec_at_scale(codec: str, model: str, layers: Sequence[int] | None, pool: int) -> tuple[CacheSpec, TowerInfo]:
    info = untrained_tower(model, device="cpu", numbers=False).info
    choice = CacheChoice(codec=codec, layers=None if layers is None else tuple(layers), pool=pool)
    return describe_split(
        choice, info, Dataset(name="sizes", root=Path(), split="train", videos=(), class_names=())
    ), info
