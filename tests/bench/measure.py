"""Measuring: several things in turn, what autograd keeps, and on what machine.

Everything compared is timed once per round, round after round, so that a busy moment of the machine hits all of it.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent.parent
SLOW_SECONDS, SLOW_ROUNDS = 4.0, 3
"""What is only compared with is timed in fewer rounds where it takes longer than this."""


CLOCKS = {"wall": time.perf_counter, "cores": time.process_time}
"""By the clock on the wall, or as core-seconds: with one thread these do not grow when others use the machine too."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of each counted round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        """Median and least, in milliseconds where seconds would be zeros."""
        scale, digits = (1e3, 1) if self.median < 0.1 else (1, 2)
        unit = "ms" if scale == 1e3 else "s"
        return f"{scale * self.median:.{digits}f} ({scale * min(self.seconds):.{digits}f}) {unit}"


def in_turn(
    work: dict[str, Callable[[], object]], rounds: int, clock: str, yardsticks: tuple[str, ...] = ()
) -> dict[str, Timing]:
    """Time each of `work` once per round, after one round that is not counted; slow yardsticks in fewer rounds."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, run in work.items():
            done = seconds[name]
            if name in yardsticks and len(done) > SLOW_ROUNDS and done[0] > SLOW_SECONDS:
                continue
            start = now()
            run()
            done.append(now() - start)
    return {name: Timing(seconds=tuple(done[1:])) for name, done in seconds.items()}


def kept_bytes(forward: Callable[[], object], owned: Iterable[Tensor]) -> int:
    """Bytes that a forward keeps for its backward beside what is `owned` anyway: weights and inputs."""
    known = {tensor.untyped_storage().data_ptr() for tensor in owned}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(count for _, count in kept.values())


def machine() -> str:
    """Processor, cores, versions, commit, date, and how busy the machine was."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    named = [text.partition(":")[2].strip() for text in info.splitlines() if text.startswith("model name")]
    units = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in info]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"{named[0] if named else platform.machine()} ({' '.join(units) or 'no wide units'}), {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads; Python {platform.python_version()}, torch {torch.__version__}; "
        f"commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}; "
        f"load of the machine before the run {os.getloadavg()[0]:.1f}"
    )


def write_block(document: Path, name: str, text: str) -> None:
    """Put text between the two comments of that name; a document that lacks them gets them at its end."""
    begin, end = f"<!-- made by make bench: {name} -->\n", f"<!-- end of {name} -->"
    whole = document.read_text(encoding="utf-8") if document.exists() else ""
    if begin not in whole:
        whole = whole.rstrip("\n") + f"\n\n{begin}{end}\n"
    head, _, rest = whole.partition(begin)
    document.write_text(head + begin + "\n" + text.strip() + "\n\n" + end + rest.partition(end)[2], encoding="utf-8")
