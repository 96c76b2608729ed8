"""Seconds of data loading per epoch: dense frames out of the videos, and out of a cache that keeps them as JPEG.

Run by `make bench`: `python tests/bench/bench_frames.py [--write docs/bench.md]`. What the JPEGs cost in accuracy on
the toy world, resumable: `python tests/bench/bench_frames.py --accuracy FOLDER [--seeds 2] [--epochs 12]`.

Videos are generated: textures that drift, with the sizes, lengths and codecs of two data sets. What is timed is
everything between a plan of clips and normalised pixels on the device; files are in the system's file cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import CLOCKS, Timing, in_turn, machine
from torch.nn import functional as F

from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.video.writer import write_video
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest

QUALITIES = (75, 90, 95)
BATCH_CLIPS = 8
NEEDS = Needs(pixels="dense")
TOKENS_MB = 14.6
"""int8 tokens of all blocks of one 8-frame view of ViT-B/16, for comparison."""


@dataclass(frozen=True, kw_only=True)
class Videos:
    """One kind of videos. `frames`: shortest and longest."""

    name: str
    suffix: str
    codec: str
    height_px: int
    width_px: int
    frames: tuple[int, int]
    options: dict[str, str]


KINDS = (
    Videos(
        name="h264, 340 x 256, 300 frames (as K400, resized)", suffix="mp4", codec="libx264", height_px=256,
        width_px=340, frames=(300, 300), options={"preset": "medium", "crf": "23"},
    ),
    Videos(
        name="VP9, 426 x 240, 24 to 72 frames (as SSv2)", suffix="webm", codec="libvpx-vp9", height_px=240,
        width_px=426, frames=(24, 72), options={"deadline": "good", "cpu-used": "4", "crf": "32"},
    ),
)  # fmt: skip


def texture(rng: np.random.Generator, side_px: int) -> torch.Tensor:
    """float 0 … 255 [rgb side side], with detail falling off as in pictures: octaves of noise, coarse ones stronger."""
    total = torch.zeros(1, 3, side_px, side_px)
    cells = 4
    while cells <= side_px:
        noise = torch.from_numpy(rng.normal(size=(1, 3, cells, cells)).astype(np.float32))
        total += F.interpolate(noise, size=(side_px, side_px), mode="bicubic") / cells**0.6
        cells *= 2
    total -= total.mean()
    return (128 + 45 * total / total.std()).clamp(0, 255)[0]


def pictures(kind: Videos, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One video, uint8 [frame height width rgb]: a drifting background and a square of another texture before it."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(kind.frames[0], kind.frames[1] + 1))
    back, front = texture(rng, 512), texture(rng, 128)
    shown = []
    for at in np.linspace(0, 1, count):
        top, left = int(60 * at), int(80 * at * (1 - at) * 4)
        one = back[:, top : top + kind.height_px, left : left + kind.width_px].clone()
        y, x = int((kind.height_px - 100) * at), int((kind.width_px - 100) * (1 - at) ** 2)
        one[:, y : y + 100, x : x + 100] = front[:, :100, :100]
        shown.append(one.to(torch.uint8).permute(1, 2, 0).numpy())
    return np.stack(shown)


def made(folder: Path, kind: Videos, videos: int) -> dict[int, Path]:
    """The videos, and a cache of them for each quality."""
    root = folder / kind.suffix
    for split in ("train", "val"):
        (root / split / "one").mkdir(parents=True)
    for number in range(videos):
        file = root / "train" / "one" / f"{number}.{kind.suffix}"
        write_video(file, pictures(kind, number), fps=30, codec=kind.codec, options=kind.options)
    (root / "val" / "one" / file.name).hardlink_to(file)  # the layout wants both splits
    (root / "classes.txt").write_text("one\n")  # one class is meant
    clip = write_tiny_clip(folder / f"clip-{kind.suffix}", image_px=224, patch_px=56, channels=64, blocks=1, embed=32)
    caches = {}
    for quality in QUALITIES:
        caches[quality] = folder / f"{kind.suffix}-{quality}"
        extract(
            ExtractRequest(
                data=DataSource(kind="folder", root=root),
                clip=ClipChoice(model=str(clip), device="cpu"),
                store=CacheChoice(calibration_videos=2, with_frames=True, frame_quality=quality),
                cache=caches[quality],
                splits=("train",),
                decode_in="threads",
            )
        )
    return caches


def epoch(cache: Path, frames_from: str, device: torch.device, threads: int) -> int:
    """Load every video once, as `train` does; returns the number of clips."""
    source = cached_source(cache, "train", None, frames_from)
    rows = list(range(len(source.split.video_ids)))
    plan = [[(row, 0) for row in rows[first : first + BATCH_CLIPS]] for first in range(0, len(rows), BATCH_CLIPS)]
    assemble = Assembler(source.split, NEEDS, device)
    with source.loader(NEEDS, decode_threads=threads, read_threads=1, device=device) as loader:
        for raw in loader.batches(plan):
            dense = assemble(raw).dense
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    assert dense is not None
    return len(rows)


def megabytes(cache: Path) -> float:
    """MB per view of the stored JPEGs."""
    rows = Rows(cached_source(cache, "train", None).split)
    reader = FrameReader(rows)
    stored = rows.stored_rows().tolist()
    return sum(len(file) for row in stored for file in reader.files(row, 0)) / len(stored) / 1e6


HEADER = (
    "| videos | from the videos | JPEG 75 | JPEG 90 | JPEG 95 | videos / JPEG 90 | MB per view at 75 | 90 | 95 "
    f"| 90, beside {TOKENS_MB} MB of int8 tokens |\n|---|---|---|---|---|---|---|---|---|---|"
)


def line(kind: Videos, timed: dict[str, Timing], clips: int, sizes: dict[int, float]) -> str:
    """One row: milliseconds per clip."""

    def per_clip(name: str) -> str:
        return f"{1e3 * timed[name].median / clips:.1f} ({1e3 * min(timed[name].seconds) / clips:.1f}) ms"

    names = ["videos", *(str(quality) for quality in QUALITIES)]
    cells = [per_clip(name) for name in names]
    faster = timed["videos"].median / timed["90"].median
    shares = [f"{sizes[quality]:.3f}" for quality in QUALITIES]
    return f"| {kind.name} | {' | '.join([*cells, f'**{faster:.1f}x**', *shares])} | {sizes[90] / TOKENS_MB:.1%} |"


def loading(folder: Path, asked: argparse.Namespace) -> Iterator[str]:
    """The rows of the table."""
    device = torch.device(asked.device)
    for kind in KINDS:
        caches = made(folder, kind, asked.videos)
        work: dict[str, Any] = {"videos": lambda cache=caches[90]: epoch(cache, "videos", device, asked.decode_threads)}
        for quality, cache in caches.items():
            work[str(quality)] = lambda cache=cache: epoch(cache, "cache", device, asked.decode_threads)
        timed = in_turn(work, asked.rounds, asked.clock)
        yield line(kind, timed, asked.videos, {quality: megabytes(cache) for quality, cache in caches.items()})


def vidxfer(*words: object) -> str:
    """Run one command and return its standard output; bars go to the terminal."""
    command = [str(Path(sys.executable).with_name("vidxfer")), *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def accuracy(folder: Path, seeds: int, epochs: int) -> None:
    """Train on the toy world from the videos and from JPEGs of two qualities; print a table. A repeat reads on.

    Each head is scored on the videos too: the same head, so no seed's luck is in the difference.
    """
    vidxfer("data", "toy", folder, "--difficulty", "easy")
    for quality in (90, 75):
        data = ["--root", folder / "ssv2", "--model", folder / "clip", "--cache", folder / f"q{quality}"]
        vidxfer("extract", *data, "--with-frames", "--frame-quality", quality)
    print("| dense frames | val top-1, each seed | the same heads on the videos | s per epoch |\n|---|---|---|---|")
    for name, cache, source in (("videos", "q90", "videos"), ("JPEG 90", "q90", "cache"), ("JPEG 75", "q75", "cache")):
        found, on_videos = [], []
        for seed in range(seeds):
            run = folder / "runs" / f"{name.replace(' ', '-')}-{seed}"
            vidxfer(
                "train", "--cache", folder / cache, "--recipe", "dist-toy", "--run", run, "--frames-from", source,
                "--set", f"seed={seed}", "--set", f"epochs={epochs}", "--set", "dist.layers=[0, 2, 4]",
            )  # fmt: skip
            found.append(json.loads((run / "result.json").read_text()))
            words = ["--run", run, "--cache", folder / cache, "--frames-from", "videos", "--json"]
            on_videos.append(json.loads(vidxfer("evaluate", *words))["score"]["top1"])
        tops = ", ".join(f"{100 * one['score']['top1']:.1f}" for one in found)
        seconds = statistics.median(one["epoch_seconds"] for one in found)
        print(f"| {name} | {tops} | {', '.join(f'{100 * one:.1f}' for one in on_videos)} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Parse, measure, print and, where asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, help="threads of torch (as torch chooses)")
    parser.add_argument("--decode-threads", type=int, default=2, help="as of `vidxfer train` (2)")
    parser.add_argument("--videos", type=int, default=24, help="per kind (24)")
    parser.add_argument("--device", default="cpu", help="where JPEGs are decoded: cpu or cuda (cpu)")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    parser.add_argument("--accuracy", type=Path, help="train on the toy world in this folder instead")
    parser.add_argument("--seeds", type=int, default=2, help="of --accuracy (2)")
    parser.add_argument("--epochs", type=int, default=12, help="of --accuracy (12)")
    asked = parser.parse_args()
    if asked.accuracy:
        accuracy(asked.accuracy, asked.seeds, asked.epochs)
        return
    if asked.threads:
        torch.set_num_threads(asked.threads)
    where, started = machine(), time.monotonic()
    print(where, HEADER, sep="\n\n", flush=True)
    rows = [HEADER]
    with tempfile.TemporaryDirectory() as folder:
        for row in loading(Path(folder), asked):
            rows.append(row)
            print(row, flush=True)
    after = (
        f"{time.monotonic() - started:.0f} s in all, load after it {os.getloadavg()[0]:.1f}; clock: {asked.clock}, "
        f"{asked.videos} videos of each kind, {asked.decode_threads} decoding threads, JPEGs decoded on {asked.device}"
    )
    print(f"\n{after}")
    if asked.write:
        begin, end = "<!-- frames: made by make bench -->\n", "<!-- end of frames -->"
        head, _, rest = asked.write.read_text(encoding="utf-8").partition(begin)
        parts = [f"Machine: {where}. {after}.", "\n".join(rows)]
        tail = rest.partition(end)[2]
        asked.write.write_text(head + begin + "\n" + "\n\n".join(parts) + "\n\n" + end + tail, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
