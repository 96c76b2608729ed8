"""Weights of the released DiST code into a run folder.

    FILE.pyth ─ sort keys ─ read sizes ─ every problem named ─▶ FILE.safetensors  (--out)
                                                            └─▶ run folder        (--cache, --run): evaluate, predict

A checkpoint has no class of its own: it scores any label set of the same CLIP. What it does not say is which CLIP
layers feed it (all of them, in every released one); `layers` says so where they were others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.cache.agree import expect_agree
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.tower import hash_state
from vidxfer.pipeline.errors import RunError, UsageError, WeightsError
from vidxfer.pipeline.heads.official import HEAD, DistSizes, SortedKeys, problems, read_sizes, sort_keys
from vidxfer.pipeline.training.build import build_head, head_inputs
from vidxfer.pipeline.training.optimise import build_optimiser
from vidxfer.pipeline.training.published import PUBLISHED
from vidxfer.pipeline.training.recipes import Recipe, named
from vidxfer.pipeline.training.run import Progress, Run
from vidxfer.pipeline.training.weights import expect_free, read_state, write_safetensors
from vidxfer.stages.train import made_from

KINDS = ("dist",)
MOST_NAMED = 40
"""Unknown keys listed one by one."""


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to turn into what.

    Attributes:
        file: checkpoint. kind: whose layout it has. out: safetensors file to write.
        cache, run: make a run folder for this cache. layers: CLIP layers that feed the head; None: all of them.
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
        head_keys, clip_keys: used, and recognised as CLIP's (not needed). unknown: left out. old_names: `ladder_net`.
        sizes: read from the shapes. recipe: name of the released configuration of these sizes, or "dist".
        same_clip: the file's CLIP has the weights of the cache's; None: one of the two is not there to compare.
        out, run: what was written.
    """

    head_keys: int
    clip_keys: int
    unknown: tuple[str, ...]
    old_names: bool
    sizes: DistSizes
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
    _expect_meant(request)
    keys = sort_keys(read_state(request.file))
    sizes = read_sizes(keys)
    _expect_whole(request, keys, sizes)
    split = None if request.cache is None else _split(request.cache)
    recipe = _recipe(request, sizes, None if split is None else split.spec)
    same_clip = None
    if split is not None and keys.clip:
        same_clip = hash_state(keys.clip) == split.spec.clip_weights_sha256
    if split is not None and request.run is not None:
        expect_cache_fits(split, sizes, recipe)
    weights = {HEAD + name: value.float() for name, value in keys.head.items()}
    if request.out is not None:
        settings = {"kind": "dist", "recipe": recipe.name, "sparse_frames": sizes.sparse_frames, "alpha": sizes.alpha}
        write_safetensors(request.out, weights, settings)
    if split is not None and request.run is not None:
        _write_run(request, split, recipe, weights)
    return ImportReport(
        head_keys=len(keys.head),
        clip_keys=len(keys.clip),
        unknown=keys.unknown,
        old_names=keys.old_names,
        sizes=sizes,
        recipe=recipe.name,
        same_clip=same_clip,
        out=request.out,
        run=request.run,
    )


def _expect_meant(request: ImportRequest) -> None:
    expect_kind(request.kind)
    if (request.cache is None) != (request.run is None):
        raise UsageError(
            "a run folder needs both --run, the folder to make, and --cache, the cache it will be scored on: frames, "
            "CLIP and class names come from there"
        )
    if request.out is None and request.run is None:
        raise UsageError("what shall be written? --out FILE.safetensors, or --run FOLDER with --cache, or both")
    if request.out is not None:
        expect_free(request.out)
    if request.run is not None and (request.run / "recipe.json").exists():
        raise RunError(f"{request.run} holds a run already; import into another folder with --run")


def expect_kind(kind: str) -> None:
    """Check that a layout is known.

    Raises:
        UsageError: it is not.
    """
    if kind not in KINDS:
        raise UsageError(f"--as {kind!r} is none of {', '.join(KINDS)}")


