"""The frozen CLIP tower: pixels in, token features of chosen layers out. The only room that knows open_clip.

    pixels [frame rgb height width] ─ stem (−1) ─ block 0 ─ block 1 ─ … ─ ln_post ─ proj ─▶ embedding [frame embed]
                                        └────────────┴─────────┴──▶ tokens [layer frame token channel]

Taps are the residual stream after each block, CLS at token 0, before ln_post (docs/spec/dist.md §1). Nothing here has a
gradient, and the tower is always in eval mode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.errors import ClipError
from vidxfer.pipeline.precision import autocast
from vidxfer.pipeline.shapes import STEM, Taps, expect


@dataclass(frozen=True, kw_only=True)
class TowerInfo:
    """What a cache must remember of the tower.

    Attributes:
        model: the name it was loaded by.
        weights_sha256: over every tensor of the model, image and text.
        precision: of its forward.
        channels: width.
        tokens: per frame, CLS included.
        embed: joint space.
        blocks: number of transformer blocks.
        image_px: side of the picture.
        pixel_mean, pixel_std: per rgb channel.
        logit_scale: exponentiated.
    """

    model: str
    weights_sha256: str
    precision: str
    channels: int
    tokens: int
    embed: int
    blocks: int
    image_px: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    logit_scale: float

    def flop_per_frame(self) -> int:
        """Floating-point operations of one frame's forward (2 per multiply-add; docs/spec/dist.md §7)."""
        width, tokens = self.channels, self.tokens
        blocks = self.blocks * (12 * width * width * tokens + 2 * tokens * tokens * width)
        patches = (tokens - 1) * 3 * (self.image_px**2 // (tokens - 1)) * width
        return 2 * (blocks + patches + width * self.embed)


class ClipTower:
    """A loaded, frozen CLIP model on one device.

    Args:
        model: an open_clip `CLIP` with a `VisionTransformer`.
        tokenizer: maps names to token ids.
        info: what to remember of it.
        device: where it lives.
    """

    def __init__(self, model: Any, tokenizer: Any, info: TowerInfo, device: torch.device) -> None:
        self.info = info
        self.device = device
        self._model = model.eval().requires_grad_(False).to(device)
        self._tokenizer = tokenizer

    def state(self) -> dict[str, Tensor]:
        """Every tensor of image and text tower under open_clip's names, not copied."""
        return dict(self._model.state_dict())

    @property
    def heads(self) -> int | None:
        """Attention heads of the image tower's blocks; None where its blocks are not open_clip's."""
        sizes = {
            module.num_heads
            for name, module in self._model.named_modules()
            if name.startswith("visual.transformer.") and isinstance(module, torch.nn.MultiheadAttention)
        }
        return sizes.pop() if len(sizes) == 1 else None

    @torch.inference_mode()
    def taps(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        """Run the image tower once.

        Args:
            pixels: normalised [frame rgb height width] on any device.
            layers: block numbers, -1 for the stem, in the wanted order.

        Raises:
            ClipError: a layer the tower does not have, or the device's memory does not suffice.
        """
        unknown = [layer for layer in layers if not STEM <= layer < self.info.blocks]
        if unknown:
            raise ClipError(f"{self.info.model} has blocks 0…{self.info.blocks - 1} and the stem -1, not {unknown}")
        side = self.info.image_px
        expect("pixels", pixels, "frame rgb height width", rgb=3, height=side, width=side)
        try:
            with autocast(self.device, self.info.precision):
                return run_taps(self._model.visual, pixels.to(self.device, non_blocking=True), layers)
        except torch.OutOfMemoryError as error:
            raise ClipError(
                f"{self.device} has not the memory for {len(pixels)} frames at once in {self.info.model} ({error}). "
                "Lower --batch-frames."
            ) from error

    @torch.inference_mode()
    def encode_text(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Raw (not normalised) text embeddings, [class embed] float32 on the CPU.

        One prompt per name and template; several templates are averaged after normalisation, one is kept raw, as DiST
        does with the bare name (docs/spec/dist.md §3).
        """
        per_template = []
        for template in templates:
            ids = self._tokenizer([template.format(name) for name in names]).to(self.device)
            per_template.append(torch.cat([self._model.encode_text(part).float() for part in ids.split(256)]))
        if len(per_template) == 1:
            return per_template[0].cpu()
        return torch.stack([text / text.norm(dim=-1, keepdim=True) for text in per_template]).mean(dim=0).cpu()


def run_taps(visual: Any, pixels: Tensor, layers: Sequence[int]) -> Taps:
    """Token features of one open_clip VisionTransformer: see `ClipTower.taps`."""
    blocks = sorted({layer for layer in layers if layer != STEM})
    outputs: dict[int, Tensor] = {}
    if STEM in layers:
        outputs[STEM] = visual._embeds(pixels)
    seen = visual.forward_intermediates(
        pixels,
        indices=blocks or [len(visual.transformer.resblocks) - 1],  # an empty list is an error in open_clip
        normalize_intermediates=False,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    prefixes, patches_of = seen["image_intermediates_prefix"], seen["image_intermediates"]
    for layer, cls, patches in zip(blocks, prefixes, patches_of, strict=bool(blocks)):
        outputs[layer] = torch.cat([cls, patches], dim=1)
    kind = reduce(torch.promote_types, [output.dtype for output in outputs.values()]) if outputs else pixels.dtype
    empty = pixels.new_zeros((0, len(pixels), 1, 1))
    tokens = torch.stack([outputs[layer].to(kind) for layer in layers]) if layers else empty
    return Taps(tokens=tokens, embedding=seen["image_features"], layers=tuple(layers))


def hash_weights(model: torch.nn.Module) -> str:
    """The identity of a model's weights: see `hash_state`."""
    return hash_state(model.state_dict())


def hash_state(state: Mapping[str, Tensor]) -> str:
    """sha256 over every named tensor in the order of names: the identity of the weights, whatever file held them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
