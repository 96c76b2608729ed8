"""Released DiST checkpoints: the sizes that follow from the shapes, and the list of what does not fit; see `Release`.

    sort_keys ─▶ head ─ read_sizes ─▶ FileSizes ─ problems ─▶ every key that is missing, unknown, or of another shape

Source: docs/spec/dist.md §8. Nothing is opened here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidxfer.pipeline.grid import pool_of
from vidxfer.pipeline.heads.base import Head, HeadConfig, Offer
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.dist.keys import CLASSIFIER, HEAD, OLD_HEAD, PREFIX, SortedKeys, official_state, sort_keys
from vidxfer.pipeline.heads.dist.net import DistNet, DistSizes
from vidxfer.pipeline.heads.family import Released

@dataclass(frozen=True, kw_only=True)
class FileSizes:
    """The sizes that follow from the shapes of a checkpoint.

    Attributes:
        config: sizes of the branch. They are not checked: a damaged file may give any number.
        layers: number of CLIP layers that feed the branch.
        sparse_frames: sparse frames per clip; a checkpoint fits no other number.
        alpha: dense frames per sparse frame; a checkpoint fits no other number.
        patch_px: side of the stem's patch.
        channels: CLIP width.
        embed: width of the joint space.
        classes: of a linear classifier, which only files of vidxfer have; 0: the head scores class names.
        clip_blocks: blocks of the CLIP in the same file; None: the file holds no CLIP.
        grid: patches of the stem along the (height, width); None: the file holds no CLIP.
        pool: side of the squares of that CLIP's patches that a patch of the stem is; 1 without a CLIP.
    """

    config: DistSizes
    layers: int
    sparse_frames: int
    alpha: int
    patch_px: int
    channels: int
    embed: int
    clip_blocks: int | None
    grid: int | None
    classes: int = 0
    pool: int = 1

    @property
    def dense_frames(self) -> int:
        """Frames the temporal branch sees."""
        return self.sparse_frames * self.alpha

    @property
    def offer(self) -> Offer:
        """What a cache for this head delivers. Pictures have 224 px unless the file's CLIP has another size."""
        grid = self.grid or max(1, 224 // self.patch_px)
        return Offer(
            layers=tuple(range(self.layers)),
            sparse_frames=self.sparse_frames,
            alpha=self.alpha,
            grid=(grid, grid),
            pool=self.pool,
            channels=self.channels,
            embed=self.embed,
            classes=self.classes or 1,
            image_px=grid * self.patch_px,
        )

    def __str__(self) -> str:
        return (
            f"{self.layers} CLIP layers of {self.channels} channels, {self.sparse_frames} sparse and "
            f"{self.dense_frames} dense frames, patch {self.patch_px} px, {self.config.integration_channels} + "
            f"{self.config.temporal_channels} channels, {self.config.pooling_layers} pooling layers, "
            f"joint space {self.embed}" + f", a linear classifier of {self.classes} classes" * bool(self.classes)
        )


def read_sizes(keys: SortedKeys) -> FileSizes:
    """Each size by the vote of all shapes that give it. If none does, the released one: `problems` then reports it."""
    seen = _Shapes(keys.head)
    wide = seen.vote(r"input_linears\.\d+\.weight", 0, 384)
    narrow = seen.vote(r"temporal_nets\.\d+\.ln\.weight", 0, 96)
    temporal = seen.vote(r"integration_nets\.\d+\.temporal_ffn\.c_fc1\.weight", 0, wide // 4)
    config = DistSizes(
        integration_channels=wide,
        temporal_channels=narrow,
        pooling_layers=seen.count("adapooling_nets"),
        stem_frames=seen.vote(r"temporal_stem\.weight", 2, 5),
        kernel_frames=seen.vote(r"temporal_nets\.\d+\.temporal_net\.c_fc1\.weight", 2, 3),
        temporal_mlp_ratio=_ratio(seen.vote(r"temporal_nets\.\d+\.temporal_net\.c_fc1\.weight", 0, narrow), narrow),
        integration_mlp_ratio=_ratio(seen.vote(r"integration_nets\.\d+\.ffn\.c_fc\.weight", 0, wide), wide),
        integration_temporal_mlp_ratio=_ratio(temporal, wide),
    )
    visual = _Shapes(keys.clip)
    tokens = visual.vote(r"visual\.positional_embedding", 0, 0)
    patch_px = seen.vote(r"temporal_stem\.weight", 3, 16)
    pool = pool_of(patch_px, visual.vote(r"visual\.conv1\.weight", 3, patch_px))
    return FileSizes(
        config=config,
        layers=seen.count("input_linears"),
        sparse_frames=seen.vote(r"temporal2integration_nets\.\d+\.cls_token", 2, 8),
        alpha=seen.vote(r"temporal2integration_nets\.\d+\.linear_fuse\.weight", 2, 2),
        patch_px=patch_px,
        channels=seen.vote(r"input_linears\.\d+\.weight", 1, 768),
        embed=seen.vote(r"proj", 1, 512),
        clip_blocks=visual.count("visual.transformer.resblocks") or None,
        grid=math.isqrt(tokens - 1) // pool if tokens else None,
        pool=pool,
        classes=seen.vote(r"classify\.(weight|bias)", 0, 0),
    )


class _Shapes:
    """Shapes of a state, asked by pattern."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}

    def vote(self, pattern: str, axis: int, otherwise: int) -> int:
        """The most frequent length of an axis among all parameters whose names match the pattern."""
        fitting = (shape for name, shape in self.shapes.items() if re.fullmatch(pattern, name))
        lengths = Counter(shape[axis] for shape in fitting if len(shape) > axis and shape[axis])
        return lengths.most_common(1)[0][0] if lengths else otherwise

    def count(self, group: str) -> int:
        """How many different numbers follow the name of a group. A gap in the numbers becomes a missing key later."""
        numbers = (re.match(rf"{re.escape(group)}\.(\d+)\.", name) for name in self.shapes)
        return len({match[1] for match in numbers if match})


def _ratio(hidden: int, outer: int) -> float:
    """The ratio for which a block gets `hidden` channels, when it truncates outer · ratio to a whole number."""
    ratio = hidden / outer
    return ratio if int(outer * ratio) == hidden else math.nextafter(ratio, math.inf)


def problems(keys: SortedKeys, sizes: FileSizes) -> list[str]:
    """Why a state is not a branch of these sizes, one line per reason; empty: it is one."""
    if not keys.head:
        return [f"no key begins with {PREFIX}{HEAD} or {PREFIX}{OLD_HEAD}"]
    if lines := _impossible(keys, sizes):
        return lines
    with torch.device("meta"):
        wanted = DistNet(sizes.config, sizes.offer, tuple(range(sizes.layers))).state_dict()
        if sizes.classes:
            linear = nn.Linear(sizes.embed, sizes.classes).state_dict()
            wanted |= {CLASSIFIER + name: value for name, value in linear.items()}
    stored = keys.head
    lines = [f"{key}: missing" for key in sorted(wanted.keys() - stored.keys())]
    lines += [f"{key}: not a part of this branch" for key in sorted(stored.keys() - wanted.keys())]
    for key in sorted(stored.keys() & wanted.keys()):
        if stored[key].shape != wanted[key].shape:
            lines.append(f"{key}: file has {tuple(stored[key].shape)}, expected {tuple(wanted[key].shape)}")
        elif not stored[key].is_floating_point():
            lines.append(f"{key}: holds {stored[key].dtype}, not floating-point numbers")
        elif not bool(torch.isfinite(stored[key]).all()):
            lines.append(f"{key}: holds NaN or infinity")
    stem = stored.get("temporal_stem.weight")
    patches = keys.clip.get("visual.conv1.weight")
    if stem is not None and patches is not None and stem.shape[3:] != tuple(sizes.pool * px for px in patches.shape[2:]):
        lines.append(f"temporal_stem.weight: patch of {sizes.patch_px} px, the file's CLIP has {patches.shape[-1]} px")
    return lines


def _impossible(keys: SortedKeys, sizes: FileSizes) -> list[str]:
    """Why a branch of these sizes cannot be built, one line per reason."""
    lines = [f"{name}: is empty, shape {tuple(value.shape)}" for name, value in keys.head.items() if value.numel() == 0]
    groups = {"input_linears": sizes.layers, "adapooling_nets": sizes.config.pooling_layers}
    lines += [f"{name}.0: missing, and every other {name}" for name, count in groups.items() if count == 0]
    wide = sizes.config.integration_channels
    if wide > 64 and wide % (wide // 64):
        lines.append(f"{wide} integration channels do not divide into heads of about 64")
    return lines


class DistRelease:
    """The layout of DiST's released checkpoints; see `Release`."""

    title = "DiST"
    under = "model_state"
    holds_clip = True

    def read(self, state: Mapping[str, Tensor]) -> Released:
        """See `Release`."""
        keys = sort_keys(state)
        sizes = read_sizes(keys)
        lines = problems(keys, sizes)
        classifier = "linear" if sizes.classes else "auto"
        return Released(
            config=None if lines else DistConfig(**asdict(sizes.config), classifier=classifier),
            weights={
                name if name.startswith(CLASSIFIER) else HEAD + name: value.float() for name, value in keys.head.items()
            },
            clip=keys.clip,
            unknown=keys.unknown,
            problems=tuple(lines),
            layers=sizes.layers,
            clip_blocks=sizes.clip_blocks,
            offer=sizes.offer,
            sizes=sizes,
            words=str(sizes),
            old_names="ladder_net" if keys.old_names else "",
        )

    def fed_by(self, config: HeadConfig, layers: tuple[int, ...]) -> HeadConfig:
        """See `Release`."""
        assert isinstance(config, DistConfig)
        return replace(config, layers=layers)

    def write(self, head: Head, clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Release`."""
        return official_state({name.removeprefix(HEAD): value for name, value in head.state_dict().items()}, clip)

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """See `Release`."""
        assert isinstance(config, DistConfig)
        return {
            "NUM_INPUT_FRAMES": offer.sparse_frames * offer.alpha,
            "SPARSE_SAMPLE_ALPHA": offer.alpha,
            "ADA_POOLING_LAYERS": config.pooling_layers,
            "SELECTED_LAYERS": list(config.needs(offer).layers),
            "S_PATCH_SIZE": offer.patch_px,
            **({} if config.any_classes else {"(not in the release) linear classifier": f"{offer.classes} classes"}),
        }
