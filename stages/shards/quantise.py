"""Tokens to codes: what a codec needs is fitted on a sample once, then every video is quantised with it.

    sample of the split's videos ─▶ CLIP taps ─▶ mean, std, rotation, codebook ─▶ stored in the split
    one video's tokens ─ on the tower's device ─▶ codes, scale ─▶ CPU ─▶ shard file

Consequence: what leaves the device is as small as what is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Quantiser as CodecQuantiser
from vidxfer.pipeline.cache.codec_fit import Fitted, Fitting
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.encode import Encoded, encode_videos


def calibrate(request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: ClipTower, shown: Progress) -> Fitted:
    """What the codec needs to know, from an even sample of the split's videos; no CLIP where it needs nothing."""
    if spec.form.is_exact:
        shape = (len(spec.layers), spec.channels)
        return Fitted(mean=torch.zeros(shape), std=torch.ones(shape), arrays={})
    sample = dataset.take(min(len(dataset), spec.calibration_videos)).videos
    fitting = Fitting([spec.form], len(sample))
    with shown.bar(f"calibrate {spec.split}", len(sample), "videos") as bar:
        for one in encode_videos(sample, spec, tower, request):
            if isinstance(one, Encoded):
                fitting.update(one.tokens)
            bar.advance()
    return fitting.finish(spec.form, tower.device)


class Quantiser:
    """Tokens to codes on the tower's device, with what the split's codec has fitted."""

    def __init__(self, split: Split, tower: ClipTower) -> None:
        self._quantise = CodecQuantiser.of(split).to(tower.device)

    def __call__(self, one: Encoded) -> tuple[Tensor, Tensor | None]:
        """Codes [view layer frame token code] and, where the codec has them, scales; both on the CPU."""
        codes, scale = self._quantise(one.tokens)
        return codes.cpu(), None if scale is None else scale.cpu()
