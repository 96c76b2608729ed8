"""Does an offer hold what a head reads, and does a head give what it is to give?

needs ── layers, frozen parameters, CLIP itself ──▶ each of them on offer, or a CacheError that says how to get it
what `build` and `forward` of a head return ──▶ a head and its logits, or a UsageError: a head may be a person's own
"""

from __future__ import annotations

from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
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


def expect_head(made: object, config: HeadConfig) -> None:
    """Check what the settings of a head built.

    Raises:
        UsageError: it is no `Head`, or it does not say what it reads.
    """
    name = f"{type(config).__name__}.build"
    if not isinstance(made, Head):
        raise UsageError(f"{name} gave a {type(made).__name__}, expected a module that inherits from vidxfer.Head")
    if not isinstance(getattr(made, "needs", None), Needs):
        raise UsageError(f"{name} gave a {type(made).__name__} without needs: set self.needs = config.needs(offer)")


def expect_logits(logits: object, clips: int, classes: int) -> None:
    """Check what a head gave for a batch.

    Raises:
        UsageError: not one number per clip and class.
    """
    if not isinstance(logits, Tensor) or logits.shape != (clips, classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UsageError(f"forward of the head gave {found}, expected logits [clip class] = {(clips, classes)}")
