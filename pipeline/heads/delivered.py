"""Checks that an offer holds what a head reads, and that a head gives what it must give.

needs ── text, layers, frozen parameters, CLIP itself ──▶ the offer has them all, or a CacheError says how to get them
what `build` and `forward` of a head return ──▶ a head and its logits, or a UsageError: a head may be a person's own
"""

from __future__ import annotations

from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.spelled import spelled


def last_block(offer: Offer) -> int:
    """The last CLIP block on offer.

    Raises:
        CacheError: the offer has no block, only the stem.
    """
    last = max(offer.layers)
    if last == STEM:
        raise CacheError(
            "an attentive probe reads the tokens of a CLIP block, and the cache holds only the stem. "
            "Extract again with --layers all."
        )
    return last


def expect_layers(wanted: tuple[int, ...], offered: tuple[int, ...]) -> None:
    """Check that the cache holds every layer a head wants.

    Raises:
        CacheError: a layer is missing; the text names the missing and the offered layers.
    """
    missing = [layer for layer in wanted if layer not in offered]
    if missing:
        stem = " `vidxfer extract --stem` stores layer -1, the input of the first block." * (STEM in missing)
        every = spelled({"layers": sorted({*wanted, *offered})})
        raise CacheError(
            f"the head reads CLIP layers {missing}, and the cache holds {list(offered)}. Choose some of those: "
            f"`vidxfer train --set head.layers=[…]`, `vidxfer import --layers …`. Or extract again with {every}.{stem}"
        )


def expect_delivered(needs: Needs, offer: Offer) -> None:
    """Check that an offer has what a head of these needs reads.

    Raises:
        CacheError: a layer or a frozen parameter is missing, there is no text, or gradients must flow through a CLIP
            that is not loaded.
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
            f"those of open_clip's vision transformers, and {offer.model} is none. Choose such a CLIP (--model), and "
            "extract again or train with --online. EVL trains without them: --set head.cross_frame=false"
        )
    if needs.through_clip and offer.tower is None:
        raise CacheError(
            f"the head's gradients flow through the last {needs.through_clip} blocks of CLIP, and a cache holds only "
            "the outputs of blocks. Train with --online, which loads CLIP itself."
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
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UsageError(f"forward of the head gave {given}, expected logits [clip class] = {(clips, classes)}")
