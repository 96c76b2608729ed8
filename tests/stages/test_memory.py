"""Memory of a training step from shapes alone, against what a real step keeps and against numbers by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.planning.memory import training_bytes


def kept_by_the_graph(logits: Tensor, inputs: list[Tensor], parameters: list[Tensor]) -> int:
    """Bytes of the inputs and of every tensor that a node of the backward pass holds; parameters are not counted."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in inputs}
    nodes, seen = [logits.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        flat = [one for value in saved for one in (value if isinstance(value, tuple | list) else [value])]
        kept = [one for one in flat if isinstance(one, Tensor)]
        storages |= {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    return sum(size for pointer, size in storages.items() if pointer not in own)


def test_bytes_from_shapes_equal_those_of_a_real_step(toy: Any) -> None:
    split, recipe = open_split(toy.int8, "train"), toy.recipe("batch_clips=5")
    classes = len(split.class_names)
    offer = offer_of(split.spec, recipe, classes=classes, text=torch.ones(classes, split.spec.embed))
    head = build_head(recipe, offer).eval()
    batch = offer.fake_batch(head.needs, 5)
    logits = head(batch)
    parameters = list(head.parameters())
    kept = kept_by_the_graph(logits, [one for one in (batch.tokens, batch.dense) if one is not None], parameters)
    logits.sum().backward()
    optimiser = torch.optim.AdamW(parameters)
    optimiser.step()
    gradients = [one.grad for one in parameters if one.grad is not None]
    moments = [one for state in optimiser.state.values() for one in (state["exp_avg"], state["exp_avg_sq"])]
    real = kept + sum(one.numel() * one.element_size() for one in (*parameters, *gradients, *moments))
    assert abs(training_bytes(recipe, split.spec, classes) - real) < 0.02 * real


def test_bytes_of_a_probe_are_those_counted_by_hand(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    recipe: Recipe = with_settings(named("probe"), ["batch_clips=5"])
    frames, embed, classes = 4, 32, 8  # of the toy world
    per_clip = frames * embed + embed  # the embeddings, and the input of the linear layer
    parameters = embed * classes + classes
    buffers = 2 * 4 * embed + 8  # running mean and variance of the norm, and how many steps it has seen
    assert training_bytes(recipe, spec, classes) == 4 * (5 * per_clip + 4 * parameters) + buffers == 7688


def test_more_clips_take_more_memory_by_a_constant_each(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    four, five, nine = (training_bytes(toy.recipe(f"batch_clips={n}"), spec, 8) for n in (4, 5, 9))
    assert nine - five == 4 * (five - four) > 0


def test_buffers_of_a_head_count_once(toy: Any, monkeypatch: Any) -> None:
    """CLIP's own weights, or a table of positions: in memory all through the step, whatever the batch."""
    spec, recipe = open_split(toy.int8, "train").spec, with_settings(named("probe"), ["batch_clips=5"])
    plain, build = training_bytes(recipe, spec, 8), type(recipe.head).build

    def with_buffer(self: Any, offer: Any) -> Any:
        head = build(self, offer)
        head.register_buffer("clip_rows", torch.zeros(128, 64), persistent=False)
        return head

    monkeypatch.setattr(type(recipe.head), "build", with_buffer)
    assert training_bytes(recipe, spec, 8) - plain == 128 * 64 * 4
