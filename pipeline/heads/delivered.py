"""Does an offer hold what a head reads? Asked before the head is built.

needs ── layers, frozen parameters, CLIP itself ──▶ each of them on offer, or a CacheError that says how to get it
"""

from __future__ import annotations

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.spelled import spelled


def last_block(offer: Offer) -> int:
    """The last CLIP block on offer.

    Raises:
        CacheError: there is none but the stem.
    """
    last = max(offer.layers)
    if last == STEM:
        raise CacheError(
            "an attentive probe reads a CLIP block, the cache holds the stem alone. Extract again with --layers all."
        )
    return last


def expect_layers(wanted: tuple[int, ...], offered: tuple[int, ...]) -> None:
    """Check that the cache holds every layer a head wants.

    Raises:
        CacheError: names the missing layers and the ones on offer.
    """
    missing = [layer for layer in wanted if layer not in offered]
    if missing:
        stem = " Layer -1 is what goes into the first block: `vidxfer extract --stem` keeps it." * (STEM in missing)
        every = spelled({"layers": sorted({*wanted, *offered})})
        raise CacheError(
            f"the head wants CLIP layers {missing}, the cache holds {list(offered)}. Name layers that it holds: "
            f"`vidxfer train --set head.layers=[…]`, `vidxfer import --layers …`. Or extract again with {every}.{stem}"
        )


def expect_delivered(needs: Needs, offer: Offer) -> None:
    """Check that an offer has what a head of these needs reads.

    Raises:
        CacheError: a layer or a frozen parameter is missing, or gradients are to flow through a CLIP that is not there.
    """
    expect_layers(needs.layers, offer.layers)
    if missing := [name for name in needs.frozen if name not in offer.frozen]:
        raise CacheError(
            f"the head reads CLIP's own parameters {missing}, and neither the cache nor its CLIP has them. They are "
            "those of open_clip's vision transformers: take such a CLIP (--model), and extract again or train --online."
        )
    if needs.through_clip and offer.tower is None:
        raise CacheError(
            f"the head's gradients flow through the last {needs.through_clip} blocks of CLIP, and a cache holds what "
            "comes out of blocks. Train with --online, where CLIP itself is there."
        )
