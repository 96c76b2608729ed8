"""Do imported weights fit a cache? Compared are what their head reads of it, and the shape of every weight.

weights ─ what they were trained on ─┐
cache ─── what it delivers ──────────┴▶ CacheMismatch, each field ─▶ WeightsError, each weight ─▶ the filled head
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vidxfer.pipeline.cache.read.agree import expect_agree
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import WeightsError
from vidxfer.pipeline.heads.base import Head, Needs, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import head_of_weights, offer_of_split

OTHER_CACHE = "They are for other class names or pictures: give a cache of the data set and CLIP they were trained on."


def expect_cache_fits(split: Split, trained: Offer, recipe: Recipe, *, any_layers: bool = False) -> None:
    """Check that a cache holds what these weights were trained on.

    Args:
        split: of the cache.
        trained: what the weights were trained on.
        recipe: of the head.
        any_layers: the weights fit any layers; whether those that the recipe names are there is asked of its head.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    delivered = offer_of_split(split, recipe)
    needs = recipe.head.needs(trained)
    cache_facts, trained_facts = _facts_of_offer(delivered, needs), _facts_of_offer(trained, needs)
    if any_layers or set(trained.layers) <= set(delivered.layers):  # what lies beside them is not read
        cache_facts["layers"] = trained.layers
    expect_agree("cache with weights", split.path, cache_facts, trained_facts)


def _facts_of_offer(offer: Offer, needs: Needs) -> dict[str, object]:
    """The values of an offer that a head of these needs depends on; None: it does not, or the file does not say it."""
    pixels, joint = needs.pixels != "none", needs.text or needs.embedding
    return {
        "sampling.dense_frames": (offer.sparse_frames * offer.alpha or None) if pixels else None,
        "sampling.alpha": (offer.alpha or None) if pixels else None,
        "channels": offer.channels,
        "embed": (offer.embed or None) if joint else None,
        "textless": offer.textless if needs.text else None,
        "patch_px": offer.patch_px if pixels else None,
        "layers": offer.layers,
    }


def filled_head(split: Split, recipe: Recipe, weights: Mapping[str, Tensor]) -> Head:
    """The head for this cache, with the weights.

    Raises:
        WeightsError: the cache has other classes or another grid of patches; every differing weight is listed.
    """
    head = head_of_weights(recipe, offer_of_split(split, recipe))
    shapes = {name: (tuple(weights[name].shape), tuple(weight.shape)) for name, weight in head.state_dict().items()}
    lines = [
        f"  {name}: file has {in_file}, a head for this cache {in_head}"
        for name, (in_file, in_head) in shapes.items()
        if in_file != in_head
    ]
    if lines:
        raise WeightsError("\n".join([f"the weights do not fit {split.path.parent}:", *lines, OTHER_CACHE]))
    head.load_state_dict(weights)
    return head
