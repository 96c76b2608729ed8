"""What averaged patches save: a training step, its memory, its operations and a view's bytes, pool by pool.

Run by `make bench`, not by the tests: `python tests/bench/bench_pooled.py [--write docs/bench.md]`. Sizes are those of
B/16; numbers are random. The pools of a head are timed in turn, so a busy moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from measure import CLOCKS, in_turn, machine, write_block

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.grid import pooled
from vidxfer.pipeline.heads import PUBLISHED
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.planning.operations import operations

METHODS = {
    "DiST, 8 + 16 frames": "dist-ssv2-b16-8f",
    "Side4Video, 8 frames": "side4video-ssv2-b16-8f",
    "TDS-CLIP, 8 frames": "tds-ssv2-b16-8f",
}
CLASSES = 174
TYPES = {"fp32": None, "bf16": torch.bfloat16}
COLUMNS = (
    "head", "pool", "patches", "int8 bytes per view", "training GFLOP per clip", "trained numbers", "step", "against 1",
    "peak memory of a step", "means on the device",
)  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def sized(recipe: str, pool: int) -> tuple[Recipe, CacheSpec]:
    """The recipe that takes averaged patches, and the cache of it."""
    row = next(row for row in PUBLISHED if row.recipe == recipe)
    spec = cache_spec(row)
    spec = replace(spec, pool=pool, tokens=1 + (spec.tokens - 1) // pool**2)
    return with_settings(named(recipe), ["head.pooled=any"]), spec


def step_of(recipe: Recipe, spec: CacheSpec, clips: int, dtype: torch.dtype | None) -> Callable[[], None]:
    """Forward and backward of a head on random clips."""
    offer = offer_of(spec, recipe, classes=CLASSES, text=torch.randn(CLASSES, spec.embed))
    head = build_head(recipe, offer)
    batch = offer.fake_batch(head.needs, clips)

    def step() -> None:
        head.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            logits = head(batch)
        logits.float().square().sum().backward()

    return step


def peak_bytes(recipe: str, pool: int, clips: int, kind: str) -> int:
    """What a head, its batch, its gradients and one step take at most, in a process of its own."""
    command = [sys.executable, __file__, "--peak", recipe, "--pools", str(pool), "--clips", str(clips), "--type", kind]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak(asked: argparse.Namespace) -> None:
    """The growth of this process's largest size by one step."""
    before = largest_bytes()
    step_of(*sized(asked.peak, int(asked.pools)), asked.clips, TYPES[asked.type])()
    print(largest_bytes() - before)


def largest_bytes() -> int:
    """The largest size of this process so far, by Linux; what `getrusage` says begins with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def rows(name: str, asked: argparse.Namespace) -> list[str]:
    """The lines of one head."""
    dtype = TYPES[asked.type]
    cases = {pool: sized(METHODS[name], pool) for pool in map(int, asked.pools.split(","))}
    peaks = {pool: peak_bytes(METHODS[name], pool, asked.clips, asked.type) for pool in cases}
    steps = {str(pool): step_of(*case, asked.clips, dtype) for pool, case in cases.items()}
    whole = cases[1][1]
    tokens = torch.randn(asked.clips, len(whole.layers), whole.sparse_frames, whole.tokens, whole.channels)
    averaging = {f"means {pool}": (lambda pool=pool: pooled(tokens, pool)) for pool in cases}
    timed = in_turn({**steps, **averaging}, asked.rounds, asked.clock)
    lines = []
    for pool, (recipe, spec) in cases.items():
        counted, seconds = operations(recipe, spec, CLASSES), timed[str(pool)]
        sizes = f"{spec.bytes_per_view / 1e6:.2f} MB | {counted.training_gflop:.0f} | {counted.parameters / 1e6:.1f} M"
        against, peak = timed["1"].median / seconds.median, f"{peaks[pool] / 1e9:.2f} GB"
        means = "-" if pool == 1 else str(timed[f"means {pool}"])
        lines.append(
            f"| {name} | {pool} | {spec.tokens - 1} | {sizes} | {seconds} | **{against:.2f}x** | {peak} | {means} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Step time, memory, operations and bytes on averaged patches.")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (3)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, help="threads of torch (as torch chooses)")
    parser.add_argument("--clips", type=int, default=2, help="of a batch (2)")
    parser.add_argument("--type", choices=tuple(TYPES), default="fp32", help="of the step (fp32)")
    parser.add_argument("--pools", default="1,2", help="with commas, the first is 1 (1,2)")
    parser.add_argument("--only", help="the heads whose names begin so (all)")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print_peak(asked)
        return
    if asked.threads:
        torch.set_num_threads(asked.threads)
    lines = [f"Machine: {machine()}; clock: {asked.clock}; {asked.clips} clips, {asked.type}.", HEADER]
    print(*lines, sep="\n\n", flush=True)
    for name in METHODS:
        if name.startswith(asked.only or ""):
            lines += (made := rows(name, asked))
            print(*made, sep="\n", flush=True)
    if asked.write:
        write_block(asked.write, "pooled", lines[0] + "\n\n" + "\n".join(lines[1:]))


if __name__ == "__main__":
    sys.exit(main())
