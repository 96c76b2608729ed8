"""torch.compile for a head: is there a compiler, and which batches go through it.

    batch of the size that was compiled ─▶ compiled head        any other size (videos that could not be read) ─▶ eager

A compiled head is the same function in another order of additions: equal up to rounding. Shapes are static.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from vidxfer.pipeline.errors import UsageError

BACKEND = "inductor"
"""Of torch.compile."""

OPTIONS = {"fallback_random": True}
"""Dropout then draws the numbers that it draws without a compiler."""


def expect_compiler(device: torch.device) -> None:
    """Check that what torch.compile calls is installed: a C++ compiler on a CPU; triton and a C compiler on CUDA.

    Raises:
        UsageError: it is missing; the text says what to install.
    """
    if device.type == "cuda":
        compilers, variable, install = ["gcc", "clang"], "CC", "gcc"
        if importlib.util.find_spec("triton") is None:
            raise UsageError(_missing("triton is not installed", "`pip install triton` (Linux)"))
    else:
        compilers, variable, install = ["g++"], "CXX", "g++"
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([named] if named else compilers)):
        problem = f"{variable}={named} is no program" if named else f"{' or '.join(compilers)} is not in PATH"
        raise UsageError(_missing(problem, f"{install}, or name another one with {variable}=…"))


def _missing(problem: str, remedy: str) -> str:
    return (
        f"--compile (compile=true): torch.compile needs a compiler, and {problem}. Install {remedy}; or leave it out."
    )


def compile_head(head: nn.Module) -> None:
    """Let every call of the head go through torch.compile; the first call of each shape and mode takes a while."""
    options = OPTIONS if BACKEND == "inductor" else None
    head.compile(backend=BACKEND, options=options, dynamic=False)


def compiled_for(clips: int, expected: int) -> AbstractContextManager[object]:
    """What a forward of `clips` clips runs in, where `expected` were compiled: other sizes are not compiled for."""
    return nullcontext() if clips == expected else torch.compiler.set_stance("force_eager")
