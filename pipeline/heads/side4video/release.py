"""The layout of Side4Video's released checkpoints; see `Release`. TDS-CLIP's is the same with more keys.

    state of a file ─ sort_keys ─▶ head  visual.*side*, fc.*          (our names are the released ones)
                                   clip  visual.*, the trunk          (open_clip's names; no ln_post, no projection)
                                   unknown                            (everything else, by its full key)
    shapes ─ sizes_of ─▶ SideFile ─ problems ─▶ every key that is missing, unknown, or of another shape

A file does not give the number of frames, because no weight depends on it. Source: docs/spec/tds_clip_side4video.md
§11.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.grid import pool_of
from vidxfer.pipeline.heads.base import Head, HeadConfig, Offer
from vidxfer.pipeline.heads.family import Released
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig, SideHead
from vidxfer.pipeline.heads.side4video.parts import SIDE_HEAD_CHANNELS

WRAPPER = "module."
"""A prefix that distributed training puts before every key. The released code removes it too."""

_BLOCK = (
    r"transformer\.resblocks\.\d+\.(attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))|ln_[12]\.(weight|bias)"
    r"|mlp\.c_(fc|proj)\.(weight|bias))"
)
_TRUNK = re.compile(rf"visual\.(class_embedding|positional_embedding|conv1\.weight|ln_pre\.(weight|bias)|{_BLOCK})")
_HEAD = re.compile(r"fc\..+|visual\.(transformer\.)?side_.+")
_STEM = "visual.side_conv1.weight"


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """The sizes that follow from the shapes of a checkpoint.

    Attributes:
        side_channels: width of the side network.
        layers: number of CLIP blocks that feed it.
        channels: CLIP width.
        patch_px: side of a CLIP patch.
        places: patches of a picture.
        classes: classes of the classifier.
        clip_blocks: blocks of the trunk in the same file; None: the file holds no trunk.
    """

    side_channels: int
    layers: int
    channels: int
    patch_px: int
    places: int
    classes: int
    clip_blocks: int | None

    @property
    def offer(self) -> Offer:
        """What a cache for this head delivers. Frames and the joint space are 0: the head fits any number of them."""
        side = math.isqrt(self.places)
        grid = (side, side) if side * side == self.places else (1, self.places)
        return Offer(
            layers=tuple(range(self.layers)), sparse_frames=0, alpha=0, grid=grid, channels=self.channels, embed=0,
            classes=self.classes, image_px=grid[0] * self.patch_px,
        )  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.layers} CLIP layers of {self.channels} channels, any number of frames, patch {self.patch_px} px, "
            f"{self.places} patches, {self.side_channels} side channels, {self.classes} classes"
        )


def sort_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """The head's keys, the trunk's keys, and the full names of all others, second keys for one name among them."""
    head: dict[str, Tensor] = {}
    clip: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        name = key.removeprefix(WRAPPER)
        places = [part for pattern, part in ((_HEAD, head), (_TRUNK, clip)) if pattern.fullmatch(name)]
        if not places or name in places[0]:
            unknown.append(key)
        else:
            places[0][name] = value
    return head, clip, tuple(unknown)


def sizes_of(head: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> SideFile:
    """Each size by the vote of all shapes that give it. If none does, the released one: `problems` then reports it."""
    linear = r"visual\.transformer\.side_linears\.\d+\.weight"
    return SideFile(
        side_channels=_vote(head, linear, 0, 320),
        layers=_count(head, "visual.transformer.side_linears"),
        channels=_vote(head, linear, 1, 768),
        patch_px=_vote(head, re.escape(_STEM), 3, 16),
        places=_vote(head, r"visual\.transformer\.side_spatial_position_embeddings", 0, 196),
        classes=_vote(head, r"fc\.weight", 0, 174),
        clip_blocks=_count(clip, "visual.transformer.resblocks") or None,
    )


def _vote(state: Mapping[str, Tensor], pattern: str, axis: int, otherwise: int) -> int:
    """The most frequent length of an axis among all parameters whose names match the pattern."""
    shapes = (value.shape for name, value in state.items() if re.fullmatch(pattern, name))
    lengths = Counter(shape[axis] for shape in shapes if len(shape) > axis and shape[axis])
    return lengths.most_common(1)[0][0] if lengths else otherwise


def _count(state: Mapping[str, Tensor], group: str) -> int:
    """How many different numbers follow the name of a group. A gap in the numbers becomes a missing key later."""
    numbers = (re.match(rf"{re.escape(group)}\.(\d+)\.", name) for name in state)
    return len({match[1] for match in numbers if match})


class Side4VideoRelease:
    """The layout of Side4Video's released checkpoints; see `Release`."""

    title, under, holds_clip = "Side4Video", "model_state_dict", True

    def config_of(self, head: Mapping[str, Tensor], sizes: SideFile) -> Side4VideoConfig:
        """The settings that follow from the keys and shapes of a file.

        Raises:
            UsageError: no head has these keys and shapes.
        """
        return Side4VideoConfig(side_channels=sizes.side_channels)

    def released(self, config: Side4VideoConfig) -> Side4VideoConfig:
        """The released settings that are nearest to these."""
        return Side4VideoConfig(side_channels=config.side_channels)

    def read(self, state: Mapping[str, Tensor]) -> Released:
        """See `Release`."""
        head, clip, unknown = sort_keys(state)
        sizes = sizes_of(head, clip)
        config, lines = self._understood(head, clip, sizes)
        return Released(
            config=None if lines else config,
            weights={name: value.float() if value.is_floating_point() else value for name, value in head.items()},
            clip=clip,
            unknown=unknown,
            problems=tuple(lines),
            layers=sizes.layers,
            clip_blocks=sizes.clip_blocks,
            offer=sizes.offer,
            sizes=sizes,
            words=str(sizes),
        )

    def _understood(
        self, head: Mapping[str, Tensor], clip: Mapping[str, Tensor], sizes: SideFile
    ) -> tuple[Side4VideoConfig | None, list[str]]:
        """The settings, and why a state is not such a head, one line per reason."""
        if sizes.layers == 0:
            return None, [f"no key is of a side network ({_STEM}, visual.transformer.side_linears.0.weight …)"]
        if empty := [f"{name}: is empty, shape {tuple(v.shape)}" for name, v in head.items() if 0 in v.shape]:
            return None, empty
        if sizes.side_channels % SIDE_HEAD_CHANNELS:
            return None, [f"{sizes.side_channels} side channels do not divide into heads of {SIDE_HEAD_CHANNELS}"]
        try:
            config = self.config_of(head, sizes)
        except UsageError as error:
            return None, [str(error)]
        with torch.device("meta"):
            wanted = config.build(replace(sizes.offer, sparse_frames=1, alpha=1)).state_dict()
        lines = [f"{key}: missing" for key in sorted(wanted.keys() - head.keys())]
        lines += [f"{key}: not a part of this head" for key in sorted(head.keys() - wanted.keys())]
        for key in sorted(head.keys() & wanted.keys()):
            if head[key].shape != wanted[key].shape:
                lines.append(f"{key}: file has {tuple(head[key].shape)}, expected {tuple(wanted[key].shape)}")
            elif head[key].is_floating_point() != wanted[key].is_floating_point():
                lines.append(f"{key}: holds {head[key].dtype}, expected the kind of {wanted[key].dtype}")
            elif not bool(torch.isfinite(head[key]).all()):
                lines.append(f"{key}: holds NaN or infinity")
        patches = clip.get("visual.conv1.weight")
        trunk = (sizes.channels, sizes.patch_px)
        pool = 1 if patches is None else pool_of(sizes.patch_px, patches.shape[-1])
        if patches is not None and patches.ndim == 4 and (patches.shape[0], pool * patches.shape[-1]) != trunk:
            tower_sizes = f"{patches.shape[0]} channels and patches of {patches.shape[-1]} px"
            lines.append(f"visual.conv1.weight: {tower_sizes}, the side network reads {trunk[0]} and {trunk[1]} px")
        return config, lines

    def fed_by(self, config: HeadConfig, layers: tuple[int, ...]) -> HeadConfig:
        """See `Release`."""
        assert isinstance(config, Side4VideoConfig)
        return replace(config, layers=layers)

    def write(self, head: Head, clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Release`. Of CLIP, only the trunk is written, as in the release.

        Raises:
            UsageError: the head has settings that the released code does not know.
        """
        assert isinstance(head, SideHead)
        config, plain = head.config, self.released(head.config)
        other = [
            f"head.{name}={value!r} (released: {getattr(plain, name)!r})"
            for name, value in vars(config).items()
            if name not in ("layers", "form", "sync_batchnorm") and value != getattr(plain, name)
        ]
        if head.needs.layers != tuple(range(len(head.needs.layers))):
            other.append(f"head.layers={list(head.needs.layers)} (released: every block)")
        if other:
            raise UsageError(f"the released code of {self.title} has no head with {', '.join(other)}")
        trunk = {name: value for name, value in clip.items() if _TRUNK.fullmatch(name)}
        return {
            name: (value.detach().float() if value.is_floating_point() else value.detach()).cpu().clone()
            for name, value in {**trunk, **head.state_dict()}.items()
        }

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """See `Release`."""
        assert isinstance(config, Side4VideoConfig)
        return {
            "num_segments": offer.sparse_frames,
            "side_dim": config.side_channels,
            "n_emb": config.side_channels,
            "classes": offer.classes,
        }
