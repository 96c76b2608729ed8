"""Class scores as scaled cosines against text embeddings: no class-specific parameter (docs/spec/dist.md §3).

    video [clip embed] ─ normalise ─┐
                                    ├─ dot ─ × exp(logit_scale) ─▶ logits [clip class]
    text [class embed] ─ normalise ─┘

A checkpoint does not hold the text. It therefore works with any label set of the same CLIP text space.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


def cosine_logits(video: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """Scaled cosines: [clip embed], [class embed] -> [clip class]. The norms have no epsilon, as published."""
    video = video / video.norm(dim=-1, keepdim=True)
    text = text / text.norm(dim=-1, keepdim=True)
    return scale * video @ text.t()


class TextCosine(nn.Module):
    """Holds the class-name embeddings (not saved with weights) and CLIP's logit scale.

    Args:
        text: raw text embeddings [class embed], float32.
        logit_scale: CLIP's logit scale, exponentiated; about 100.
    """

    text: Tensor
    scale: Tensor

    def __init__(self, text: Tensor, logit_scale: float) -> None:
        super().__init__()
        self.register_buffer("text", text.float(), persistent=False)
        self.register_buffer("scale", torch.tensor(float(logit_scale)), persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        """[clip embed] -> logits [clip class], in float32 under any autocast type."""
        shapes_only = video.device.type == "meta"  # autocast does not support that device, and nothing is to be cast
        with nullcontext() if shapes_only else torch.autocast(video.device.type, enabled=False):
            return cosine_logits(video.float(), self.text, self.scale)
