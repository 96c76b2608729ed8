"""Released EVL checkpoints: the sizes that follow from the shapes, and every key that does not fit; see `Release`.

    {"model": {"module.decoder.cls_token": …, "module.proj.2.bias": …}, …}     no CLIP: the release keeps it elsewhere

Shapes do not give the number of attention heads. It is taken as one per 64 channels in the decoder and in CLIP, as in
all released configurations. Source: docs/spec/evl.md §10. No file is opened here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.heads.base import Head, HeadConfig, Offer
from vidxfer.pipeline.heads.evl.head import EvlConfig, EvlHead
from vidxfer.pipeline.heads.family import Released
from vidxfer.pipeline.heads.recipe import B16, L14
from vidxfer.pipeline.shapes import STEM

EVL_PREFIX = "module."
"""Prefix that training on several devices puts before every key. Files without it are read too."""

GROUPS = ("decoder_layers", "temporal_conv", "temporal_pos_embed", "cross_attention")


@dataclass(frozen=True, kw_only=True)
class EvlFileSizes:
    """The sizes that follow from the shapes of a checkpoint.

    Attributes:
        layers: decoder layers; one CLIP block feeds each.
        frames: frames per clip; 0: any number.
        grid_side: patches along a side; 0: any number.
        channels: CLIP's width.
        inner: width of queries, keys and values.
        hidden: hidden width of an MLP.
        classes: classes of the classifier.
        parts: the temporal parts that the checkpoint holds.
    """

    layers: int
    frames: int
    grid_side: int
    channels: int
    inner: int
    hidden: int
    classes: int
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.layers} decoder layers of {self.channels} channels, {self.inner} inside attention, {self.hidden} "
            f"inside an MLP, {self.frames or 'any number of'} frames, {', '.join(self.parts) or 'no temporal parts'}, "
            f"{self.classes} classes"
        )


def read_sizes(state: Mapping[str, Tensor]) -> EvlFileSizes:
    """Sizes from the first layer's shapes. A size that no shape gives is 0: `problems` then reports it."""

    def side(name: str, axis: int) -> int:
        shape = state[name].shape if name in state else ()
        return shape[axis] if len(shape) > axis else 0

    layers_of = {group: sum(1 for _ in _numbers(state, group)) for group in GROUPS}
    displacements = side("decoder.cross_attention.0.w1", 0)
    return EvlFileSizes(
        layers=layers_of["decoder_layers"],
        frames=side("decoder.temporal_pos_embed.0", 0),
        grid_side=(math.isqrt(displacements) + 1) // 2,
        channels=side("decoder.cls_token", 0),
        inner=side("decoder.decoder_layers.0.attn.q_proj.weight", 0),
        hidden=side("decoder.decoder_layers.0.mlp.fc1.weight", 0),
        classes=side("proj.2.weight", 0),
        parts=tuple(
            word
            for word, group in zip(("convolution", "position", "cross_frame"), GROUPS[1:], strict=True)
            if layers_of[group]
        ),
    )


def _numbers(state: Mapping[str, Tensor], group: str) -> set[str]:
    matches = (re.match(rf"decoder\.{group}\.(\d+)(\.|$)", name) for name in state)
    return {match[1] for match in matches if match}


def config_of(sizes: EvlFileSizes) -> EvlConfig:
    """Settings of these sizes. The last CLIP blocks feed the decoder."""
    whole = next((clip for clip in (B16, L14) if clip.width == sizes.channels), None)
    return EvlConfig(
        blocks=0 if whole is not None and sizes.layers == whole.blocks else sizes.layers,
        clip_heads=None if whole is None else whole.width // 64,
        channels=None if sizes.inner == sizes.channels else sizes.inner,
        mlp_ratio=sizes.hidden / sizes.channels,
        convolution="convolution" in sizes.parts,
        position="position" in sizes.parts,
        cross_frame="cross_frame" in sizes.parts,
    )


