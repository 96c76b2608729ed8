"""Linear probe on mean CLIP embeddings: the order-blind control every temporal head must beat.

    embedding [clip frame embed] ─ normalise ─ mean over frames ─ Linear ─▶ logits [clip class]

Averaging forgets the order of frames, so on classes that differ only by direction of time it can only guess.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vidxfer.pipeline.heads.base import Head, HeadInputs, Needs
from vidxfer.pipeline.shapes import ClipBatch


class MeanEmbeddingProbe(Head):
    """Logistic regression on the mean of the L2-normalised per-frame embeddings.

    The input is standardised by a batch norm without parameters of its own: CLIP embeddings have a large common part,
    and plain logistic regression on them would need thousands of steps.
    """

    def __init__(self, inputs: HeadInputs) -> None:
        super().__init__()
        self.needs = Needs(embedding=True)
        self.norm = nn.BatchNorm1d(inputs.embed, affine=False)
        self.classifier = nn.Linear(inputs.embed, inputs.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.embedding is not None, "the loader fetches what `needs` declares"
        mean = F.normalize(batch.embedding.float(), dim=-1).mean(dim=1)
        logits: Tensor = self.classifier(self.norm(mean))
        return logits
