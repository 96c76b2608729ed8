"""timm's transformers, alone or inside open_clip's `TimmModel`: SigLIP, PE-Core, EVA-02, DINOv2, DINOv3, AugReg …

    patch_embed ─ class token, registers ─ norm_pre (−1) ─ blocks 0, 1, … ─ norm ─ pool ─ projection ─▶ embedding
                                                  └───────────────┴──┴──▶ tokens: class row, then patches

The model runs as it always does, and its blocks are listened to: what is handed on is what the library computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.tower import Tower, stacked
from vidxfer.pipeline.precision import autocast
from vidxfer.pipeline.shapes import STEM, Taps, expect

LIKE_VIT = ("vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "deit", "eva", "beit",
            "vitamin")  # fmt: skip
"""timm's files of architectures with equal blocks over class token, registers and one square grid of patches."""


class TrunkTower(Tower):
    """A model whose image tower is a timm transformer; without a text tower the model is that transformer."""

    def run(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        """See `Tower.taps`."""
        seen, embedding = self._heard(pixels, layers)
        expect("embedding", embedding, "frame embed", embed=self.info.embed)
        by_layer = {layer: self._handed_on(tokens) for layer, tokens in seen.items()}
        return stacked(by_layer, embedding, pixels, layers)

    @torch.inference_mode()
    def left_out(self, pixels: Tensor, layers: Sequence[int]) -> Tensor:
        """See `Tower.left_out`."""
        with autocast(self.device, self.info.precision):
            seen, embedding = self._heard(pixels.to(self.device), layers)
        first, end = self.info.class_row == "token", 1 - self.info.tokens
        return stacked(
            {layer: tokens[:, first:end] for layer, tokens in seen.items()}, embedding, pixels, layers
        ).tokens

    def run_on(self, tokens: Tensor, layer: int) -> Tensor:
        """See `Tower.run_on`."""
        trunk = trunk_of(self._image)
        for block, (given, named) in list(zip(trunk.blocks, self._beside, strict=True))[layer + 1 :]:
            tokens = block(tokens, *given, **named)
        finished: Tensor = last_norm_of(trunk)(tokens)
        return finished

    @property
    def _image(self) -> Any:
        return getattr(self._model, "visual", self._model)

    def _heard(self, pixels: Tensor, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        """All tokens [frame token channel] by layer, and the embedding."""
        blocks = trunk_of(self._image).blocks
        wanted, by_layer = set(layers), dict[int, Tensor]()

        def note(layer: int, tokens: Tensor) -> None:
            expect("tokens", tokens, "frame token channel", token=self._all_tokens, channel=self.info.channels)
            by_layer[layer] = tokens

        with ExitStack() as hooks:
            if STEM in wanted:
                first = blocks[0]
                hooks.enter_context(_hook(first.register_forward_pre_hook(lambda _, given: note(STEM, given[0]))))
            for layer in wanted - {STEM}:
                hooks.enter_context(
                    _hook(blocks[layer].register_forward_hook(lambda _, __, made, layer=layer: note(layer, made)))
                )
            embedding: Tensor = self._image(pixels)
        return by_layer, embedding

    @cached_property
    def _beside(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each block is given beside the tokens: rotations and biases of places, the same for every picture."""
        seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def note(_: object, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen.append((given[1:], named))

        with ExitStack() as hooks:
            for block in trunk_of(self._image).blocks:
                hooks.enter_context(_hook(block.register_forward_pre_hook(note, with_kwargs=True)))
            self._image(torch.zeros(1, 3, self.info.image_px, self.info.image_px, device=self.device))
        return seen

    def _handed_on(self, tokens: Tensor) -> Tensor:
        """All tokens of a block [frame token channel] as a class row and the patches."""
        patches = tokens[:, -(self.info.tokens - 1) :]
        before = tokens.shape[1] - patches.shape[1]
        if self.info.class_row == "token":
            return tokens if before == 1 else torch.cat([tokens[:, :1], patches], dim=1)
        return torch.cat([patches.float().mean(dim=1, keepdim=True).to(patches.dtype), patches], dim=1)

    @property
    def _all_tokens(self) -> int:
        return self.info.tokens + self.info.left_out - (self.info.class_row == "mean")


class _hook:  # noqa: N801  # read as a verb: with _hook(handle)
    """A registered hook as a context: taken away at its end, whatever happens."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def trunk_of(image: Any) -> Any:
    """timm's transformer: that of open_clip's `TimmModel`, or the model itself."""
    return getattr(image, "trunk", image)


def last_norm_of(trunk: Any) -> Any:
    """The norm behind the blocks; where timm normalises the pooled features instead, that one, for every token."""
    after_pool = getattr(trunk, "fc_norm", None)
    return after_pool if isinstance(trunk.norm, nn.Identity) and after_pool is not None else trunk.norm


def why_no_trunk(trunk: Any) -> str | None:
    """Why a timm model is no tower of blocks over a square grid; None: it is one."""
    kind = type(trunk).__name__
    file = type(trunk).__module__.rpartition(".")[2]
    if file not in LIKE_VIT:
        return why_no_file(file, kind)
    embed = trunk.patch_embed
    size, grid = getattr(embed, "img_size", None), getattr(embed, "grid_size", None)
    if size is None or grid is None:
        return f"any size: {kind} takes pictures of any size, and a cache holds one square grid per frame"
    if size[0] != size[1] or grid[0] != grid[1]:
        return f"not square: it sees pictures of {size[0]} x {size[1]} px (height x width), and views are square"
    if not trunk.global_pool:
        return f"no embedding: {kind} is made without pooling (global_pool='')"
    return None


SHRINKING = ("swin", "hiera", "mvit", "pvt", "twins", "davit", "nest", "focalnet", "levit", "pit", "volo", "gcvit",
             "efficientformer", "edgenext", "maxxvit", "tiny_vit", "nextvit", "mobilevit", "efficientvit")  # fmt: skip
CONVOLUTIONAL = ("conv", "fastvit", "resn", "byo", "efficientnet", "mobilenet", "regnet", "nfnet", "dense", "vgg",
                 "dla", "rexnet", "ghost", "hrnet", "ception", "csp", "dpn", "senet", "repvit")  # fmt: skip
"""Parts of the names of timm's files."""


def why_no_file(file: str, kind: str) -> str:
    """Why architectures of that file of timm are refused: the group, a colon, and a sentence."""
    if "naflex" in file:
        return f"NaFlex: {kind} sees pictures of any aspect, so its grids differ from frame to frame"
    if any(word in file for word in SHRINKING):
        return f"hierarchical trunk: the tokens of {kind} shrink from stage to stage"
    if any(word in file for word in CONVOLUTIONAL):
        return f"convolutional trunk: {kind} has no tokens"
    return f"another trunk: {kind} has not equal blocks over a class token and patches from first to last"


def trunk_sizes(image: Any) -> TowerSizes:
    """What a model that `why_no_trunk` accepts is like. Its blocks may differ; each is counted."""
    trunk = trunk_of(image)
    width, grid = int(trunk.embed_dim), int(trunk.patch_embed.grid_size[0])
    before, has_class = int(trunk.num_prefix_tokens), getattr(trunk, "cls_token", None) is not None
    tokens = before + grid**2
    pooled = tokens if getattr(trunk, "pool_include_prefix", True) else grid**2  # `Eva` pools all of them
    blocks = sum(_multiplies(block, tokens) for block in trunk.blocks)
    per_frame = blocks + _of_patches(trunk.patch_embed) + _of_pool(image, pooled)
    return TowerSizes(
        channels=width,
        tokens=1 + grid**2,
        embed=_embed(image),
        blocks=len(trunk.blocks),
        image_px=int(trunk.patch_embed.img_size[0]),
        class_row="token" if has_class else "mean",
        left_out=before - has_class,
        parameters=sum(weight.numel() for weight in image.parameters()),
        flop=2 * per_frame,
    )


def _multiplies(block: Any, tokens: int) -> int:
    """Multiply-adds of one block: its matrices for every token, queries by keys, weights by values."""
    linear = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
    inner = int(block.attn.proj.in_features)
    return linear * tokens + 2 * tokens * tokens * inner


def _of_patches(embed: Any) -> int:
    """Of the convolutions that make patches of a picture: one in most models, a small network in some."""
    counted: list[int] = []

    def count(conv: Any, _: object, made: Tensor) -> None:
        counted.append(conv.weight.numel() * math.prod(made.shape[2:]))

    def count_linear(linear: Any, given: Any, _: Tensor) -> None:
        counted.append(linear.weight.numel() * given[0].numel() // linear.in_features)

    kinds = ((nn.Conv2d, count), (nn.Linear, count_linear))
    where = next(embed.parameters())
    with ExitStack() as hooks, torch.no_grad():
        for module in embed.modules():
            for kind, hook in kinds:
                if isinstance(module, kind):
                    hooks.enter_context(_hook(module.register_forward_hook(hook)))
        embed(torch.zeros(1, 3, *embed.img_size, device=where.device, dtype=where.dtype))
    return sum(counted)


def _of_pool(image: Any, tokens: int) -> int:
    """Of attention pooling, where there is any, and of the projection."""
    trunk = trunk_of(image)
    multiplies = sum(linear.weight.numel() for linear in _projections(image))
    if (pool := getattr(trunk, "attn_pool", None)) is not None:
        linear = {name: module.weight.numel() for name, module in pool.named_modules() if isinstance(module, nn.Linear)}
        multiplies += sum(count * (tokens if name == "kv" else 1) for name, count in linear.items())
        multiplies += 2 * tokens * int(trunk.embed_dim)
    return multiplies


def _embed(image: Any) -> int:
    """Width of the embedding: of the last projection, or of the pooled features where there is none."""
    behind = _projections(image)
    return int(behind[-1].out_features if behind else trunk_of(image).num_features)


def _projections(image: Any) -> list[nn.Linear]:
    """Matrices between the pooled features and the embedding: of the trunk's head, then of `TimmModel`'s."""
    trunk = trunk_of(image)
    behind = [trunk.head] if image is trunk else [trunk.head, image.head]
    return [module for part in behind for module in part.modules() if isinstance(module, nn.Linear)]
