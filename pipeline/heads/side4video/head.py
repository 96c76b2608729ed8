"""Side4Video as a head: its settings, and a linear classifier on the feature of a clip.

    Side4VideoConfig ─ needs ─▶ every block's tokens, the frames that CLIP saw
        └─ build ─▶ SideHead: visual, the side network (plain or fast form) ─▶ fc ─▶ logits

TDS-CLIP is the same head with another network (pipeline/heads/tds). Names of parameters are those of the release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor, nn

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import BatchStatistics, Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.delivered import expect_layers
from vidxfer.pipeline.heads.shared import BlocksSetting, PooledSetting
from vidxfer.pipeline.heads.side4video.fast import fast_forward
from vidxfer.pipeline.heads.side4video.net import Side4VideoNet, SideSizes, side_width
from vidxfer.pipeline.shapes import ClipBatch

NetForm = Callable[[Side4VideoNet, Tensor, Tensor], Tensor]
FORMS: dict[str, NetForm] = {"fast": fast_forward, "plain": Side4VideoNet.forward}
"""Two forms of the same function of (net, tokens, pixels) on the same parameters."""


@dataclass(frozen=True, kw_only=True)
class Side4VideoConfig(SideSizes, BlocksSetting, PooledSetting, HeadConfig):
    """Settings of Side4Video: those of its network (`SideSizes`), `BlocksSetting`, `PooledSetting`, and the following.

    Attributes:
        form: one of `FORMS`.

    Raises:
        UsageError: an unknown form, or sizes that no network can have.
    """

    kind: ClassVar[str] = "side4video"
    forms: ClassVar[Mapping[str, NetForm]] = FORMS

    form: str = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in self.forms:
            raise UsageError(f"head.form={self.form!r} is none of {', '.join(self.forms)}")
        self.expect_blocks()
        self.expect_pooled()

    @property
    def batch_statistics(self) -> BatchStatistics:
        """Its batch norms see one device's clips, or those of all devices."""
        return "devices" if self.sync_batchnorm else "device"

    def settled(self, offer: Offer) -> Self:
        """See `HeadConfig`."""
        return self if self.side_channels else replace(self, side_channels=side_width(offer.channels))

    def read(self, offer: Offer) -> tuple[int, ...]:
        """The layers that feed the network.

        Raises:
            CacheError: the offer lacks one.
        """
        layers = self.blocks_of(offer.layers)
        expect_layers(layers, offer.layers)
        return layers

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        return Needs(layers=self.read(offer), sparse_frames=offer.sparse_frames, pixels="sparse")

    def net(self, offer: Offer) -> Side4VideoNet:
        """A freshly initialised network."""
        return Side4VideoNet(self, offer, self.read(offer))

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return SideHead(self, offer)


class SideHead(Head):
    """A side network and a linear classifier, as published.

    Args:
        config: settings; they choose the network.
        offer: what the cache holds.

    Raises:
        CacheError: a wanted layer is not in the cache.
    """

    def __init__(self, config: Side4VideoConfig, offer: Offer) -> None:
        super().__init__()
        config = config.settled(offer)
        self.config, self.needs = config, config.needs(offer)
        self.visual = config.net(offer)
        self.fc = nn.Linear(config.width, offer.classes)
        self._feature = config.forms[config.form]

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class].

        Raises:
            UsageError: a training batch holds only one clip.
        """
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        assert batch.dense is not None
        if self.training and not self.config.sync_batchnorm and len(batch.tokens) == 1:
            raise UsageError(
                f"a training step has only one clip ({', '.join(batch.ids)}). The last batch norm then gives the same "
                "feature for any video, and the head cannot learn. Use a larger batch_clips, fewer devices, or "
                "--set head.sync_batchnorm=true with several devices."
            )
        logits: Tensor = self.fc(self._feature(self.visual, batch.tokens, batch.dense))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, and the table of positions; the published recipes let all parameters decay."""
        return super().undecayed() | {"visual.transformer.side_spatial_position_embeddings"}
