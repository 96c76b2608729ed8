"""What a tower is like, told of its name alone: sizes from its configuration, without numbers and without weights.

    a name of open_clip, or "timm:" and one of timm ─▶ describe ─▶ Described, or Refusal: why, and what to take

The image tower alone is built, on the meta device, and nothing is drawn for it: some ten milliseconds each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vidxfer.pipeline.clip.failures import REFUSALS, quiet, told
from vidxfer.pipeline.clip.from_open_clip import image_tower
from vidxfer.pipeline.clip.from_timm import PREFIX
from vidxfer.pipeline.clip.refusals import Refusal, nearest, why_no_visual, why_not, why_not_name
from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.trunk import trunk_sizes, why_no_trunk
from vidxfer.pipeline.clip.vit import vit_sizes


@dataclass(frozen=True, kw_only=True)
class Described:
    """A tower that works.

    Attributes:
        model: its name, as --model takes it.
        sizes: of its image tower.
        has_text: it has a text tower.
        lacks: a package that its text tower needs and that is not installed; None: it lacks none.
    """

    model: str
    sizes: TowerSizes
    has_text: bool
    lacks: str | None = None


def describe(model: str) -> Described | Refusal:
    """What the tower of a name is like, or why it does not work.

    Args:
        model: a name of open_clip, or "timm:" and one of timm, with a tag or without. Folders and repositories have
            weights: `load_tower` tells of them.
    """
    with quiet():
        if model.startswith(PREFIX):
            name = model.removeprefix(PREFIX)
            sizes: TowerSizes | str = why_not_name(name.partition(".")[0]) or _of_timm(name)
            return _told(model, sizes, has_text=False)
        return _of_name(model)


def list_open_clip() -> list[str]:
    """Every configuration of open_clip, working or not."""
    import open_clip

    return list(open_clip.list_models())


def _of_name(model: str) -> Described | Refusal:
    import open_clip

    config = open_clip.get_model_config(model.replace("/", "-"))
    if config is None:
        return Refusal(model=model, reason="unknown: open_clip has no such configuration", nearest=nearest(model))
    sizes: TowerSizes | str = why_not(config) or _of_open_clip(
        json.dumps([config["embed_dim"], config["vision_cfg"]], sort_keys=True)
    )
    return _told(model, sizes, has_text=True, lacks=_lacking(config.get("text_cfg", {})))


def _told(model: str, sizes: TowerSizes | str, *, has_text: bool, lacks: str | None = None) -> Described | Refusal:
    if isinstance(sizes, str):
        return Refusal(model=model, reason=sizes, nearest=nearest(model))
    return Described(model=model, sizes=sizes, has_text=has_text, lacks=lacks)


def _lacking(text: Mapping[str, Any]) -> str | None:
    needs = bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))
    return "transformers" if needs and find_spec("transformers") is None else None


@lru_cache(maxsize=512)
def _of_open_clip(config: str) -> TowerSizes | str:
    """Of an image tower of open_clip; many names share one."""
    embed, vision = json.loads(config)
    try:
        with without_numbers():
            visual = image_tower({"embed_dim": embed, "vision_cfg": vision}).eval()
            if reason := why_no_visual(visual):
                return reason
            return vit_sizes(visual) if "timm_model_name" not in vision else trunk_sizes(visual)
    except REFUSALS as error:
        return f"not built: open_clip says: {told(error)}"


@lru_cache(maxsize=512)
def _of_timm(name: str) -> TowerSizes | str:
    import timm

    try:
        with without_numbers():
            made = timm.create_model(name, pretrained=False, num_classes=0).eval()
            return why_no_trunk(made) or trunk_sizes(made)
    except REFUSALS as error:
        return f"not built: timm says: {told(error)}"


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules that are made inside have shapes and no numbers: a tower of 7 billion takes no memory and no time."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Tensors stay as they are made: what would fill them in place does nothing, for there are no numbers to fill."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        fills = name.endswith("_") and not name.endswith("__") and name not in ("requires_grad_", "detach_")
        if fills:
            filled = args[0] if args else (kwargs or {}).get("tensor")  # torch.nn.init names it
            if isinstance(filled, torch.Tensor) and filled.is_meta:
                return filled
        return func(*args, **(kwargs or {}))
