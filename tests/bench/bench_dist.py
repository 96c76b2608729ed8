"""What a training step costs: DiST in both forms, and beside it CLIP on the same clips, or reading a cache of them.

Run by `make bench`, not by the tests: `python tests/bench/bench_dist.py [--write docs/bench.md]`. Numbers are random:
weights, pixels and tokens do not change how long anything takes. Tokens are read from files the system has in memory.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import CLOCKS, Timing, in_turn, kept_bytes, machine
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import FORMS, DistConfig
from vidxfer.pipeline.heads.dist.net import DistNet
from vidxfer.pipeline.precision import AUTOCAST
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.sampling import Sampling

CLIPS = (2, 8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of a row: a tower and what a cache of it holds, and the head."""

    name: str
    model: str
    sampling: Sampling
    config: DistConfig


def spec_of(case: Case, tower: Tower) -> CacheSpec:
    """A cache of all blocks of the tower, one view per video."""
    info = tower.info
    return CacheSpec(
        clip_model=info.model,
        clip_weights_sha256=info.weights_sha256,
        clip_precision="fp32",
        channels=info.channels,
        tokens=info.tokens,
        embed=info.embed,
        layers=tuple(range(info.blocks)),
        pixel_mean=info.pixel_mean,
        pixel_std=info.pixel_std,
        sampling=case.sampling,
        view_kind="train",
        views=1,
        crops=1,
        codec="int8",
        calibration_videos=0,
        dataset="random",
        dataset_fingerprint="random",
        split="train",
    )


def written(folder: Path, spec: CacheSpec, videos: int) -> Split:
    """A cache of random codes, made by the real writer."""
    rng = np.random.default_rng(0)
    per_layer = (len(spec.layers), spec.channels)
    split = create_split(
        folder,
        spec,
        video_ids=[f"video {row}" for row in range(videos)],
        labels=[0] * videos,
        class_names=["one"],
        text=np.ones((1, spec.embed), dtype=np.float32),
        channel_mean=rng.normal(size=per_layer).astype(np.float32),
        channel_std=rng.uniform(0.5, 2, size=per_layer).astype(np.float32),
    )
    side = float(spec.sampling.image_px)
    view = View(
        indices=tuple(range(spec.sampling.dense_frames)),
        crop=(0.0, 0.0, side, side),
        resize_first=True,
        flip=False,
        grey=False,
    )
    shape = (1, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels)
    with SplitWriter(split) as writer:
        for number in writer.pending():
            with writer.shard(number) as shard:
                for row in shard.rows:
                    codes = rng.integers(-127, 128, size=shape, dtype=np.int8)
                    scale = np.full(shape[:-1], 0.02, dtype=np.float16)
                    shard.add(row, codes, scale, np.zeros((1, spec.sparse_frames, spec.embed)), [view])
    return split


