"""TDS-CLIP: Side4Video with another stem and another temporal sub-layer.

    window x1 … x5 of source frames around each frame that CLIP sees, x3
    SME-Adapter   s = beta · BN(conv(x3)) + alpha · BN(conv(x2 − x1, x3 − x2, x4 − x3, x5 − x4))
    TD-Adapter    weights each block's temporal sub-layer by the difference of a feature to its neighbours (parts.py)

Everything else is `Side4VideoNet`. Source: docs/spec/tds_clip_side4video.md §3. The convolutions of the SME-Adapter pad
the picture with one line of zeros, as released. Each of their patches therefore begins one pixel before CLIP's patch.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.side4video.net import Side4VideoNet, SideSizes, patch_conv
from vidxfer.pipeline.heads.side4video.norm import BatchNorm, synchronise
from vidxfer.pipeline.heads.side4video.parts import SideBlock
from vidxfer.pipeline.heads.tds.parts import TdBlock

TD_BLOCKS = ("all", "first-half", "second-half", "none")
TD_AGAINST = ("max-pool", "convolution", "direct")
KERNELS = (3, 5, 7)
LOCAL_FRAMES = (1, 3, 5)
EDGE_PX = 1
LEAST_PATCH_PX = 3
"""With an edge of one pixel, a smaller patch size would give more patches than CLIP has."""


@dataclass(frozen=True, kw_only=True)
class TdsSizes(SideSizes):
    """Settings beside those of Side4Video; defaults are the released ones.

    Attributes:
        sme_alpha: share of motion in the first state (the paper's α).
        sme_beta: share of colour in the first state (the paper's β).
        local_frames: source frames of a window, 1, 3 or 5. With 1 there is no SME-Adapter, and the stem is
            Side4Video's, whose convolution does not pad the picture.
        td_blocks: which blocks have a TD-Adapter: "all", "first-half", "second-half" or "none". With an odd number of
            blocks, the middle one belongs to the second half. The other blocks are Side4Video's.
        td_against: reference of the temporal difference: "max-pool", "convolution" or "direct" (parts.py).
        td_kernel: frames that the max-pool or the convolution sees, 3, 5 or 7.

    Raises:
        UsageError: another value than these.
    """

    sme_alpha: float = 0.5
    sme_beta: float = 1.0
    local_frames: int = 5
    td_blocks: str = "all"
    td_against: str = "max-pool"
    td_kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {"local_frames": LOCAL_FRAMES, "td_blocks": TD_BLOCKS, "td_against": TD_AGAINST, "td_kernel": KERNELS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UsageError(f"head.{name}={getattr(self, name)!r} is none of {', '.join(map(str, values))}")
        for name in ("sme_alpha", "sme_beta"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"head.{name}={getattr(self, name)} must be a number of at least 0")

    def has_td(self, place: int, layers: int) -> bool:
        """Whether the block at position `place` of `layers` blocks has a TD-Adapter."""
        first = place < layers // 2
        return self.td_blocks == "all" or self.td_blocks == ("first-half" if first else "second-half")


class TdsNet(Side4VideoNet):
    """The side network of TDS-CLIP: tokens and windows of frames to one feature per clip.

    Args:
        sizes: settings.
        offer: what the cache holds.
        layers: CLIP layers that feed it, in order.

    Raises:
        CacheError: the SME-Adapter's convolutions do not fit CLIP's patches.
    """

    def __init__(self, sizes: TdsSizes, offer: Offer, layers: tuple[int, ...]) -> None:
        super().__init__(sizes, offer, layers)
        self.local_frames = sizes.local_frames
        self.alpha, self.beta = sizes.sme_alpha, sizes.sme_beta
        if sizes.local_frames == 1:
            return
        channels, patch = sizes.width, offer.patch_px
        if patch < LEAST_PATCH_PX:
            raise CacheError(
                f"CLIP has patches of {patch} px, and the SME-Adapter needs {LEAST_PATCH_PX} px or more. "
                "Train without it: --set head.local_frames=1."
            )
        self.side_conv1 = patch_conv(3, channels, patch, EDGE_PX)
        self.side_conv1_c5 = patch_conv(3 * (sizes.local_frames - 1), channels, patch, EDGE_PX)
        self.side_pre_bn3d_c5 = BatchNorm(channels)
        if sizes.sync_batchnorm:
            synchronise(self)

    def blocks(self, sizes: SideSizes, layers: int) -> list[SideBlock]:
        """See `Side4VideoNet`."""
        assert isinstance(sizes, TdsSizes)
        return [
            TdBlock(sizes.width, sizes.td_against, sizes.td_kernel)
            if sizes.has_td(place, layers)
            else SideBlock(sizes.width)
            for place in range(layers)
        ]

    def stem(self, pixels: Tensor) -> Tensor:
        """The first state: [clip (frame window) rgb height width] -> [clip channel frame row col]."""
        if self.local_frames == 1:
            return super().stem(pixels)
        window = rearrange(
            pixels,
            "clip (frame window) rgb height width -> clip window rgb frame height width",
            window=self.local_frames,
        )
        motion = (window[:, 1:] - window[:, :-1]).flatten(1, 2)
        colour: Tensor = self.side_pre_bn3d(self.side_conv1(window[:, self.local_frames // 2]))
        moved: Tensor = self.side_pre_bn3d_c5(self.side_conv1_c5(motion))
        return self.beta * colour + self.alpha * moved
