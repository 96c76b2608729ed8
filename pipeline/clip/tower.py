"""A frozen tower: pixels in, token features of chosen layers out. The only room that knows open_clip and timm.

    pixels [frame rgb height width] ─ stem (−1) ─ block 0 ─ block 1 ─ … ─ last norm ─ pool ─▶ embedding [frame embed]
                                        └────────────┴─────────┴──▶ tokens [layer frame token channel]

Taps are the residual stream after each block, before the last norm (docs/spec/dist.md §1). Token 0 is the class row:
the tower's class token, or the mean of its patches where it has none. Behind it come the patches, row by row; further
tokens (registers) are left out. Nothing here has a gradient, and a tower is always in eval mode.

    tokens of a layer, as they are or as a codec gives them back ─▶ finish: the blocks that follow ─ last norm ─▶ tokens
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from vidxfer.pipeline.errors import ClipError
from vidxfer.pipeline.precision import autocast
from vidxfer.pipeline.resize import AS_DIST, Resize
from vidxfer.pipeline.shapes import STEM, Taps, expect


@dataclass(frozen=True, kw_only=True)
class TowerInfo:
    """What a cache must remember of the tower.

    Attributes:
        model: the name it was loaded by.
        weights_sha256: over every tensor of the model, image and text.
        precision: of its forward.
        channels: width.
        tokens: per frame as they are handed on: the class row and the patches.
        embed: width of the embedding: the joint space where there is a text tower.
        blocks: number of transformer blocks.
        image_px: side of the picture.
        pixel_mean, pixel_std: per rgb channel.
        logit_scale: exponentiated; 1 without a text tower.
        has_text: it has a text tower, so `encode_text` works.
        logit_bias: added to scaled cosines by towers trained with a sigmoid loss; None: there is none.
        resize: how pictures become its square.
        class_row: token 0: its class "token", or the "mean" of its patches.
        left_out: tokens between the class token and the patches, which are not handed on.
        blocks_of: "clip" where its blocks are those of open_clip's VisionTransformer, else "timm".
        parameters: numbers in the image tower; 0: nobody counted.
        flop: of one frame's forward, counted from its modules; None: those of a plain CLIP of these sizes.
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
    has_text: bool = True
    logit_bias: float | None = None
    resize: Resize = AS_DIST
    class_row: Literal["token", "mean"] = "token"
    left_out: int = 0
    blocks_of: Literal["clip", "timm"] = "clip"
    parameters: int = 0
    flop: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the (height, width) of the picture."""
        side = round((self.tokens - 1) ** 0.5)
        return side, side

    def flop_per_frame(self) -> int:
        """Floating-point operations of one frame's forward (2 per multiply-add; docs/spec/dist.md §7)."""
        if self.flop is not None:
            return self.flop
        width, tokens = self.channels, self.tokens
        blocks = self.blocks * (12 * width * width * tokens + 2 * tokens * tokens * width)
        patches = (tokens - 1) * 3 * (self.image_px**2 // (tokens - 1)) * width
        return 2 * (blocks + patches + width * self.embed)


class Tower(ABC):
    """A loaded, frozen tower on one device. An adapter of one library says how it is run.

    Args:
        model: the library's module. Where there is a text tower it has `encode_text`.
        tokenizer: maps names to token ids; None without a text tower.
        info: what to remember of it.
        device: where it lives.
    """

    def __init__(self, model: Any, tokenizer: Any, info: TowerInfo, device: torch.device) -> None:
        self.info = info
        self.device = device
        self._model = model.eval().requires_grad_(False).to(device)
        self._tokenizer = tokenizer

    @abstractmethod
    def run(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        """The image tower's forward over pixels on its device; see `taps`."""

    def run_on(self, tokens: Tensor, layer: int) -> Tensor:
        """All tokens of a layer [frame token channel] through the blocks that follow and the last norm: the same.

        Raises:
            ClipError: the adapter does not say how.
        """
        raise ClipError(
            f"{self.info.model}: {type(self).__name__} has no run_on, so it cannot go on from the tokens of layer "
            f"{layer}, here {tuple(tokens.shape)}. Name a codec; leave --through out."
        )

    def state(self) -> dict[str, Tensor]:
        """Every tensor of image and text tower under the library's names, not copied."""
        return dict(self._model.state_dict())

    @property
    def heads(self) -> int | None:
        """Attention heads of the blocks, where they are open_clip's own; None elsewhere."""
        return None

    @torch.inference_mode()
    def taps(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        """Run the image tower once.

        Args:
            pixels: normalised [frame rgb height width] on any device.
            layers: block numbers, -1 for the stem, in the wanted order.

        Raises:
            ClipError: a layer the tower does not have, or the device's memory does not suffice.
        """
        self._expect_layers(layers)
        side = self.info.image_px
        expect("pixels", pixels, "frame rgb height width", rgb=3, height=side, width=side)
        with self._memory_for(len(pixels)), autocast(self.device, self.info.precision):
            return self.run(pixels.to(self.device, non_blocking=True), layers)

    def left_out(self, pixels: Tensor, layers: Sequence[int]) -> Tensor:
        """Tokens that `taps` leaves out of the same pixels and layers: [layer frame token channel], none by default."""
        return pixels.new_zeros((len(layers), len(pixels), 0, self.info.channels))

    @torch.inference_mode()
    def finish(self, tokens: Tensor, layer: int, left_out: Tensor | None = None) -> Tensor:
        """Go on from a layer's tokens: the blocks that follow and the last norm, in float32 whatever the precision.

        The last norm is applied to every token, also where the tower itself applies it to their mean. Where the class
        row is the mean of the patches, the patches alone go on, and the row that comes back is their mean.

        Args:
            tokens: [frame token channel] as `taps` hands them on, on any device.
            layer: which; -1 for the stem.
            left_out: the tokens that `taps` leaves out, of this layer: [frame token channel].

        Returns:
            [frame token channel], class row first, on the tower's device.

        Raises:
            ClipError: no such layer, tokens are left out and not given, or the device's memory does not suffice.
        """
        self._expect_layers([layer])
        expect("tokens", tokens, "frame token channel", token=self.info.tokens, channel=self.info.channels)
        if left_out is None:
            if self.info.left_out:
                raise ClipError(
                    f"{self.info.model} has {self.info.left_out} more tokens per frame than the class row and the "
                    "patches. A cache does not hold them, and without them its blocks cannot go on: give the pixels."
                )
            left_out = tokens[:, :0]
        expect("left_out", left_out, "frame token channel", frame=len(tokens), token=self.info.left_out)
        has_row, patches = self.info.class_row == "token", self.info.tokens - 1
        with self._memory_for(len(tokens)):
            parts = [part.to(self.device).float() for part in (tokens[:, :has_row], left_out, tokens[:, 1:])]
            finished = self.run_on(torch.cat(parts, dim=1), layer)
            row = finished[:, :1] if has_row else finished[:, -patches:].mean(dim=1, keepdim=True)
            return torch.cat([row, finished[:, -patches:]], dim=1)

    def _expect_layers(self, layers: Sequence[int]) -> None:
        unknown = [layer for layer in layers if not STEM <= layer < self.info.blocks]
        if unknown:
            raise ClipError(f"{self.info.model} has blocks 0…{self.info.blocks - 1} and the stem -1, not {unknown}")

    @contextmanager
    def _memory_for(self, frames: int) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise ClipError(
                f"{self.device} has not the memory for {frames} frames at once in {self.info.model} ({error}). "
                "Lower --batch-frames."
            ) from error

    @torch.inference_mode()
    def encode_text(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Raw (not normalised) text embeddings, [class embed] float32 on the CPU.

        One prompt per name and template; several templates are averaged after normalisation, one is kept raw, as DiST
        does with the bare name (docs/spec/dist.md §3).

        Raises:
            ClipError: the tower has no text.
        """
        if not self.info.has_text:
            raise ClipError(
                f"{self.info.model} has no text tower, so class names have no embeddings: take a head with a linear "
                "classifier, or a tower with text (ViT-B-16-quickgelu, ViT-B-16-SigLIP2, PE-Core-B-16)"
            )
        per_template = []
        for template in templates:
            ids = self._tokenizer([template.format(name) for name in names]).to(self.device)
            per_template.append(torch.cat([self._model.encode_text(part).float() for part in ids.split(256)]))
        if len(per_template) == 1:
            return per_template[0].cpu()
        return torch.stack([text / text.norm(dim=-1, keepdim=True) for text in per_template]).mean(dim=0).cpu()


def stacked(by_layer: dict[int, Tensor], embedding: Tensor, pixels: Tensor, layers: Sequence[int]) -> Taps:
    """Tokens [frame token channel] by layer as one tensor, in the order asked for, of the widest type among them."""
    kind = reduce(torch.promote_types, [tokens.dtype for tokens in by_layer.values()]) if by_layer else pixels.dtype
    empty = pixels.new_zeros((0, len(pixels), 1, 1))
    tokens = torch.stack([by_layer[layer].to(kind) for layer in layers]) if layers else empty
    return Taps(tokens=tokens, embedding=embedding, layers=tuple(layers))


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
