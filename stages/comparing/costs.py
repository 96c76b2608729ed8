"""What the head of a finished run costs, counted from its recipe and from the spec that it was trained on.

recipe + spec ─▶ operations, parameters, bytes and frames per view, order            metrics.jsonl ─▶ clips/s, memory
"""

from __future__ import annotations

from functools import lru_cache
from statistics import median

from vidxfer.pipeline.cache.read.summary import bytes_on_disk
from vidxfer.pipeline.cache.remote import is_remote
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import head_of_shapes
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.comparing.order_seen import sees_order
from vidxfer.stages.comparing.rows import HeadCost
from vidxfer.stages.planning.operations import Operations, operations
from vidxfer.stages.planning.plan import bytes_read

MOST_NUMBERS = 1 << 30
"""Numbers in a head and one clip. No head is so large; the sizes in a damaged run folder may be."""


def cost_of(run: Run, scored_on: Split) -> HeadCost:
    """What the head of a run takes.

    Args:
        run: finished.
        scored_on: a split of the cache that is compared on: whether it keeps dense frames.

    Raises:
        RunError: what the run says of itself are no sizes of a head. CacheError: it is for another cache.
    """
    spec, classes = CacheSpec.from_dict(run.made_from["spec"]), len(run.made_from["class_names"])
    try:
        head, offer = head_of_shapes(run.recipe, spec, classes)
        clip = offer.fake_batch(head.needs, 1, device="meta")
        inputs = [tensor for tensor in (clip.tokens, clip.embedding, clip.dense) if tensor is not None]
        if (count := sum(tensor.numel() for tensor in (*head.parameters(), *inputs))) > MOST_NUMBERS:
            raise RunError(
                f"{run.path}: a head and a clip of {count:,} numbers; at most {MOST_NUMBERS:,} are allowed. "
                "recipe.json or run.json is damaged: train again."
            )
        counted, sees = _counted(run.recipe, spec, classes)
    except (RuntimeError, ArithmeticError, ValueError) as error:
        raise RunError(f"{run.path}: its head cannot be built from what the run says of its sizes: {error}") from error
    frames = head.needs.pixel_frames(offer.sparse_frames, offer.alpha)
    return HeadCost(
        parameters=counted.parameters,
        forward_gflop=counted.forward_gflop,
        training_gflop=counted.training_gflop,
        bytes_per_view=0 if run.made_from["online"] else bytes_read(spec, head.needs),
        frames_per_view=frames,
        frame_bytes_per_view=_jpeg_bytes(scored_on) if frames and not run.made_from["online"] else None,
        sees_order=sees,
    )


def speed_of(run: Run) -> tuple[float | None, int | None]:
    """Clips per second and peak memory in bytes, as the journal has them; None: it does not.

    Raises:
        RunError: the journal is damaged.
    """
    if not (run.path / "metrics.jsonl").exists():
        return None, None
    entries = [line for line in read_metrics(run.path) if isinstance(line, dict)]
    rates = [rate for line in entries if isinstance(rate := line.get("clips_per_second"), int | float)]
    peaks = [peak for line in entries if isinstance(peak := line.get("peak_memory_bytes"), int)]
    return (median(rates) if rates else None), max(peaks, default=None)


def _counted(recipe: Recipe, spec: CacheSpec, classes: int) -> tuple[Operations, bool]:
    """Operations, and whether the head sees order; of runs that differ in the seed alone only once."""
    return _counted_once(
        Recipe(name="", head=recipe.head, clip=recipe.clip, sparse_frames=recipe.sparse_frames, pool=recipe.pool),
        spec,
        classes,
    )


@lru_cache(maxsize=64)
def _counted_once(recipe: Recipe, spec: CacheSpec, classes: int) -> tuple[Operations, bool]:
    return operations(recipe, spec, classes), sees_order(recipe, spec)


def _jpeg_bytes(split: Split) -> int | None:
    """Of the dense frames of one stored view, on this disk; None: the cache does not keep them."""
    views = split.video_count * split.spec.stored_views
    if split.frames is None or is_remote(split.path) or not views:
        return None
    return sum(bytes_on_disk(part.path / "frames") for part in split.parts) // views
