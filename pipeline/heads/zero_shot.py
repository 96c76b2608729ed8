"""CLIP's zero-shot logits without any training, and their fusion with a trained head's logits.

    embedding [clip frame embed] ─ cosine with class names, per frame ─ mean over frames ─▶ logits [clip class]

Source: the optional zero-shot path of DiST's head, docs/spec/dist.md §3: in evaluation, 0.5 · head + 0.5 · CLIP
on logits.
Zero-shot scoring reads only cached embeddings and class names. It also works for classes without a trained head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange, reduce
from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Head, Needs
from vidxfer.pipeline.heads.text import TextCosine
from vidxfer.pipeline.shapes import ClipBatch


class ZeroShotClip(Head):
    """Mean over frames of the scaled cosines of CLIP's image embeddings with the class names.

    Args:
        text: raw text embeddings [class embed].
        logit_scale: CLIP's, exponentiated.
        logit_bias: of a tower trained with a sigmoid: its probability of a class is that of the class alone.
    """

    def __init__(self, text: Tensor, logit_scale: float, logit_bias: float | None = None) -> None:
        super().__init__()
        self.is_sigmoid = logit_bias is not None
        self.needs = Needs(embedding=True, text=True)
        self.classify = TextCosine(text, logit_scale, logit_bias)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class], float32."""
        assert batch.embedding is not None, "the loader fetches what `needs` declares"
        per_frame = self.classify(rearrange(batch.embedding, "clip frame embed -> (clip frame) embed"))
        logits: Tensor = reduce(per_frame, "(clip frame) classes -> clip classes", "mean", clip=len(batch.embedding))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `Head`. Each class by itself, where the tower was trained so."""
        return logits.float().sigmoid() if self.is_sigmoid else super().probabilities(logits)


class FusedWithClip(Head):
    """share · CLIP's logits + (1 − share) · the head's logits.

    Args:
        head: a trained head.
        clip: zero-shot CLIP over the same classes.
        share: share of CLIP, 0 to 1; published: 0.5.

    Raises:
        UsageError: a share outside 0 to 1.
    """

    def __init__(self, head: Head, clip: ZeroShotClip, share: float) -> None:
        super().__init__()
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"the share of CLIP in the fusion must lie between 0 and 1, not {share}")
        self.needs = replace(head.needs, embedding=True, text=True)
        self.head, self.clip, self.share = head, clip, share

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class], float32."""
        logits: Tensor = torch.lerp(self.head(batch).float(), self.clip(batch), self.share)
        return logits
