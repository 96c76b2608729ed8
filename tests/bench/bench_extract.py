"""How fast videos become cached tokens, against the slower of decoding alone and CLIP alone, in the same run.

Run by `make bench`: `python tests/bench/bench_extract.py [--write docs/bench-cache.md]`. The videos are generated; the
tower has random weights, which cost what trained ones cost. Each round does all three on the same videos, one after the
other: decoding and replaying with nothing behind it, CLIP over pixels that are in memory, and the extraction of shards.
The aim is 0.9: all of it together costs little more than the slower of the first two. Without a GPU, torch gets one
core (`--torch-threads`) and decoding another, or both would only show that work on the same cores adds up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import machine, write_block

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.stages.describe import describe_split
from vidxfer.stages.progress import Silent
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest
from vidxfer.stages.shards.encode import Prepared, encode_all, prepare_videos
from vidxfer.stages.shards.extract import extract_shards, task_of
from vidxfer.stages.shards.prepare import prepare_splits


@dataclass(frozen=True)
class Case:
    """A row: a tower, how many videos it sees, how many of them fill a shard, and what is stored of a video."""

    name: str
    model: str
    device: str
    videos: int
    shard_videos: int
    side_px: int


@contextmanager
def cases(folder: Path, device: str, videos: int, *, quick: bool) -> Iterator[tuple[Case, ...]]:
    """The published size, and one that decoding has to keep up with."""
    small = write_tiny_clip(folder / "small", image_px=64, channels=192, blocks=6, embed=64)
    rows = [Case("192 channels, 6 blocks, 64 px", str(small), device, 4 * videos, videos, 96)]
    if not quick:
        sizes = {"image_px": 224, "patch_px": 16, "channels": 768, "blocks": 12, "embed": 512}
        model = str(write_tiny_clip(folder / "b16", **sizes))  # random: speed does not depend on weights
        rows.insert(0, Case("ViT-B/16, 224 px", model, device, videos, max(1, videos // 4), 256))
    yield tuple(rows)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def decode(dataset: Dataset, spec: CacheSpec, request: ExtractRequest) -> list[Prepared]:
    """All videos decoded and replayed, as extraction does it, with nobody waiting."""
    found = list(prepare_videos(dataset.videos, spec, request, None, torch.device("cpu")))
    wrong = [one for one in found if not isinstance(one, Prepared)]
    if wrong:
        raise wrong[0]  # type: ignore[misc]
    return [one for one in found if isinstance(one, Prepared)]


def forward(ready: list[Prepared], spec: CacheSpec, tower: Tower, request: ExtractRequest) -> None:
    """CLIP over what is decoded already, in the groups of an extraction; nothing is quantised or kept."""
    for _ in encode_all(ready, spec, tower, batch_frames=request.batch_frames):
        if tower.device.type == "cuda":
            torch.cuda.synchronize()


def write(dataset: Dataset, tower: Tower, request: ExtractRequest) -> int:
    """The extraction itself, after the statistics: videos decoded, seen by CLIP, quantised, written, made durable."""
    split = open_split(request.cache, dataset.split)
    videos = dict(enumerate(dataset.videos))
    tasks = [task_of(request, videos, split, shard) for shard in range(split.shard_count)]
    sealed: list[Path | None] = []
    extract_shards(tasks, split, tower, lambda: None, lambda shard: sealed.append(shard.folder))
    for folder in sealed:
        if folder is not None:
            shutil.rmtree(folder)
    return split.layout.total_bytes


HEADER = (
    "| tower | videos | decoding alone | CLIP alone | extraction | MB stored per s | slower of the two / extraction |"
    "\n|---|---|---|---|---|---|---|"
)


def line(case: Case, folder: Path, *, rounds: int, threads: int, batch_frames: int) -> str:
    """One row: medians of the rounds, and the median of each round's ratio."""
    root = folder / f"videos-{case.videos}"
    write_toy(root, train_videos=case.videos, val_videos=2, design=ToyDesign(side_px=case.side_px))
    tower = untrained_tower(case.model, device=case.device, precision="fp32" if case.device == "cpu" else "bf16")
    request = ExtractRequest(
        data=DataSource(kind="ssv2", root=root),
        clip=ClipChoice(model=case.model, device=case.device),
        store=CacheChoice(calibration_videos=4, shard_videos=case.shard_videos),
        cache=folder / f"cache-{case.videos}",
        splits=("train",),
        batch_frames=batch_frames,
        decode_threads=threads,
    )
    dataset = request.data.load("train")
    spec = describe_split(request.store, tower.info, dataset)
    prepare_splits(request, [dataset], tower, Silent())
    took: dict[str, list[float]] = {"decode": [], "clip": [], "extract": []}
    ready = decode(dataset, spec, request)  # starts the child processes, and is not counted
    for _ in range(rounds):
        took["decode"].append(seconds_of(lambda: decode(dataset, spec, request)))
        took["clip"].append(seconds_of(lambda: forward(ready, spec, tower, request)))
        took["extract"].append(seconds_of(lambda: write(dataset, tower, request)))
    stored = open_split(request.cache, "train").layout.total_bytes
    rate = {name: case.videos / statistics.median(found) for name, found in took.items()}
    ratio = statistics.median(max(decoding, clip) / whole for decoding, clip, whole in zip(*took.values(), strict=True))
    return (
        f"| {case.name} | {case.videos} | {rate['decode']:.1f} videos/s | {rate['clip']:.1f} videos/s "
        f"| {rate['extract']:.1f} videos/s | {stored * rate['extract'] / case.videos / 1e6:.1f} | **{ratio:.2f}** |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Extraction against the slower of decoding and CLIP.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of CLIP")
    parser.add_argument(
        "--videos", type=int, default=24, help="of the large tower; four times as many of the small (24)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--decode-threads", type=int, default=1, help="(1)")
    parser.add_argument("--torch-threads", type=int, default=1, help="(1)")
    parser.add_argument("--batch-frames", type=int, help="frames CLIP sees at once (16 on a CPU, 128 on a GPU)")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is written to (here); cleaned up")
    parser.add_argument("--quick", action="store_true", help="a few small videos: does it run?")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    torch.set_num_threads(asked.torch_threads)
    batch_frames = asked.batch_frames or (16 if asked.device == "cpu" else 128)
    where, started, lines = machine(), time.monotonic(), [HEADER]
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".bench-") as folder:
        videos, rounds = (3, 1) if asked.quick else (asked.videos, asked.rounds)
        with cases(Path(folder), asked.device, videos, quick=asked.quick) as chosen:
            for case in chosen:
                made = line(case, Path(folder), rounds=rounds, threads=asked.decode_threads, batch_frames=batch_frames)
                lines.append(made)
    after = (
        f"CLIP on {asked.device}, {batch_frames} frames at once, {asked.decode_threads} decoding threads, {rounds} "
        f"rounds; {time.monotonic() - started:.0f} s in all, load after it {os.getloadavg()[0]:.1f}"
    )
    command = "python tests/bench/bench_extract.py " + " ".join(sys.argv[1:])
    print(where, *lines, after, sep="\n")
    if asked.write:
        write_block(asked.write, "extract", f"`{command.strip()}`\n\nMachine: {where}. {after}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
