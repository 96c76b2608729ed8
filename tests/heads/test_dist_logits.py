"""Scaled text cosines and summed view probabilities equal the official head's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidxfer.pipeline.heads import PUBLISHED
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.text import TextCosine


def test_text_cosine_equals_the_official_logits(golden: Any) -> None:
    file = golden("dist_logits.safetensors")
    official = file.tensors
    assert float(official["input.logit_scale"]) == pytest.approx(file.config["logit_scale_log"])
    head = TextCosine(official["input.text_features"], float(official["input.logit_scale"].exp()))
    logits = head(official["input.cls_x"])
    torch.testing.assert_close(logits, official["output.logits_train"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(logits.softmax(-1), official["output.probs_eval"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.softmax(-1).sum(0), official["output.view_sum"], atol=1e-5, rtol=0)


def test_the_text_is_not_part_of_the_weights() -> None:
    assert TextCosine(torch.ones(3, 2), 100.0).state_dict() == {}


def test_dist_reads_the_blocks_and_not_the_stem() -> None:
    """The released code taps the output of blocks alone (docs/spec/dist.md §2)."""
    offer = Offer(layers=(-1, 0, 1), sparse_frames=2, alpha=2, grid=(2, 2), channels=64, embed=8, classes=3, image_px=8)
    needs = DistConfig().needs(offer)
    assert needs.layers == (0, 1)
    assert (needs.pixels, needs.text, needs.embedding) == ("dense", True, False)


def test_the_published_rows_count_the_videos_of_the_lists() -> None:
    """SSv2: docs/spec/tds_clip_side4video.md §1; Kinetics: about 240,000 (docs/spec/dist.md §5)."""
    for row in PUBLISHED:
        if row.data == "SSv2":
            assert (row.train_videos, row.val_videos) == (168_913, 24_777)
        elif row.data == "K400":
            assert 239_000 < row.train_videos < 241_000
            assert 19_000 < row.val_videos < 20_500
