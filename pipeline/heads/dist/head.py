"""DiST as a head: its settings, and scaled cosines of the video embedding with the class names, or a linear classifier.

    DistConfig ─ needs ─▶ every block's tokens, all dense frames, text
        └─ build ─▶ DistHead: DistNet (plain or fast form) ─▶ video embedding ─┬▶ cosine with class names ─▶ logits
                                                                               └▶ linear ─▶ logits
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.delivered import expect_layers
from vidxfer.pipeline.heads.dist.fast import fast_forward
from vidxfer.pipeline.heads.dist.net import DistNet, DistSizes
from vidxfer.pipeline.heads.shared import BlocksSetting, PooledSetting
from vidxfer.pipeline.heads.text import TextCosine
from vidxfer.pipeline.shapes import ClipBatch

FORMS: dict[str, Callable[[DistNet, Tensor, Tensor], Tensor]] = {"fast": fast_forward, "plain": DistNet.forward}
"""Two forms of the same function of (net, tokens, dense) on the same parameters."""
CLASSIFIERS = ("auto", "text", "linear")
"""What makes class scores of the video embedding; "auto": text where the tower has it, else linear."""


@dataclass(frozen=True, kw_only=True)
class DistConfig(DistSizes, BlocksSetting, PooledSetting, HeadConfig):
    """Settings of DiST: the sizes of its branch (`DistSizes`), `BlocksSetting`, `PooledSetting`, and the following.

    Attributes:
        form: one of `FORMS`.
        classifier: one of `CLASSIFIERS`; as published: "text".

    Raises:
        UsageError: an unknown form or classifier, or sizes that no branch can have.
    """

    kind: ClassVar[str] = "dist"
    unused_parameters: ClassVar[bool] = True  # the last integration-to-temporal net, as published

    form: str = "fast"
    classifier: str = "auto"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"head.form={self.form!r} is none of {', '.join(FORMS)}")
        if self.classifier not in CLASSIFIERS:
            raise UsageError(f"head.classifier={self.classifier!r} is none of {', '.join(CLASSIFIERS)}")
        self.expect_blocks()
        self.expect_pooled()
        for name, size in asdict(self).items():
            if not isinstance(size, int | float):
                continue
            if not 0 < size < math.inf and name != "pooling_layers":
                raise UsageError(f"head.{name}={size} must be above 0")
            if name.endswith("_frames") and size % 2 == 0:
                raise UsageError(f"head.{name}={size} must be odd: one frame must be in the middle")
        wide = self.integration_channels
        if self.pooling_layers < 1 or (wide > 64 and wide % (wide // 64)):
            raise UsageError(
                f"head.pooling_layers={self.pooling_layers} must be at least 1, and "
                f"head.integration_channels={wide} must divide into heads of about 64"
            )

    @property
    def any_classes(self) -> bool:
        """A linear classifier has a row for each class it was trained on."""
        return self.classifier != "linear"

    @property
    def fixed_frames(self) -> bool:
        """CLS tokens and positions are learned per sparse frame."""
        return True

    def settled(self, offer: Offer) -> DistConfig:
        """See `HeadConfig`."""
        return replace(self, classifier="linear") if offer.textless and self.classifier == "auto" else self

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        layers = self.blocks_of(offer.layers)
        expect_layers(layers, offer.layers)
        text = self.settled(offer).any_classes
        return Needs(layers=layers, sparse_frames=offer.sparse_frames, pixels="dense", text=text)

    def build(self, offer: Offer) -> DistHead:
        """See `HeadConfig`."""
        return DistHead(self, offer)


class DistHead(Head):
    """DiST as published: video embedding, then scaled cosines with the class names' text embeddings. Or linear.

    Args:
        config: its settings.
        offer: what the cache holds, text included.

    Raises:
        CacheError: a wanted layer is not in the cache, or there is no text.
    """

    def __init__(self, config: DistConfig, offer: Offer) -> None:
        super().__init__()
        config = config.settled(offer)
        self.needs = config.needs(offer)
        self.dist_net = DistNet(config, offer, self.needs.layers)
        self.classify: nn.Module
        if config.classifier == "linear":
            self.classify = nn.Linear(offer.embed, offer.classes)
            nn.init.normal_(self.classify.weight, std=0.02)
            nn.init.zeros_(self.classify.bias)
        else:
            self.classify = TextCosine(offer.class_text(), offer.logit_scale, offer.logit_bias)
        self._embed = FORMS[config.form]

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        assert batch.dense is not None
        logits: Tensor = self.classify(self._embed(self.dist_net, batch.tokens, batch.dense))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, and the learned tokens and positions (docs/spec/dist.md §5)."""
        net = self.dist_net
        return super().undecayed() | {
            "dist_net.aggregated_cls_token",
            "dist_net.aggregated_spatial_cls_token",
            *(f"dist_net.temporal2integration_nets.{k}.cls_token" for k in range(len(net.temporal2integration_nets))),
            *(f"dist_net.adapooling_nets.{k}.positional_embedding" for k in range(len(net.adapooling_nets))),
        }
