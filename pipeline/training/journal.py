"""metrics.jsonl and TensorBoard: the same numbers twice, one to read by program and one to look at.

After a crash both are cut back to the step of the checkpoint, so that the curve has neither a gap nor a double part.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Self

from vidxfer.pipeline.typed import checked, parsed


class Journal:
    """Appends metrics of a run; a context manager.

    Args:
        path: the run folder. after_step: lines of later steps are dropped (they will be done again).
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        self._file = path / "metrics.jsonl"
        _cut_back(self._file, after_step)
        self._lines = self._file.open("a", encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own imports
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(path / "tensorboard"), purge_step=after_step + 1 if after_step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def add(self, step: int, **numbers: Any) -> None:
        """One line: {"step": step, …}; numbers also go to TensorBoard."""
        self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)


def _cut_back(file: Path, after_step: int) -> None:
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            step = checked(parsed(line)["step"], int, "step")
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # torn by a crash, and its step is done again; or no line of ours
        if step <= after_step:
            kept.append(line + "\n")
    part = file.with_name(file.name + ".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(file)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics.jsonl."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
