"""What not caching costs: a training step of one head from videos, from cached frames with CLIP online, from a cache.

    videos         decode ─ CLIP ─┐
    cached frames  JPEGs ── CLIP ─┼─▶ head, forward and backward, AdamW      each path and head in a process of its own
    cache          JPEGs, tokens ─┘

Run by `make bench`, not by the tests: `python tests/bench/bench_paths.py [--write docs/bench.md]`. The footage and the
trained ViT-Ti/16 are those behind VIDXFER_REAL. One cache of 8 + 16 frames with windows of five serves the three heads.
Bytes are those that the process asked the system for: codes and JPEGs, or the video files. Peak memory is that of the
whole process, libraries included, which is what a machine has to have.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import CLOCKS, machine, write_block

from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.build import build_head
from vidxfer.pipeline.training.journal import peak_memory_bytes
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.optimise import build_optimiser, soft_cross_entropy
from vidxfer.pipeline.training.order import epoch_order
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.shown import with_clip
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import Source, cached_source, online_sources
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest

REAL = Path(os.environ.get("VIDXFER_REAL", "../shared/real")).absolute()
CPU = torch.device("cpu")
RECIPES = {
    "DiST": named("dist-ssv2-b16"),
    "TDS-CLIP": with_settings(named("tds-toy"), ["head.side_channels=320"]),
    "EVL K=4": named("evl"),
}
"""In the sizes they have at B/16, on the width and patches of the tower at hand."""

PATHS = {"videos": "videos, CLIP online", "frames": "cached frames, CLIP online", "tokens": "cached tokens"}
COLUMNS = ("head", "path", "s per clip", "against cached", "peak memory", "MB read per clip", "loss")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def made(folder: Path, videos: int) -> Path:
    """A cache of some of the footage."""
    data = DataSource(kind="csv", root=REAL / "clips", labels=REAL / "clips" / "list.csv", limit=videos)
    store = CacheChoice(with_frames=True, window=5, calibration_videos=4)
    extract(
        ExtractRequest(
            data=data, clip=ClipChoice(model=str(REAL / "vit-tiny-augreg"), device="cpu", precision="fp32"),
            store=store, cache=folder / "zarr", splits=("train",),
        )
    )  # fmt: skip
    return folder / "zarr"


def way(path: str, cache: Path, recipe: Recipe) -> tuple[Any, AheadLoader, Assembler]:
    """A head, and where its batches come from."""
    cached = cached_source(cache, "train", None)
    needs = recipe.head.needs(cached.offer(recipe))
    source: Source = cached
    if path != "tokens":  # CLIP is not loaded where it is not needed
        source = online_sources(cache, None, data=None, clip=ClipChoice(device="cpu"), store=CacheChoice())["train"]
    head = build_head(recipe, source.offer(recipe))
    # Frames alone are asked of the cache, those that CLIP sees among them.
    wanted = replace(with_clip(needs), layers=(), embedding=False, frozen=()) if path == "frames" else needs
    giving = source if path == "videos" else cached
    loader = giving.loader(wanted, decode_threads=1, read_threads=1, device=CPU)
    return head, loader, source.assembler(needs, CPU, smoothing=0.1)


def bytes_read() -> int:
    """That this process has asked the system for until now."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines())
    return int(lines["rchar"])


def measured(path: str, name: str, cache: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Steps of one path; the first is not counted."""
    recipe, clips = replace(RECIPES[name], batch_clips=asked.clips), asked.clips
    head, loader, assemble = way(path, cache, recipe)
    optimiser = build_optimiser(head, recipe)
    rows = loader.split.video_count
    order = [clip for epoch in range(99) for clip in epoch_order(range(rows), 1, seed=0, epoch=epoch)]
    order = [(row, number if path != "videos" else 0) for row, number in order]
    plan = [order[at * clips :][:clips] for at in range(asked.rounds + 1)]
    now = CLOCKS[asked.clock]
    with loader:
        loader.prepare(plan)
        for step, some in enumerate(plan):
            if step == 1:
                began, read = now(), bytes_read()
            batch = assemble(loader.load(some))  # not ahead: every second of a step is in it
            loss = soft_cross_entropy(head.train()(batch), batch.targets)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    counted = asked.rounds * clips
    return {
        "seconds": (now() - began) / counted,
        "bytes": (bytes_read() - read) / counted,
        "peak": peak_memory_bytes(CPU),
        "loss": float(loss.detach()),
    }


def in_a_child(path: str, name: str, cache: Path, words: list[str]) -> dict[str, float]:
    """The same in a process of its own, which has a peak of its own."""
    command = [sys.executable, __file__, "--child", path, "--head", name, "--cache", str(cache), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{path}, {name}: ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step from videos, from cached frames, and from a cache.")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps (3)")
    parser.add_argument("--clips", type=int, default=4, help="of a batch (4)")
    parser.add_argument("--videos", type=int, default=12, help="of the footage (12)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (as torch chooses)")
    parser.add_argument("--only", default=",".join(RECIPES), help="heads with commas (all)")
    parser.add_argument("--cache", type=Path, help="a cache of an earlier run; made anew unless given")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    for hidden in ("--child", "--head"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.child:
        print(json.dumps(measured(asked.child, asked.head, asked.cache, asked)))
        return
    if not (REAL / "clips" / "list.csv").exists():
        print(f"bench_paths: no footage in {REAL}: name its folder with VIDXFER_REAL (tests/fixtures/README.md)")
        return
    where, began = machine(), time.monotonic()
    print(where, HEADER, sep="\n\n", flush=True)
    words = [f"--{name}={getattr(asked, name)}" for name in ("rounds", "clips", "clock", "threads")]
    lines = [HEADER]
    with tempfile.TemporaryDirectory() as folder:
        cache = asked.cache or made(Path(folder), asked.videos)
        for name in asked.only.split(","):
            found = {path: in_a_child(path, name, cache, words) for path in PATHS}
            for path, one in found.items():
                lines.append(
                    f"| {name} | {PATHS[path]} | {one['seconds']:.2f} | "
                    f"{one['seconds'] / found['tokens']['seconds']:.2f}x | {one['peak'] / 1e6:.0f} MB | "
                    f"{one['bytes'] / 1e6:.2f} | {one['loss']:.3f} |"
                )
                print(lines[-1], flush=True)
    if asked.write:
        words.append(f"--videos={asked.videos}")
        told = f"`python tests/bench/bench_paths.py {' '.join(words)}`, {time.monotonic() - began:.0f} s in all"
        write_block(asked.write, "paths", f"Machine: {where}. {told}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
