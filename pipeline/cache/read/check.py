"""Checks a shard against its ledger line: every stored byte matches its crc32c, and every number is finite.

unreadable = unreadable_states(split)          {}: a reader can be opened; else without these shards
for shard in range(split.shard_count):
    damage = damage_of(reader, shard)          []: whole
    if damage:
        writer.drop(shard, damage[0])          pending again: extraction makes it anew
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from vidxfer.pipeline.cache.layout import CRC_BYTES, FAILED, STORED, AnyArray
from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.batch import Codes
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.shard import read_plain
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt
from vidxfer.pipeline.reading import opened

CLIPS_PER_READ = 4


def unreadable_states(split: Split) -> dict[int, str]:
    """Finished shards whose states cannot be read -> reason. A reader cannot be opened with them."""
    reasons = {}
    for shard in split.ledger.finished():
        array = split.layout.owned["state"]
        try:
            read_plain(split.path / array.key(shard), array)
        except CacheCorrupt as error:
            reasons[shard] = str(error)
    return reasons


def damage_of(reader: CacheReader, shard: int, record: ShardRecord | None = None) -> list[str]:
    """The damage of a finished shard, one line per file or per group of videos; empty: it is whole or pending.

    `record` is its ledger line, where the caller has read the ledger already.
    A shard that passes still holds whatever extraction computed: re-encoding a sample is another check.
    """
    split = reader.split
    record = record or split.ledger.finished().get(shard)
    if record is None:
        return []
    damage: list[str] = []
    for array in split.layout.arrays_of(record.crc32c):
        path = split.path / array.key(shard)
        if not path.is_file():
            damage.append(f"{path}: missing")
            continue
        with opened(path, error=CacheCorrupt) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            file.seek(max(file_bytes - CRC_BYTES, 0))
            crc32c = int.from_bytes(file.read(CRC_BYTES), "little")
        if file_bytes != split.layout.file_bytes(array, shard, record.bytes) or crc32c != record.crc32c[array.name]:
            damage.append(f"{path}: length or crc32c is not what the ledger says")
        elif not array.chunk_shape:
            try:
                read_plain(path, array)
            except CacheCorrupt as error:
                damage.append(str(error))
    return damage or _damaged_reads(reader, shard, record.stored, len(record.failed))


def _damaged_reads(reader: CacheReader, shard: int, stored: int, failed: int) -> list[str]:
    damage: list[str] = []
    rows = reader.split.layout.rows(shard)
    state = reader.state[rows.start : rows.stop]
    if ((state == STORED).sum(), (state == FAILED).sum()) != (stored, failed):
        damage.append(f"shard {shard}: the ledger counts {stored} stored and {failed} failed, the states differ")
    readable = [row for row in rows if reader.state[row] == STORED]
    buffer = reader.buffer(CLIPS_PER_READ)
    frames = None if reader.split.frames is None else FrameReader(reader)
    for view in range(reader.split.spec.stored_views):
        for first in range(0, len(readable), CLIPS_PER_READ):
            clips = readable[first : first + CLIPS_PER_READ]
            try:
                codes = reader.read(clips, [view] * len(clips), out=buffer)
                embedding = reader.embedding(clips, [view] * len(clips))
                damage += _not_finite(reader.split, clips, view, codes, embedding)
                for row in clips:
                    reader.view(row, view)
                    if frames is not None:
                        frames.files(row, view)
            except CacheCorrupt as error:
                damage.append(str(error))
    return damage


def _not_finite(split: Split, rows: list[int], view: int, codes: Codes, embedding: AnyArray) -> list[str]:
    """Numbers that were stored as NaN or infinity. No checksum finds these."""
    parts: dict[str, Tensor | None] = {
        "tokens": codes.codes if codes.codes.is_floating_point() else None,
        "scale": codes.scale,
        "embedding": torch.from_numpy(embedding),
    }
    damage = []
    for name, values in parts.items():
        if values is None or bool(torch.isfinite(values).all()):
            continue
        for row, part in zip(rows, values, strict=True):
            finite = torch.isfinite(part).reshape(len(part), -1).all(1).tolist()
            wrong = [
                str(split.spec.layers[index]) for index, good in enumerate(finite) if not good and name != "embedding"
            ]
            if not all(finite):
                where = f", layers {', '.join(wrong)}" if wrong else ""
                damage.append(f"{split.path / name}: video {split.video_ids[row]}, view {view}{where}: not finite")
    return damage
