"""Choose a codec by measuring: the smallest candidate that loses no more than asked, on a person's own videos.

    calibration videos ─┬─ one half ─▶ fit every candidate ───────────────────────┐
                        └─ the other ─▶ some frames of each ─ through the tower ─▶ losses ─▶ CodecChoice

Halves share no video, and no file where there is more than one. It is measured once, before a split is made; whoever
goes on with the cache, or makes its other splits, finds the choice in what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from vidxfer.pipeline.cache.codecs.fit import Fitting
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.stages.candidates import (
    AUTO_CODEC,
    CANDIDATES,
    LOSS,
    Candidate,
    CodecChoice,
    choice_of,
    smallest_passing,
)
from vidxfer.stages.codecs.through import Ending, EndSums, Seen, ThroughTower
from vidxfer.stages.codecs.tried import Tried, tried_specs
from vidxfer.stages.progress import Progress

MEASURED_FRAMES = 128
"""That the tower finishes for every layer and candidate; frames of one video are alike, so few of each are enough."""

Item = TypeVar("Item")


def chosen_before(cache: Path, loss: float | None) -> CodecChoice | None:
    """The choice that a cache's splits were made with; None: there are none yet.

    Args:
        cache: its folder.
        loss: the bound that is asked for; None: whichever it was.

    Raises:
        CacheMismatch: a split's codec was named, or chosen for another bound.
    """
    choice = None
    for name in splits(cache):
        split = open_split(cache, name)
        choice = choice_of(split)
        if choice is None:
            remedy = f"Go on with --codec {split.spec.codec}, or extract into another folder (--cache)."
            raise CacheMismatch(split.path, {"codec": (split.spec.codec, AUTO_CODEC)}, remedy)
        if loss is not None and loss != choice.loss:
            remedy = f"Go on with --loss {choice.loss:g}, or extract into another folder (--cache)."
            raise CacheMismatch(split.path, {"loss": (choice.loss, loss)}, remedy)
    return choice


def in_halves(items: Sequence[tuple[Hashable, Item]], split: str) -> tuple[list[Item], list[Item]]:
    """Items, each with its file, in two lists of as many files; those of the only file are halved.

    Raises:
        UsageError: there are fewer than two.
    """
    if len(items) < 2:
        raise UsageError(
            f"--codec auto fits on one half of the calibration videos and measures on the other: {split} has "
            f"{len(items)}. Name a codec, or give more videos."
        )
    by_file: dict[Hashable, list[Item]] = {}
    for file, item in items:
        by_file.setdefault(file, []).append(item)
    if len(by_file) == 1:
        middle = (len(items) + 1) // 2
        return [item for _, item in items[:middle]], [item for _, item in items[middle:]]
    halves: tuple[list[Item], list[Item]] = [], []
    for number, together in enumerate(sorted(by_file.values(), key=len, reverse=True)):
        halves[number % 2].extend(together)  # as many files in each: one long file alone is no sample to fit on
    return halves


def choose(
    spec: CacheSpec,
    loss: float | None,
    halves: tuple[list[Item], list[Item]],
    seen: Callable[[list[Item], str], Iterator[Seen]],
    ending: Ending,
    files_apart: bool,
    shown: Progress,
) -> CodecChoice:
    """Fit every candidate on one half, measure it on the other, and take the smallest within the bound.

    Args:
        spec: the settings of the split, with any codec.
        loss: the bound; None: `LOSS`.
        halves: what to fit on and what to measure.
        seen: a half's videos, as the tower sees them, under a bar of that title; those it cannot read are left out.
        ending: the tower, which goes on.
        files_apart: see `CodecChoice`.
        shown: for the choice.

    Raises:
        UsageError: nothing can be read of what is to be measured. ClipError: nor of what is to be fitted on.
    """
    bound, (fit_on, measured_on) = LOSS if loss is None else loss, halves
    specs = tried_specs(spec, CANDIDATES)
    fitting, fitted = Fitting([tried_spec.form for tried_spec in specs], len(fit_on)), 0
    for video in seen(fit_on, "choose a codec: fit on"):
        fitting.update(video.tokens)
        fitted += 1
    device = ending.device
    tried = [Tried(tried_spec, fitting.finish(tried_spec.form, device), device) for tried_spec in specs]
    sums = [EndSums(spec.layers, MEASURED_FRAMES + len(measured_on)) for _ in specs]
    frames = measured = 0
    for video in seen(measured_on, "choose a codec: measure"):
        chosen = some_frames(video, max(1, MEASURED_FRAMES // len(measured_on)))
        ends = ending.ends(chosen.tokens, chosen.left_out)
        for codec, end_sums in zip(tried, sums, strict=True):
            end_sums.update(ends, ending.ends(codec(chosen.tokens), chosen.left_out))
        frames, measured = frames + ends.shape[1], measured + 1
    if not measured:
        raise UsageError(
            f"--codec auto: of {spec.split}, not one of the {len(measured_on)} videos to measure can be read. Name a "
            "codec, or give more videos (--calibration-videos)."
        )
    candidates = {
        tried_spec.codec: _candidate(tried_spec, end_sums) for tried_spec, end_sums in zip(specs, sums, strict=True)
    }
    choice = CodecChoice(
        codec=smallest_passing(candidates, bound),
        loss=bound,
        split=spec.split,
        fitted_on=fitted,
        measured_on=measured,
        files_apart=files_apart,
        frames=frames,
        layers=spec.layers,
        candidates=dict(sorted(candidates.items(), key=lambda item: item[1].bytes_per_view)),
    )
    for line in choice.lines:
        shown.line(line)
    return choice


def _candidate(spec: CacheSpec, sums: EndSums) -> Candidate:
    layers = sums.finish()
    through = ThroughTower.of(layers)
    return Candidate(
        bytes_per_view=spec.bytes_per_view,
        loss=through.loss,
        worst_layer=through.worst_layer,
        class_row=tuple(layer.class_row for layer in layers),
        patches=tuple(layer.patches for layer in layers),
        patches_worst=tuple(layer.patches_worst for layer in layers),
    )


def some_frames(video: Seen, count: int) -> Seen:
    """At most `count` frames of a video, evenly spread over all of its views, as one view."""
    frames = video.tokens.transpose(0, 1).flatten(1, 2)  # layer (view frame) token channel
    places = torch.linspace(0, frames.shape[1] - 1, min(count, frames.shape[1])).round().long().to(frames.device)
    others = None if video.left_out is None else video.left_out[:, places.to(video.left_out.device)]
    return Seen(row=video.row, tokens=frames[:, places].unsqueeze(0), left_out=others)
