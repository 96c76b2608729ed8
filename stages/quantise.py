"""Tokens to codes: the statistics a codec needs are drawn from a sample once, then every video is quantised with them.

    sample of the split's videos ─▶ CLIP taps ─▶ mean, std per layer and channel ─▶ stored in the split
    one video's tokens ─ on the tower's device ─▶ codes, scale ─▶ CPU ─▶ shard file

Consequence: what leaves the device is as small as what is stored.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Calibration, encode_float16, encode_int8
from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.stages.encode import Encoded, encode_videos
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import ExtractRequest


def calibrate(
    request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: ClipTower, shown: Progress
) -> tuple[AnyArray, AnyArray]:
    """Mean and std per layer and channel, float32 [layer channel], over an even sample of the split's videos.

    Zeros and ones for a codec that needs no statistics.
    """
    if spec.codec != "int8":
        shape = (len(spec.layers), spec.channels)
        return np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
    sample = dataset.take(min(len(dataset), spec.calibration_videos)).videos
    sums = Calibration()
    with shown.bar(f"calibrate {spec.split}", len(sample), "videos") as bar:
        for one in encode_videos(sample, spec, tower, request):
            if isinstance(one, Encoded):
                sums.update(one.tokens)
            bar.advance()
    mean, std = sums.finish()
    return mean.numpy(), std.numpy()


class Quantiser:
    """Tokens to codes on the tower's device, with the split's statistics."""

    def __init__(self, split: Split, tower: ClipTower) -> None:
        self.codec = split.spec.codec
        self.mean = torch.from_numpy(split.channel_mean).to(tower.device)
        self.std = torch.from_numpy(split.channel_std).to(tower.device)

    def __call__(self, one: Encoded) -> tuple[Tensor, Tensor | None]:
        """Codes [view layer frame token channel] and, where the codec has them, scales; both on the CPU."""
        if self.codec == "float16":
            return encode_float16(one.tokens).cpu(), None
        codes, scale = encode_int8(one.tokens, self.mean, self.std)
        return codes.cpu(), scale.cpu()
