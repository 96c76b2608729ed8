"""gpu.py's parts of bytes: every codec decoded on the device, copies to it, JPEG there and on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gpu_caches import COLOURS, QUALITY, fitted, pictures, spec_for, tokens_like
from gpu_device import CPU, CUDA, DEVICE, NEEDS_A_CARD, Row, seconds_of, tf32
from gpu_proofs import share_off

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted
from vidxfer.pipeline.cache.codecs.form import KLT_BITS
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.heads.recipe import B16
from vidxfer.pipeline.training.upload import pinned
from vidxfer.pipeline.video.jpeg import decode_frames, encode_frames

CODECS = ("float16", "int8", "int6", "int4", "pq", "rotate+int8", "rotate+int4", "rotate+pq", "pca32+int8",
          *(f"klt{bits:g}" for bits in KLT_BITS))  # fmt: skip
SAME = 1e-4
"""Largest share of the largest token by which decoded tokens may differ: another order of additions."""


def tower_of(folder: Path, small: bool, device: str = "cpu", precision: str = "auto") -> Tower:
    """ViT-B/16 with random weights, or a tiny CLIP."""
    model = str(write_tiny_clip(folder / "clip", image_px=32, channels=64, blocks=3, embed=32)) if small else B16.model
    return untrained_tower(model, device=device, precision=precision)


def codecs(folder: Path, small: bool) -> Iterator[Row]:
    """Tokens decoded on the device equal those of the CPU; and how many bytes a second are decoded."""
    tower, clips = tower_of(folder, small), 2 if small else 8
    for codec in CODECS:
        spec = spec_for(tower, codec, small=small)
        known = fitted(spec)
        given = known.mean, known.std, known.arrays
        quantise = Quantiser(spec.form, *given, range(len(spec.layers)))
        dequantise = Dequantiser(spec, known.mean, known.std, fitted=known.arrays)
        tokens = tokens_like(spec, 99, len(spec.layers))[None]
        with tf32(False):
            codes, scale = quantise(tokens.to(CPU))
            expected = dequantise(codes, scale)
            on_device = quantise.to(DEVICE)(tokens)[0].to(CPU) if CUDA else codes
            there = dequantise.to(DEVICE)
            moved_codes, moved_scale = codes.to(DEVICE), None if scale is None else scale.to(DEVICE)
            off = share_off(there(moved_codes, moved_scale), expected) if CUDA else None
            many = moved_codes.expand(clips, *moved_codes.shape[1:]).contiguous()
            scales = None if moved_scale is None else moved_scale.expand(clips, *moved_scale.shape[1:]).contiguous()
            took = decoded_seconds(spec, known, many, scales, None)
            halved = decoded_seconds(spec, known, many, scales, torch.bfloat16) if spec.form.is_klt else None
        read = many.nbytes + (0 if scales is None else scales.nbytes)
        yield {
            "codec": codec, "decoded, share of the largest": NEEDS_A_CARD if off is None else off,
            "codes equal": NEEDS_A_CARD if off is None else share_equal(on_device, codes),
            "MB per view": read / clips / 1e6, "GB/s of codes read": read / took / 1e9,
            "GB/s of tokens made": clips * expected.nbytes / took / 1e9, "ms per view": 1e3 * took / clips,
            "in bf16": None if halved is None else 1e3 * halved / clips,
            "holds": None if off is None else off <= SAME,
        }  # fmt: skip


def decoded_seconds(spec: CacheSpec, known: Fitted, codes: torch.Tensor, scale: torch.Tensor | None,
                    product: torch.dtype | None) -> float:  # fmt: skip
    """Of decoding a batch on the device."""
    dequantise = Dequantiser(spec, known.mean, known.std, fitted=known.arrays, product=product).to(DEVICE)
    return seconds_of(lambda: dequantise(codes, scale))


def share_equal(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of equal numbers: a value halfway between two codes may fall to the other side on a device."""
    return float((found == expected).double().mean())


def transfer(folder: Path, small: bool) -> Iterator[Row]:
    """Copies of one batch's codes to the device, and JPEG frames decoded there and on the CPU's threads."""
    yield from copies(1 << 20 if small else 256 << 20)
    frames, side = (8, 32) if small else (128, 224)
    shown = np.repeat(pictures(8, side), frames // 8, axis=0)
    files, _ = encode_frames(shown, quality=QUALITY, subsampling=COLOURS, most_bytes=1 << 20)
    raw = [np.frombuffer(bytearray(file), dtype=np.uint8) for file in files]
    threads = os.cpu_count() or 1
    yield jpeg_row("CPU, 1 thread", frames, seconds_of(lambda: decode_frames(raw, CPU)))
    parts = [raw[first::threads] for first in range(min(threads, len(raw)))]
    with ThreadPoolExecutor(threads) as pool:
        took = seconds_of(lambda: list(pool.map(lambda part: decode_frames(part, CPU), parts)))
    best = frames / took
    yield jpeg_row(f"CPU, {threads} threads", frames, took)
    if not CUDA:
        yield {"what": "JPEG decoded", "where": "device", "frames/s": NEEDS_A_CARD,
               "rates": {"jpeg_frames_per_second": best}}  # fmt: skip
        return
    wrong = (decode_frames(raw, DEVICE).cpu().int() - decode_frames(raw, CPU).int()).abs()
    took = seconds_of(lambda: decode_frames(raw, DEVICE))
    most, mean = int(wrong.max()), float(wrong.float().mean())
    yield {**jpeg_row("device", frames, took), "largest deviation of 255": most, "mean deviation of 255": mean,
           "holds": most <= 4 and mean <= 1, "rates": {"jpeg_frames_per_second": max(best, frames / took)}}  # fmt: skip


def jpeg_row(where: str, frames: int, took: float) -> Row:
    return {"what": "JPEG decoded", "where": where, "frames/s": frames / took}


def copies(size_bytes: int) -> Iterator[Row]:
    """Host to device from pinned and from other memory; the bytes arrive as they were."""
    if not CUDA:
        yield {"what": "host to device", "where": "pinned", "GB/s": NEEDS_A_CARD}
        return
    plain = torch.randint(0, 256, (size_bytes,), dtype=torch.uint8)
    for where, host in (("other memory", plain), ("pinned", pinned(plain))):
        took = seconds_of(lambda host=host: host.to(DEVICE, non_blocking=True))
        arrived = torch.equal(host.to(DEVICE, non_blocking=True).cpu(), plain)
        yield {"what": "host to device", "where": where, "GB/s": size_bytes / took / 1e9,
               "holds": arrived and host.is_pinned() == (where == "pinned")}  # fmt: skip
