"""Tiny CLIPs of our own, in open_clip's folder format: a trained one for the toy world, and random ones for tests.

    pipeline/clip/toy/    trained on captioned pictures of the toy world (tests/bench/train_toy_clip.py), half precision
                          ──copy_toy_clip──▶ a folder for --model
    write_tiny_clip       random weights of any size: colour and place, and no concept

The trained one knows shapes, colours, sizes and places, and was never told of motion.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.writing import make_folder, whole_file, write_text

CONTEXT, VOCABULARY = 77, 49408  # of open_clip's tokenizer, which the text tower must fit

TOY_CLIP_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 5, "head_width": 32},
        "text_cfg": {"context_length": 24, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 3},
    },
    "preprocess_cfg": {},
}
"""The trained toy CLIP. Most of a text tower is its vocabulary: at 16 channels, half precision, that is 1.6 MB."""

TOY_CLIP_FOLDER = Path(__file__).parent / "toy"
"""Configuration, weights and training log, part of the package."""


def copy_toy_clip(folder: Path) -> Path:
    """Copy the trained toy CLIP into `folder`, to be given as --model; other files there are replaced by name."""
    make_folder(folder)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        with whole_file(folder / name) as file:
            file.write((TOY_CLIP_FOLDER / name).read_bytes())
    return folder


def tiny_config(
    *, image_px: int = 64, patch_px: int = 8, channels: int = 192, blocks: int = 6, embed: int = 64
) -> dict[str, Any]:
    """open_clip's description of the tiny model; `channels` must be a multiple of 64 (one head per 64)."""
    return {
        "model_cfg": {
            "embed_dim": embed,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": image_px,
                "patch_size": patch_px,
                "width": channels,
                "layers": blocks,
                "head_width": 64,
            },
            "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 32, "heads": 1, "layers": 2},
        },
        "preprocess_cfg": {},
    }


def write_tiny_clip(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors into `folder`; what is there already is kept.

    Args:
        folder: made if missing.
        seed: of the weights.
        sizes: see `tiny_config`.

    Returns:
        the folder, to be given as --model.
    """
    from open_clip.model import CLIP
    from safetensors.torch import save

    weights = folder / "open_clip_model.safetensors"
    config = tiny_config(**sizes)
    if weights.is_file() and read_json(folder / "open_clip_config.json", most=1 << 20) == config:
        return folder
    make_folder(folder)
    write_text(folder / "open_clip_config.json", json.dumps(config, indent=1) + "\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**config["model_cfg"])
        model.load_state_dict({**model.state_dict(), **_text_weights(seed + 1, embed=config["model_cfg"]["embed_dim"])})
    with whole_file(weights) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    return folder


def _text_weights(seed: int, *, embed: int) -> dict[str, torch.Tensor]:
    """Weights of the text tower and the logit scale; the same whatever the image tower's size.

    open_clip's own initialisation is made for training: as it stands, all names would have nearly one embedding. With
    larger tokens and attention, every word and its place reach the embedding, so that mirrored names differ.
    """
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    model = CLIP(**tiny_config(image_px=32, channels=64, blocks=1, embed=embed)["model_cfg"])
    for parameter in (model.token_embedding.weight, model.positional_embedding):
        torch.nn.init.normal_(parameter, std=1.0)
    for block in model.transformer.resblocks:
        torch.nn.init.normal_(block.attn.in_proj_weight, std=1.2 * block.attn.embed_dim**-0.5)
        torch.nn.init.normal_(block.attn.out_proj.weight, std=10.0 * block.attn.embed_dim**-0.5)
    model.logit_scale.data.fill_(math.log(100.0))  # as trained CLIP models have it
    return {name: value for name, value in model.state_dict().items() if not name.startswith("visual.")}


def save_half(state: dict[str, torch.Tensor], path: Path) -> int:
    """Write tensors in half precision, as CLIP's authors do; returns the bytes of the file."""
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save({name: tensor.half().contiguous() for name, tensor in state.items()}))
    return path.stat().st_size
