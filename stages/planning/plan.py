"""What would a cache cost? Bytes, files and hours before anything is written, and whether a cache pays.

    choices ─▶ CacheSpec ─▶ bytes, files, inodes ──────────────┐
    rates: measured here, or given ─▶ costs.py ─▶ hours, ──────┴─▶ table, and one sentence of advice
                                      seconds per epoch, break-even GB/s

A cache pays only while reading a view takes less time than computing it again. Nothing is left behind and no weights
are fetched: speed does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.write.frozen import frozen_bytes
from vidxfer.pipeline.clip.load import choose_device, untrained_tower
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import expect_made_for, offer_of
from vidxfer.pipeline.training.shown import with_clip
from vidxfer.stages.describe import bytes_per_view, describe_split, frame_store, kept_frames, notes_of_spec
from vidxfer.stages.planning import measure
from vidxfer.stages.planning.costs import (
    ClipCost,
    Epoch,
    Rates,
    break_even_gb_per_second,
    epochs,
    epochs_until_it_paid,
    extract_seconds,
)
from vidxfer.stages.planning.memory import training_bytes
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.room import existing_parent, free_bytes, free_inodes, layout_for
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource

JPEG_BYTES_PER_PIXEL = 0.31
"""Of a 224 px frame at quality 90: 16 frames are about 0.25 MB. Used where no video was looked at."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What to plan; as `ExtractRequest`.

    Attributes:
        measure: measure the rates that are not given.
        rates: those that are; they are not measured.
        recipe: whose training memory and step are told too; None: the head is not counted.
    """

    data: DataSource
    clip: ClipChoice
    store: CacheChoice
    cache: Path
    splits: tuple[str, ...] = ("train", "val")
    batch_frames: int = 128
    decode_threads: int = 2
    measure: bool = True
    rates: Rates = field(default_factory=Rates)
    recipe: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """One split: videos, stored views, bytes per view and of the whole split, files, inodes, and CLIP's operations."""

    split: str
    videos: int
    views: int
    bytes_per_view: int
    total_bytes: int
    files: int
    inodes: int
    clip_tflop: float
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The bill.

    Attributes:
        splits: one each.
        free_bytes, free_inodes: on the disk of the cache.
        device: where CLIP would run.
        rates: given or measured here; None: neither.
        extract_hours: the slowest of decoding, CLIP and writing, over all splits.
        epochs: an epoch over the first split, one view per video, each way.
        epochs_until_it_paid: of cached training.
        break_even_gb_per_second: reading slower than this, recomputing is faster; None: not known, or never.
        advice: one sentence.
        training_bytes: memory of one step of the recipe's whole batch in float32.
        frozen_bytes: of CLIP's own weights, once beside all splits.
    """

    splits: tuple[SplitPlan, ...]
    free_bytes: int
    free_inodes: int | None
    device: str
    rates: Rates
    extract_hours: float | None
    epochs: tuple[Epoch, ...]
    epochs_until_it_paid: float | None
    break_even_gb_per_second: float | None
    advice: str
    training_bytes: int | None = None
    frozen_bytes: int = 0


def plan(request: PlanRequest, progress: Progress | None = None) -> PlanReport:
    """Work out the bill; leave nothing behind.

    Raises:
        UsageError, DatasetError: the request or the data set cannot be meant. ClipError: no such model.
        CacheMismatch: the recipe is for other frames or another CLIP.
    """
    datasets, asked = [request.data.load(split) for split in request.splits], request.clip
    device, numbers = asked.device, request.measure and request.rates.clip_frames_per_second is None
    tower = untrained_tower(asked.model, device=device, precision=asked.precision, resize=asked.resize, numbers=numbers)
    specs = [describe_split(request.store, tower.info, dataset) for dataset in datasets]
    plans = tuple(
        _plan_split(request.store, tower, *spec_and_data) for spec_and_data in zip(specs, datasets, strict=True)
    )
    first, spec, classes = plans[0], specs[0], len(datasets[0].class_names)
    needs = needs_of(spec, request.recipe, classes)
    rates, jpeg_bytes = request.rates, JPEG_BYTES_PER_PIXEL * spec.sampling.image_px**2
    if request.measure:
        rates, jpeg_bytes = measured(request, tower, spec, needs, datasets[0], progress or Silent(), jpeg_bytes)
    clip = ClipCost(
        token_bytes=spec.bytes_per_view if request.recipe is None else bytes_read(spec, needs),
        frame_bytes=jpeg_bytes,
        sparse_frames=needs.sparse_frames or spec.sparse_frames,
        seen_frames=needs.pixel_frames(spec.sparse_frames, spec.sampling.alpha),
        kept_frames=kept_frames(spec, request.store),
    )
    took = extract_seconds(
        videos=sum(split_plan.videos for split_plan in plans),
        frames=sum(part.videos * part.views * spec.sparse_frames for part, spec in zip(plans, specs, strict=True)),
        total_bytes=sum(split_plan.total_bytes for split_plan in plans),
        rates=rates,
    )
    ways, even = epochs(clip, rates, first.videos), break_even_gb_per_second(clip, rates)
    bill = PlanReport(
        splits=plans,
        free_bytes=free_bytes(request.cache),
        free_inodes=free_inodes(request.cache),
        device=str(choose_device(device)),
        rates=rates,
        extract_hours=None if took is None else took / 3600,
        epochs=ways,
        epochs_until_it_paid=epochs_until_it_paid(took, ways),
        break_even_gb_per_second=even,
        advice="",
        frozen_bytes=0 if tower.heads is None else frozen_bytes(spec.layers, tower.info.blocks, spec.channels),
        training_bytes=None if request.recipe is None else training_bytes(request.recipe, spec, classes),
    )
    return replace(bill, advice=advise(bill))


def needs_of(spec: CacheSpec, recipe: Recipe | None, classes: int) -> Needs:
    """What the recipe's head reads; without a recipe, all that a cache holds.

    Raises:
        CacheMismatch, CacheError: the recipe is for another cache.
    """
    if recipe is None:
        return Needs(layers=spec.layers, embedding=True, pixels="dense")
    offer = offer_of(spec, recipe, classes=classes)
    expect_made_for(recipe, offer)
    return recipe.head.needs(offer)


def bytes_read(spec: CacheSpec, needs: Needs) -> int:
    """Bytes read of one stored view: whole chunks of codes and scales, and embeddings where they are wanted."""
    tokens = spec.sparse_frames * sum(spec.form.frame_bytes(spec.tokens, spec.channels))
    return len(needs.layers) * tokens + (spec.sparse_frames * spec.embed * 2 if needs.embedding else 0)


def measured(
    request: PlanRequest,
    tower: Tower,
    spec: CacheSpec,
    needs: Needs,
    dataset: Dataset,
    shown: Progress,
    jpeg_bytes: float,
) -> tuple[Rates, float]:
    """The request's rates with what was missing measured here, and bytes of a JPEG frame."""
    known, threads = request.rates, request.decode_threads
    measured_rates: dict[str, float | None] = {}
    with shown.bar("measure", 6, "steps") as bar:
        bar.advance(0, "disk")
        chunk = bytes_read(spec, replace(needs, layers=needs.layers[:1], embedding=not needs.layers))
        if known.disk_read_gb_per_second is None or known.disk_write_gb_per_second is None:
            disk = measure.measure_disk(existing_parent(request.cache), chunk)
            if disk is not None:
                measured_rates["disk_write_gb_per_second"], measured_rates["disk_read_gb_per_second"] = disk
        bar.advance(1, "CLIP forward")
        if known.clip_frames_per_second is None:
            measured_rates["clip_frames_per_second"] = measure.measure_clip(tower, spec, request.batch_frames)
        bar.advance(1, "decoding as extraction does")
        if known.decode_videos_per_second is None:
            measured_rates["decode_videos_per_second"] = measure.measure_decode(spec, dataset, threads)
        bar.advance(1, "decoding as training does")
        if known.dense_clips_per_second is None:
            measured_rates["dense_clips_per_second"] = measure.measure_dense(spec, with_clip(needs), dataset, threads)
        bar.advance(1, "JPEG")
        jpeg = measure.measure_jpeg(spec, dataset, threads)
        if jpeg is not None:
            measured_rates["jpeg_frames_per_second"], jpeg_bytes = jpeg
        bar.advance(1, "head")
        if known.head_clips_per_second is None and request.recipe is not None:
            classes, where = len(dataset.class_names), choose_device(request.clip.device)
            measured_rates["head_clips_per_second"] = measure.measure_head(request.recipe, spec, classes, where)
        bar.advance(1, "")
    given = {name: value for name, value in vars(known).items() if value is not None}
    return Rates(**{**measured_rates, **given}), jpeg_bytes


