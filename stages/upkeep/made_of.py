"""The sources of a new cache: the finished splits of another cache, and the shards that are still to be written.

SRC ─ splits, all finished? ─ settings of the new ones ─ room on the disk? ─▶ (split, settings) ─▶ pending shards
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import splits
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.stages.room import expect_room_for

RECODED_FROM = "recoded_from"
"""Name among what informs, of what a recoded split was made from."""


def open_sources(
    source: Path, target: Path, names: Sequence[str] | None, spec_of: Callable[[Split], CacheSpec]
) -> list[tuple[Split, CacheSpec]]:
    """The splits that a new cache is made of, each with the settings it gets there; the disk has room for all.

    Raises:
        UsageError: source and target are one, or no such split. CacheIncomplete: the source has pending shards.
        CacheFull: the disk is too small.
    """
    if source.resolve() == target.resolve():
        raise UsageError(f"{target} is the cache itself: give another folder with --to")
    pairs = []
    for whole in open_splits(source, names):
        spec = spec_of(whole)
        pairs.append((whole.up_to(spec.views), spec))
    for split, _ in pairs:
        expect_finished(split)
    made = splits(target)
    expect_room_for(target, [replace(split.layout, spec=spec) for split, spec in pairs if spec.split not in made])
    return pairs


def expect_finished(source: Split) -> None:
    """Raise CacheIncomplete where a shard of the source is pending."""
    pending = source.shard_count - len(source.finished())
    if pending:
        raise CacheIncomplete(
            f"{source.path}: {pending} of {source.shard_count} shards are pending. `vidxfer extract` finishes them; "
            "then run the same command again."
        )


def to_write(source: Split, writer: SplitWriter) -> list[int]:
    """Shards of the new split that are pending, or of which the source has stored other rows since."""
    pending, before, now = set(writer.pending()), source.finished(), writer.split.ledger.finished()
    outdated = {k for k, record in now.items() if _refused(record) != _refused(before[k])}
    return sorted(pending | outdated)


def _refused(record: ShardRecord) -> set[str]:
    return {failure.id for failure in record.failed}


def origin(split: Split) -> dict[str, Any]:
    """What a new split remembers of the one it was made from, and of the one that was made from."""
    remembered: dict[str, Any] = {
        "codec": split.spec.codec, "layers": list(split.spec.layers), "cache_id": split.cache_id,
        "fingerprint": split.spec.fingerprint,
    }  # fmt: skip
    return {**remembered, RECODED_FROM: split.informs[RECODED_FROM]} if RECODED_FROM in split.informs else remembered
