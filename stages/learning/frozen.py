"""What a split offers a head, CLIP's own parameters included where the head reads some of them.

    head's needs ─▶ names ─▶ the file beside the tokens, compared with its hash ┐
                          └▶ what it lacks: CLIP itself, its weights compared   ┴─▶ Offer.frozen

Consequence: a cache of 0.1.0, which keeps no parameters, serves such heads too as long as its CLIP can be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of, facts_of_tower
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.frozen import frozen_parameters, read_frozen
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import CacheError, ClipError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import expect_made_for, offer_of_split
from vidxfer.stages.remembered import remembered_clip


def offer_from(
    split: Split,
    recipe: Recipe,
    *,
    tower: Tower | None = None,
    layers: tuple[int, ...] | None = None,
    beside: Split | None = None,
) -> Offer:
    """What an opened split delivers to a head of this recipe.

    Args:
        split: the split.
        recipe: of the head.
        tower: CLIP, on the online path.
        layers: those that are on offer; None: all that the split has.
        beside: the split beside which CLIP's parameters lie; None: `split`.

    Raises:
        CacheCorrupt: the kept parameters are damaged. CacheError: they are not kept, and CLIP cannot be loaded.
        CacheMismatch: CLIP has other weights now than when the cache was made, or the recipe is for another cache.
    """
    offer = offer_of_split(split, recipe, tower=tower)
    expect_made_for(recipe, offer)
    offer = offer if layers is None else replace(offer, layers=layers)
    names = recipe.head.needs(offer).frozen
    if tower is not None or not names:
        return offer
    frozen, heads = frozen_of(beside or split, names)
    return replace(offer, frozen=frozen, clip_heads=heads)


def frozen_of(split: Split, names: Sequence[str]) -> tuple[dict[str, Tensor], int | None]:
    """CLIP's parameters of these names, as far as there are any, float32 on the CPU, and its attention heads.

    Raises:
        CacheError, CacheCorrupt, CacheMismatch: as `offer_from`.
    """
    kept = {name: torch.from_numpy(values) for name, values in read_frozen(split).items()}
    if set(names) <= set(kept) and split.frozen is not None:
        return {name: kept[name] for name in names}, split.frozen.heads
    clip = remembered_clip(split.informs["clip"], split.spec.clip_precision, device="cpu", precision="fp32")
    try:
        tower = clip.load()
    except ClipError as error:
        raise CacheError(
            f"the head reads CLIP's own parameters ({names[0]} and {len(names) - 1} more). {split.path} does not keep "
            f"them, and its CLIP cannot be loaded: {error}\nPut its weights back where they were. Or extract again: "
            "caches of this version keep what such heads read."
        ) from error
    # The weights are the same in every precision: tokens of a half-precision CLIP are served too.
    expect_agree("cache with tower", split.path, facts_of(split), facts_of_tower(tower.info), may=["clip_precision"])
    state = tower.state()
    narrow = frozen_parameters(state, split.spec.layers)  # the same rows as a file beside the tokens has
    return {name: narrow.get(name, state[name]) for name in names if name in state}, tower.heads
