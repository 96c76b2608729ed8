"""What storing tokens costs at the published sizes: ViT-B/16, all twelve blocks, 8 + 16 frames, 174 classes.

The weights are random (nothing can be downloaded), the pixels are smooth random pictures that drift.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codecs.fit import Calibration
from vidxfer.pipeline.cache.codecs.plain import decode_int8, encode_float16, encode_int8
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import DistConfig, DistHead
from vidxfer.pipeline.shapes import ClipBatch


@pytest.mark.slow
def test_logits_from_stored_tokens_stay_within_their_bounds() -> None:
    torch.manual_seed(0)
    coarse = torch.randn(1, 3, 9, 9)
    dense = torch.stack(
        [
            torch.nn.functional.interpolate(coarse.roll(step % 3, -1), size=(224, 224), mode="bilinear")[0]
            for step in range(16)
        ]
    )[None]
    tower = untrained_tower("ViT-B-16-quickgelu", device="cpu")
    info, layers = tower.info, tuple(range(12))
    taps = tower.taps(dense[0, ::2], layers)
    tokens = taps.tokens[None].clone()
    inputs = Offer(
        layers=layers,
        sparse_frames=8,
        alpha=2,
        grid=(14, 14),
        channels=info.channels,
        embed=info.embed,
        classes=174,
        image_px=info.image_px,
        text=torch.randn(174, info.embed),
        logit_scale=100.0,
    )
    head = DistHead(DistConfig(), inputs).eval()

    def logits(found: Tensor) -> Tensor:
        with torch.inference_mode():
            return head(
                ClipBatch(tokens=found, embedding=None, dense=dense, targets=None, labels=torch.zeros(1), ids=("a",))
            )

    online = logits(tokens)
    sums = Calibration()
    sums.update(tokens)
    mean, std = sums.finish()
    codes, scale = encode_int8(tokens, mean, std)
    float16 = float((logits(encode_float16(tokens).float()) - online).abs().max())
    int8 = float((logits(decode_int8(codes, scale, mean, std)) - online).abs().max())
    print(f"logits, standard deviation {float(online.std()):.2f}: float16 differs by {float16:.1e}, int8 by {int8:.1e}")
    assert float16 < 2e-3
    assert int8 < 0.15
