"""Writing one shard: a place for every row, and all files or none.

    ShardWriter(split, shard)   add(row, …) / fail(row, error) / copy(rows, …): each row once
                                end of the block: index, fsync, rename of every file; `state` last ─▶ record

A shard is done again from its start after a crash; nothing of a part file is trusted. Memory use is the index and the
small arrays: token chunks go straight to their place in the file, dense frames behind those of the row before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from vidxfer.pipeline.cache.layout import FAILED, MAY_LACK, PENDING, STORED, AnyArray
from vidxfer.pipeline.cache.ledger import Failure, ShardRecord
from vidxfer.pipeline.cache.packed import PackedFile, packed_views
from vidxfer.pipeline.cache.shard import PlainFile, ShardFile, read_plain
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.views import view_arrays
from vidxfer.pipeline.disk import disk_errors, expect_room
from vidxfer.pipeline.errors import ClipError, VideoError
from vidxfer.pipeline.shapes import NOT_KNOWN, SourceFile, View, expect
from vidxfer.pipeline.writing import make_folder, sync_folder

TOKEN_ARRAYS = ("tokens", "scale")
"""What depends on the codec and the layers; everything else follows from the views alone."""


class ShardWriter:
    """Writes all files of one shard; they appear when the `with` block ends without an error, or not at all.

    Args:
        split: the split.
        shard: number of the shard.
        folder: where its files appear; None: in the split. Others are moved there later: see staging.py.

    Raises:
        CacheBusy: on entering, when another process is writing the same shard.
        CacheFull: when the disk cannot hold the shard.
    """

    def __init__(self, split: Split, shard: int, folder: Path | None = None) -> None:
        self.shard = shard
        self.folder = folder or split.path
        self.rows = split.layout.rows(shard)
        self.record: ShardRecord | None = None
        self._split = split
        self._bytes = split.layout.shard_bytes(shard)
        self._sharded: dict[str, ShardFile] = {}
        self._plain: dict[str, PlainFile] = {}
        self._packed: dict[str, PackedFile] = {}
        self._failed: dict[int, Failure] = {}
        self._notes: dict[str, Counter[str]] = {}
        self._without_tokens: set[int] = set()
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        expect_room(self._split.path, self._bytes)
        in_place = self.folder == self._split.path  # which may be a link, as a staging folder may not
        try:
            with disk_errors(self._split.path, self._bytes):
                for name, array in self._split.layout.owned.items():
                    final = self.folder / array.key(self.shard)
                    make_folder(final.parent, below=self.folder if in_place else self.folder.parent)
                    if array.packed_bytes is not None:
                        self._packed[name] = PackedFile(array, final, len(self.rows))
                    elif array.chunk_shape:
                        self._sharded[name] = ShardFile(array, final, len(self.rows))
                    else:
                        self._plain[name] = PlainFile(array, final)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._close()

    def add(
        self,
        row: int,
        codes: Any,
        scale: Any,
        embedding: Any,
        views: Sequence[View],
        *,
        notes: Mapping[str, str] | None = None,
        frame_count: int = 0,
        source_px: tuple[int, int] = (0, 0),
        source_file: SourceFile = NOT_KNOWN,
        frames: Sequence[Sequence[bytes]] | None = None,
    ) -> None:
        """Store one video.

        Args:
            row: row of the split; each row of the shard is added or failed once.
            codes, scale: as the split's `Quantiser` gives them: codes [view layer frame token code], scale float16
                [view layer frame token] or [view layer frame token group] or None; numpy or tensors on the CPU.
            embedding: float [view frame embed].
            views: one per stored view.
            notes: what to count in the ledger, e.g. {"decoder": "decord"}.
            frame_count, source_px: frames and (height, width) of the video; 0 = unknown.
            source_file: which file it is, where the split keeps that.
            frames: of each view the JPEGs of `FrameStore.kept`, where the split keeps frames; else None.

        Raises:
            ValueError: a shape, a type or a row is not as the spec says.
            ClipError: an embedding is not finite, or beyond float16.
        """
        spec, place = self._split.spec, self._place(row)
        parts = self._token_parts(codes, scale)
        wide = np.asarray(embedding, dtype=np.float32)
        if not (np.abs(wide) <= np.finfo(np.float16).max).all():
            raise ClipError(f"{self._split.video_ids[row]}: the CLIP embedding is not finite or exceeds float16")
        parts["embedding"] = wide.astype(np.float16)
        geometry: dict[str, Any] = view_arrays(views) if len(views) == spec.stored_views else {}
        if not geometry or geometry["frame_index"].shape[1:] != (spec.sampling.dense_frames,):
            raise ValueError(f"expected {spec.stored_views} views of {spec.sampling.dense_frames} dense frames")
        if (frames is None) != (self._split.frames is None):
            raise ValueError(
                f"{self._split.path} keeps {self._split.frames or 'no dense frames'}; the row says otherwise"
            )
        self._write_chunks(place, parts)
        if frames is not None:
            with disk_errors(self._split.path, self._bytes):
                self._add_frames(place, frames, views, frame_count)
        source = {"frame_count": frame_count, "source_px": source_px, "source_file": source_file}
        for name, values in {**geometry, **source}.items():
            if name in self._plain:
                self._plain[name].values[place] = values
        self._plain["state"].values[place] = STORED
        for note, value in (notes or {}).items():
            self._notes.setdefault(note, Counter())[value] += 1

    def add_tokens(self, row: int, codes: Any, scale: Any) -> None:
        """Store the codes of a row that was copied without them; arguments as for `add`."""
        self._without_tokens.remove(row)
        self._write_chunks(row - self.rows[0], self._token_parts(codes, scale))

    def _token_parts(self, codes: Any, scale: Any) -> dict[str, AnyArray]:
        parts = {"tokens": _as_array("codes", codes, self._sharded["tokens"].array.dtype)}
        if "scale" in self._sharded:
            parts["scale"] = _as_array("scale", scale, "float16")
        return parts

    def _write_chunks(self, place: int, parts: Mapping[str, AnyArray]) -> None:
        for name, values in parts.items():
            layout = self._sharded[name].array
            sizes = dict(zip(layout.axes.split()[1:], layout.shape[1:], strict=True))
            expect(name, values, " ".join(sizes), **sizes)
        with disk_errors(self._split.path, self._bytes):
            for name, values in parts.items():
                file = self._sharded[name]
                for inner in np.ndindex(*file.array.grid[1 : 2 if name == "embedding" else 3]):
                    file.write(values[inner], place, *inner)

    def copy(self, rows: Sequence[int], record: ShardRecord, *, tokens_apart_from: Split | None = None) -> None:
        """Take stored rows over from finished files of the same shard, each chunk compared with its checksum.

        Args:
            rows: which; each counts as added.
            record: the ledger line of those files.
            tokens_apart_from: another split with the same rows and shards, whose files are taken but for the tokens,
                which `add_tokens` then gives; None: the files that this split has now.

        Raises:
            CacheCorrupt: they are damaged.
        """
        places = [self._place(row) for row in rows]
        folder = (tokens_apart_from or self._split).path
        apart = TOKEN_ARRAYS if tokens_apart_from else ()
        with disk_errors(self._split.path, self._bytes):
            for name, sharded in self._sharded.items():
                if name not in apart:
                    sharded.copy(places, folder / sharded.array.key(self.shard))
            for packed in self._packed.values():
                packed.copy(places, folder / packed.array.key(self.shard))
        for name, plain in self._plain.items():
            if name not in MAY_LACK or name in record.crc32c:
                plain.values[places] = read_plain(folder / plain.array.key(self.shard), plain.array)[places]
        self._without_tokens.update(rows if apart else ())
        if not (self._plain["state"].values[places] == STORED).all():
            raise ValueError(f"shard {self.shard}: rows to be taken over were not all stored")
        self.take_notes(record)

    def take_notes(self, record: ShardRecord) -> None:
        """Count for the ledger what was noted of these rows when they were first stored."""
        self._notes = {note: Counter(counts) for note, counts in record.notes.items()}

    def _add_frames(
        self, place: int, frames: Sequence[Sequence[bytes]], views: Sequence[View], frame_count: int
    ) -> None:
        sampling, store = self._split.spec.sampling, self._split.frames
        assert store is not None, "asked before"
        counts = [len(files) for files in frames]
        wanted = [len(store.kept(view.indices, sampling.alpha, frame_count)) for view in views]
        if counts != wanted:
            each = ", ".join(str(count) for count in dict.fromkeys(wanted))
            raise ValueError(f"expected {len(views)} views of {each} JPEGs, not {counts}")
        rows = store.most_kept(sampling.dense_frames, sampling.alpha)
        chunks, lengths = packed_views(frames, store.most_bytes, rows)
        self._packed["frames"].write(place, chunks)
        self._plain["frame_bytes"].values[place] = lengths

    def fail(self, row: int, error: VideoError) -> None:
        """Note that a video could not be read, and why."""
        place = self._place(row)
        with disk_errors(self._split.path, self._bytes):
            for file in self._packed.values():
                file.skip(place)
        self._failed[row] = Failure(id=self._split.video_ids[row], reason=error.reason.value, detail=error.detail)
        self._plain["state"].values[place] = FAILED

    def _place(self, row: int) -> int:
        if row not in self.rows:
            raise ValueError(f"row {row} is not in shard {self.shard}, which has rows {self.rows[0]}..{self.rows[-1]}")
        if self._plain["state"].values[row - self.rows[0]] != PENDING:
            raise ValueError(f"row {row} was already added or failed")
        return row - self.rows[0]

    def _commit(self) -> None:
        state = self._plain["state"].values[: len(self.rows)]
        if (state == PENDING).any():
            forgotten = [self.rows[0] + int(i) for i in np.flatnonzero(state == PENDING)]
            raise ValueError(f"rows {forgotten} of shard {self.shard} were neither added nor failed")
        if self._without_tokens:
            raise ValueError(f"rows {sorted(self._without_tokens)} of shard {self.shard} were copied without tokens")
        stored = int((state == STORED).sum())
        files: dict[str, ShardFile | PlainFile | PackedFile] = {}
        for name in self._split.layout.owned:  # `state` is the last
            files[name] = self._sharded.get(name) or self._packed.get(name) or self._plain[name]
        with disk_errors(self._split.path, self._bytes):
            crcs = {name: file.finish() for name, file in files.items()}
            for name, file in files.items() if self.folder == self._split.path else ():
                folder = (self._split.path / file.array.key(self.shard)).parent
                while folder != self._split.path / name:  # c/<shard>/0/…: each may be new
                    sync_folder(folder)
                    folder = folder.parent
                sync_folder(folder)
        self.record = ShardRecord(
            shard=self.shard,
            first_row=self.rows[0],
            last_row=self.rows[-1],
            stored=stored,
            failed=tuple(self._failed[row] for row in sorted(self._failed)),
            bytes=self._written_bytes(),
            crc32c=crcs,
            notes={note: dict(sorted(counts.items())) for note, counts in sorted(self._notes.items())},
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _written_bytes(self) -> int:
        fixed = [
            file.array.file_bytes(len(self.rows))
            for name, file in [*self._sharded.items(), *self._plain.items()]
            if name not in MAY_LACK
        ]
        return sum(fixed) + sum(file.file_bytes for file in self._packed.values())

    def _close(self) -> None:
        for file in [*self._sharded.values(), *self._packed.values(), *self._plain.values()]:
            file.close()


def _as_array(name: str, values: Any, dtype: str) -> AnyArray:
    array: AnyArray = np.asarray(values)
    if array.dtype != np.dtype(dtype):
        raise ValueError(f"{name} are {array.dtype}, expected {dtype}")
    return array
