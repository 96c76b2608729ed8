"""A small tower of every kind with random weights, as a folder that `--model` takes; and what the library makes of it.

write_tower(folder, "siglip") ─▶ folder ─▶ load_tower(folder)
                                     └──▶ library(folder): what the library itself makes of it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.factory import load_checkpoint
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from timm.models import save_for_hf  # type: ignore[attr-defined]

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32}
CLIPA = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, "mlp_ratio": 3.0}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}

OPEN_CLIP = {"clip": {}, "clipa": CLIPA, "layer scale": {"ls_init_value": 0.1, "mlp_ratio": 2.5}}
"""Additions to `VIT`, of open_clip's own vision transformer."""

TRUNKS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "siglip": ("vit_base_patch16_siglip_224", {}, "map", "none"),
    "pe": ("vit_pe_core_base_patch16_224", {"ref_feat_shape": (4, 4), "attn_pool_num_heads": 2}, "map", ""),
    "eva02": ("eva02_base_patch16_clip_224", {"ref_feat_shape": (4, 4)}, "token", ""),
}
"""Of open_clip's `TimmModel`: architecture, arguments, pooling, projection."""

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "augreg": ("vit_tiny_patch16_224", {}),
    "dinov2": ("vit_small_patch14_dinov2", {}),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "dinov3 plus": ("vit_small_plus_patch16_dinov3", {}),
    "registers and no class token": ("vit_so150m_patch16_reg4_map_256", {}),
    "no class token": ("vit_medium_patch16_gap_256", {}),
    "two class tokens": ("deit_tiny_distilled_patch16_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "relative places": ("vit_relpos_medium_patch16_cls_224", {}),
}
"""Of timm alone: architecture, arguments."""

KINDS = (*OPEN_CLIP, *TRUNKS, *TIMM)


def write_tower(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Write configuration and weights of a small tower into a new folder.

    Args:
        folder: made here.
        kind: of `KINDS`.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind in TIMM:
            name, more = TIMM[kind]
            return _write_timm(folder, name, more)
        folder.mkdir(parents=True)
        config: dict[str, Any] = {"embed_dim": 24, "quick_gelu": False, "text_cfg": TEXT}
        if kind in OPEN_CLIP:
            model: Any = CLIP(**(config := {**config, "vision_cfg": VIT | OPEN_CLIP[kind]}))
        else:
            name, more, pool, proj = TRUNKS[kind]
            trunk = {"timm_model_name": f"local-dir:{_write_timm(folder / 'trunk', name, more)}", "timm_pool": pool,
                     "timm_proj": proj, "image_size": 32}  # fmt: skip
            embed = SMALL["embed_dim"] if proj == "none" else 24
            config = {**config, "embed_dim": embed, "vision_cfg": trunk}
            config |= {"init_logit_bias": -10} if kind == "siglip" else {}
            model = CustomTextCLIP(**config)
            config["custom_text"] = True
        _disturb(model)
        picture = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
        preprocess = {} if kind == "clip" else picture
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def library(folder: Path) -> Any:
    """The module that the library makes of the folder, in eval mode, by its own means and none of ours."""
    if not (folder / "open_clip_config.json").is_file():
        return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    kind = CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model = kind(**config)
    load_checkpoint(model, str(folder / "open_clip_model.safetensors"))
    return model.eval()


def _write_timm(folder: Path, name: str, more: dict[str, Any]) -> Path:
    small = {key: value for key, value in SMALL.items() if key != "patch_size" or "relpos" not in name}
    made = timm.create_model(name, num_classes=0, **{**small, "patch_size": 8, **more})
    _disturb(made)
    save_for_hf(made, folder, safe_serialization=True)
    return folder


def _disturb(model: torch.nn.Module) -> None:
    """Leave no parameter zero or one, as biases and scales of a fresh model are: that would hide mistakes."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
