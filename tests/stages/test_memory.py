"""Memory of a training step from shapes equals what a real step keeps."""

from __future__ import annotations

from typing import Any

import torch

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.stages.planning.memory import FLOAT32_BYTES, _kept_bytes, training_bytes


def test_bytes_from_shapes_equal_those_of_real_tensors(toy: Any) -> None:
    split, recipe = open_split(toy.int8, "train"), toy.recipe("batch_clips=5")
    classes = len(split.class_names)
    offer = offer_of(split.spec, recipe, classes=classes, text=torch.ones(classes, split.spec.embed))
    head = build_head(recipe, offer).eval()
    real = offer.fake_batch(head.needs, 5)
    parameters = 4 * FLOAT32_BYTES * sum(parameter.numel() for parameter in head.parameters())
    told = training_bytes(recipe, split.spec, classes)
    assert abs(told - parameters - _kept_bytes(head, real)) < 0.02 * told


def test_more_clips_take_more_memory_by_a_constant_each(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    four, five, nine = (training_bytes(toy.recipe(f"batch_clips={n}"), spec, 8) for n in (4, 5, 9))
    assert nine - five == 4 * (five - four) > 0