def _plan_split(choice: CacheChoice, tower: Tower, spec: CacheSpec, dataset: Dataset) -> SplitPlan:
    if not len(dataset):
        raise UsageError(f"the {dataset.split} split of {dataset.root} has no videos")
    store = frame_store(choice, spec.sampling.image_px)
    layout = layout_for(spec, len(dataset), len(dataset.class_names), choice.shard_videos, store)
    frames = len(dataset) * spec.stored_views * spec.sparse_frames
    return SplitPlan(
        split=spec.split,
        videos=len(dataset),
        views=spec.stored_views,
        bytes_per_view=bytes_per_view(spec, choice),
        total_bytes=layout.total_bytes + layout.fixed_bytes,
        files=layout.shard_count * len(layout.owned) + len(layout.owned) + 2 * len(layout.fixed) + 4,
        inodes=layout.inodes,
        clip_tflop=frames * tower.info.flop_per_frame() / 1e12,
        notes=(*dataset.notes, *notes_of_spec(spec, choice)),
    )


def advise(bill: PlanReport) -> str:
    """One sentence: does it fit, does it pay, and what bounds it."""
    needed = bill.frozen_bytes + sum(split_plan.total_bytes for split_plan in bill.splits)
    inodes = sum(split_plan.inodes for split_plan in bill.splits)
    if needed > bill.free_bytes:
        return (
            f"It does not fit: {needed / 1e9:,.1f} GB are needed, {bill.free_bytes / 1e9:,.1f} GB are free. "
            "Fewer layers (--layers 3,7,11), int8 or fewer views make it smaller."
        )
    if bill.free_inodes is not None and inodes > bill.free_inodes:
        return (
            f"It does not fit: {inodes:,} inodes are needed, {bill.free_inodes:,} are free. "
            "More videos per shard (--shard-videos) make fewer files."
        )
    fits = f"It fits ({needed / 1e9:,.2f} GB of {bill.free_bytes / 1e9:,.1f} GB free)"
    cached, online, frames, both = bill.epochs
    if bill.rates.clip_frames_per_second is None or cached.seconds is None or online.seconds is None:
        return f"{fits}."
    reads = bill.rates.disk_read_gb_per_second
    if bill.break_even_gb_per_second is None:
        return f"{fits}, but it does not pay: without CLIP an epoch is bound by the {cached.bound_by} all the same."
    limit = f"{bill.break_even_gb_per_second:.2g} GB/s"
    if reads is None:
        return f"{fits}, and it pays where the disk reads more than {limit} per device like this one."
    if cached.seconds >= online.seconds:
        worth = "; fewer layers or stored frames need less" if frames.seconds is not None else ""
        return f"{fits}, but it does not pay: it would have to be read at {limit}, this disk gives {reads:.2g}{worth}."
    paid = "" if bill.epochs_until_it_paid is None else f", earned back after {bill.epochs_until_it_paid:.1f} epochs"
    more = ""
    if cached.bound_by == "CPU" and both.seconds is not None and both.seconds < 0.8 * cached.seconds:
        more = (
            f"; most of the rest is decoding: stored frames would make it {cached.seconds / both.seconds:.1f}x faster"
        )
    return (
        f"{fits}, and it pays: {online.seconds / cached.seconds:.1f}x faster epochs than online{paid}; "
        f"the disk must read more than {limit} and gives {reads:.2g}{more}."
    )
