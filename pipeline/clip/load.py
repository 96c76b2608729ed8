"""From a model name and a weights source to a `ClipTower`, or an error that says what to do.

    --model ViT-B-16-quickgelu --pretrained openai          a name and a tag of open_clip (downloads once)
    --model ViT-B-16-quickgelu --pretrained weights.safetensors   a name and a local file
    --model ViT-B-16-quickgelu --pretrained ViT-B-16.pt           OpenAI's own file (archive.py)
    --model ./my-clip                                       a folder with open_clip_config.json and weights

Weights are never random: a tower without weights is an error. Files are read as safetensors or with
torch.load(weights_only=True); nothing in them can run.
"""

from __future__ import annotations

import difflib
import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vidxfer.pipeline.clip.archive import is_torchscript, read_torchscript
from vidxfer.pipeline.clip.tower import ClipTower, TowerInfo, hash_weights
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.precision import tower_precision

DEFAULT_TAG = "openai"
MOST_LINES, MOST_WIDTH = 20, 400
"""Of what a library says of a failure."""


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
) -> ClipTower:
    """Load a frozen CLIP tower.

    Args:
        model: open_clip name, or a folder with open_clip_config.json and weights.
        pretrained: tag or local file; None: "openai" for a name, the folder's own weights for a folder.
        device, precision: see `choose_device`, `tower_precision`.

    Raises:
        ClipError: unknown name or tag, weights that do not fit or cannot be fetched, an activation that is not the
            one the weights were trained with, a tower that is not a plain vision transformer.
    """
    import open_clip

    where = choose_device(device)
    chosen = tower_precision(precision, where)
    name, source = _resolve(open_clip, model, pretrained)
    with _quiet():
        loaded = _create(open_clip, name, source)
        tokenizer = _tokenizer(open_clip, name)
    info = _describe(loaded, model, chosen)
    return ClipTower(loaded, tokenizer, info, where)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's log lines and its QuickGELU warning off the terminal: `_guard_activation` raises instead."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        root.setLevel(level)


def _resolve(open_clip: Any, model: str, pretrained: str | None) -> tuple[str, str | None]:
    """The name and source open_clip understands; guards run before anything is downloaded."""
    folder = Path(model.removeprefix("local-dir:"))
    if model.startswith(("hf-hub:",)):
        return model, None
    if model.startswith("local-dir:") or folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            raise ClipError(f"--model {folder}: a model folder needs open_clip_config.json and weights; it has neither")
        if pretrained is not None:
            raise UsageError(
                f"--pretrained {pretrained!r} goes with a model name; the folder {folder} has its own weights"
            )
        return f"local-dir:{folder}", None
    name = model.replace("/", "-")
    _expect_known(open_clip, name, model)
    source = pretrained or DEFAULT_TAG
    _guard_activation(open_clip, name, source)
    return name, source


def _short_name(model: str) -> str:
    """A folder's own name, however it was written; other names as they are."""
    folder = Path(model.removeprefix("local-dir:"))
    return folder.resolve().name if folder.is_dir() else model


