"""EVL as a head: its settings, and a linear classifier on the video token.

EvlConfig ─ needs ─▶ the last blocks' tokens, the tokens of the block before them, CLIP's weights for q and k
    └─ build ─▶ EvlHead: EvlDecoder (plain or fast form) ─▶ video token ─ norm ─ dropout ─ Linear ─▶ logits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.evl.fast import fast_forward
from vidxfer.pipeline.heads.evl.net import EvlDecoder, EvlInput, EvlSizes
from vidxfer.pipeline.heads.evl.parts import frozen_names
from vidxfer.pipeline.heads.shared import PooledSetting
from vidxfer.pipeline.shapes import STEM, ClipBatch

FORMS: dict[str, Callable[[EvlDecoder, Tensor], Tensor]] = {"fast": fast_forward, "plain": EvlDecoder.forward}
"""Two forms of the same function of (decoder, tokens) on the same parameters."""


@dataclass(frozen=True, kw_only=True)
class EvlConfig(EvlSizes, PooledSetting, HeadConfig):
    """Settings of EVL: the sizes of its decoder (`EvlSizes`), `PooledSetting`, and the following.

    Attributes:
        blocks: last blocks of CLIP that feed the decoder, one per decoder layer; 0: every block.
        layers: numbers of the blocks that feed it, instead of the last ones; None: see `blocks`.
        clip_heads: attention heads of CLIP, which split its queries and keys; None: CLIP or the cache gives the number.
        form: one of `FORMS`.

    Raises:
        UsageError: an unknown form, or sizes that no decoder can have.
    """

    kind: ClassVar[str] = "evl"

    blocks: int = 4
    layers: tuple[int, ...] | None = None
    clip_heads: int | None = None
    form: str = "fast"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(f"head.form={self.form!r} is none of {', '.join(FORMS)}")
        self.expect_pooled()
        if self.blocks < 0:
            raise UsageError(f"head.blocks={self.blocks} must be at least 1, or 0 for every block of CLIP")
        layers = self.layers
        if layers is not None and not (
            isinstance(layers, tuple) and layers and all(type(layer) is int and layer > STEM for layer in layers)
        ):
            raise UsageError(f"head.layers={layers!r} must be block numbers like [8, 9, 10, 11], or null")
        for name in ("channels", "attention_heads", "clip_heads"):
            size = getattr(self, name)
            if size is not None and (type(size) is not int or size < 1):
                raise UsageError(f"head.{name}={size!r} must be a whole number of at least 1, or null")
        if self.channels and self.attention_heads and self.channels % self.attention_heads:
            raise UsageError(
                f"head.channels={self.channels} does not divide into head.attention_heads={self.attention_heads}"
            )
        if not 0 < self.mlp_ratio <= 1024:
            raise UsageError(f"head.mlp_ratio={self.mlp_ratio} must be above 0, and no more than 1024")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"head.dropout={self.dropout} must be in [0, 1)")

    @property
    def fixed_frames(self) -> bool:
        """The position table has one row per sparse frame."""
        return self.position

    def fed_by(self, offer: Offer) -> tuple[int, ...]:
        """The blocks of CLIP that feed the decoder, in its order.

        Raises:
            CacheError: the cache lacks a layer that the decoder reads; the text names settings that it serves.
        """
        last = max(offer.layers)
        count = self.blocks or last + 1
        feeding = self.layers or tuple(range(max(0, last + 1 - count), last + 1))
        missing = sorted(set(self._read(feeding)) - set(offer.layers))
        enough = self.layers is not None or 0 < count <= last + 1
        if enough and not missing:
            return feeding
        setting = f"head.blocks={self.blocks}" if self.layers is None else f"head.layers={list(self.layers)}"
        blocks = f"the last {self.blocks} blocks of CLIP" if self.blocks else "every block of CLIP"
        wanted = f"CLIP layers {missing}" if enough else blocks
        raise CacheError(
            f"{setting}: the head reads {wanted}, the cache holds {list(offer.layers)}. {self._served(offer.layers)}"
        )

    def _read(self, feeding: tuple[int, ...]) -> tuple[int, ...]:
        """Those blocks, and with `cross_frame` the one before each, which makes q and k; before block 0: the stem."""
        return tuple(sorted({*feeding, *(block - 1 for block in feeding if self.cross_frame)}))

    def _served(self, layers: tuple[int, ...]) -> str:
        """Settings of this head that a cache of these layers serves, and what another extraction must keep."""
        last, held = max(layers), sorted(set(layers) - {STEM})
        lasts = [tuple(range(last + 1 - count, last + 1)) for count in range(1, last + 2)]
        served = [feeding for feeding in lasts if set(self._read(feeding)) <= set(layers)]
        settings: list[str] = []
        if served:
            settings = [*["head.layers=null"] * (self.layers is not None), f"head.blocks={len(served[-1])}"]
        elif held:
            settings = ["head.cross_frame=false", f"'head.layers=[{','.join(map(str, held))}]'"]
        words = f"Choose: {' '.join(f'--set {setting}' for setting in settings)}. Or e" if settings else "E"
        return f"{words}xtract again: `vidxfer extract --stem` with --layers all (layer -1 goes into block 0)."

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`. The preceding block's output gives q and k; before block 0 it is the stem, -1."""
        feeding = self.fed_by(offer)
        frozen = tuple(name for block in feeding if self.cross_frame for name in frozen_names(block))
        return Needs(layers=self._read(feeding), sparse_frames=offer.sparse_frames, frozen=frozen)

    def build(self, offer: Offer) -> EvlHead:
        """See `HeadConfig`."""
        return EvlHead(self, offer)


