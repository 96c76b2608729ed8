"""Does an offer hold what a head reads? Asked before the head is built.

needs ── text, layers, frozen parameters, CLIP itself ──▶ each of them on offer, or a CacheError that says how to get it
"""

from __future__ import annotations

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.shapes import STEM


def last_block(offer: Offer) -> int:
    """The last CLIP block on offer.

    Raises:
        CacheError: there is none but the stem.
    """
    last = max(offer.layers)
    if last == STEM:
        raise CacheError("an attentive probe reads a CLIP block, the cache holds the stem alone; extract with --layers")
    return last


def expect_layers(wanted: tuple[int, ...], offered: tuple[int, ...]) -> None:
    """Check that the cache holds every layer a head wants.

    Raises:
        CacheError: names the missing layers and the ones on offer.
    """
    missing = [layer for layer in wanted if layer not in offered]
    if missing:
        stem = " Layer -1, what goes into the first block, is kept by `vidxfer extract --stem`." * (STEM in missing)
        raise CacheError(
            f"the head wants CLIP layers {missing}, the cache holds {list(offered)}. "
            f"Choose among those (--layers), or extract again with more layers.{stem}"
        )


def expect_delivered(needs: Needs, offer: Offer) -> None:
    """Check that an offer has what a head of these needs reads.

    Raises:
        CacheError: a layer or a frozen parameter is missing, there is no text, or gradients are to flow through a CLIP
            that is not there.
    """
    if needs.text and offer.textless:
        raise CacheError(
            f"the head scores against embeddings of class names, and {offer.model} has no text. A linear classifier "
            "needs none: train with --set head.classifier=linear"
        )
    expect_layers(needs.layers, offer.layers)
    if missing := [name for name in needs.frozen if name not in offer.frozen]:
        raise CacheError(
            f"the head reads CLIP's own parameters {missing}, and neither the cache nor its CLIP has them. They are "
            f"those of open_clip's vision transformers, and {offer.model} is none: take such a CLIP (--model), and "
            "extract again or train --online. EVL trains without them: --set head.cross_frame=false"
        )
    if needs.through_clip and offer.tower is None:
        raise CacheError(
            f"the head's gradients flow through the last {needs.through_clip} blocks of CLIP, and a cache holds what "
            "comes out of blocks. Train with --online, where CLIP itself is there."
        )
