"""From choices to the `CacheSpec` of one split: the step that plan, extract and the online path share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.codecs.form import codec_form
from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.tower import Tower, TowerInfo
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.grid import expect_pool
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.video.mirror import flip_pairs, say_sides
from vidxfer.pipeline.video.sampling import SEGMENT, Sampling
from vidxfer.stages.candidates import AUTO_CODEC, CANDIDATES, EXACT
from vidxfer.stages.settings import VIEW_KIND, CacheChoice, ClipChoice, DataSource
from vidxfer.stages.versions import library_versions


def describe_split(choice: CacheChoice, tower: TowerInfo, dataset: Dataset) -> CacheSpec:
    """The spec of one split; of "auto", before a codec is chosen, that of the largest candidate.

    Raises:
        UsageError: a setting that does not fit the others or the tower.
    """
    blocks = tuple(range(tower.blocks)) if choice.layers is None else choice.layers
    layers = tuple(sorted({*blocks, STEM} if choice.stem else {*blocks}))
    unknown = [layer for layer in layers if not STEM <= layer < tower.blocks]
    if unknown or not layers:
        raise UsageError(
            f"--layers {list(layers)}: {tower.model} has blocks 0 to {tower.blocks - 1} (and -1, the stem)"
        )
    if choice.test_crops not in (1, 3):
        raise UsageError(f"--test-crops {choice.test_crops}: known are 1 or 3")
    if choice.seed < 0:
        raise UsageError(f"--seed {choice.seed}: a seed is at least 0")
    expect_pool(choice.pool, tower.grid)
    prompts_of(choice, textless=not tower.has_text)
    flips = say_sides(dataset.class_names) if choice.flips is None else choice.flips
    kind = VIEW_KIND[dataset.split]
    dense_frames = frames_to_store(choice) if kind == "train" else choice.dense_frames
    try:
        form = codec_form(EXACT if choice.codec == AUTO_CODEC else choice.codec)
        return CacheSpec(
            clip_model=tower.model,
            clip_weights_sha256=tower.weights_sha256,
            clip_precision=tower.precision,  # type: ignore[arg-type]  # checked by the spec
            channels=tower.channels,
            tokens=1 + (tower.tokens - 1) // choice.pool**2,
            pool=choice.pool,
            embed=tower.embed,
            layers=layers,
            pixel_mean=tower.pixel_mean,
            pixel_std=tower.pixel_std,
            interpolation=tower.resize.interpolation,
            antialias=tower.resize.antialias,
            resize_mode=tower.resize.resize_mode,
            class_row=tower.class_row,
            left_out=tower.left_out,
            blocks_of=tower.blocks_of,
            sampling=Sampling(
                dense_frames=dense_frames,
                alpha=choice.alpha,
                image_px=tower.image_px,
                seed=choice.seed,
                rule=choice.sampling,
                flip_probability=Sampling.flip_probability if flips else 0.0,
            ),
            view_kind=kind,  # type: ignore[arg-type]  # checked by the spec
            views=choice.train_views if kind == "train" else choice.test_views,
            crops=1 if kind == "train" else choice.test_crops,
            codec=form.name,
            calibration_videos=0 if form.is_exact else choice.calibration_videos,
            dataset=dataset.name,
            dataset_fingerprint=dataset.fingerprint,
            split=dataset.split,
            square_pixels=choice.square_pixels,
            textless=not tower.has_text,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def frame_store(choice: CacheChoice, image_px: int) -> FrameStore | None:
    """How frames are to be kept; None: not at all.

    Raises:
        UsageError: a quality, a colour resolution or a window that there is not.
    """
    if not choice.with_frames:
        return None
    try:
        return FrameStore.at(
            image_px,
            quality=choice.frame_quality,
            subsampling=choice.frame_subsampling,
            window=choice.window,
            window_ends=choice.window_ends,
        )
    except ValueError as error:
        about_windows = str(error).startswith("window")
        options = "--window, --window-ends" if about_windows else "--frame-quality, --frame-subsampling"
        raise UsageError(f"{options}: {error}") from error


def kept_frames(spec: CacheSpec, choice: CacheChoice) -> int:
    """Frames that are kept of one view, with windows at most; 0: none."""
    store = frame_store(choice, spec.sampling.image_px)
    return 0 if store is None else store.most_kept(spec.sampling.dense_frames, spec.sampling.alpha)


def bytes_per_view(spec: CacheSpec, choice: CacheChoice) -> int:
    """Bytes that one more view costs on disk; with frames about that, and with windows at most about that."""
    store, frames = frame_store(choice, spec.sampling.image_px), kept_frames(spec, choice)
    if store is None:
        return spec.bytes_per_view
    return spec.bytes_per_view + store.expected_bytes(frames, spec.sampling.image_px) + frames * 4


def frames_to_store(choice: CacheChoice) -> int:
    """Dense frames of a training view: those of the head, or as many as the bank's sparse frames stand for.

    Raises:
        UsageError: the bank is no multiple of what a head uses.
    """
    if choice.bank_frames is None:
        return choice.dense_frames
    if choice.sampling != SEGMENT:
        raise UsageError(
            f"--bank-frames with --sampling {choice.sampling}: a bank draws its frames by segment. Leave one out."
        )
    used = choice.dense_frames // choice.alpha
    if not used or choice.bank_frames % used:
        raise UsageError(
            f"--bank-frames {choice.bank_frames} must be a multiple of the {used} frames a head uses "
            f"(--dense-frames {choice.dense_frames} / --alpha {choice.alpha})"
        )
    return choice.bank_frames * choice.alpha


def notes_of_spec(spec: CacheSpec, choice: CacheChoice) -> tuple[str, ...]:
    """What a person must know of what was decided for them."""
    notes = []
    if spec.textless:
        notes.append(f"{spec.clip_model} has no text: no zero-shot; recipes that score class names classify linearly")
    if spec.view_kind == "train" and choice.flips is None and not spec.sampling.flip_probability:
        notes.append(
            "views are not mirrored: classes without names may be left and right of each other (--flips mirrors all)"
        )
    if choice.codec == AUTO_CODEC:
        sizes = {codec: replace(spec, codec=codec).bytes_per_view for codec in CANDIDATES}
        least = min(CANDIDATES, key=sizes.__getitem__)
        notes.append(
            f"--codec auto: extract measures {len(sizes)} codecs and takes one of them; sizes here are those of the "
            f"largest, {spec.codec}. The smallest, {least}, has {sizes[least]:,} bytes per view instead of "
            f"{sizes[spec.codec]:,}"
        )
    return tuple(notes)


def prompts_of(choice: CacheChoice, *, textless: bool) -> tuple[str, ...]:
    """The prompts around class names; none where the tower has no text.

    Raises:
        UsageError: some are asked for there.
    """
    if textless and choice.templates != CacheChoice.templates:
        raise UsageError(
            f"--template {choice.templates[0]!r}: this tower has no text, so class names are not embedded. Leave it out"
        )
    return () if textless else choice.templates


def embedded_names(
    tower: Tower, names: Sequence[str], templates: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """The tower's embeddings [class embed] of class names; None: it has no text."""
    if not tower.info.has_text:
        return None
    embeddings: np.ndarray[Any, np.dtype[np.float32]] = (
        tower.encode_text(names, templates).numpy() if names else np.zeros((0, tower.info.embed), dtype=np.float32)
    )
    return embeddings


