"""metrics.jsonl and TensorBoard: the same numbers for programs and for people.

After a crash both are cut back to the step of the checkpoint. The curve then has no gap and no repeated part.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.reading import lines, opened, parsed
from vidxfer.pipeline.writing import make_folder, open_growing, whole_file

MOST_LINE_BYTES = 1 << 20


STATUS = Path("/proc/self/status")
"""Linux's file about the process itself."""


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: torch's on a CUDA device, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():  # getrusage has what the process had that started this one, if that was more
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        if kilobytes := [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]:
            return 1024 * kilobytes[0]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


class Journal:
    """Appends metrics of a run. It is a context manager.

    Args:
        path: the run folder.
        after_step: lines of later steps are dropped, because those steps will be done again.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        self._file = path / "metrics.jsonl"
        _cut_back(self._file, after_step)
        board = path / "tensorboard"
        make_folder(board, below=path)
        self._lines = os.fdopen(open_growing(self._file), "a", encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from tensorboard's own imports
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(
                str(board),
                purge_step=after_step + 1 if after_step else None,
                filename_suffix=f".{uuid.uuid4().hex}",  # a name for which nobody has laid out a link
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def add(self, step: int, **numbers: Any) -> None:
        """Append one line {"step": step, …}. Numbers also go to TensorBoard."""
        self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)


def _cut_back(file: Path, after_step: int) -> None:
    """Rewrite the file without the lines of later steps. Only one line is in memory at a time."""
    try:
        with opened(file, error=RunError) as old, whole_file(file) as new:
            for line in lines(old, file, most=MOST_LINE_BYTES, error=RunError):
                try:
                    entry = parsed(line)
                except ValueError:
                    continue  # a crash cut this line; its step will be done again
                step = entry.get("step", after_step + 1) if isinstance(entry, dict) else None
                if isinstance(step, int | float) and step <= after_step:
                    new.write(line.rstrip(b"\n") + b"\n")
    except FileNotFoundError:
        return


def metrics_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, one in memory at a time.

    Raises:
        RunError: a line is no JSON, or there is no such file.
    """
    file = path / "metrics.jsonl"
    try:
        with opened(file, error=RunError) as metrics:
            for line in lines(metrics, file, most=MOST_LINE_BYTES, error=RunError):
                yield parsed(line)
    except (FileNotFoundError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged: {error}") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics.jsonl; raises as `metrics_of`."""
    return list(metrics_of(path))
