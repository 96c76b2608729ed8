"""Choose a codec by measuring: the smallest candidate that loses no more than asked, on a person's own videos.

    calibration videos ─┬─ one half ─▶ fit every candidate ───────────────────────┐
                        └─ the other ─▶ some frames of each ─ through the tower ─▶ losses ─▶ CodecChoice

Halves share no video, and no file where there is more than one. It is measured once, before a split is made; whoever
goes on with the cache, or makes its other splits, finds the choice in what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.codecs.fit import Fitting
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.candidates import AUTO, CANDIDATES, EXACT, LOSS, Candidate, CodecChoice, choice_of, smallest_passing
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.encode import Encoded, encode_videos
from vidxfer.stages.upkeep.made_of import expect_finished
from vidxfer.stages.upkeep.stored import decoded, even_rows, read_row
from vidxfer.stages.upkeep.through import Ending, EndSums, ThroughTower
from vidxfer.stages.upkeep.tried import Tried, tried_specs
from vidxfer.stages.upkeep.truth import Seen, left_out_of, tower_of_split

if TYPE_CHECKING:
    from vidxfer.stages.upkeep.recode import RecodeRequest

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
    found = None
    for name in splits(cache):
        split = open_split(cache, name)
        found = choice_of(split)
        if found is None:
            remedy = f"Go on with --codec {split.spec.codec}, or extract into another folder (--cache)."
            raise CacheMismatch(split.path, {"codec": (split.spec.codec, AUTO)}, remedy)
        if loss is not None and loss != found.loss:
            remedy = f"Go on with --loss {found.loss:g}, or extract into another folder (--cache)."
            raise CacheMismatch(split.path, {"loss": (found.loss, loss)}, remedy)
    return found


def choose_for_videos(
    request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: Tower, shown: Progress
) -> CodecChoice:
    """Measure on an even sample of a data set, before anything of it is stored.

    Raises:
        UsageError: fewer than two videos, or those of a half cannot be read.
    """
    sample = dataset.take(min(len(dataset), request.store.calibration_videos)).videos
    halves = in_halves([(video.path, video) for video in sample], dataset.split)

    def seen(videos: Sequence[Video], why: str) -> Iterator[Seen]:
        with shown.bar(f"{why} {dataset.split}", len(videos), "videos") as bar:
            for row, encoded in enumerate(encode_videos(videos, spec, tower, request)):
                if isinstance(encoded, Encoded):
                    others = left_out_of(tower, encoded, spec.layers)
                    yield Seen(row=row, tokens=encoded.tokens.float(), left_out=others)
                bar.advance()

    apart = len({video.path for video in sample}) > 1
    return _choose(
        spec, request.store.loss, halves, seen, Ending(tower, spec.layers, request.batch_frames), apart, shown
    )


def with_codec(
    request: RecodeRequest, spec_of: Callable[[CacheSpec, RecodeRequest], CacheSpec], shown: Progress
) -> tuple[RecodeRequest, CodecChoice | None]:
    """The request with the codec by name, and how it was chosen: as the target says, or measured on training videos.

    Args:
        request: what to recode.
        spec_of: the settings of a new split.
        shown: for bars.

    Raises:
        as `choose_for_cache`. CacheIncomplete: the source has pending shards.
    """
    if request.codec != AUTO:
        return request, None
    choice = chosen_before(request.target, request.loss)
    if choice is None:
        opened = open_splits(request.source, request.splits)
        source = next((split for split in opened if split.spec.split == "train"), opened[0])
        expect_finished(source)
        spec = spec_of(source.spec, replace(request, codec=EXACT, loss=None))
        choice = choose_for_cache(source, spec, request, shown)
    return replace(request, codec=choice.codec, loss=None), choice


def choose_for_cache(source: Split, spec: CacheSpec, request: RecodeRequest, shown: Progress) -> CodecChoice:
    """Measure on the tokens of a float16 cache: the tower goes on from them, and no video is read.

    Args:
        source: a split of it.
        spec: the settings of the new split, with any codec.
        request: the bound, how many videos at most, and the device.
        shown: for bars.

    Raises:
        UsageError: it is not float16, holds fewer than two videos, or the tower cannot go on from stored tokens.
    """
    if not source.spec.form.is_exact:
        raise UsageError(
            f"{source.path} holds {source.spec.codec}: what a codec loses is measured from float16 tokens. Name a "
            "codec, or give a cache made with --codec float16."
        )
    tower = tower_of_split(source, request.device)
    ending = Ending(tower, spec.layers, MEASURED_FRAMES)
    ending.expect_no_left_out()
    decode = Dequantiser.of(source, layers=spec.layers).to(tower.device)
    with open_reader(source) as reader:
        files = {
            row: reader.file_of(row) or row
            for row in even_rows(reader.stored_rows(), max(2, request.calibration_videos))
        }
        halves = in_halves([(file, row) for row, file in files.items()], spec.split)

        def seen(rows: Sequence[int], why: str) -> Iterator[Seen]:
            with shown.bar(f"{why} {spec.split}", len(rows), "videos") as bar:
                for row in rows:
                    yield Seen(row=row, tokens=decoded(decode, read_row(reader, row, spec.layers)))
                    bar.advance()

        return _choose(spec, request.loss, halves, seen, ending, len(set(files.values())) > 1, shown)


def in_halves(items: Sequence[tuple[Hashable, Item]], split: str) -> tuple[list[Item], list[Item]]:
    """Items, each with its file, in two lists of about equal length: those of one file stay together if there are more.

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
    for together in sorted(by_file.values(), key=len, reverse=True):
        min(halves, key=len).extend(together)
    return halves


def _choose(
    spec: CacheSpec,
    loss: float | None,
    halves: tuple[list[Item], list[Item]],
    seen: Callable[[list[Item], str], Iterator[Seen]],
    ending: Ending,
    files_apart: bool,
    shown: Progress,
) -> CodecChoice:
    bound, (fit_on, measured_on) = LOSS if loss is None else loss, halves
    specs = tried_specs(spec, CANDIDATES)
    fitting, fitted = Fitting([one.form for one in specs], len(fit_on)), 0
    for video in seen(fit_on, "choose a codec: fit on"):
        fitting.update(video.tokens)
        fitted += 1
    device = ending.device
    tried = [Tried(one, fitting.finish(one.form, device), device) for one in specs]
    sums = [EndSums(spec.layers, MEASURED_FRAMES + len(measured_on)) for _ in specs]
    frames = measured = 0
    for video in seen(measured_on, "choose a codec: measure"):
        some = some_frames(video, max(1, MEASURED_FRAMES // len(measured_on)))
        ends = ending.ends(some.tokens, some.left_out)
        for codec, end_sums in zip(tried, sums, strict=True):
            end_sums.update(ends, ending.ends(codec(some.tokens), some.left_out))
        frames, measured = frames + ends.shape[1], measured + 1
    if not fitted or not measured:
        raise UsageError(
            f"--codec auto: of {spec.split}, {fitted} videos to fit on and {measured} to measure can be read, and one "
            "of each is needed. Name a codec, or give more videos (--calibration-videos)."
        )
    found = {one.codec: _candidate(one, end_sums) for one, end_sums in zip(specs, sums, strict=True)}
    choice = CodecChoice(
        codec=smallest_passing(found, bound),
        loss=bound,
        split=spec.split,
        fitted_on=fitted,
        measured_on=measured,
        files_apart=files_apart,
        frames=frames,
        layers=spec.layers,
        candidates=dict(sorted(found.items(), key=lambda one: one[1].bytes_per_view)),
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
