"""gpu.py's figures of steps: the machine's peak, DiST in four arrangements, every head, and ViT-L/14."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from bench_heads import METHODS
from gpu_device import (
    CUDA,
    DEVICE,
    Row,
    Step,
    flop_of,
    offer_for,
    peak_gb,
    product_rate,
    seconds_of,
    tf32,
    with_targets,
)

from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.recipe import B16, L14, ClipShape
from vidxfer.pipeline.precision import head_precision, tower_precision
from vidxfer.pipeline.training.compiled import compile_head
from vidxfer.stages.doctor import device, jpeg_frames
from vidxfer.stages.planning.measure import measure_disk

ARRANGEMENTS = (("plain", "fp32", False), ("plain", "bf16", False), ("fast", "bf16", False), ("fast", "bf16", True))
"""Form, arithmetic, compiled; the first one is what the authors' code does."""


def machine(folder: Path, small: bool) -> Iterator[Row]:
    """Card, driver, versions, commit, date; the largest products; the disk."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2]
    named = processor.partition("\n")[0].strip(" :\t") or platform.machine()
    yield {"what": "device", "is": device()}
    yield {"what": "driver", "is": driver()}
    yield {"what": "versions", "is": f"Python {platform.python_version()}, torch {torch.__version__}"}
    yield {"what": "processor", "is": f"{named}, {os.cpu_count()} cores"}
    yield {"what": "commit", "is": commit.stdout.strip() or "not known"}
    yield {"what": "date", "is": f"{datetime.now(UTC):%Y-%m-%d}"}
    yield {"what": "auto", "is": f"{tower_precision('auto', DEVICE)} for CLIP, {head_precision('auto', DEVICE)} heads"}
    yield {"what": "JPEG frames come back", "is": str(jpeg_frames())}
    for precision in ("fp32", "bf16"):
        with tf32(False):
            yield {"what": f"largest {precision} product, TFLOP/s", "is": product_rate(precision, small=small) / 1e12}
    if (disk := measure_disk(folder, 1 << 20)) is not None:
        rates = {"disk_write_gb_per_second": disk[0], "disk_read_gb_per_second": disk[1]}
        yield {"what": "disk, GB/s written and read", "is": f"{disk[0]:.2f}, {disk[1]:.2f}", "rates": rates}


def driver() -> str:
    """Of the card, as nvidia-smi has it."""
    if not CUDA:
        return "none: no CUDA device"
    words = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv,noheader"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def dist(folder: Path, small: bool) -> Iterator[Row]:
    """DiST B/16, 8 + 16 frames: plain float32, plain bf16, fast bf16, fast compiled."""
    yield from dist_steps(B16, small=small, clips=2 if small else 16, rates=True)


def dist_steps(shape: ClipShape, *, small: bool, clips: int, rates: bool) -> Iterator[Row]:
    """Every arrangement on the same batch, each against the first one."""
    sizes = {"integration_channels": 64, "temporal_channels": 32} if small else {}
    offer = offer_for(shape, alpha=2, small=small)
    peaks = {precision: product_rate(precision, small=small) for precision in ("fp32", "bf16")}
    flop, baseline = 0, 0.0
    for form, precision, compiled in ARRANGEMENTS:
        torch.manual_seed(0)
        head = replace(DistConfig(pooling_layers=1 if small else 4), form=form, **sizes).build(offer).to(DEVICE)
        step = Step(head, with_targets(offer, head, clips), precision)
        flop = flop or flop_of(step)  # of the plain form: what the function takes, however it is arranged
        if compiled:
            compile_head(head)
        with tf32(False):
            took = seconds_of(step)
            baseline = baseline or took
            row: Row = {
                "form": form + ", compiled" * compiled, "arithmetic": precision, "clips": clips,
                "ms per clip": 1e3 * took / clips, "times as fast as the first": baseline / took,
                "peak memory, GB": peak_gb(step), "share of the largest product": flop / took / peaks[precision],
            }  # fmt: skip
        if rates and (form, precision, compiled) == ("fast", head_precision("auto", DEVICE), False):
            row["rates"] = {"head_clips_per_second": clips / took}
        yield row
        del step, head


def heads(folder: Path, small: bool) -> Iterator[Row]:
    """The other heads in both forms, at B/16 and eight frames."""
    tower = untrained_tower(B16.model, device="cpu") if not small else None
    clips = 2 if small else 16
    side = {"side_channels": 64}
    own = {"EVL K=4": {"blocks": 1}, "Side4Video": side, "TDS-CLIP": side}
    for name, (config, alpha) in METHODS.items():
        if name == "DiST":
            continue
        if small:
            tower = tower or untrained_tower(str(write_tiny_clip(folder, image_px=32, channels=64, blocks=3, embed=32)))
            config = replace(config, **own.get(name, {}))
        assert tower is not None
        offer = offer_for(B16, alpha=alpha, small=small, frozen=tower.state(), clip_heads=tower.heads)
        baseline = 0.0
        for form, precision in (("plain", "fp32"), ("plain", "bf16"), ("fast", "bf16")):
            head = replace(config, form=form).build(offer).to(DEVICE)
            step = Step(head, with_targets(offer, head, clips), precision)
            with tf32(False):
                took = seconds_of(step)
            baseline = baseline or took
            yield {
                "head": name, "form": form, "arithmetic": precision, "ms per clip": 1e3 * took / clips,
                "times as fast as the first": baseline / took, "peak memory, GB": peak_gb(step),
            }  # fmt: skip
            del step, head


def large(folder: Path, small: bool) -> Iterator[Row]:
    """DiST over ViT-L/14, 8 + 16 frames, and the tower itself."""
    for row in dist_steps(L14, small=small, clips=2 if small else 8, rates=False):
        yield {"of": "a step of DiST", **row}
    model = str(write_tiny_clip(folder, image_px=32, channels=64, blocks=3, embed=32)) if small else L14.model
    tower = untrained_tower(model, device=str(DEVICE))
    frames = torch.randn(8 if small else 64, 3, *[tower.info.image_px] * 2, device=DEVICE)
    took = seconds_of(lambda: tower.taps(frames, tuple(range(tower.info.blocks))))
    yield {
        "of": "CLIP's forward, all taps", "arithmetic": tower.info.precision, "clips": len(frames) / 8,
        "ms per clip": 8e3 * took / len(frames),
    }  # fmt: skip
