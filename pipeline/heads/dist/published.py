"""What DiST's authors published, one row per configuration, and what it takes to run it: bytes and parameters.

    PUBLISHED ──▶ recipes (pooling layers, frames, CLIP width)
        └──▶ cache_spec ──▶ bytes per view        └──▶ trainable_parameters

Source: spec/dist.md §6–7 and the table in the README of the release. Sizes are computed, never typed. `ours` and
`gpu_hours` are None where nothing was run: that is so for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import HeadInputs
from vidxfer.pipeline.heads.dist import DistConfig, DistNet
from vidxfer.pipeline.video.sampling import Sampling

VIEWS = "the README of the release does not state the views; its test settings are 3 temporal views x 1 crop"
ALPHA = 2
"""Dense frames per sparse frame, in all released configurations."""


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """A CLIP image tower as open_clip names it.

    Attributes:
        model: name. channels: width. tokens: per frame, CLS included. embed: joint space. blocks: all of them tapped.
    """

    model: str
    channels: int
    tokens: int
    embed: int
    blocks: int


B16 = ClipSizes(model="ViT-B-16-quickgelu", channels=768, tokens=197, embed=512, blocks=12)
L14 = ClipSizes(model="ViT-L-14-quickgelu", channels=1024, tokens=257, embed=768, blocks=24)
IMAGE_PX = 224


@dataclass(frozen=True, kw_only=True)
class Published:
    """One configuration and its published result.

    Attributes:
        recipe: its name here. data: data set. clip: image tower. sparse_frames: frames CLIP sees per view.
        pooling_layers: ada-pooling blocks. top1, top5: percent, as printed by the authors.
        train_videos, val_videos: of the data set. views: of the published result.
        note: what else must be known. ours: top-1 obtained with vidxfer. gpu_hours: measured; None: not run.
    """

    recipe: str
    data: str
    clip: ClipSizes
    sparse_frames: int
    pooling_layers: int
    top1: float
    top5: float
    train_videos: int
    val_videos: int
    views: str = VIEWS
    note: str = ""
    ours: float | None = None
    gpu_hours: float | None = None

    @property
    def dense_frames(self) -> int:
        """Frames the temporal branch sees."""
        return self.sparse_frames * ALPHA

    @property
    def inputs(self) -> HeadInputs:
        """What a cache for it delivers."""
        return HeadInputs(
            layers=tuple(range(self.clip.blocks)),
            sparse_frames=self.sparse_frames,
            alpha=ALPHA,
            tokens=self.clip.tokens,
            channels=self.clip.channels,
            embed=self.clip.embed,
            classes=1,
            image_px=IMAGE_PX,
        )

    def cache_spec(self, codec: str = "int8", split: str = "train") -> CacheSpec:
        """Settings of a cache of one view per video with every block, for its sizes only."""
        return CacheSpec(
            clip_model=self.clip.model,
            clip_weights_sha256="0" * 64,
            clip_precision="fp32",
            channels=self.clip.channels,
            tokens=self.clip.tokens,
            embed=self.clip.embed,
            layers=tuple(range(self.clip.blocks)),
            pixel_mean=(0.0, 0.0, 0.0),
            pixel_std=(1.0, 1.0, 1.0),
            sampling=Sampling(dense_frames=self.dense_frames, alpha=ALPHA, image_px=IMAGE_PX),
            view_kind="train" if split == "train" else "test",
            views=1,
            crops=1,
            codec=codec,
            calibration_videos=0 if codec == "float16" else 64,
            dataset="sizes",
            dataset_fingerprint="0",
            split=split,
        )


def _row(
    data: str, clip: ClipSizes, sparse_frames: int, top1: float, top5: float, name: str = "", note: str = ""
) -> Published:
    letters, pooling, train, val = {"SSv2": ("ssv2", 2, 168_913, 24_777), "K400": ("k400", 4, 240_258, 19_881)}[data]
    tower = "b16" if clip is B16 else "l14"
    return Published(
        recipe=f"dist-{letters}-{tower}-{sparse_frames}f{name}",
        data=data,
        clip=clip,
        sparse_frames=sparse_frames,
        pooling_layers=pooling,
        top1=top1,
        top5=top5,
        train_videos=train,
        val_videos=val,
        note=note,
    )


_L14 = "the released settings name a missing file and a stem patch of 16 px; 14 px is meant"
_K710 = "trained on Kinetics-710 first; neither those settings nor that stage are released: sizes as without it"

PUBLISHED = (
    _row("SSv2", B16, 8, 68.7, 91.1),
    _row("SSv2", B16, 16, 70.2, 92.0),
    _row("SSv2", B16, 32, 70.9, 92.1),
    _row("SSv2", L14, 32, 73.1, 93.2, note=_L14),
    _row("K400", B16, 8, 83.6, 96.3),
    _row("K400", B16, 16, 84.4, 96.7),
    _row("K400", B16, 32, 85.0, 97.0),
    _row("K400", L14, 32, 88.0, 97.9, note=_L14),
    _row("K400", L14, 32, 89.6, 98.4, name="-k710", note=_K710),
)


def trainable_parameters(config: DistConfig, inputs: HeadInputs) -> int:
    """Numbers in the DiST branch of these sizes; nothing is allocated."""
    with torch.device("meta"):
        net = DistNet(config, inputs, config.layers or inputs.layers)
    return sum(parameter.numel() for parameter in net.parameters())