def informs_of(tower: TowerInfo, data: DataSource, clip: ClipChoice, store: CacheChoice) -> dict[str, Any]:
    """What a split keeps of how it was made, to be read again: see `Split.informs`."""
    return {
        **library_versions(),
        "data": data.to_dict(),
        "clip": clip.to_dict(),
        "logit_scale": tower.logit_scale,
        **({} if tower.logit_bias is None else {"logit_bias": tower.logit_bias}),
        "templates": list(prompts_of(store, textless=not tower.has_text)),
    }


def split_in_memory(dataset: Dataset, tower: Tower, data: DataSource, clip: ClipChoice, store: CacheChoice) -> Split:
    """What a cache of these choices would say of itself, without its arrays."""
    spec = describe_split(store, tower.info, dataset)
    shape = (len(spec.layers), spec.channels)
    return Split(
        path=Path("online") / dataset.split,
        spec=spec,
        cache_id="",
        video_ids=tuple(video.id for video in dataset.videos),
        labels=np.array([-1 if v.label is None else v.label for v in dataset.videos], dtype=np.int32),
        class_names=dataset.class_names,
        text=embedded_names(tower, dataset.class_names, store.templates),
        channel_mean=np.zeros(shape, dtype=np.float32),
        channel_std=np.ones(shape, dtype=np.float32),
        flip_pairs=flip_pairs(dataset.class_names),
        shard_videos=spec.shard_videos_default,
        informs=informs_of(tower.info, data, clip, store),
        factors=dataset.factors,
    )
