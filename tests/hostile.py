"""What a stranger may hand us, and how a test asks: odd values at any place, no endless wait, a kill at any step."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zarr

ODD: list[Any] = [
    None, 0, -1, 1, 2**31, 2**40, 2**70, 1e308, float("inf"), float("nan"), 0.5, True, "", "x" * 10_000, "\udc80", [],
    {}, [[]], [None], [2**40], {"a": 1}, [["a"]], "../../x",
]  # fmt: skip
"""Values that a JSON document of ours has nowhere, or not at the place that is changed."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document, at any depth; of a long list the first and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for position in sorted({0, len(value) - 1} - {-1}):
            yield from places(value[position], (*path, position))


def changed(document: Any, path: tuple[Any, ...], change: str, odd: Any) -> Any:
    """A copy of it with one value replaced, left out ("remove"), or with one more beside it ("add")."""
    made = copy.deepcopy(document)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    if change == "replace":
        inner[path[-1]] = odd
    elif change == "remove":
        del inner[path[-1]]
    elif isinstance(inner, dict):
        inner["unheard of"] = odd
    else:
        inner.append(odd)
    return made


class Hangs(BaseException):
    """Nobody answered in time."""


@contextmanager
def in_time(seconds: float = 20) -> Iterator[None]:
    """End what waits for a pipe."""

    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Killed(BaseException):
    """Ends a process at one of its steps."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The `step`-th rename or write of the block does not happen, and nothing after it; yields how many were done."""
    done = [0]
    rename, setitem = os.rename, zarr.Array.__setitem__

    def counting(real: Any) -> Any:
        def work(*arguments: Any, **words: Any) -> Any:
            if done[0] == step:
                raise Killed
            done[0] += 1
            return real(*arguments, **words)

        return work

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # the machine goes on, only the process ends
        patch.setattr(os, "rename", counting(rename))
        patch.setattr(zarr.Array, "__setitem__", counting(setitem))
        yield done
