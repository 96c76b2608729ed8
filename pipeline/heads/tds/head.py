"""TDS-CLIP as a head: Side4Video's, with the network of `TdsNet`, and windows of source frames as pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.heads.side4video.head import Form, Side4VideoConfig
from vidxfer.pipeline.heads.side4video.net import Side4VideoNet
from vidxfer.pipeline.heads.tds.fast import fast_forward
from vidxfer.pipeline.heads.tds.net import TdsNet, TdsSizes

FORMS: dict[str, Form] = {"fast": fast_forward, "plain": TdsNet.forward}


@dataclass(frozen=True, kw_only=True)
class TdsConfig(TdsSizes, Side4VideoConfig):
    """Settings of TDS-CLIP: those of its adapters, and all of Side4Video's."""

    kind: ClassVar[str] = "tds"
    forms: ClassVar[Mapping[str, Form]] = FORMS

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`: a window around each frame that CLIP saw, or with one local frame that frame."""
        needs = super().needs(offer)
        if self.local_frames == 1:
            return needs
        return replace(needs, pixels="window", window_frames=self.local_frames)

    def net(self, offer: Offer) -> Side4VideoNet:
        """See `Side4VideoConfig`."""
        return TdsNet(self, offer, self.read(offer))
