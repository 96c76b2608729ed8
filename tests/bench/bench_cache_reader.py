"""How fast cached tokens come into memory: the disk itself, a flat file, our reader, zarr-python and zarrs, in one run.

Run by `make bench`: `python tests/bench/bench_cache_reader.py [--write docs/bench-cache.md]`. Batches of 32 random
videos of a ViT-B/16 cache, all 12 layers and 4 of them, into one buffer that is used again. Every reader reads the
same videos in a round, first with the files dropped from the system's cache ("cold"), then with all of them in it.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from crc32c import crc32c
from measure import machine, write_block
from stored import B16, SMALL, files_below, filled, forget, made

from vidxfer.pipeline.cache.read.batch import Codes, TokenReader
from vidxfer.pipeline.cache.read.plain import DIRECT_THREADS, ZarrReader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.split import Split

ALIGNED = 4096
ZARRS = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
FLAT, OURS, ZARR = "flat .npy, pread", "vidxfer", "zarr-python"


@dataclass(frozen=True)
class Spent:
    """Seconds of one read: on the wall, and of all cores."""

    wall: float
    cores: float


class Flat:
    """One .npy-like file with the tokens of all videos one behind the other, and the buffer of a batch."""

    def __init__(self, path: Path, split: Split, batch: int, threads: int) -> None:
        self.chunk_bytes = split.layout.owned["tokens"].chunk_bytes
        self.layers, self.path = len(split.spec.layers), path
        self.memory = mmap.mmap(-1, (batch * self.layers + 1) * (self.chunk_bytes + 2 * ALIGNED))
        self.memory.write(b"\1" * len(self.memory))  # every page is there before anything is timed
        self.view = memoryview(self.memory)
        self.pool = ThreadPoolExecutor(threads)
        self.wide = ThreadPoolExecutor(DIRECT_THREADS)
        if not path.exists():
            block = np.random.default_rng(0).integers(0, 255, self.chunk_bytes, dtype=np.uint8).tobytes()
            with path.open("wb") as file:
                for _ in range(len(split.video_ids) * self.layers):
                    file.write(block)
                os.fsync(file.fileno())

    def pieces(self, rows: Sequence[int], layers: Sequence[int]) -> list[tuple[int, int, int]]:
        """(offset, place, bytes): whole videos where all layers are wanted, else one piece per layer."""
        whole = len(layers) == self.layers
        each = self.chunk_bytes * (self.layers if whole else 1)
        starts = [row * self.layers + layer for row in sorted(rows) for layer in ([0] if whole else layers)]
        return [(start * self.chunk_bytes, i * each, each) for i, start in enumerate(starts)]

    def read(self, rows: Sequence[int], layers: Sequence[int], *, check: bool) -> None:
        fd = os.open(self.path, os.O_RDONLY)

        def one(piece: tuple[int, int, int]) -> None:
            offset, place, size = piece
            done = 0
            while done < size:
                found = os.preadv(fd, [self.view[place + done : place + size]], offset + done)
                if not found:
                    raise EOFError(f"{self.path} ends at {offset + done}")
                done += found
            for at in range(place, place + size if check else place, self.chunk_bytes):
                crc32c(self.view[at : at + self.chunk_bytes])

        list(self.pool.map(one, self.pieces(rows, layers)))
        os.close(fd)

    def direct(self, rows: Sequence[int], layers: Sequence[int]) -> None:
        """O_DIRECT reads of a layer's size at random places: what the disk gives to anybody."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        size = max(ALIGNED, self.chunk_bytes // ALIGNED * ALIGNED)
        starts = [(row * self.layers + layer) * self.chunk_bytes for row in rows for layer in layers]
        places = [(start // ALIGNED * ALIGNED, i * size) for i, start in enumerate(starts)]
        list(self.wide.map(lambda at: os.preadv(fd, [self.view[at[1] : at[1] + size]], at[0]), places))
        os.close(fd)


def measured(work: Callable[[], object]) -> Spent:
    wall, cores = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cores)


def contestants(
    split: Split, flat: Flat, batch: int, layers: Sequence[int], threads: int, stack: ExitStack
) -> dict[str, Callable[[Sequence[int]], object]]:
    """Name -> reads the rows it is given."""
    readers: dict[str, TokenReader] = {
        OURS: CacheReader(split, threads=threads),
        "vidxfer, unchecked": CacheReader(split, threads=threads, verify=False),
        "vidxfer, past the file cache": CacheReader(split, threads=DIRECT_THREADS, direct=True),
        ZARR: ZarrReader(split, threads=threads),
    }
    with zarr.config.set({**ZARRS, "threading.max_workers": threads}), warnings.catch_warnings():
        warnings.simplefilter("error")  # zarrs falls back to Python with no more than a warning
        readers["zarrs"] = ZarrReader(split, threads=threads)  # its arrays keep the pipeline they were opened with
        readers["zarrs"].read([0], [0], layers)
    out = readers[OURS].buffer(batch, layers)
    out.codes.zero_()

    def through(reader: TokenReader, out: Codes) -> Callable[[Sequence[int]], object]:
        return lambda rows: reader.read(rows, [0] * len(rows), layers, out=out)

    found: dict[str, Callable[[Sequence[int]], object]] = {
        f"disk: O_DIRECT, {DIRECT_THREADS} threads": lambda rows: flat.direct(rows, layers),
        FLAT: lambda rows: flat.read(rows, layers, check=False),
        "flat .npy, pread, crc32c": lambda rows: flat.read(rows, layers, check=True),
    }
    for name, reader in readers.items():
        stack.callback(reader.close)
        found[name] = through(reader, out)
    return found


def rounds_of(
    split: Split, flat: Flat, *, batch: int, layers: Sequence[int], threads: int, rounds: int
) -> tuple[dict[tuple[str, str], list[Spent]], float]:
    """(how, name) -> what each round took; and the largest share of pages that was in memory before a cold read."""
    spent: dict[tuple[str, str], list[Spent]] = {}
    rng, left = np.random.default_rng(0), 0.0
    files = [flat.path, *files_below(split.path)]
    with ExitStack() as stack:
        work = contestants(split, flat, batch, layers, threads, stack)
        for number in range(rounds + 1):
            rows = rng.permutation(len(split.video_ids))[:batch].tolist()
            for how in ("cold", "warm"):
                if how == "warm":
                    for path in files:
                        path.read_bytes()
                for name, read in work.items():
                    if how == "cold":
                        left = max(left, forget(files))
                    seconds = measured(lambda read=read, rows=rows: read(rows))
                    if number:  # the first round opens files and reads indices
                        spent.setdefault((how, name), []).append(seconds)
    return spent, left


HEADER = (
    "| layers | reader | cold GB/s (best) | of the flat file | CPU-s per GB | videos/s | warm GB/s (best) "
    "| of the flat file | CPU-s per GB | videos/s |\n|---|---|---|---|---|---|---|---|---|---|"
)


def lines_of(spent: dict[tuple[str, str], list[Spent]], layers: int, batch: int, batch_bytes: int) -> list[str]:
    """One row per reader."""
    median = {key: statistics.median(one.wall for one in found) for key, found in spent.items()}
    lines = []
    for name in dict.fromkeys(name for _, name in spent):
        cells = [str(layers), name]
        for how in ("cold", "warm"):
            found = spent[how, name]
            best = min(one.wall for one in found)
            cores = statistics.median(one.cores for one in found) / batch_bytes * 1e9
            cells += [
                f"{batch_bytes / median[how, name] / 1e9:.2f} ({batch_bytes / best / 1e9:.2f})",
                f"{median[how, FLAT] / median[how, name]:.2f}",
                f"{cores:.2f}",
                f"{batch / median[how, name]:.0f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    aims = "; ".join(
        f"{how} {median[how, FLAT] / median[how, OURS]:.2f} of the flat file, "
        f"{median[how, ZARR] / median[how, OURS]:.1f} times zarr-python"
        for how in ("cold", "warm")
    )
    return [*lines, f"| {layers} | **vidxfer: {aims}** | | | | | | | | |"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Readers of cached tokens, cold and warm, in one run.")
    parser.add_argument(
        "--gigabytes", type=float, default=1.8, help="size of the cache (1.8); a flat file as large beside"
    )
    parser.add_argument("--batch", type=int, default=32, help="videos per batch (32)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--threads", type=int, default=2, help="reading threads (2)")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured (here); cleaned up")
    parser.add_argument("--quick", action="store_true", help="hardly any bytes: does it run?")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    spec = SMALL if asked.quick else B16
    videos = 40 if asked.quick else max(asked.batch, round(asked.gigabytes * 1e9 / B16.bytes_per_view))
    rounds = 1 if asked.quick else asked.rounds
    where, started = machine(), time.monotonic()
    lines, notes = [HEADER], []
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".bench-") as folder:
        split = filled(made(Path(folder) / "zarr", spec, videos=videos, shard_videos=32))
        flat = Flat(Path(folder) / "flat.npy", split, asked.batch, asked.threads)
        every, some = spec.layers, spec.layers[2 :: max(1, len(spec.layers) // 4)][:4]
        for layers in (every, some):
            spent, left = rounds_of(split, flat, batch=asked.batch, layers=layers, threads=asked.threads, rounds=rounds)
            batch_bytes = asked.batch * len(layers) * flat.chunk_bytes
            lines += lines_of(spent, len(layers), asked.batch, batch_bytes)
            notes.append(f"{left:.1%}")
    after = (
        f"{videos} videos, batches of {asked.batch}, {asked.threads} threads where no number stands, {rounds} rounds; "
        f"at most {max(notes)} of the pages were in memory before a cold read; {time.monotonic() - started:.0f} s in "
        f"all, load after it {os.getloadavg()[0]:.1f}"
    )
    command = "python tests/bench/bench_cache_reader.py " + " ".join(sys.argv[1:])
    print(where, *lines, after, sep="\n")
    if asked.write:
        write_block(asked.write, "reader", f"`{command}`\n\nMachine: {where}. {after}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