def forward(net: DistNet, form: str, tokens: Tensor, dense: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Video embeddings in the given arithmetic."""
    with torch.autocast(tokens.device.type, dtype=dtype, enabled=dtype is not None):
        video: Tensor = FORMS[form](net, tokens, dense)
    return video


def step(net: DistNet, form: str, tokens: Tensor, dense: Tensor, dtype: torch.dtype | None) -> None:
    """Forward and backward, as a training step does them; the optimiser's part is the same for both forms."""
    net.zero_grad(set_to_none=True)
    forward(net, form, tokens, dense, dtype).float().square().sum().backward()


@contextmanager
def cases(folder: Path) -> Iterator[tuple[Case, ...]]:
    """The published size, and the one of the toy set."""
    tiny = write_tiny_clip(folder / "clip", image_px=32, channels=64, blocks=3, embed=32)
    yield (
        Case(
            name="toy, 32 px, 4 + 8 frames",
            model=str(tiny),
            sampling=Sampling(dense_frames=8, alpha=2, image_px=32),
            config=DistConfig(integration_channels=64, temporal_channels=32, pooling_layers=1),
        ),
        Case(
            name="B/16, 8 + 16 frames, K400",
            model="ViT-B-16-quickgelu",
            sampling=Sampling(dense_frames=16, alpha=2, image_px=224),
            config=DistConfig(pooling_layers=4),
        ),
    )


def rows_of(case: Case, precision: str, folder: Path, rounds: int, clock: str) -> Iterator[tuple[str, str]]:
    """Lines of the two tables (times, memory) for every batch size."""
    tower = untrained_tower(case.model, device="cpu", precision=precision)
    spec, dtype = spec_of(case, tower), AUTOCAST[precision]
    split = written(folder / f"{case.sampling.image_px}-{precision}", spec, max(CLIPS))
    inputs = Offer(
        layers=spec.layers,
        sparse_frames=spec.sparse_frames,
        alpha=spec.sampling.alpha,
        grid=(math.isqrt(spec.tokens - 1),) * 2,
        channels=spec.channels,
        embed=spec.embed,
        classes=1,
        image_px=spec.sampling.image_px,
    )
    torch.manual_seed(0)
    net = DistNet(case.config, inputs, inputs.layers)
    mean, std = torch.from_numpy(split.channel_mean), torch.from_numpy(split.channel_std)
    dequantise = Dequantiser(spec, mean, std, layers=spec.layers)
    for clips in CLIPS:
        side = spec.sampling.image_px
        dense = torch.randn(clips, spec.sampling.dense_frames, 3, side, side)
        sparse = dense[:, :: spec.sampling.alpha].flatten(0, 1).contiguous()
        with CacheReader(split) as reader:
            buffer = reader.buffer(clips, spec.layers)
            views = list(range(clips)), [0] * clips

            def load(reader=reader, buffer=buffer, views=views) -> Tensor:
                codes = reader.read(*views, spec.layers, out=buffer)
                return dequantise(codes.codes, codes.scale)

            tokens = load()
            work: dict[str, Callable[[], object]] = {
                "plain": lambda t=tokens, d=dense: step(net, "plain", t, d, dtype),
                "fast": lambda t=tokens, d=dense: step(net, "fast", t, d, dtype),
                "load": load,
                "CLIP": lambda frames=sparse: tower.taps(frames, spec.layers),
            }
            yield (
                line(case.name, clips, precision, in_turn(work, rounds, clock, yardsticks=("CLIP",))),
                memory_line(case.name, clips, precision, net, tokens, dense),
            )


HEADER = (
    "| sizes | clips | type | plain | fast | plain / fast | CLIP forward | cached tokens "
    "| CLIP + plain against cached + fast |\n|---|---|---|---|---|---|---|---|---|"
)
MEMORY_HEADER = "| sizes | clips | type | plain | fast | plain / fast |\n|---|---|---|---|---|---|"


def line(name: str, clips: int, precision: str, timed: dict[str, Timing]) -> str:
    """One row of the first table."""
    plain, fast, clip, load = (timed[key] for key in ("plain", "fast", "CLIP", "load"))
    whole = (clip.median + plain.median) / (load.median + fast.median)
    return (
        f"| {name} | {clips} | {precision} | {plain} | {fast} | **{plain.median / fast.median:.2f}x** "
        f"| {clip} | {load} | {whole:.1f}x |"
    )


def memory_line(name: str, clips: int, precision: str, net: DistNet, tokens: Tensor, dense: Tensor) -> str:
    """One row of the second table."""
    owned = [*net.parameters(), tokens, dense]
    plain, fast = (
        kept_bytes(lambda form=form: forward(net, form, tokens, dense, AUTOCAST[precision]), owned)
        for form in ("plain", "fast")
    )
    return f"| {name} | {clips} | {precision} | {plain / 1e6:.0f} MB | {fast / 1e6:.0f} MB | {plain / fast:.2f}x |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a DiST training step, and of what stands beside it.")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, help="threads of torch (as torch chooses)")
    parser.add_argument("--write", type=Path, help="put the tables into this document, between its two comments")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    where, started = machine(), time.monotonic()
    print(where, HEADER, sep="\n\n", flush=True)
    times, memory = [HEADER], [MEMORY_HEADER]
    with tempfile.TemporaryDirectory() as folder, cases(Path(folder)) as chosen:
        for case in chosen:
            for precision in ("fp32", "bf16"):
                for timed, kept in rows_of(case, precision, Path(folder), asked.rounds, asked.clock):
                    times.append(timed)
                    memory.append(kept)
                    print(timed, flush=True)
    print("\nKept for the backward pass:\n", *memory, sep="\n")
    after = f"{time.monotonic() - started:.0f} s in all, load after it {os.getloadavg()[0]:.1f}; clock: {asked.clock}"
    print(f"\n{after}")
    if asked.write:
        begin, end = "<!-- made by make bench -->\n", "<!-- end -->"
        head, _, rest = asked.write.read_text(encoding="utf-8").partition(begin)
        parts = [f"Machine: {where}. {after}.", "\n".join(times), "Kept for the backward pass:", "\n".join(memory)]
        tail = rest.partition(end)[2]
        asked.write.write_text(head + begin + "\n" + "\n\n".join(parts) + "\n\n" + end + tail, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
