"""Reads weight files from other projects and writes files for them. Only tensors are read: no code in a file can run.

FILE.pyth          torch pickle {"model_state" or "model": {key: tensor}, …}, read with weights_only=True
FILE.safetensors   {key: tensor}, settings as JSON in its metadata
"""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vidxfer.pipeline.errors import WeightsError
from vidxfer.pipeline.reading import expect_unpacked, opened
from vidxfer.pipeline.writing import make_folder, whole_file

STATES = ("model_state", "model_state_dict", "model")
"""Keys that hold the tensors in released files. Other files have their tensors at the top level."""
SETTINGS = "vidxfer"
"""Key of the settings in the metadata of our safetensors files."""

_DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
           AttributeError, AssertionError, MemoryError, struct.error, SafetensorError)  # fmt: skip
"""What torch and safetensors raise on bytes that are no checkpoint."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its key, on the CPU, in its stored type.

    Raises:
        WeightsError: there is no such file, it is no checkpoint or damaged, or it holds other objects than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not a file: give the checkpoint itself, like FILE.pyth")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with opened(path, error=WeightsError) as file:
            expect_unpacked(file, path, error=WeightsError)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path} cannot be read as a checkpoint: it is damaged, of another kind, or holds more than tensors and "
            f"plain values, which is refused because loading such a file could run code in it ({first})"
        ) from error
    return _tensors(path, loaded)


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    state = next((loaded[key] for key in STATES if key in loaded), loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path} holds {_kind(state)}, expected {{{STATES[0]!r}: {{key: tensor}}}}")
    others = [
        f"  {key!r}: {_kind(value)}"
        for key, value in state.items()
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided)
    ]
    if others:
        raise WeightsError("\n".join([f"{path}: these entries are no plain tensors:", *others[:20]]))
    return dict(state)


def _kind(value: object) -> str:
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) and not value else type(value).__name__


def write_checkpoint(path: Path, state: Mapping[str, Tensor], under: str) -> None:
    """Write {under: state} as torch.load(weights_only=True) reads it, whole or not at all.

    Raises:
        WeightsError: `path` exists, or it cannot be written.
    """
    _make_room(path)
    with whole_file(path) as file:
        torch.save({under: OrderedDict(state)}, file)


def write_safetensors(path: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write tensors and their settings, whole or not at all.

    Raises:
        WeightsError: `path` exists, or it cannot be written.
    """
    _make_room(path)
    named = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole_file(path) as file:
        file.write(save(named, metadata={"format": "pt", SETTINGS: json.dumps(settings)}))


def _make_room(path: Path) -> None:
    expect_free(path)
    try:
        make_folder(path.parent)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error}") from error


def expect_free(path: Path) -> None:
    """Check that no file would be overwritten.

    Raises:
        WeightsError: `path` exists.
    """
    if path.exists():
        raise WeightsError(f"{path} already exists and is not overwritten: name another file, or remove it first")


def misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Every name and every shape in which the tensors of a file are not those of a head, a line each."""
    lines = [f"  {name}: in the file only" for name in sorted(weights.keys() - wanted.keys())]
    lines += [f"  {name}: missing in the file" for name in sorted(wanted.keys() - weights.keys())]
    return lines + [
        f"  {name}: file has {tuple(weights[name].shape)}, head has {tuple(wanted[name].shape)}"
        for name in sorted(weights.keys() & wanted.keys())
        if weights[name].shape != wanted[name].shape
    ]
