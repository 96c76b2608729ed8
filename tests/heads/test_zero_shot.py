"""CLIP alone, and fused with a head: the published evaluation path (docs/spec/dist.md §3)."""

from __future__ import annotations

import pytest
import torch

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Head, Needs
from vidxfer.pipeline.heads.zero_shot import FusedWithClip, ZeroShotClip
from vidxfer.pipeline.shapes import ClipBatch


def batch(embedding: torch.Tensor) -> ClipBatch:
    clips = len(embedding)
    ids = tuple(str(n) for n in range(clips))
    return ClipBatch(tokens=None, embedding=embedding, dense=None, targets=None, labels=torch.zeros(clips), ids=ids)


class Constant(Head):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.needs, self.logits = Needs(layers=(3,)), logits

    def forward(self, batch: ClipBatch) -> torch.Tensor:
        return self.logits


def test_zero_shot_logits_are_the_mean_over_frames_of_scaled_cosines() -> None:
    embedding, text = torch.randn(2, 3, 5), torch.randn(4, 5)
    cosines = torch.nn.functional.cosine_similarity(embedding[:, :, None], text[None, None], dim=-1)
    torch.testing.assert_close(ZeroShotClip(text, 50.0)(batch(embedding)), 50.0 * cosines.mean(dim=1))


def test_every_frame_has_the_same_say_by_hand() -> None:
    """Cosines of (3, 4) with (1, 0) and (0, 2) are 0.6 and 0.8, of (0, 100) 0 and 1: 0.3 and 0.9 on average."""
    embedding, text = torch.tensor([[[3.0, 4.0], [0.0, 100.0]]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(ZeroShotClip(text, 10.0)(batch(embedding)), torch.tensor([[3.0, 9.0]]))


def test_classes_rank_as_by_the_cosine_with_the_mean_of_the_frames_directions() -> None:
    """Averaged logits are that cosine times the length of the mean: one number for all classes of a clip."""
    torch.manual_seed(0)
    embedding, text = 9 * torch.rand(40, 3, 1) * torch.randn(40, 3, 5), torch.randn(6, 5)
    mean = torch.nn.functional.normalize(embedding, dim=-1).mean(dim=1)
    cosines = torch.nn.functional.cosine_similarity(mean[:, None], text[None], dim=-1)
    found = ZeroShotClip(text, 50.0)(batch(embedding))
    torch.testing.assert_close(found, 50.0 * mean.norm(dim=-1, keepdim=True) * cosines, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argsort(dim=1), cosines.argsort(dim=1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_fusion_is_the_weighted_mean_of_both_logits(share: float) -> None:
    embedding, text, own = torch.randn(2, 3, 5), torch.randn(4, 5), torch.randn(2, 4)
    clip = ZeroShotClip(text, 50.0)
    fused = FusedWithClip(Constant(own), clip, share)
    torch.testing.assert_close(fused(batch(embedding)), share * clip(batch(embedding)) + (1 - share) * own)
    assert fused.needs == Needs(layers=(3,), embedding=True, text=True)


def test_a_share_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"between 0 and 1, not 1\.5"):
        FusedWithClip(Constant(torch.zeros(1, 1)), ZeroShotClip(torch.ones(1, 1), 1.0), 1.5)
