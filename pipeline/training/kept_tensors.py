"""Files of tensors in a checkpoint: written as they are, read with a limit on their size, every damage named.

{name: tensor} ─▶ weights.safetensors ─▶ {name: tensor} of the names and shapes that are wanted, or a RunError
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vidxfer.pipeline.errors import PathError, RunError
from vidxfer.pipeline.reading import read_bytes
from vidxfer.pipeline.training.weights import misfits
from vidxfer.pipeline.writing import whole_file

MOST_OVERHEAD_BYTES = 64 << 20
"""Largest part of a weights file that is not numbers: names, shapes and types."""


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors from any device, whole or not at all."""
    with whole_file(file) as whole:
        whole.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def read_tensors(file: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file in a checkpoint, with the names and shapes of `wanted`, on the CPU.

    Raises:
        RunError: there is no such file, it is damaged, or its tensors are others; the text names every mismatch.
    """
    if not file.exists():
        raise RunError(f"{file.parent.parent} has no checkpoint yet: {file} is missing. Train first: vidxfer train")
    with damage_named(file):
        tensors = load(read_bytes(file, most=bytes_of(wanted.values()) + MOST_OVERHEAD_BYTES))
    if wrong := misfits(tensors, wanted):
        raise RunError("\n".join([f"{file} does not fit the head:", *wrong]))
    return tensors


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Convert errors from reading a missing or damaged checkpoint file to a RunError that names the file."""
    try:
        yield
    except (OSError, PathError, SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError,
            TypeError) as error:  # fmt: skip
        raise RunError(
            f"{file} is missing or damaged: {error}\nPut it back, or train into another folder with --run."
        ) from error


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the numbers."""
    return sum(value.numel() * value.element_size() for value in tensors)