def _expect_whole(request: ImportRequest, keys: SortedKeys, sizes: DistSizes) -> None:
    lines = problems(keys, sizes)
    if keys.unknown and not request.allow_unknown:
        more = len(keys.unknown) - MOST_NAMED
        lines += [f"{key}: neither DiST's nor CLIP's" for key in keys.unknown[:MOST_NAMED]]
        lines += [f"… and {more} more unknown keys"] * (more > 0)
        lines.append("(unknown keys are left out with --allow-unknown)")
    if lines:
        raise WeightsError(
            "\n".join([f"{request.file} is not a DiST checkpoint that can be used:", *(f"  {line}" for line in lines)])
        )


def _split(cache: Path) -> Split:
    found = splits(cache)
    return open_split(cache, "val" if "val" in found and "train" not in found else "train")


def _recipe(request: ImportRequest, sizes: DistSizes, spec: CacheSpec | None) -> Recipe:
    """The released configuration of these sizes, or a recipe of its own; with the layers that feed the head.

    Raises:
        UsageError: which layers feed the head is not known, or not as many are given as it has.
    """
    if request.layers is not None and len(request.layers) != sizes.layers:
        raise UsageError(f"--layers names {len(request.layers)} layers, the weights are for {sizes.layers}")
    layers = request.layers or tuple(range(sizes.layers))
    told = (sizes.config, sizes.layers, sizes.sparse_frames, sizes.alpha, sizes.channels, sizes.embed)
    for row in PUBLISHED:
        released = named(row.recipe)
        here = row.inputs
        known = (released.dist, len(here.layers), here.sparse_frames, here.alpha, here.channels, here.embed)
        if told == known and layers == here.layers:
            return released if spec is None or spec.layers == layers else _with_layers(released, layers)
    if request.layers is None and sizes.clip_blocks != sizes.layers:
        blocks = "it holds no CLIP" if sizes.clip_blocks is None else f"its CLIP has {sizes.clip_blocks} blocks"
        raise UsageError(
            f"{request.file} has weights for {sizes.layers} CLIP layers and {blocks}: say which ones with --layers, "
            f"for example --layers {','.join(map(str, layers))}"
        )
    own = Recipe(
        name="dist",
        dist=sizes.config,
        sparse_frames=sizes.sparse_frames,
        dense_frames=sizes.dense_frames,
        clip_channels=sizes.channels,
    )
    return _with_layers(own, layers)


def _with_layers(recipe: Recipe, layers: tuple[int, ...]) -> Recipe:
    return replace(recipe, dist=replace(recipe.dist, layers=layers))


def expect_cache_fits(split: Split, sizes: DistSizes, recipe: Recipe) -> None:
    """Check that a cache holds what these weights were trained on.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    spec, here = split.spec, head_inputs(split.spec, len(split.class_names), recipe)
    layers = recipe.dist.layers or tuple(range(sizes.layers))
    found: dict[str, object] = {
        "sampling.dense_frames": here.sparse_frames * here.alpha,
        "sampling.alpha": spec.sampling.alpha,
        "channels": spec.channels,
        "embed": spec.embed,
        "patch_px": here.patch_px,
        "layers": layers if set(layers) <= set(spec.layers) else spec.layers,
    }
    wanted: dict[str, object] = {
        "sampling.dense_frames": sizes.dense_frames,
        "sampling.alpha": sizes.alpha,
        "channels": sizes.channels,
        "embed": sizes.embed,
        "patch_px": sizes.patch_px,
        "layers": layers,
    }
    expect_agree("cache with weights", split.path, found, wanted)


def _write_run(request: ImportRequest, split: Split, recipe: Recipe, weights: dict[str, Tensor]) -> None:
    assert request.run is not None
    text = torch.from_numpy(split.text)
    inputs = head_inputs(split.spec, len(split.class_names), recipe)
    head = build_head(recipe, inputs, text, float(split.informs["logit_scale"]))
    head.load_state_dict(weights)
    origin: dict[str, Any] = {"file": request.file.name, "kind": request.kind}
    run = Run.start(request.run, recipe, {**made_from(split, online=False), "imported": origin})
    # One step, so that the run counts as begun: how many the authors took is not in the file.
    done = Progress(epoch=recipe.epochs, global_step=1, finished=True)
    run.save(head, build_optimiser(head, recipe), text, done)
