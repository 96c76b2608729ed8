"""Builds a head from a recipe and what a cache holds. No other module combines the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.read.agree import Facts, expect_agree
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.grid import expect_pool, grid_of
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.delivered import expect_delivered, expect_head
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.spelled import spelled

POOLED = "head.pooled"
"""The setting by which a recipe for a named CLIP takes averaged patches (heads/shared.py), as errors name it."""

_STREAM = 0x68656164
"""Last number of the seed. It separates random operations inside a head from the order and the mixing of clips."""


def offer_of(
    spec: CacheSpec,
    recipe: Recipe,
    *,
    classes: int,
    text: Tensor | None = None,
    logit_scale: float = 1.0,
    logit_bias: float | None = None,
    tower: Any = None,
) -> Offer:
    """What a cache of this spec delivers to a head of this recipe. The head may see fewer frames.

    Args:
        spec: settings of the cache.
        recipe: recipe of the head.
        classes: number of class names.
        text: their raw text embeddings [class embed].
        logit_scale, logit_bias: see `Offer`.
        tower: CLIP, where it is there (online); its parameters are offered to a head that reads some of them.

    Raises:
        CacheError: the tokens are not CLS plus a square grid of patches.
        UsageError: the recipe's pool does not divide that grid, or the cache has averaged over more.
    """
    used, pool, grid = recipe.sparse_frames, recipe.pool or spec.pool, grid_of(spec.tower_tokens)
    expect_pool(pool, grid, stored=spec.pool)
    offer = Offer(
        layers=spec.layers,
        sparse_frames=used if used and spec.sparse_frames % used == 0 else spec.sparse_frames,
        alpha=spec.sampling.alpha,
        grid=(grid[0] // pool, grid[1] // pool),
        pool=pool,
        channels=spec.channels,
        embed=spec.embed,
        classes=classes,
        image_px=spec.sampling.image_px,
        text=text,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        textless=spec.textless,
        model=spec.clip_model,
        blocks_of=spec.blocks_of,
    )
    return offer if tower is None else offer_with(offer, tower)


def offer_with(offer: Offer, tower: Any) -> Offer:
    """The same offer with CLIP beside it, whose parameters are offered too."""
    return replace(offer, tower=tower, frozen=tower.state(), clip_heads=tower.heads)


def offer_of_split(split: Split, recipe: Recipe, *, tower: Any = None) -> Offer:
    """What an opened split delivers, with its class names' text and without CLIP's parameters; see `offer_of`."""
    return offer_of(
        split.spec,
        recipe,
        classes=len(split.class_names),
        text=None if split.text is None else torch.from_numpy(split.text),
        logit_scale=float(split.informs["logit_scale"]),
        logit_bias=split.informs.get("logit_bias"),
        tower=tower,
    )


def build_head(recipe: Recipe, offer: Offer) -> Head:
    """A freshly initialised head. The same seed gives the same weights.

    Args:
        recipe: gives the head and its sizes.
        offer: what the cache holds.

    Raises:
        CacheMismatch: the recipe is for another number of frames or another CLIP.
        CacheError: the cache lacks what the head reads. UsageError: what was built is no head.
    """
    expect_made_for(recipe, offer)
    expect_delivered(recipe.head.needs(offer), offer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = recipe.head.build(offer)
    expect_head(head, recipe.head)
    head.needs = replace(head.needs, pool=offer.pool)
    return head


def head_of_shapes(recipe: Recipe, spec: CacheSpec, classes: int) -> tuple[Head, Offer]:
    """A head on the meta device, and its offer from a cache of this spec. Nothing is allocated.

    Raises:
        CacheMismatch, CacheError: as `build_head`.
    """
    with torch.device("meta"):
        offer = offer_of(spec, recipe, classes=classes, text=torch.zeros(classes, spec.embed))
        return head_of_weights(recipe, offer), offer


def head_of_weights(recipe: Recipe, offer: Offer) -> Head:
    """As `build_head`, for a head of which only weights or sizes are read. CLIP's own parameters are not needed."""
    return build_head(recipe, offer.for_sizes(recipe.head.needs(offer)))


