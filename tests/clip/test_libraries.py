"""Names of open_clip and timm that vidxfer uses: one that disappears in a later version fails here, by name."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm

import vidxfer.pipeline.clip as room

FILES = sorted(Path(room.__path__[0]).glob("*.py"))
LIBRARIES = ("open_clip", "timm")


def named() -> set[tuple[str, str]]:
    """(module, name) of everything that the files import from the libraries, or take as an attribute of them."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in LIBRARIES:
                found |= {(str(node.module), alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in LIBRARIES:
                found.add((node.value.id, node.attr))
    return found


@pytest.mark.parametrize(("module", "name"), sorted(named()))
def test_every_name_is_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_names_were_found() -> None:
    assert {
        ("open_clip", "create_model"),
        ("timm", "create_model"),
        ("open_clip.model", "_build_vision_tower"),
    } <= named()


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        (open_clip.create_model, ("pretrained", "load_weights", "precision", "device", "require_pretrained",
                                  "force_preprocess_cfg", "pretrained_text")),
        (open_clip.transformer.VisionTransformer.forward_intermediates,
         ("indices", "normalize_intermediates", "output_fmt", "output_extra_tokens")),
        (timm.create_model, ("pretrained", "pretrained_cfg_overlay")),
    ],
)  # fmt: skip
def test_every_argument_is_there(called: Any, arguments: tuple[str, ...]) -> None:
    assert set(arguments) <= set(inspect.signature(called).parameters)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov3", "beit", "relative places"])
def test_every_part_is_there(kind: str, tower_of: Any) -> None:
    image = getattr(tower_of(kind)._model, "visual", tower_of(kind)._model)
    if kind == "clip":
        parts = {"class_embedding", "positional_embedding", "transformer.resblocks", "conv1", "attn_pool", "pool_type",
                 "grid_size", "image_size", "output_dim", "preprocess_cfg", "_embeds"}  # fmt: skip
    else:
        image = getattr(image, "trunk", image)
        parts = {"blocks", "patch_embed.grid_size", "patch_embed.img_size", "num_prefix_tokens", "embed_dim",
                 "cls_token", "head", "global_pool", "num_features", "pretrained_cfg", "reset_classifier"}  # fmt: skip
    for part in parts:
        holder = image
        for word in part.split("."):
            assert hasattr(holder, word), f"{kind}: {part}"
            holder = getattr(holder, word)
