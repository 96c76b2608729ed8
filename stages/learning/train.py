"""Stage two: train a temporal head on cached tokens and dense frames; CLIP is not loaded.

cache ─▶ trainable rows ─▶ run folder (new, or gone on with) ─▶ Trainer: epochs, scores, checkpoints ─▶ TrainReport
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from vidxfer.pipeline.cache.read.agree import facts_of
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import splits
from vidxfer.pipeline.clip.load import choose_device
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.pipeline.heads.delivered import expect_delivered
from vidxfer.pipeline.precision import Where, head_precision
from vidxfer.pipeline.training.build import (
    expect_readable,
    facts_of_head,
    offer_of_split,
    settled,
)
from vidxfer.pipeline.training.compiled import expect_compiler
from vidxfer.pipeline.training.kept_rows import KeptRows
from vidxfer.pipeline.training.mixing import expect_mixable
from vidxfer.pipeline.training.order import expect_enough_clips
from vidxfer.pipeline.training.own_heads import add_head, place_of
from vidxfer.pipeline.training.predictions import predictions_file
from vidxfer.pipeline.training.validation import keep_validation
from vidxfer.pipeline.writing import write_text
from vidxfer.stages.describe import notes_of_spec
from vidxfer.stages.learning.evaluate import predictions
from vidxfer.stages.learning.sources import Source, online_sources
from vidxfer.stages.learning.take_up import beginning, expect_text, ids_of, owned_run, rows_of_run
from vidxfer.stages.learning.trainer import Trainer
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.progress import Progress, Silent, quiet
from vidxfer.stages.settings import TrainReport, TrainRequest
from vidxfer.stages.versions import code_version, library_versions

__all__ = ["TrainReport", "TrainRequest", "train"]


def train(request: TrainRequest, progress: Progress | None = None) -> TrainReport | None:
    """Train to the end of the recipe, or to a signal.

    Returns:
        The report; None in the processes that only lend a device to the leading one.

    Raises:
        CacheError, UsageError, RunError: the cache, the request or the run folder cannot be used so.
        VideoError: a video that was stored cannot be read any more.
    """
    mixing = request.recipe.mixing.resolved(online=request.online)
    request = replace(request, recipe=replace(request.recipe, mixing=mixing))
    expect_mixable(mixing, online=request.online)
    fabric = make_fabric(request)
    shown = progress if progress is not None and fabric.is_global_zero else Silent()
    sources = sources_of(request, fabric, shown)
    rows = trainable_rows(sources["train"], request, shown)
    if request.recipe.batch_clips % fabric.world_size:
        raise UsageError(f"batch_clips={request.recipe.batch_clips} does not divide over {fabric.world_size} devices")
    expect_enough_clips(len(rows), request.recipe, fabric.world_size)
    if request.recipe.compile:
        expect_compiler(fabric.device)
    split = sources["train"].split
    request = trainable(request, sources, shown)
    where = Where(device=fabric.device, precision=head_precision(request.precision, fabric.device))
    if (line := where.line(request.precision)) is not None:
        shown.line(line)
    remembered = made_from(split, online=request.online, where=where, world=fabric.world_size)
    remembered |= place_of(type(request.recipe.head)) | beginning(request, remembered, shown)
    if request.run.is_symlink():
        shown.line(f"{request.run} is behind a link: the run is written at {request.run.resolve()}")
    with ExitStack() as stack:
        run = owned_run(
            request,
            remembered,
            KeptRows(ids=ids_of(sources["train"], rows), views=split.spec.stored_views),
            fabric,
            stack,
        )
        if run is None:
            return None
        expect_text(run, split)
        rows, views = rows_of_run(run, sources["train"], rows, fabric, shown)
        if "val" in sources and fabric.is_global_zero:
            for told in keep_validation(run, sources["val"].split):
                shown.line(f"train: {told}")
        trainer = Trainer(request, run, sources, (rows, views), fabric, where, shown, stack)
        report = trainer.run_epochs()
        if not fabric.is_global_zero:
            return None
        if report.finished:
            run.keep_result(report.to_dict())
            if trainer.scored is not None:
                write_text(predictions_file(run.path, "val"), predictions(sources["val"].split, trainer.scored))
        return report


def trainable(request: TrainRequest, sources: dict[str, Source], shown: Progress) -> TrainRequest:
    """The request with what its recipe leaves to the tower decided, told and checked; errors as `expect_trainable`."""
    split = sources["train"].split
    recipe, chosen = settled(request.recipe, offer_of_split(split, request.recipe))
    request = replace(request, recipe=recipe)
    drawn = notes_of_spec(split.spec, request.store) if request.online and request.data is not None else ()
    for told in [*drawn, *chosen, *expect_trainable(sources, request)]:
        shown.line(f"train: {told}")
    return request


def expect_trainable(sources: dict[str, Source], request: TrainRequest) -> list[str]:
    """Check what can be checked before a run folder is made and hours are spent; returns what is to be told.

    Raises:
        CacheMismatch: the recipe is for other frames or another CLIP, or the two splits are of different kinds.
        CacheError: the cache lacks what the recipe's head reads.
        UsageError: dense frames are asked from a cache that does not hold what the recipe's head sees; or the head is
            of your own, and no run folder can keep it.
    """
    add_head(type(request.recipe.head))
    source = sources["train"]
    offer = source.offer(request.recipe)
    needs = request.recipe.head.needs(offer)
    expect_delivered(needs, offer)
    source.origin(needs)
    if "val" not in sources:
        return []
    val, train = sources["val"].split, source.split
    trained = {**facts_of(train), **facts_of_head(request.recipe, train.spec)}
    return expect_readable("val with train", val.path, facts_of(val), val.spec, request.recipe, trained)


def trainable_rows(source: Source, request: TrainRequest, shown: Progress) -> list[int]:
    """Labelled rows that can be read.

    Raises:
        CacheIncomplete: the extraction has not finished, or nothing usable is stored.
    """
    split = source.split
    pending = source.pending()
    if pending and not request.allow_incomplete:
        raise CacheIncomplete(
            f"{split.path}: {pending} of {split.video_count} videos are not extracted yet. Finish with the same "
            "`vidxfer extract` command (it goes on where it ended), or train on what is there with --allow-incomplete."
        )
    stored = source.stored_rows()
    rows = [row for row in stored if split.labels[row] >= 0]
    if len(stored) < split.video_count - pending:
        shown.line(f"train: {split.video_count - pending - len(stored)} videos were refused at extraction; left out")
    if len(rows) < len(stored):
        shown.line(f"train: {len(stored) - len(rows)} videos have no label; left out")
    if not rows:
        raise CacheIncomplete(f"{split.path}: not one video that can be read has a label; there is nothing to train on")
    return rows


def make_fabric(request: TrainRequest) -> Fabric:
    """Device and launch by Lightning Fabric; several devices train with DDP.

    Fabric leaves numbers as they are: its mixed precision would walk through the batch. The trainer's `Where` casts.
    """
    chosen = choose_device(request.device)
    head_precision(request.precision, chosen)  # refused before processes are started
    cuda = chosen.type == "cuda"
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {request.device}: training runs on cpu or cuda")
    gpus = torch.cuda.device_count()
    is_numbered = chosen.index is not None  # as in cuda:1
    if cuda and (request.devices > gpus or (chosen.index or 0) >= gpus or (is_numbered and request.devices > 1)):
        asked = f"--device {request.device} --devices {request.devices}"
        raise UsageError(f"{asked} does not go together, or asks for more than the {gpus} CUDA devices here")
    devices = request.devices or (gpus if cuda and not is_numbered else 1)
    unused = request.recipe.head.unused_parameters
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=[chosen.index or 0] if cuda and is_numbered else devices,
        # While the leading process scores the validation split the others wait, longer than a collective call may take.
        strategy=DDPStrategy(find_unused_parameters=unused, timeout=timedelta(days=7)) if devices > 1 else "auto",
        precision="32-true",
    )
    with quiet("lightning_fabric"):
        fabric.launch()
    return fabric


def sources_of(request: TrainRequest, fabric: Fabric, shown: Progress) -> dict[str, Source]:
    """Where the clips of each split come from."""
    if request.online:
        if request.frames_from != "auto":
            raise UsageError("--frames-from is for training from a cache; --online draws its frames from the videos")
        clip = replace(request.clip, device=str(fabric.device))
        return online_sources(request.cache, request.root, data=request.data, clip=clip, store=request.store)
    caches = (request.cache, *request.more_caches)
    names = [name for name in ("train", "val") if name == "train" or any(name in splits(cache) for cache in caches)]
    return {
        name: source_of(
            caches,
            name,
            labels_as=request.labels_as,
            root=request.root,
            frames_from=request.frames_from,
            shown=shown,
        )
        for name in names
    }


ON_CPU = Where(device=torch.device("cpu"), precision="fp32")


def made_from(split: Split, *, online: bool, where: Where = ON_CPU, world: int = 1) -> dict[str, Any]:
    """What `run.json` remembers; `where`: the first device and the head's precision; `world`: number of devices."""
    return {
        "cache": str(split.path.parent),
        "cache_fingerprint": split.spec.fingerprint,
        "spec": split.spec.to_dict(),
        "class_names": list(split.class_names),
        "templates": facts_of(split)["templates"],
        "logit_scale": split.informs["logit_scale"],
        **({"logit_bias": split.informs["logit_bias"]} if "logit_bias" in split.informs else {}),
        "clip": split.informs["clip"],
        "data": split.informs["data"],
        "online": online,
        "world": world,
        "device": str(where.device),
        "precision": where.precision,
        "code": code_version(),
        "versions": library_versions(),
    }
