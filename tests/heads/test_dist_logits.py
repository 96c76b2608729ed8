"""Scaled text cosines and summed view probabilities equal the official head's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
