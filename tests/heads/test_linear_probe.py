"""The linear probe by hand: unit vectors per frame, their mean, standardised per channel, one linear layer."""

from __future__ import annotations

import pytest
import torch

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.probe import ProbeConfig
from vidxfer.pipeline.shapes import ClipBatch


def offer(embed: int, classes: int) -> Offer:
    return Offer(
        layers=(11,), sparse_frames=2, alpha=2, grid=(14, 14), channels=768, embed=embed, classes=classes, image_px=224
    )


def batch(embedding: list[list[list[float]]]) -> ClipBatch:
    names = tuple(map(str, range(len(embedding))))
    return ClipBatch(
        tokens=None, embedding=torch.tensor(embedding), dense=None, targets=None, labels=torch.zeros(len(names)),
        ids=names,
    )  # fmt: skip


def test_every_frame_counts_alike_whatever_its_length() -> None:
    """(3, 4) and (0, 100) have the mean (0.3, 0.9); (1, 0) and (8, 6) have (0.9, 0.3)."""
    head = ProbeConfig().build(offer(2, 2))
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))  # type: ignore[operator, union-attr]
        head.classifier.bias.copy_(torch.tensor([0.5, 0.0]))  # type: ignore[operator, union-attr]
    clips = batch([[[3.0, 4.0], [0.0, 100.0]], [[1.0, 0.0], [8.0, 6.0]]])
    # Both channels have the mean 0.6 and the variance 0.09 over the two clips: they become -1 and 1 each.
    torch.testing.assert_close(head(clips), torch.tensor([[1.5, -1.0], [-0.5, 1.0]]), rtol=0, atol=1e-3)
    # Running numbers moved by a tenth: mean 0.06, variance 0.9 + 0.1 · 0.18 (of 2 clips, by n - 1).
    seen = (torch.tensor([[0.3, 0.9]]) - 0.06) / (0.918 + 1e-5) ** 0.5
    expected = torch.stack([seen[0, 0] + 2 * seen[0, 1] + 0.5, -seen[0, 1]])
    torch.testing.assert_close(head.eval()(clips)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("embed", "classes", "parameters"), [(512, 174, 89_262), (768, 400, 307_600)])
def test_its_parameters_are_those_of_one_linear_layer(embed: int, classes: int, parameters: int) -> None:
    head = ProbeConfig().build(offer(embed, classes))
    assert sum(p.numel() for p in head.parameters()) == parameters == embed * classes + classes
