"""Write one shard of a cache into a new cache, row by row, where its files cannot be copied as they are.

    reader ─▶ codes, scales, embedding, views, JPEGs of a row ─▶ (decoded, quantised anew) ─▶ ShardWriter

Files cannot be copied if the new cache has fewer views, or if the views of the old cache lie in several parts.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vidxfer.pipeline.cache.layout import STORED
from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.batch import Codes, TokenReader
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.shard_writer import ShardWriter
from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import NOT_KNOWN
from vidxfer.stages.progress import Bar

Quantise = Callable[[Codes], tuple[Tensor, Tensor | None]]
"""What a row's codes and scales become in the new cache; on the CPU."""


def as_they_are(read: Codes) -> tuple[Tensor, Tensor | None]:
    """The same codes, where the codec stays."""
    return read.codes, read.scale


def rewrite_shard(reader: TokenReader, target: Split, writer: ShardWriter, bar: Bar, quantise: Quantise) -> None:
    """Write one shard of a split that has the rows of the reader's, and the first of its views."""
    source, kept = reader.split, range(target.spec.stored_views)
    record = source.record_of(writer.shard)
    frames = None if source.frames is None else FrameReader(reader)
    fail_rows(reader, writer, record, bar)
    writer.take_notes(record)
    for row in writer.rows:
        if reader.state[row] != STORED:
            continue
        codes, scale = quantise(reader.read([row] * len(kept), kept, target.spec.layers))
        frame_count, height_px, width_px = reader.source_of(row)
        writer.add(
            row,
            codes,
            scale,
            reader.embedding([row] * len(kept), kept),
            [reader.view(row, view) for view in kept],
            frame_count=frame_count,
            source_px=(height_px, width_px),
            source_file=reader.file_of(row) or NOT_KNOWN,
            frames=None if frames is None else [[bytes(jpeg) for jpeg in frames.files(row, view)] for view in kept],
        )
        bar.advance()


def fail_rows(reader: TokenReader, writer: ShardWriter, record: ShardRecord, bar: Bar) -> None:
    """Note again what failed, for the same reasons."""
    reasons = {failure.id: failure for failure in record.failed}
    for row in writer.rows:
        if reader.state[row] != STORED:
            failure = reasons[reader.split.video_ids[row]]
            writer.fail(row, VideoError(VideoReason(failure.reason), failure.id, failure.detail))
            bar.advance()
