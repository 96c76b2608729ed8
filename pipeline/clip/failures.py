"""What the libraries raise on a model or a file they cannot use, and what is told of it."""

from __future__ import annotations

import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

MOST_LINES, MOST_WIDTH = 20, 400
"""Of what a library says of a failure."""

REFUSALS = (RuntimeError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError,
            EOFError, ImportError, MemoryError, StopIteration, pickle.UnpicklingError, SafetensorError,
            struct.error, zipfile.BadZipFile)  # fmt: skip
"""What open_clip, timm, torch and safetensors raise on a model or a file they cannot use."""


def told(error: BaseException) -> str:
    """What a library says of a failure, without what does not help: at most so many lines."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    more = [f"… and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join(
        [*(line if len(line) <= MOST_WIDTH else line[:MOST_WIDTH] + "…" for line in lines[:MOST_LINES]), *more]
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep log lines of the libraries and open_clip's QuickGELU warning off screen: activation.py raises instead."""
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
