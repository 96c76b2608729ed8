"""Towers of open_clip: a name and a tag or file, a repository on the hub, a folder.

name ─▶ known? ─▶ supported? ─▶ the GELU of its weights? ─▶ create ─▶ supported, as built? ─▶ model, tokenizer
        nothing is downloaded before these three
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.clip.activation import (
    CONFIG,
    QUICK,
    expect_activation,
    quick_of_file,
    quick_of_repository,
    quick_of_tag,
    stated_quick,
    tensor_names,
)
from vidxfer.pipeline.clip.archive import is_torchscript, read_torchscript
from vidxfer.pipeline.clip.failures import REFUSALS, told
from vidxfer.pipeline.clip.preprocess import preprocess_of_file, preprocess_of_tags, resize_of_open_clip
from vidxfer.pipeline.clip.refusals import Refusal, nearest, why_not, why_not_model
from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.clip.trunk import TrunkTower, trunk_sizes
from vidxfer.pipeline.clip.vit import VitTower, vit_sizes
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.resize import Resize

DEFAULT_TAG = "openai"
HUB, FOLDER = "hf-hub:", "local-dir:"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def create(model: str, pretrained: str | None, activation: str | None) -> Any:
    """A model with its weights.

    Args:
        model: name, "hf-hub:…", "local-dir:…" or a folder.
        pretrained: tag or file; only with a name.
        activation: "gelu" or "quickgelu", where nothing else says it.

    Raises:
        ClipError: unknown, unsupported, or weights that do not fit. UsageError: options that do not go together.
    """
    stated = stated_quick(activation)
    if model.startswith((HUB, FOLDER)) or Path(model).is_dir():
        return _with_own_weights(model, pretrained, stated)
    name = model.replace("/", "-")
    _expect_supported(name, model)
    source = pretrained or DEFAULT_TAG
    _guard_activation(name, source, stated)
    return _made(name, source)


def untrained(model: str) -> Any:
    """The image tower of a name with random weights, as `visual` of a module, for its sizes and speed.

    Raises:
        ClipError: unknown or unsupported.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    name = model.replace("/", "-")
    _expect_supported(name, model)
    try:
        visual = image_tower(open_clip.get_model_config(name) or {})
    except REFUSALS as error:
        raise ClipError(f"cannot make {name}: {told(error)}") from error
    visual.preprocess_cfg = merge_preprocess_dict(PreprocessCfg(), preprocess_of_tags(name) or {})
    return torch.nn.ModuleDict({"visual": visual})


