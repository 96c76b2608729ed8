"""Memory of a training step from shapes equals what a real step keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.training.build import build_head, head_inputs
from vidxfer.stages.planning.memory import FLOAT32_BYTES, _kept_bytes, _shapes, training_bytes


def test_bytes_from_shapes_equal_those_of_real_tensors(toy: Any) -> None:
    split, recipe = open_split(toy.int8, "train"), toy.recipe("batch_clips=5")
    classes = len(split.class_names)
    inputs = head_inputs(split.spec, classes, recipe)
    head = build_head(recipe, inputs, torch.ones(classes, split.spec.embed), 1.0).eval()
    shapes = _shapes(head, inputs, split.spec, 5)
    real = replace(
        shapes,
        **{name: torch.rand(getattr(shapes, name).shape) for name in ("tokens", "embedding", "dense", "labels")},
    )
    parameters = 4 * FLOAT32_BYTES * sum(parameter.numel() for parameter in head.parameters())
    told = training_bytes(recipe, split.spec, classes)
    assert abs(told - parameters - _kept_bytes(head, real)) < 0.02 * told


def test_more_clips_take_more_memory_by_a_constant_each(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    four, five, nine = (training_bytes(toy.recipe(f"batch_clips={n}"), spec, 8) for n in (4, 5, 9))
    assert nine - five == 4 * (five - four) > 0
