"""Opens the splits of a cache that a command works on: the named ones, or all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidxfer.pipeline.cache.remote import RemotePath
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import MAKE_IT, open_split, splits
from vidxfer.pipeline.errors import CacheError, UsageError


def open_splits(cache: Path | str | RemotePath, names: Sequence[str] | None = None) -> list[Split]:
    """The named splits of a cache, opened in that order. Without names, all splits; there is at least one.

    Raises:
        CacheError: no cache there, or a split that cannot be opened. UsageError: it has no split of that name.
    """
    stored = splits(cache)
    if not stored:
        raise CacheError(f"no cache at {cache}: no */zarr.json there. Make it with `{MAKE_IT} {cache}`.")
    if unknown := [name for name in names or () if name not in stored]:
        raise UsageError(f"{cache} has no split {unknown[0]!r}; it has {', '.join(stored)}")
    return [open_split(cache, name) for name in names or stored]
