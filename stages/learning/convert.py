"""Weights of released code into a run folder. `pipeline.heads.RELEASES` has the layouts.

    FILE.pyth ─ Release.read ─ every problem named ─▶ FILE.safetensors  (--out)
                                                  └─▶ run folder        (--cache, --run): evaluate, predict

What a checkpoint does not say is which CLIP layers feed the head; `layers` says so where they are not all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.tower import hash_state
from vidxfer.pipeline.errors import ClipError, RunError, UsageError, WeightsError
from vidxfer.pipeline.heads import PUBLISHED, RELEASES
from vidxfer.pipeline.heads.base import Head
from vidxfer.pipeline.heads.family import Release, Released
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.training.optimise import build_optimiser
from vidxfer.pipeline.training.owned import expect_run_or_nothing, owned
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.pipeline.training.weights import expect_free, read_state, write_safetensors
from vidxfer.stages.learning.fitting import expect_cache_fits, filled_head
from vidxfer.stages.learning.train import made_from
from vidxfer.stages.remembered import remembered_clip

MOST_NAMED = 40
"""Unknown keys listed one by one."""


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to turn into what.

    Attributes:
        file: checkpoint.
        kind: whose layout it has.
        out: safetensors file to write.
        cache, run: make a run folder for this cache.
        layers: CLIP layers that feed the head; None: all of them.
        allow_unknown: leave out keys that are neither the head's nor CLIP's.
    """

    file: Path
    kind: str = "dist"
    out: Path | None = None
    cache: Path | None = None
    run: Path | None = None
    layers: tuple[int, ...] | None = None
    allow_unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Where every key went, and what the shapes told.

    Attributes:
        head_keys, clip_keys: used, and recognised as CLIP's (not needed).
        unknown: left out.
        old_names: the keys are of an older generation, which called the branch `older`.
        sizes: read from the shapes.
        words: the same in one line.
        recipe: name of the released configuration of these sizes, or the kind of the head.
        same_clip: the file's CLIP has the weights of the cache's; None: one of the two is not there to compare.
        out, run: what was written.
    """

    head_keys: int
    clip_keys: int
    unknown: tuple[str, ...]
    old_names: bool
    older: str
    sizes: Any
    words: str
    recipe: str
    same_clip: bool | None
    out: Path | None
    run: Path | None


def import_weights(request: ImportRequest) -> ImportReport:
    """Read a checkpoint of the release; nothing is written unless all of it is understood.

    Raises:
        UsageError: neither `out` nor `cache` and `run`, or a layout that is not known.
        WeightsError: not a checkpoint, unknown keys, or keys that are missing or of another shape: all are listed.
        CacheMismatch: the cache is not of the kind these weights were trained on. RunError: the folder holds a run.
    """
    release = _expect_meant(request)
    released = release.read(read_state(request.file))
    _expect_whole(request, release, released)
    split = None if request.cache is None else _split(request.cache)
    recipe = _recipe(request, release, released, None if split is None else split.spec)
    same_clip = None
    if split is not None and released.clip:
        same_clip = _same_clip(released.clip, split)
    head = None
    if split is not None and request.run is not None:
        layers = request.layers or released.offer.layers
        if released.last_blocks:  # and those before them may be read too
            layers = tuple(range(STEM, max(layers) + 1))
        expect_cache_fits(split, replace(released.offer, layers=layers), recipe, any_layers=released.last_blocks)
        head = filled_head(split, recipe, released.weights)
    if request.out is not None:
        told = {"sparse_frames": released.offer.sparse_frames, "alpha": released.offer.alpha}
        sizes = {name: number for name, number in told.items() if number}
        write_safetensors(request.out, released.weights, {"kind": request.kind, "recipe": recipe.name, **sizes})
    if split is not None and head is not None:
        _write_run(request, split, recipe, head)
    return ImportReport(
        head_keys=len(released.weights),
        clip_keys=len(released.clip),
        unknown=released.unknown,
        old_names=bool(released.old_names),
        older=released.old_names,
        sizes=released.sizes,
        words=released.words,
        recipe=recipe.name,
        same_clip=same_clip,
        out=request.out,
        run=request.run,
    )


def _same_clip(clip: Mapping[str, Tensor], split: Split) -> bool | None:
    """Whether the CLIP in a file is the cache's; of a part of CLIP the cache's own weights say so, where they are here.

    None: the file holds a part, and the cache's CLIP is not at hand.
    """
    if "visual.proj" in clip:
        return hash_state(clip) == split.spec.clip_weights_sha256
    try:
        whole = remembered_clip(split.informs["clip"], "fp32", device="cpu").load().state()
    except ClipError:
        return None
    if hash_state(whole) != split.spec.clip_weights_sha256:
        return None
    return all(name in whole and torch.equal(value.float(), whole[name].float()) for name, value in clip.items())


def _expect_meant(request: ImportRequest) -> Release:
    release = release_of(request.kind)
    if (request.cache is None) != (request.run is None):
        raise UsageError(
            "a run folder needs both --run, the folder to make, and --cache, the cache it will be scored on: frames, "
            "CLIP and class names come from there"
        )
    if request.out is None and request.run is None:
        raise UsageError("what shall be written? --out FILE.safetensors, or --run FOLDER with --cache, or both")
    if request.out is not None:
        expect_free(request.out)
    if request.run is not None:
        _expect_no_run(request.run)
        expect_run_or_nothing(request.run)
    return release


def _expect_no_run(folder: Path) -> None:
    if (folder / "recipe.json").exists():
        raise RunError(f"{folder} holds a run already; import into another folder with --run")


def release_of(kind: str) -> Release:
    """The released layout of that name, which is the kind of its heads.

    Raises:
        UsageError: there is none.
    """
    if kind not in RELEASES:
        raise UsageError(f"--as {kind!r} is no released layout. Choose one of {', '.join(RELEASES)}.")
    return RELEASES[kind]


def _expect_whole(request: ImportRequest, release: Release, released: Released) -> None:
    lines = list(released.problems)
    if released.unknown and not request.allow_unknown:
        more = len(released.unknown) - MOST_NAMED
        lines += [f"{key}: neither {release.title}'s nor CLIP's" for key in released.unknown[:MOST_NAMED]]
        lines += [f"… and {more} more unknown keys"] * (more > 0)
        lines.append("(unknown keys are left out with --allow-unknown)")
    if lines:
        first = f"{request.file} is not a {release.title} checkpoint that can be used:"
        raise WeightsError("\n".join([first, *(f"  {line}" for line in lines)]))


def _split(cache: Path) -> Split:
    names = splits(cache)
    return open_split(cache, "val" if "val" in names and "train" not in names else "train")


def _recipe(request: ImportRequest, release: Release, released: Released, spec: CacheSpec | None) -> Recipe:
    """The released configuration of these sizes, or a recipe of its own; with the layers that feed the head.

    Raises:
        UsageError: which layers feed the head is not known, or not as many are given as it has.
    """
    assert released.config is not None, "problems were raised before"
    if request.layers is not None and len(request.layers) != released.layers:
        raise UsageError(f"--layers names {len(request.layers)} layers, the weights are for {released.layers}")
    if released.last_blocks:
        return _recipe_of_last_blocks(request, release, released)
    layers, offer = request.layers or released.offer.layers, released.offer
    sizes = (
        released.config, released.layers, offer.sparse_frames, offer.alpha, offer.channels, offer.embed, offer.patch_px
    )  # fmt: skip
    for row in PUBLISHED if offer.sparse_frames else ():
        recipe, clip = named(row.recipe), row.clip
        frames = (row.sparse_frames, row.alpha)
        published = (recipe.head, clip.blocks, *frames, clip.width, clip.embed, clip.patch_px)
        if sizes == published and layers == tuple(range(clip.blocks)):
            whole = spec is None or spec.layers == layers
            return recipe if whole else replace(recipe, head=release.fed_by(recipe.head, layers))
    if request.layers is None and released.clip_blocks != released.layers:
        blocks = "it holds no CLIP" if released.clip_blocks is None else f"its CLIP has {released.clip_blocks} blocks"
        raise UsageError(
            f"{request.file} has weights for {released.layers} CLIP layers and {blocks}: say which ones with --layers, "
            f"for example --layers {','.join(map(str, layers))}"
        )
    return Recipe(
        name=request.kind,
        head=release.fed_by(released.config, layers),
        sparse_frames=offer.sparse_frames or None,
        dense_frames=offer.sparse_frames * offer.alpha or None,
    )


def _recipe_of_last_blocks(request: ImportRequest, release: Release, released: Released) -> Recipe:
    """As `_recipe`, where the last blocks of CLIP feed the head unless others are named."""
    config, offer = released.config, released.offer
    assert config is not None, "problems were raised before"
    if request.layers is None:
        sizes = (config, offer.sparse_frames, offer.channels, offer.grid, offer.classes)
        for row in PUBLISHED:
            recipe, clip = named(row.recipe), row.clip
            if sizes == (recipe.head, row.sparse_frames, clip.width, clip.grid, row.classes):
                return recipe
    else:
        config = release.fed_by(config, request.layers)
    return Recipe(name=request.kind, head=config, sparse_frames=offer.sparse_frames if config.fixed_frames else None)


def _write_run(request: ImportRequest, split: Split, recipe: Recipe, head: Head) -> None:
    assert request.run is not None
    origin: dict[str, Any] = {"file": request.file.name, "kind": request.kind}
    with owned(request.run):
        _expect_no_run(request.run)  # again: another import may have been here since
        run = Run.start(request.run, recipe, {**made_from(split, online=False), "imported": origin})
        # One step, so that the run counts as begun: how many the authors took is not in the file.
        done = RunPlace(epoch=recipe.epochs, global_step=1, finished=True)
        text = None if split.text is None else torch.from_numpy(split.text)
        run.save(head, build_optimiser(head, recipe), text, done)