def offer_of_sizes(sizes: EvlFileSizes) -> Offer:
    """What a cache for these weights delivers. The side of the pictures may be any, because the head sees no pixels."""
    side = sizes.grid_side or 1
    return Offer(
        layers=tuple(range(STEM, sizes.layers)), sparse_frames=sizes.frames or 1, alpha=1, grid=(side, side),
        channels=sizes.channels, embed=1, classes=sizes.classes, image_px=side,
    )  # fmt: skip


def problems(state: Mapping[str, Tensor], sizes: EvlFileSizes) -> list[str]:
    """Why a state is not a head of these sizes, one line per reason; empty: it is one."""
    told = {
        "decoder.cls_token": sizes.channels,
        "decoder.decoder_layers.0.attn.q_proj.weight": sizes.inner,
        "decoder.decoder_layers.0.mlp.fc1.weight": sizes.hidden,
        "proj.2.weight": sizes.classes,
    }
    if unsaid := [f"{name}: missing or empty, but its shape gives sizes" for name, size in told.items() if size < 1]:
        return unsaid
    tables = state.get("decoder.cross_attention.0.w1")
    if tables is not None and len(tables) != (2 * sizes.grid_side - 1) ** 2:
        return [f"decoder.cross_attention.0.w1: {len(tables)} displacements are not those of a square grid of patches"]
    if sizes.inner >= 64 and sizes.inner % 64:
        return [f"decoder.decoder_layers.0.attn.q_proj.weight: {sizes.inner} channels are not of heads of 64"]
    config, offer = config_of(sizes), offer_of_sizes(sizes)
    with torch.device("meta"):
        wanted = EvlHead(config, offer.for_sizes(config.needs(offer))).state_dict()
    lines = [f"{key}: missing" for key in sorted(wanted.keys() - state.keys())]
    lines += [f"{key}: not a part of this head" for key in sorted(state.keys() - wanted.keys())]
    for key in sorted(state.keys() & wanted.keys()):
        if state[key].shape != wanted[key].shape:
            lines.append(f"{key}: file has {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}")
        elif not state[key].is_floating_point():
            lines.append(f"{key}: holds {state[key].dtype}, not floating-point numbers")
        elif not bool(torch.isfinite(state[key]).all()):
            lines.append(f"{key}: holds NaN or infinity")
    return lines


class EvlRelease:
    """The layout of EVL's released checkpoints; see `Release`."""

    title = "EVL"
    under = "model"
    holds_clip = False

    def read(self, state: Mapping[str, Tensor]) -> Released:
        """See `Release`."""
        head: dict[str, Tensor] = {}
        unknown: list[str] = []
        for key, value in state.items():
            name = key.removeprefix(EVL_PREFIX)
            if name in head or not name.startswith(("decoder.", "proj.")):
                unknown.append(key)
            else:
                head[name] = value
        sizes = read_sizes(head)
        lines = problems(head, sizes) if head else [f"no key begins with {EVL_PREFIX}decoder. or {EVL_PREFIX}proj."]
        return Released(
            config=None if lines else config_of(sizes),
            weights={name: value.float() for name, value in head.items()},
            clip={},
            unknown=tuple(unknown),
            problems=tuple(lines),
            layers=sizes.layers,
            clip_blocks=None,
            offer=offer_of_sizes(sizes),
            sizes=sizes,
            words=str(sizes),
            last_blocks=True,
        )

    def fed_by(self, config: HeadConfig, layers: tuple[int, ...]) -> HeadConfig:
        """See `Release`."""
        assert isinstance(config, EvlConfig)
        return replace(config, layers=layers)

    def write(self, head: Head, clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Release`. CLIP's weights are not written."""
        return {EVL_PREFIX + name: value.detach().float().cpu().clone() for name, value in head.state_dict().items()}

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """See `Release`; in words, since the released code takes them as arguments of a script."""
        assert isinstance(config, EvlConfig)
        sizes = asdict(config)
        return {
            "CLIP blocks": list(config.fed_by(offer)),
            "frames": offer.sparse_frames,
            "decoder width": config.channels or offer.channels,
            "MLP factor": config.mlp_ratio,
            **{part: sizes[part] for part in ("convolution", "position", "cross_frame")},
        }
