"""From a model name and a weights source to a `Tower`, or an error that says what to do.

    --model ViT-B-16-quickgelu --pretrained openai          a name and a tag of open_clip (downloads once)
    --model ViT-B-16-quickgelu --pretrained weights.safetensors   a name and a local file
    --model ViT-B-16-quickgelu --pretrained ViT-B-16.pt           OpenAI's own file (archive.py)
    --model ./my-clip                                       a folder with open_clip_config.json and weights
    --model timm:vit_base_patch16_dinov3                    timm's towers, which have no text (from_timm.py)
    --model ./my-timm                                       a folder with timm's config.json and weights

Weights are never random: a tower without weights is an error. Files are read as safetensors or with
torch.load(weights_only=True); nothing in them can run.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.clip import from_open_clip, from_timm
from vidxfer.pipeline.clip.activation import CONFIG
from vidxfer.pipeline.clip.describe import without_numbers
from vidxfer.pipeline.clip.failures import quiet
from vidxfer.pipeline.clip.tower import Tower, TowerInfo, hash_weights
from vidxfer.pipeline.clip.trunk import TrunkTower
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.precision import tower_precision


def choose_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU.

    Raises:
        UsageError: a device this machine does not have, or a name torch does not know.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device!r} is not a device torch knows; use auto, cpu or cuda:0") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {device} was asked for, but torch {torch.__version__} sees no CUDA device here")
    return chosen


def load_tower(
    model: str,
    pretrained: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    resize: str | None = None,
    activation: str | None = None,
) -> Tower:
    """Load a frozen tower.

    Args:
        model: name of open_clip, "timm:" and a name of timm, "hf-hub:" and a repository, or a folder with config and
            weights.
        pretrained: tag or local file; None: "openai" for a name, a folder's or repository's own weights.
        device, precision: see `choose_device`, `tower_precision`.
        resize: another way to resize than the tower's own; see `Resize.overridden`.
        activation: "gelu" or "quickgelu", where nothing says what the weights were trained with.

    Raises:
        ClipError: unknown name or tag, weights that do not fit or cannot be fetched, an activation that is not the
            one the weights were trained with, a tower that is not supported. UsageError: options that do not go
            together.
    """
    where = choose_device(device)
    chosen = tower_precision(precision, where)
    with quiet():
        if (name := _name_in_timm(model)) is not None:
            made, tokenizer = from_timm.create(name, pretrained, activation), None
        else:
            made = from_open_clip.create(model, pretrained, activation)
            from_open_clip.adapter_of(made, model)  # refused before its tokenizer is fetched
            tokenizer = from_open_clip.tokenizer_of(model)
        return _tower(made, tokenizer, model, hash_weights(made), where, chosen, resize)


def untrained_tower(
    model: str, *, device: str = "auto", precision: str = "auto", resize: str | None = None, numbers: bool = True
) -> Tower:
    """An image tower of the right sizes with random weights: for planning (sizes and speed), never for features.

    Args:
        model: see `load_tower`. A folder's or a repository's own weights are loaded.
        device, precision, resize: as there.
        numbers: false: there are none, on no device: it tells sizes, takes no memory, and cannot run.

    Raises:
        ClipError: unknown name, or a tower that is not supported.
    """
    where = choose_device(device)
    chosen = tower_precision(precision, where)
    if folder_of(model) is not None or "hf-hub:" in model:
        return load_tower(model, device=device, precision=precision, resize=resize)
    with quiet(), nullcontext() if numbers else without_numbers():
        name = _name_in_timm(model)
        made = from_open_clip.untrained(model) if name is None else from_timm.untrained(name)
        return _tower(made, None, model, "untrained", where if numbers else torch.device("meta"), chosen, resize)


def folder_of(model: str) -> Path | None:
    """The folder that --model names; None where it names none."""
    folder = Path(model.removeprefix(from_timm.PREFIX).removeprefix(from_open_clip.FOLDER))
    return folder if folder.is_dir() or from_open_clip.FOLDER in model else None


def whole_name(model: str) -> str:
    """The same with a folder's whole path, so that it is found from anywhere."""
    folder = folder_of(model)
    prefix = from_timm.PREFIX * model.startswith(from_timm.PREFIX)
    return model if folder is None else f"{prefix}{folder.absolute()}"


def _name_in_timm(model: str) -> str | None:
    """What timm is asked for; None: the model is open_clip's."""
    if model.startswith(from_timm.PREFIX):
        return model.removeprefix(from_timm.PREFIX)
    folder = folder_of(model)
    if folder is not None and not (folder / CONFIG).is_file() and from_timm.is_timm_folder(folder):
        return str(folder)
    return None


def _tower(
    made: Any, tokenizer: Any, model: str, weights: str, where: torch.device, precision: str, resize: str | None
) -> Tower:
    if _name_in_timm(model) is not None:
        kind: type[Tower] = TrunkTower
        (sizes, own), picture = from_timm.parts_of(made, model), made.pretrained_cfg
        text: dict[str, Any] = {"has_text": False, "logit_scale": 1.0}
    else:
        kind, sizes, own = from_open_clip.adapter_of(made, model)
        picture = made.visual.preprocess_cfg
        bias = getattr(made, "logit_bias", None)
        scale = getattr(made, "logit_scale", None)  # None: an image tower alone
        text = {
            "logit_scale": 1.0 if scale is None else float(scale.detach().exp()),
            "logit_bias": None if bias is None else float(bias.detach()),
        }
    folder = folder_of(model)
    info = TowerInfo(
        model=model if folder is None else folder.resolve().name,
        weights_sha256=weights,
        precision=precision,
        pixel_mean=_three(picture["mean"]),
        pixel_std=_three(picture["std"]),
        resize=own.overridden(resize),
        blocks_of="timm" if kind is TrunkTower else "clip",
        **text,
        **vars(sizes),
    )
    return kind(made, tokenizer, info, where)


def _three(numbers: Any) -> tuple[float, float, float]:
    red, green, blue = (float(number) for number in numbers)
    return red, green, blue
