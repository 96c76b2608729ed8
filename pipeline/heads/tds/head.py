"""TDS-CLIP as a head: Side4Video's, with the network of `TdsNet`, and windows of source frames as pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.heads.side4video.head import NetForm, Side4VideoConfig
from vidxfer.pipeline.heads.side4video.net import Side4VideoNet
from vidxfer.pipeline.heads.tds.fast import fast_forward
from vidxfer.pipeline.heads.tds.net import TdsNet, TdsSizes
from vidxfer.pipeline.shapes import WindowEnds

FORMS: dict[str, NetForm] = {"fast": fast_forward, "plain": TdsNet.forward}


@dataclass(frozen=True, kw_only=True)
class TdsConfig(TdsSizes, Side4VideoConfig):
    """Settings of TDS-CLIP: those of its adapters, and all of Side4Video's.

    Attributes:
        window_ends: how a window is filled beyond the ends of a video; see `WindowEnds`.

    Raises:
        UsageError: an unknown word, or a setting that no network can have.
    """

    kind: ClassVar[str] = "tds"
    forms: ClassVar[Mapping[str, NetForm]] = FORMS

    window_ends: WindowEnds = "clamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_ends not in get_args(WindowEnds):
            raise UsageError(f"head.window_ends={self.window_ends!r} is none of {', '.join(get_args(WindowEnds))}")

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`. Pixels are a window around each frame that CLIP saw; with one local frame, that frame."""
        needs = super().needs(offer)
        if self.local_frames == 1:
            return needs
        return replace(needs, pixels="window", window_frames=self.local_frames, window_ends=self.window_ends)

    def net(self, offer: Offer) -> Side4VideoNet:
        """See `Side4VideoConfig`."""
        return TdsNet(self, offer, self.read(offer))