class EvlHead(Head):
    """EVL as published: the video token behind the decoder, then norm, dropout and a linear classifier.

    Args:
        config: its settings.
        offer: what the cache holds.

    Raises:
        CacheError: a wanted layer is not in the cache, or CLIP's number of heads is not known.
        CacheMismatch: CLIP has another number of heads than the settings.
        UsageError: a width that does not divide into heads.
    """

    def __init__(self, config: EvlConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        feeding, place = config.fed_by(offer), self.needs.layers.index
        inner = config.channels or offer.channels
        if config.attention_heads and inner % config.attention_heads:
            raise UsageError(f"{inner} channels do not divide into head.attention_heads={config.attention_heads}")
        fed = EvlInput(
            frames=offer.sparse_frames,
            grid=offer.grid,
            channels=offer.channels,
            clip_heads=clip_heads(config, offer) if config.cross_frame else 1,
            blocks=feeding,
            frozen=offer.frozen,
            own=tuple(map(place, feeding)),
            before=tuple(place(block - 1) for block in feeding) if config.cross_frame else (),
        )
        self.decoder = EvlDecoder(config, fed)
        self.proj = nn.Sequential(
            nn.LayerNorm(offer.channels), nn.Dropout(config.dropout), nn.Linear(offer.channels, offer.classes)
        )
        self._video_token = FORMS[config.form]

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        logits: Tensor = self.proj(self._video_token(self.decoder, batch.tokens))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, and the tables over time and over displacements. The released settings decay these too."""
        tables = ("decoder.temporal_pos_embed.", "decoder.cross_attention.")
        return super().undecayed() | {name for name, _ in self.named_parameters() if name.startswith(tables)}


def clip_heads(config: EvlConfig, offer: Offer) -> int:
    """Attention heads of CLIP, from the settings or from the offer.

    Raises:
        CacheError: neither gives the number. CacheMismatch: they differ. UsageError: CLIP's width does not divide into
            them.
    """
    from_settings, from_offer = config.clip_heads, offer.clip_heads
    if from_settings is None and from_offer is None and not offer.sizes_only:
        raise CacheError(
            "cross-frame attention splits CLIP's queries and keys into heads, and the number of heads is not known. "
            f"Set it: --set head.clip_heads={max(1, offer.channels // 64)} for a tower of 64 channels per head, as "
            "most towers have. Or train without cross-frame attention: --set head.cross_frame=false"
        )
    if None not in (from_settings, from_offer) and from_settings != from_offer:
        remedy = "Leave it out (--set head.clip_heads=null)."
        raise CacheMismatch(
            "CLIP", {"clip_heads": (from_offer, from_settings)}, remedy, ("it has", "the recipe says"), "other heads"
        )
    heads = from_settings or from_offer or 1
    if offer.channels % heads:
        raise UsageError(f"CLIP's {offer.channels} channels do not divide into head.clip_heads={heads}")
    return heads
