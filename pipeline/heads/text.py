"""Class scores as scaled cosines against text embeddings: no class-specific parameter (docs/spec/dist.md §3).

    video [clip embed] ─ normalise ─┐
                                    ├─ dot ─ × exp(logit_scale) ─ + logit_bias ─▶ logits [clip class]
    text [class embed] ─ normalise ─┘

A checkpoint therefore works with any label set of the same CLIP text space; the text is not part of it. CLIP has no
bias. A tower that was trained with a sigmoid (SigLIP) has one, the same for all classes.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


def cosine_logits(video: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float = 0.0) -> Tensor:
    """Scale · cosine + bias: [clip embed], [class embed] -> [clip class]. No epsilon in the norms, as published."""
    video = video / video.norm(dim=-1, keepdim=True)
    text = text / text.norm(dim=-1, keepdim=True)
    return scale * video @ text.t() + bias


class TextCosine(nn.Module):
    """Holds the class-name embeddings (not saved with weights) and CLIP's logit scale.

    Args:
        text: raw text embeddings [class embed], float32.
        logit_scale: already exponentiated; CLIP's own is about 100.
        logit_bias: added to every logit; None: 0, as in CLIP.
    """

    text: Tensor
    scale: Tensor

    def __init__(self, text: Tensor, logit_scale: float, logit_bias: float | None = None) -> None:
        super().__init__()
        self.register_buffer("text", text.float(), persistent=False)
        self.register_buffer("scale", torch.tensor(float(logit_scale)), persistent=False)
        self.bias = logit_bias or 0.0

    def forward(self, video: Tensor) -> Tensor:
        """[clip embed] -> logits [clip class], in float32 under any autocast type."""
        shapes_only = video.device.type == "meta"  # autocast does not support that device, and nothing is to be cast
        with nullcontext() if shapes_only else torch.autocast(video.device.type, enabled=False):
            return cosine_logits(video.float(), self.text, self.scale, self.bias)
