"""Before the first shard: every split is there, made with these settings and for these videos.

    data sets, tower ─▶ specs ─▶ those that are there: compared, field by field ─▶ room on the disk? ─▶ the others: made

Consequence: whatever is refused is refused before anything is written. This runs where the tower is, which may be
another machine than the one that hands out the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidxfer.pipeline.cache.frames import expect_same_frames
from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.read.agree import differing_fields
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split, open_split, splits
from vidxfer.pipeline.cache.write.frozen import frozen_parameters, mend_frozen, write_frozen
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.pipeline.writing import make_folder
from vidxfer.stages.candidates import AUTO_CODEC, CodecChoice, informed
from vidxfer.stages.codecs.choose import chosen_before
from vidxfer.stages.describe import describe_split, embedded_names, frame_store, informs_of, prompts_of
from vidxfer.stages.progress import Progress
from vidxfer.stages.room import expect_room_for, layout_for
from vidxfer.stages.settings import CacheChoice, ExtractRequest
from vidxfer.stages.shards.choose import choose_for_videos
from vidxfer.stages.shards.quantise import calibrate


def prepare_splits(
    request: ExtractRequest, datasets: Sequence[Dataset], tower: Tower, shown: Progress
) -> dict[str, str]:
    """Open and compare the splits that are there, make the others; returns name -> `cache_id`.

    A codec that is to be chosen is chosen first, once for all splits.

    Raises:
        UsageError: a setting does not fit the tower. CacheMismatch: a split was made with other settings.
        CacheFull: the disk is too small.
    """
    request, choice = _with_codec(request, datasets, tower, shown)
    specs = [describe_split(request.store, tower.info, dataset) for dataset in datasets]
    there = splits(request.cache)
    opened = {
        spec.split: open_checked(request.cache, spec, dataset, request.store)
        for spec, dataset in zip(specs, datasets, strict=True)
        if spec.split in there
    }
    expect_room_for(
        request.cache,
        [
            layout_for(
                spec,
                len(dataset),
                shard_videos=request.store.shard_videos,
                frames=frame_store(request.store, spec.sampling.image_px),
            )
            for spec, dataset in zip(specs, datasets, strict=True)
            if spec.split not in opened
        ],
    )
    with disk_errors(request.cache, 0):  # before the calibration, which takes a while
        make_folder(request.cache)
    for split in opened.values():
        mend_frozen(split, parameters_of(tower, split.spec), tower.heads)
    for dataset, spec in zip(datasets, specs, strict=True):
        if spec.split not in opened:
            opened[spec.split] = create(request, dataset, spec, tower, choice, shown)
    return {name: split.cache_id for name, split in opened.items()}


def _with_codec(
    request: ExtractRequest, datasets: Sequence[Dataset], tower: Tower, shown: Progress
) -> tuple[ExtractRequest, CodecChoice | None]:
    """The request with the codec by name, and how it was chosen: as the cache says, or measured on training videos."""
    store = request.store
    if store.codec != AUTO_CODEC:
        return request, None
    choice = chosen_before(request.cache, store.loss)
    if choice is None:
        measured = next((dataset for dataset in datasets if dataset.split == "train"), datasets[0])
        choice = choose_for_videos(request, measured, describe_split(store, tower.info, measured), tower, shown)
    return replace(request, store=replace(store, codec=choice.codec, loss=None)), choice


def open_checked(cache: Path, spec: CacheSpec, dataset: Dataset, store: CacheChoice) -> Split:
    """The split that is there, if it was made with these settings and for these videos.

    Raises:
        CacheMismatch: names each differing field with both values. CacheError: dense frames are wanted, it keeps none.
    """
    split = open_split(cache, spec.split)
    if spec.view_kind == "train" and replace(split.spec, views=spec.views) == spec and spec.views > split.spec.views:
        raise CacheMismatch(
            split.path,
            {"views": (split.spec.views, spec.views)},
            f"`vidxfer cache add --views {spec.views}` adds the others; or extract into another folder (--cache).",
        )
    try:
        split.spec.expect_same(spec, split.path)
    except CacheMismatch as error:  # a fingerprint says that the data differ, not what in them
        remedy = _remedy(error)
        raise CacheMismatch(split.path, error.fields | _other_data(split, dataset), remedy) from error
    expect_same_frames(split.path, split.frames, frame_store(store, spec.sampling.image_px))
    known = tuple(split.informs.get("templates", ("{}",)))
    wanted = prompts_of(store, textless=spec.textless)
    if known != wanted:
        raise CacheMismatch(split.path, {"text templates": (known, wanted)})
    ids = tuple(video.id for video in dataset.videos)
    if split.video_ids != ids:
        raise CacheMismatch(split.path, {"order of the videos": (split.video_ids[:3], ids[:3])})
    return split


def _remedy(error: CacheMismatch) -> str:
    was, _ = error.fields.get("sampling.flip_probability", (None, None))
    return error.remedy if was is None else f"{'--flips' if was else '--no-flips'} is the cache's. {error.remedy}"


def parameters_of(tower: Tower, spec: CacheSpec) -> dict[str, AnyArray]:
    """CLIP's own parameters that a cache of this spec keeps beside the tokens."""
    return {
        name: tensor.detach().float().cpu().numpy()
        for name, tensor in frozen_parameters(tower.state(), spec.layers).items()
    }


def _other_data(split: Split, dataset: Dataset) -> dict[str, tuple[object, object]]:
    """Class names and videos in which a split and a data set differ."""
    ours = {"class_names": split.class_names, "videos": split.video_ids}
    theirs = {"class_names": dataset.class_names, "videos": tuple(video.id for video in dataset.videos)}
    return differing_fields(tuple(ours), ours, theirs)


def create(
    request: ExtractRequest,
    dataset: Dataset,
    spec: CacheSpec,
    tower: Tower,
    choice: CodecChoice | None,
    shown: Progress,
) -> Split:
    """Calibrate the codec where it needs that, and make the empty split."""
    fitted = calibrate(request, dataset, spec, tower, shown)
    return create_split(
        request.cache,
        spec,
        video_ids=[video.id for video in dataset.videos],
        labels=[-1 if video.label is None else video.label for video in dataset.videos],
        class_names=dataset.class_names,
        text=embedded_names(tower, dataset.class_names, request.store.templates),
        **fitted.as_arrays(),
        flip_pairs=flip_pairs(dataset.class_names),
        shard_videos=request.store.shard_videos,
        informs=informs_of(tower.info, request.data, request.clip, request.store) | informed(choice),
        factors=dataset.factors,
        frames=frame_store(request.store, spec.sampling.image_px),
        identities=True,
        frozen=write_frozen(request.cache, parameters_of(tower, spec), tower.heads),
    )
