"""Scaled text cosines and summed view probabilities equal the official head's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from vidxfer.pipeline.heads.text import TextCosine


def test_text_cosine_equals_the_official_logits(golden_dir: Path) -> None:
    with safe_open(str(golden_dir / "dist_logits.safetensors"), "pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["config"])["logit_scale_log"] > 0
    head = TextCosine(golden["input.text_features"], float(golden["input.logit_scale"].exp()))
    logits = head(golden["input.cls_x"])
    torch.testing.assert_close(logits, golden["output.logits_train"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(logits.softmax(-1), golden["output.probs_eval"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.softmax(-1).sum(0), golden["output.view_sum"], atol=1e-5, rtol=0)


def test_the_text_is_not_part_of_the_weights() -> None:
    assert TextCosine(torch.ones(3, 2), 100.0).state_dict() == {}
