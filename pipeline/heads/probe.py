"""Linear probe on mean CLIP embeddings: a control that is blind to frame order. Every temporal head must beat it.

    embedding [clip frame embed] ─ normalise ─ mean over frames ─ Linear ─▶ logits [clip class]

The mean does not depend on the order of frames. The probe can only guess classes that differ only by direction of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vidxfer.pipeline.heads.base import BatchStatistics, Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.shapes import ClipBatch


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(HeadConfig):
    """The linear probe has nothing to set."""

    kind: ClassVar[str] = "probe"

    @property
    def batch_statistics(self) -> BatchStatistics:
        """The standardised mean of one clip alone is 0."""
        return "device"

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        return Needs(embedding=True)

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return MeanEmbeddingProbe(self, offer)


class MeanEmbeddingProbe(Head):
    """Logistic regression on the mean of the L2-normalised per-frame embeddings.

    The input is standardised by a batch norm without parameters of its own: CLIP embeddings have a large common part,
    and plain logistic regression on them would need thousands of steps.
    """

    def __init__(self, config: ProbeConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        self.norm = nn.BatchNorm1d(offer.embed, affine=False)
        self.classifier = nn.Linear(offer.embed, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.embedding is not None, "the loader fetches what `needs` declares"
        mean = F.normalize(batch.embedding.float(), dim=-1).mean(dim=1)
        logits: Tensor = self.classifier(self.norm(mean))
        return logits


FAMILY = Family(
    config=ProbeConfig,
    recipes=(
        Recipe(
            name="probe",
            head=ProbeConfig(),
            optimiser=Optimiser(warmup_from=1e-4),
            epochs=40,
            warmup_epochs=2,
            batch_clips=32,
            learning_rate=1e-2,
            evaluate_every_epochs=20,
            checkpoint_seconds=30.0,
        ),
    ),
)