@contextmanager
def head_randomness(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Seed random operations inside a head (dropout, drop-path) by (seed, global step, rank) alone.

    A resumed run then continues the same curve with any head. The processes of one run draw different numbers.
    """
    words = np.random.SeedSequence([seed, step, rank, _STREAM]).generate_state(2, np.uint32)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        yield


def expect_made_for(recipe: Recipe, offer: Offer) -> None:
    """Check that a cache holds the frames and the CLIP that a recipe names. A recipe may leave them open.

    Raises:
        CacheMismatch: names each differing field with both values, and the options that give what the recipe is for.
    """
    pairs: dict[str, tuple[object, object]] = {}
    if recipe.dense_frames is not None:
        pairs["dense_frames"] = (offer.sparse_frames * offer.alpha, recipe.dense_frames)
    if recipe.sparse_frames is not None:
        pairs["sparse_frames"] = (offer.sparse_frames, recipe.sparse_frames)
    if (clip := recipe.clip) is not None:
        pairs |= {
            "clip.width": (offer.channels, clip.width),
            "clip.patch_px": (offer.patch_px // offer.pool, clip.patch_px),
            "clip.image_px": (offer.image_px, clip.image_px),
            "clip.embed": (offer.embed, clip.embed),
        }
        if offer.textless or offer.logit_bias is not None:  # of one shape all the same, and no CLIP
            pairs["clip.text"] = ("none" if offer.textless else "with a sigmoid's bias", "with a softmax")
        if offer.blocks_of != "clip":
            pairs["clip.blocks_of"] = (offer.blocks_of, "clip")
        if offer.pool > 1 and not recipe.head.takes_pooled:
            pairs[POOLED] = (f"patches averaged over {offer.pool} x {offer.pool}", "CLIP's own patches")
        if max(offer.layers) >= clip.blocks:
            pairs["clip.blocks"] = (f"at least {max(offer.layers) + 1}", clip.blocks)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not differing:
        return
    what = "it is for another cache"
    if recipe.clip is not None and any(name.startswith("clip.") for name in differing):
        what = f"it is published for {recipe.clip.model}, and this cache is of {offer.model}"
    raise CacheMismatch(
        f"recipe {recipe.name}",
        differing,
        _remedy(recipe, offer, differing),
        ("cache has", "recipe needs"),
        what,
    )


def _remedy(recipe: Recipe, offer: Offer, differing: Mapping[str, object]) -> str:
    """How to make the cache that a recipe is for, and how to train its head on the cache that there is."""
    dense, used, wanted = recipe.dense_frames, recipe.sparse_frames, dict[str, object]()
    if {"dense_frames", "sparse_frames"} & set(differing):
        alpha = offer.alpha if used is None else (dense or used) // used  # a head without dense frames: every frame
        wanted = {"sampling.dense_frames": dense or used, "sampling.alpha": alpha}
    other_clip = any(name.startswith("clip.") for name in differing)
    if recipe.clip is not None and other_clip:
        wanted["clip_model"] = recipe.clip.model
    if POOLED in differing:
        wanted["pool"] = 1
    sets = " ".join(f"--set {name}={'any' if name == POOLED else 'null'}" for name in differing)
    here = for_any_tower(recipe) if other_clip else f"{recipe.name} {sets}"
    return (
        f"Make the cache that the recipe is for: `vidxfer extract {spelled(wanted)}`, with another folder (--cache). "
        "`vidxfer plan` takes the same options.\nOr train its head on this cache, which is no published setting: "
        f"`vidxfer train --recipe {here}`."
    )


def for_any_tower(recipe: Recipe) -> str:
    """Name of the recipe with this head and the sizes of any tower; of several the one that is named most alike."""
    same = [other for other in RECIPES if other.head.kind == recipe.head.kind]
    names = [other.name for other in same if other.clip is None and not other.name.endswith("-toy")]
    return get_close_matches(recipe.name, names, n=1, cutoff=0.0)[0]


def settled(recipe: Recipe, offer: Offer) -> tuple[Recipe, list[str]]:
    """The recipe with what it leaves to tower and cache decided, and lines on what is not as with CLIP."""
    whole = replace(recipe, head=recipe.head.settled(offer), pool=offer.pool if offer.pool > 1 else recipe.pool)
    was, now = recipe.head.to_dict(), whole.head.to_dict()
    chosen = [f"head.{name}={value}" for name, value in now.items() if value != was[name]]
    only = f", which has no text: the {offer.classes} classes of this cache are scored, and no others"
    told = [f"{', '.join(chosen)}, by the tower {offer.model}{only * offer.textless}"] * bool(chosen)
    pool, of_paper = offer.pool, f"; {recipe.name} was published without (head.pooled=any)" * (recipe.clip is not None)
    return whole, told + [f"patches are means over {pool} x {pool} of CLIP's{of_paper}"] * (pool > 1)


def facts_of_head(recipe: Recipe, spec: CacheSpec) -> dict[str, Any]:
    """The part of a cache that a head of this recipe reads, as facts in addition to those of the spec, or instead.

    Raises:
        CacheError: the cache lacks what the head reads.
    """
    used = recipe.sparse_frames or spec.sparse_frames
    return {
        "head": recipe.head.kind,
        "any_classes": recipe.head.any_classes,
        "layers": recipe.head.needs(offer_of(spec, recipe, classes=1)).layers,
        "sampling.dense_frames": used * spec.sampling.alpha,
        "pool": recipe.pool or spec.pool,
    }


def expect_readable(
    pair: str, where: object, stored: Facts, spec: CacheSpec, recipe: Recipe, trained: Facts
) -> list[str]:
    """Check that a split gives a head the same kind of input that it was, or will be, trained on.

    Args:
        pair: key of `AGREE`.
        where: the split or run that the error names.
        stored: facts of the split.
        spec: settings of the split.
        recipe: recipe of the head.
        trained: facts of the training data, with those of the head.

    Returns:
        Lines for the user, as from `expect_agree`.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    stored, read = dict(stored), tuple(cast("Iterable[int]", trained["layers"]))
    frames = cast("int", trained["sampling.dense_frames"])
    if set(read) <= set(spec.layers):  # the head does not read the other layers
        stored["layers"] = read
    whole = spec.sampling.dense_frames % frames == 0
    if whole and (recipe.sparse_frames or not recipe.head.fixed_frames):  # as many as the head sees are drawn
        stored["sampling.dense_frames"] = frames
    if recipe.pool and recipe.pool % spec.pool == 0:  # what is stored is averaged on, up to what the head sees
        stored["pool"] = recipe.pool
    may = ("class_names",) if recipe.head.any_classes and pair == "cache with run" else ()
    if may and _names(stored) == _names(trained):
        stored["class_names"] = trained["class_names"]  # in another order: the head asks for none
    return expect_agree(pair, where, stored, trained, may=may)


def _names(facts: Facts) -> set[object]:
    names = facts.get("class_names")
    return set(names) if isinstance(names, list | tuple) else set()