def image_tower(config: Mapping[str, Any]) -> Any:
    """The image tower of a configuration of open_clip, with random weights."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    vision = CLIPVisionCfg(**config["vision_cfg"])
    return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def tokenizer_of(model: str) -> Any:
    """What makes token ids of names.

    Raises:
        ClipError: it cannot be made.
    """
    import open_clip

    name = model if model.startswith((HUB, FOLDER)) else f"{FOLDER}{model}" if Path(model).is_dir() else model
    try:
        return open_clip.get_tokenizer(name if ":" in name else name.replace("/", "-"))
    except REFUSALS as error:
        lacking = "\nIts text tower needs `pip install transformers`." * isinstance(error, ImportError)
        raise ClipError(f"cannot make the tokenizer of {model}: {told(error)}{lacking}") from error


def adapter_of(made: Any, model: str) -> tuple[type[Tower], TowerSizes, Resize]:
    """How a model is run, what it is like, and how it resizes.

    Raises:
        ClipError: it is not supported.
    """
    from open_clip.timm_model import TimmModel

    if reason := why_not_model(made):
        raise Refusal(model=model, reason=reason, nearest=nearest(model)).error()
    visual, is_clip = made.visual.eval(), not isinstance(made.visual, TimmModel)
    resize = resize_of_open_clip(visual.preprocess_cfg, is_clip=is_clip)
    return (VitTower, vit_sizes(visual), resize) if is_clip else (TrunkTower, trunk_sizes(visual), resize)


def has_quick_gelu(made: Any) -> bool:
    """Whether the image tower of a built model has QuickGELU."""
    from open_clip.transformer import QuickGELU

    return any(isinstance(module, QuickGELU) for module in made.visual.modules())


def _with_own_weights(model: str, pretrained: str | None, stated: bool | None) -> Any:
    """A folder or a repository: config and weights come together."""
    folder = Path(model.removeprefix(FOLDER))
    is_hub = model.startswith(HUB)
    if not is_hub and not (folder / CONFIG).is_file():
        raise ClipError(f"--model {folder}: a model folder needs {CONFIG} and weights; it has neither")
    if pretrained is not None:
        place = f"the repository {model}" if is_hub else f"the folder {folder}"
        raise UsageError(f"--pretrained {pretrained!r} goes with a model name; {place} has its own weights")
    made = _made(model if is_hub else f"{FOLDER}{folder}", None)
    wants = stated
    if wants is None and is_hub:
        wants = quick_of_repository(model.removeprefix(HUB).partition("@")[0])
    elif wants is None and _openai_file(folder):
        wants = True
    if why_not_model(made) is None:
        expect_activation(
            str(folder if not is_hub else model), model, has_quick=has_quick_gelu(made), wants_quick=wants, siblings=()
        )
    return made


def _openai_file(folder: Path) -> bool:
    files = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    return any(is_torchscript(path) for path in files)


def _expect_supported(name: str, model: str) -> None:
    import open_clip

    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ClipError(
            f"--model {model!r} is no open_clip model and no folder."
            + (f" Did you mean {', '.join(near)}?" if near else " See `vidxfer towers`.")
            + f" A model of timm is --model timm:{model}." * _is_timm(model)
        )
    if reason := why_not(open_clip.get_model_config(name) or {}):
        raise Refusal(model=name, reason=reason, nearest=nearest(name)).error()


def _is_timm(model: str) -> bool:
    import timm

    return bool(timm.is_model(model.partition(".")[0]))


def _guard_activation(name: str, source: str, stated: bool | None) -> None:
    """Refuse a tower whose GELU is not the one its weights were trained with: features would be silently wrong."""
    import open_clip

    known, path = open_clip.list_models(), Path(source)
    if path.is_dir():
        raise ClipError(f"--pretrained {source} is a folder; give a file in it, or the folder as --model")
    config = open_clip.get_model_config(name) or {}
    has_quick = bool(config.get("quick_gelu", False))
    wants: bool | None
    if not path.is_file():
        wants = quick_of_tag(_with_tag(name, source), source)
        if source not in open_clip.list_pretrained_tags_by_model(name) and wants:
            has_quick = False  # a tag of the other form alone
    else:
        try:
            names = tensor_names(path)
        except REFUSALS as error:
            raise ClipError(f"cannot load {name} with {source}: {told(error)}") from error
        wants = quick_of_file(path, names)
        if wants is None:
            wants = stated
        elif stated is not None and stated != wants:
            raise UsageError(f"--activation says otherwise than {source} itself: leave it out")
        if wants is None and not any(tensor_name.startswith("visual.") for tensor_name in names):
            wants = has_quick  # no CLIP: what is wrong with it is said where it is loaded
    is_timm = "timm_model_name" in config.get("vision_cfg", {})
    if not is_timm:  # timm's towers have their GELU in their own name
        expect_activation(name, source, has_quick=has_quick, wants_quick=wants, siblings=known)


def _with_tag(name: str, tag: str) -> str:
    """The name, or its form with QuickGELU where only that has the tag.

    Raises:
        ClipError: neither has it.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    quick = f"{name}{QUICK}"
    if tag in tags:
        return name
    if quick in open_clip.list_models() and tag in open_clip.list_pretrained_tags_by_model(quick):
        return quick
    raise ClipError(f"--pretrained {tag!r} is no file here and no tag of {name}. Tags: {', '.join(tags) or 'none'}")


def _made(name: str, source: str | None) -> Any:
    import open_clip

    path = Path(source) if source else None
    is_file = path is not None and path.is_file()
    picture = preprocess_of_file(name, path) if is_file and path is not None else None
    try:
        if path is None or not is_torchscript(path):
            return open_clip.create_model(
                name,
                pretrained=source,
                precision="fp32",
                device="cpu",
                require_pretrained=True,
                force_preprocess_cfg=picture,
            )
        made = open_clip.create_model(
            name, load_weights=False, precision="fp32", device="cpu", force_preprocess_cfg=picture
        )
        made.load_state_dict(read_torchscript(path))
        return made
    except REFUSALS as error:
        raise ClipError(
            f"cannot load {name}{f' with {source}' if source else ''}: {told(error)}\n"
            "Without a network, give the weights as a file: --pretrained FILE.safetensors (a state dict .pt, or "
            "OpenAI's own file)."
        ) from error