def _expect_known(open_clip: Any, name: str, model: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ClipError(
            f"--model {model!r} is no open_clip model and no folder."
            + (f" Did you mean {', '.join(near)}?" if near else " See open_clip.list_models().")
        )


def _guard_activation(open_clip: Any, name: str, source: str) -> None:
    """Refuse a tower whose GELU is not the one its weights were trained with: features would be silently wrong."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    is_file = Path(source).is_file()
    if Path(source).is_dir():
        raise ClipError(f"--pretrained {source} is a folder; give a file in it, or the folder as --model")
    if not is_file and source not in tags:
        if f"{name}-quickgelu" in open_clip.list_models() and source in open_clip.list_pretrained_tags_by_model(
            f"{name}-quickgelu"
        ):
            raise ClipError(f"weights {source!r} were trained with QuickGELU: use --model {name}-quickgelu, not {name}")
        raise ClipError(
            f"--pretrained {source!r} is no file here and no tag of {name}. Tags: {', '.join(tags) or 'none'}"
        )
    has_quick = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    if is_file:
        wants_quick = "openai" in Path(source).name.lower() or is_torchscript(Path(source)) or has_quick
    else:
        from open_clip.pretrained import get_pretrained_cfg

        wants_quick = bool(get_pretrained_cfg(name, source).get("quick_gelu", False))
    if wants_quick and not has_quick:
        raise ClipError(f"weights {source!r} were trained with QuickGELU: use --model {name}-quickgelu, not {name}")
    if has_quick and not wants_quick:
        plain = name.removesuffix("-quickgelu")
        raise ClipError(f"weights {source!r} were trained with exact GELU: use --model {plain}, not {name}")


_REFUSALS = (RuntimeError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError,
             EOFError, ImportError, MemoryError, StopIteration, pickle.UnpicklingError, SafetensorError,
             struct.error, zipfile.BadZipFile)  # fmt: skip
"""What open_clip, torch and safetensors raise on a model or a file they cannot use."""


def _create(open_clip: Any, name: str, source: str | None) -> Any:
    archive = source is not None and is_torchscript(Path(source))
    try:
        if not archive:
            return open_clip.create_model(
                name, pretrained=source, precision="fp32", device="cpu", require_pretrained=True
            )
        made = open_clip.create_model(name, load_weights=False, precision="fp32", device="cpu")
        made.load_state_dict(read_torchscript(Path(str(source))))
        return made
    except _REFUSALS as error:
        raise ClipError(
            f"cannot load {name}{f' with {source}' if source else ''}: {_told(error)}\n"
            "Without a network, give the weights as a file: --pretrained FILE.safetensors (a state dict .pt, or "
            "OpenAI's own file)."
        ) from error


def _tokenizer(open_clip: Any, name: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    except _REFUSALS as error:
        raise ClipError(f"cannot make the tokenizer of {name}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """What a library says of a failure, without what does not help: at most so many lines."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    more = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join(
        [*(line if len(line) <= MOST_WIDTH else line[:MOST_WIDTH] + "…" for line in lines[:MOST_LINES]), *more]
    )


def _describe(loaded: Any, model: str, precision: str) -> TowerInfo:
    from open_clip.transformer import VisionTransformer

    visual = loaded.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
        raise ClipError(
            f"{model} has an image tower of type {type(visual).__name__}; taps need a plain CLIP vision transformer "
            "with a CLS token (ViT-B-32, ViT-B-16, ViT-L-14 and their -quickgelu forms)"
        )
    height, width = visual.image_size
    if height != width:
        raise ClipError(f"{model} sees {height}x{width} pictures; views are square")
    preprocess = visual.preprocess_cfg
    return TowerInfo(
        model=_short_name(model),
        weights_sha256=hash_weights(loaded),
        precision=precision,
        channels=int(visual.class_embedding.shape[0]),
        tokens=int(visual.positional_embedding.shape[0]),
        embed=int(visual.output_dim),
        blocks=len(visual.transformer.resblocks),
        image_px=int(height),
        pixel_mean=tuple(preprocess["mean"]),
        pixel_std=tuple(preprocess["std"]),
        logit_scale=float(loaded.logit_scale.detach().exp()),
    )


def untrained_tower(model: str, *, device: str = "auto", precision: str = "auto") -> ClipTower:
    """A tower of the right sizes with random weights: for planning (sizes and speed), never for features.

    Raises:
        ClipError: unknown name, or a tower that is not a plain vision transformer.
    """
    import open_clip

    where = choose_device(device)
    chosen = tower_precision(precision, where)
    folder = Path(model.removeprefix("local-dir:"))
    with _quiet():
        if folder.is_dir() or model.startswith("local-dir:"):
            return load_tower(model, device=device, precision=precision)  # its weights are at hand
        name = model.replace("/", "-")
        _expect_known(open_clip, name, model)
        try:
            loaded = open_clip.create_model(name, pretrained=None, load_weights=False, device="cpu")
        except _REFUSALS as error:
            raise ClipError(f"cannot make {name}: {_told(error)}") from error
    info = _describe(loaded, model, chosen)
    return ClipTower(loaded, None, replace(info, weights_sha256="untrained"), where)
