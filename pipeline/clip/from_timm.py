"""Towers of timm, which have no text: an architecture and a tag or a file, a repository on the hub, a folder.

    timm:vit_base_patch16_dinov3                              timm's default weights of it
    timm:vit_base_patch16_224.augreg_in21k --pretrained FILE  a local file of what the tag names
    timm:hf-hub:timm/vit_small_patch14_dinov2.lvd142m         a repository
    FOLDER with config.json and weights                       as timm's `save_for_hf` writes it

Every tensor must find its place, the classifier's too. It is taken off afterwards: the embedding is the pooled output.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vidxfer.pipeline.clip.activation import stated_quick, tensor_names
from vidxfer.pipeline.clip.failures import REFUSALS, told
from vidxfer.pipeline.clip.preprocess import resize_of_timm
from vidxfer.pipeline.clip.refusals import Refusal, nearest, why_not_name
from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.trunk import trunk_sizes, why_no_trunk
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.resize import Resize

PREFIX, HUB, FOLDER = "timm:", "hf-hub:", "local-dir:"
CONFIG, MOST_CONFIG_BYTES = "config.json", 1 << 22
TIMM_PICTURE_KEYS = ("mean", "std", "interpolation", "crop_mode")


def is_timm_folder(folder: Path) -> bool:
    """Whether a folder's config.json names an architecture, as timm's does."""
    if not (folder / CONFIG).is_file():
        return False
    config = read_json(folder / CONFIG, most=MOST_CONFIG_BYTES)
    return isinstance(config, dict) and "architecture" in config


def create(model: str, pretrained: str | None, activation: str | None) -> Any:
    """A model with its weights and without its classifier.

    Args:
        model: behind "timm:", or a folder.
        pretrained: tag or file; only with an architecture.
        activation: "gelu" or "quickgelu", where nothing else says it.

    Raises:
        ClipError: unknown, unsupported, or weights that do not fit. UsageError: options that do not go together.
    """
    stated = stated_quick(activation)
    folder = Path(model.removeprefix(FOLDER))
    if model.startswith(HUB) or folder.is_dir():
        if pretrained is not None:
            raise UsageError(f"--pretrained {pretrained!r} goes with a name; {model} has its own weights")
        return _made(model if model.startswith(HUB) else f"{FOLDER}{folder}")
    name, _, tag = model.partition(".")
    _expect_supported(name)
    path = Path(pretrained) if pretrained else None
    if path is not None and path.is_dir():
        raise ClipError(f"--pretrained {pretrained} is a folder; give a file in it, or the folder as --model")
    file = path if path is not None and path.is_file() else None
    tag = tag if file else _tag_of(name, tag, pretrained)
    _guard_activation(name, tag, stated, file)
    if file is None:
        return _made(f"{name}.{tag}")
    if not tag:
        _expect_one_way(name)
    return _made_of_file(f"{name}.{tag}" if tag else name, file)


def untrained(model: str) -> Any:
    """A model of an architecture with random weights, for its sizes and speed.

    Raises:
        ClipError: unknown or unsupported.
    """
    import timm

    name, _, tag = model.partition(".")
    _expect_supported(name)
    if tag:
        _tag_of(name, tag, None)
    try:
        return timm.create_model(model, pretrained=False, num_classes=0)
    except REFUSALS as error:
        raise ClipError(f"cannot make {PREFIX}{model}: {told(error)}") from error


def parts_of(made: Any, model: str) -> tuple[TowerSizes, Resize]:
    """What a built model is like, and how it resizes.

    Raises:
        ClipError: it is not supported.
    """
    if reason := why_no_trunk(made):
        raise Refusal(model=model, reason=reason, nearest=nearest(PREFIX)).error()
    return trunk_sizes(made.eval()), resize_of_timm(made.pretrained_cfg)


def _tags(name: str) -> dict[str, Any]:
    """What timm knows of each tag of an architecture."""
    from timm.models import get_arch_pretrained_cfgs

    return {full_name.partition(".")[2]: config for full_name, config in get_arch_pretrained_cfgs(name).items()}


def _tag_of(name: str, tag: str, pretrained: str | None) -> str:
    """The tag that is meant: behind the name, by --pretrained, or timm's default.

    Raises:
        ClipError: there is no such one. UsageError: two are named.
    """
    import timm

    if tag and pretrained and tag != pretrained:
        raise UsageError(f"--model {PREFIX}{name}.{tag} and --pretrained {pretrained!r} name two sets of weights")
    default = timm.get_pretrained_cfg(name)
    wanted = tag or pretrained or (default.tag if default else "") or ""
    if wanted not in (tags := _tags(name)):
        raise ClipError(
            f"--pretrained {wanted!r} is no file here and no tag of {PREFIX}{name}. Tags: {', '.join(tags) or 'none'}"
        )
    return str(wanted)


def _expect_supported(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ClipError(
            f"--model {PREFIX}{name}: timm {timm.__version__} has no such architecture."
            + f" Did you mean {', '.join(PREFIX + other for other in near)}?" * bool(near)
        )
    if reason := why_not_name(name):
        raise Refusal(model=f"{PREFIX}{name}", reason=reason, nearest=nearest(f"{PREFIX}{name}")).error()


def _guard_activation(name: str, tag: str, stated: bool | None, file: Path | None) -> None:
    """Refuse an architecture whose GELU is not the one its weights were trained with."""
    import timm

    quick = name.replace("_clip_", "_clip_quickgelu_")
    if "_clip_quickgelu_" in name:
        if stated is False:
            plain = name.replace("_clip_quickgelu_", "_clip_")
            raise ClipError(f"--activation gelu: use --model {PREFIX}{plain}, not {PREFIX}{name}")
        return
    if quick == name or not timm.is_model(quick):
        return
    wants = tag in _tags(quick) if tag else stated
    if wants:
        raise ClipError(f"these weights were trained with QuickGELU: use --model {PREFIX}{quick}, not {PREFIX}{name}")
    if wants is None:
        raise UsageError(
            f"nothing in {file} says whether its weights were trained with QuickGELU, and {PREFIX}{name} has exact "
            f"GELU: use --model {PREFIX}{quick} if they were, else say --activation gelu"
        )


def _expect_one_way(name: str) -> None:
    """Refuse a file without a tag where the architecture's tags want different pictures: it would be a guess.

    Raises:
        UsageError: they do.
    """
    ways = {tag: tuple(str(getattr(config, key)) for key in TIMM_PICTURE_KEYS) for tag, config in _tags(name).items()}
    if len(set(ways.values())) > 1:
        raise UsageError(
            f"weights of {PREFIX}{name} differ in the mean, std or resizing that they expect, and a file does not say "
            f"it: name the ones it holds, as in --model {PREFIX}{name}.{next(iter(ways))}. Known: {', '.join(ways)}"
        )


def _made(name: str) -> Any:
    """With timm's own classifier first, so that every tensor must fit."""
    import timm

    try:
        made = timm.create_model(name, pretrained=True)
        made.reset_classifier(0)
        return made
    except REFUSALS as error:
        raise ClipError(
            f"cannot load {PREFIX}{name}: {told(error)}\n"
            "Without a network, give the weights as a file: --pretrained FILE.safetensors (or a state dict)."
        ) from error


def _made_of_file(name: str, path: Path) -> Any:
    """The same of a local file, with as many classes as it has; timm converts the layouts of other code."""
    import timm

    try:
        classifier = timm.get_pretrained_cfg(name).classifier
        first = classifier if isinstance(classifier, str) else (classifier or ("head",))[0]
        classes = _classes(path, f"{first}.weight")
        overlay = {"file": str(path), "num_classes": classes, "custom_load": False}
        made = timm.create_model(name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
        made.reset_classifier(0)
        return made
    except REFUSALS as error:
        raise ClipError(f"cannot load {PREFIX}{name} with {path}: {told(error)}") from error


def _classes(path: Path, weight: str) -> int:
    """Rows of the classifier in a file; 0 where it has none."""
    from timm.models import load_state_dict

    if path.suffix == ".safetensors" and weight not in tensor_names(path):
        return 0
    state = load_state_dict(str(path), device="cpu", weights_only=True)
    return len(state[weight]) if weight in state else 0
