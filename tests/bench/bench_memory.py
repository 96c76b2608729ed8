"""How much memory writing and reading 2,000 views takes while it goes on: it has to stay what it was at first.

Run by `make bench`: `python tests/bench/bench_memory.py [--write docs/bench-cache.md]`. Random numbers stand for CLIP's
tokens; they are quantised by the real codec, written behind by the real writer, and read by the trainer's loader in
random batches of 32. Resident memory of this process is read ten times a second; what the system caches of files is not
part of it. The numbers are what the process takes beyond what it had before the first view.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import machine, write_block
from stored import B16, SMALL, made, view_of

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.writer import ShardWriter, SplitWriter
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.loader import ClipLoader
from vidxfer.stages.shards.behind import Behind
from vidxfer.stages.shards.quantise import Quantised, SplitQuantiser

PARTS = (0.1, 0.5, 1.0)


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watched:
    """Samples resident memory together with how far the work is; `done` is a share, set by the work."""

    def __init__(self) -> None:
        self.done, self._end = 0.0, threading.Event()
        self.seen: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watched:
        self.begin()
        self._thread.start()
        return self

    def begin(self) -> None:
        """What is there now does not count."""
        self.before = resident_mb()
        self.seen.clear()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            self.sample()

    def sample(self) -> None:
        self.seen.append((self.done, resident_mb()))

    def line(self, name: str, views: int, seconds: float) -> str:
        """One row: the largest value seen until each part of the work was done."""
        most = [max((mb for done, mb in self.seen if done <= part), default=self.before) for part in PARTS]
        beyond = " | ".join(f"{mb - self.before:.0f} MB" for mb in most)
        return f"| {name} | {views} | {self.before:.0f} MB | {beyond} | {seconds:.0f} |"


def write(split: Split, watched: Watched) -> None:
    """Every shard: random tokens, quantised as an extraction does it, written behind."""
    spec, quantise = split.spec, SplitQuantiser(split, torch.device("cpu"))
    shape = (spec.stored_views, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels)
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0))  # CLIP's own, so to speak: not counted
    embedding = np.zeros((spec.stored_views, spec.sparse_frames, spec.embed), dtype=np.float32)
    views = [view_of(spec)] * spec.stored_views
    watched.begin()

    def add(shard: ShardWriter, row: int, codes: Quantised) -> None:
        shard.add(row, *codes, embedding, views)
        quantise.give_back(codes)

    with SplitWriter(split) as writer, Behind() as behind:
        for number in writer.pending():
            open_shard = ExitStack()
            shard = open_shard.enter_context(writer.shard(number))
            for row in shard.rows:
                codes = quantise(tokens)
                behind.do(partial(add, shard, row, codes), sum(part.nbytes for part in codes if part is not None))
                watched.done = (row + 1) / len(split.video_ids)
                watched.sample()
            behind.do(open_shard.close)


def read(split: Split, batch: int, watched: Watched) -> None:
    """One epoch of the trainer's loader, in random order."""
    order = np.random.default_rng(0).permutation(len(split.video_ids)).tolist()
    plan = [[(row, 0) for row in order[first : first + batch]] for first in range(0, len(order), batch)]
    with ClipLoader(split, Needs(layers=split.spec.layers), None) as loader:
        for number, raw in enumerate(loader.batches(plan), start=1):
            assert raw.codes is not None
            watched.done = number / len(plan)
            watched.sample()


HEADER = (
    "| work | views | before | most until 10 % | until 50 % | until 100 % | seconds |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of writing and reading many views.")
    parser.add_argument("--views", type=int, default=2000, help="(2000)")
    parser.add_argument("--tokens", type=int, default=17, help="per frame (17: 2.5 GB; as B/16, 197: 29 GB)")
    parser.add_argument("--batch", type=int, default=32, help="(32)")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be used (here); cleaned up")
    parser.add_argument("--quick", action="store_true", help="few views of hardly any bytes: does it run?")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    spec, videos = (SMALL, 100) if asked.quick else (replace(B16, tokens=asked.tokens), asked.views)
    where, lines = machine(), [HEADER]
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".bench-") as folder:
        split = made(Path(folder) / "zarr", spec, videos=videos, shard_videos=min(64, videos // 4))
        for name, work in (("writing", write), ("reading, one epoch", partial(read, batch=asked.batch))):
            began = time.monotonic()
            with Watched() as watched:
                work(split, watched=watched)
            lines.append(watched.line(name, videos, time.monotonic() - began))
    sizes = (
        f"{spec.bytes_per_view / 1e6:.2f} MB per view; a batch is {asked.batch * spec.bytes_per_view / 1e6:.0f} MB, "
        "and the loader's ring holds three"
    )
    command = "python tests/bench/bench_memory.py " + " ".join(sys.argv[1:])
    print(where, *lines, sizes, sep="\n")
    if asked.write:
        write_block(asked.write, "memory", f"`{command.strip()}`\n\nMachine: {where}. {sizes}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
