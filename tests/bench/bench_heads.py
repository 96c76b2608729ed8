"""What a training step of each head with two forms costs: both, products alone, CLIP, and a cache's tokens.

Run by `make bench`, not by the tests: `python tests/bench/bench_heads.py [--write docs/bench.md]`. Numbers are random.
Sizes are those of B/16; `--blocks 3` feeds heads that read every block with the last three alone, for a short run.
"Products" is the share of a step inside matrix products and attention, as torch's profiler has it: what remains is
norms, activations and copies, which is all that an arrangement of the same function can save.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from bench_dist import written
from measure import CLOCKS, Timing, in_turn, machine, write_block
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.heads.base import Head, HeadConfig, Offer
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.pooler import PoolerConfig
from vidxfer.pipeline.heads.recipe import B16
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig
from vidxfer.pipeline.heads.side4video.published import PUBLISHED
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.precision import AUTOCAST
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.published import cache_spec

METHODS: dict[str, tuple[HeadConfig, int]] = {
    "attentive d1": (PoolerConfig(), 1),
    "attentive d4": (PoolerConfig(depth=4), 1),
    "EVL K=4": (EvlConfig(), 1),
    "DiST": (DistConfig(pooling_layers=4), 2),
    "Side4Video": (Side4VideoConfig(), 1),
    "TDS-CLIP": (TdsConfig(), 1),
}
"""Settings, and dense frames per frame that CLIP sees. The linear probe and the frame transformer have one form."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "attention")
COLUMNS = (
    "head", "blocks read", "clips", "type", "plain", "fast", "plain / fast", "products in plain", "in fast",
    "CLIP forward", "cached tokens", "CLIP + plain against cached + fast",
)  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def step(head: Head, batch: ClipBatch, dtype: torch.dtype | None) -> None:
    """Forward and backward; the optimiser's part is the same for both forms."""
    head.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = head(batch)
    logits.float().square().sum().backward()


def share_of_products(run: Callable[[], object]) -> float:
    """Of the time inside torch's operators, what products take."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    spent = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    inside = {key: time for key, time in spent.items() if key.startswith("aten::")}
    whole = sum(inside.values())
    return sum(time for key, time in inside.items() if key.rstrip("_").endswith(PRODUCTS) or "attention" in key) / whole


def row(name: str, tower: Tower, clip: Timing, precision: str, folder: Path, asked: argparse.Namespace) -> str:
    """One line of the table, at B/16 of eight frames."""
    (config, alpha), clips, dtype = METHODS[name], asked.clips, AUTOCAST[precision]
    spec = replace(cache_spec(PUBLISHED[0]), calibration_videos=0)
    every = isinstance(config, DistConfig | Side4VideoConfig)
    offer = Offer(
        layers=spec.layers[-asked.blocks :] if every else spec.layers, sparse_frames=spec.sparse_frames, alpha=alpha,
        grid=B16.grid, channels=spec.channels, embed=spec.embed, classes=174, image_px=spec.sampling.image_px,
        text=torch.randn(174, spec.embed), frozen=tower.state(), clip_heads=tower.heads,
    )  # fmt: skip
    heads = {}
    for form in ("plain", "fast"):
        torch.manual_seed(0)
        heads[form] = replace(config, form=form).build(offer)  # type: ignore[call-arg]
    read = heads["fast"].needs.layers
    split = written(folder / f"{name}-{clips}-{precision}", spec, clips)
    dequantise = Dequantiser.of(split, layers=read)
    with CacheReader(split) as reader:
        buffer = reader.buffer(clips, read)

        def load() -> Tensor:
            codes = reader.read(list(range(clips)), [0] * clips, read, out=buffer)
            return dequantise(codes.codes, codes.scale)

        batch = replace(offer.fake_batch(heads["fast"].needs, clips), tokens=load())
        timed = in_turn(
            {
                "plain": lambda: step(heads["plain"], batch, dtype),
                "fast": lambda: step(heads["fast"], batch, dtype),
                "load": load,
            },
            asked.rounds,
            asked.clock,
        )
        shares = [share_of_products(lambda form=form: step(heads[form], batch, dtype)) for form in ("plain", "fast")]
    plain, fast, cached = (timed[key] for key in ("plain", "fast", "load"))
    whole = (clip.median + plain.median) / (cached.median + fast.median)
    return (
        f"| {name} | {len(read)} | {clips} | {precision} | {plain} | {fast} | **{plain.median / fast.median:.2f}x** "
        f"| {shares[0]:.0%} | {shares[1]:.0%} | {clip} | {cached} | {whole:.1f}x |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a training step of each head that has two forms.")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, help="threads of torch (as torch chooses)")
    parser.add_argument("--clips", type=int, default=2, help="of a batch (2)")
    parser.add_argument(
        "--blocks", type=int, default=12, help="of CLIP, from the last one, for heads that read all of them (12)"
    )
    parser.add_argument("--only", default=",".join(METHODS), help="heads with commas (all)")
    parser.add_argument("--types", default="fp32,bf16", help="fp32, bf16 or both")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    offered = f"heads that read all blocks read {asked.blocks} of 12" if asked.blocks < 12 else "all blocks"
    lines = [f"Machine: {machine()}; B/16, 8 frames, {offered}; clock: {asked.clock}.", HEADER]
    print(*lines, sep="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for precision in asked.types.split(","):
            tower = untrained_tower(B16.model, device="cpu", precision=precision)
            frames = torch.randn(asked.clips * 8, 3, B16.image_px, B16.image_px)
            taps = {"CLIP": lambda tower=tower, frames=frames: tower.taps(frames, tuple(range(12)))}
            clip = in_turn(taps, min(asked.rounds, 3), asked.clock)["CLIP"]
            for name in asked.only.split(","):
                lines.append(row(name, tower, clip, precision, Path(folder), asked))
                print(lines[-1], flush=True)
    if asked.write:
        write_block(asked.write, "heads", lines[0] + "\n\n" + "\n".join(lines[1:]))


if __name__ == "__main__":
    sys.exit(main())
