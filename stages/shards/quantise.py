"""Tokens to codes: what a codec needs is fitted on a sample once, then every video is quantised with it.

    sample of the split's videos ─▶ CLIP taps ─▶ mean, std, rotation, codebook ─▶ stored in the split
    one video's tokens ─ on the tower's device ─▶ codes, scale ─▶ CPU ─▶ shard file

Consequence: what leaves the device is as small as what is stored.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted, Fitting
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.shard_writer import TOKEN_ARRAYS
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.encode import Encoded, encode_videos

Quantised: TypeAlias = tuple[Tensor, Tensor | None]
"""Codes and, where the codec has them, scales."""


def calibrate(request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: Tower, shown: Progress) -> Fitted:
    """What the codec needs to know, from an even sample of the split's videos; no CLIP where it needs nothing."""
    if spec.form.is_exact:
        shape = (len(spec.layers), spec.channels)
        return Fitted(mean=torch.zeros(shape), std=torch.ones(shape), arrays={})
    sample = dataset.take(min(len(dataset), spec.calibration_videos)).videos
    fitting = Fitting([spec.form], len(sample))
    with shown.bar(f"calibrate {spec.split}", len(sample), "videos") as bar:
        for encoded in encode_videos(sample, spec, tower, request):
            if isinstance(encoded, Encoded):
                fitting.update(encoded.tokens)
            bar.advance()
    return fitting.finish(spec.form, tower.device)


class SplitQuantiser:
    """Tokens to codes on the device where CLIP is, with what the split's codec has fitted.

    Codes go into buffers in the memory of the host, pinned if the device is a GPU. `give_back` frees a buffer for the
    next video. So the number of buffers bounds the memory of writing, and the allocator cannot waste any.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self._quantise = Quantiser.of(split).to(device)
        self._pinned = device.type == "cuda"
        arrays = split.layout.owned
        self._kinds = [
            (arrays[name].shape[1:], torch.from_numpy(np.empty(0, arrays[name].dtype)).dtype)
            for name in TOKEN_ARRAYS
            if name in arrays
        ]
        self._free: deque[Quantised] = deque()

    def __call__(self, tokens: Tensor) -> Quantised:
        """tokens [view layer frame token channel] → codes [view layer frame token code] and scales, both on the CPU."""
        try:
            buffers = self._free.pop()
        except IndexError:
            made = [torch.empty(shape, dtype=dtype, pin_memory=self._pinned) for shape, dtype in self._kinds]
            buffers = made[0], made[1] if len(made) > 1 else None
        return self._quantise(tokens, buffers)  # type: ignore[no-any-return]

    def give_back(self, codes: Quantised) -> None:
        """Say that codes are written; callable from any thread."""
        self._free.append(codes)
