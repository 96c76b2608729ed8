"""V-JEPA 2's probe as a head: order with the table and not without, both forms alike, initialised as published."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.pooler import FAMILY, FORMS, PoolerConfig, PoolerProbe
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.optimise import build_optimiser, learning_rate_at

OFFER = Offer(layers=(-1, 0, 3), sparse_frames=6, alpha=2, grid=(2, 3), channels=32, embed=8, classes=5, image_px=64)
TOKENS = torch.randn(3, 1, 6, 7, 32, generator=torch.Generator().manual_seed(1))
NAMES = {recipe.name: recipe for recipe in FAMILY.recipes}
depths = pytest.mark.parametrize("depth", [1, 2, 4])


def probe(**settings: Any) -> PoolerProbe:
    """Weights large enough that what is seen matters, no norm or bias at its initial value."""
    torch.manual_seed(0)
    head = PoolerProbe(PoolerConfig(attention_heads=4, **settings), OFFER)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(6.0 if parameter.ndim > 1 else 1.0).add_(0.05 * torch.randn(parameter.shape))
    return head.eval()


def batch(tokens: Tensor) -> ClipBatch:
    clips = len(tokens)
    names = tuple(map(str, range(clips)))
    return ClipBatch(tokens=tokens, embedding=None, dense=None, targets=None, labels=torch.zeros(clips), ids=names)


@depths
@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (0, 1, 3, 2, 4, 5), (2, 0, 5, 1, 4, 3)])
def test_the_order_of_frames_is_seen_with_the_table_alone(depth: int, order: tuple[int, ...]) -> None:
    for positions in (False, True):
        head = probe(depth=depth, positions=positions)
        moved = (head(batch(TOKENS[:, :, order])) - head(batch(TOKENS))).abs().amax(dim=1)
        assert moved.min() > 1e-2 if positions else moved.max() < 2e-5


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_a_row_of_the_table_is_added_to_its_frame_in_units_of_each_token(spread: float) -> None:
    """By hand: the mean of squares about the mean; a tower whose tokens are larger hears the table no less."""
    with_table, without = probe(positions=True), probe()
    without.load_state_dict({name: value for name, value in with_table.state_dict().items() if name != "positions"})
    assert with_table.positions is not None
    tokens = spread * (TOKENS + 0.5)
    shifted = tokens.clone()
    for frame, row in enumerate(with_table.positions.detach()):
        for token in range(7):
            own = tokens[:, 0, frame, token]
            shifted[:, 0, frame, token] += (own - own.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt() * row
    torch.testing.assert_close(with_table(batch(tokens)), without(batch(shifted)), rtol=1e-4, atol=2e-5)
    assert (with_table(batch(tokens)) - without(batch(tokens))).abs().max() > 0.1


def results(head: PoolerProbe) -> dict[str, Tensor]:
    logits = head(batch(TOKENS))
    looked_at = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    names, values = zip(*head.named_parameters(), strict=True)
    return {
        "logits": logits.detach(),
        **dict(zip(names, torch.autograd.grad((logits * looked_at).sum(), values), strict=True)),
    }


@depths
@pytest.mark.parametrize("positions", [False, True])
def test_both_forms_are_one_function_of_the_same_parameters(depth: int, positions: bool) -> None:
    fast, plain = (results(probe(depth=depth, positions=positions, form=form)) for form in FORMS)
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, rtol=0, atol=1e-5 * max(1.0, float(value.abs().max())))


def test_a_nearly_silent_pooler_answers_with_its_query() -> None:
    """Both residuals of the query's block, and no norm before or behind: the raw query is what the classifier reads."""
    head = probe()
    block = head.pooler.cross_attention_block
    with torch.no_grad():
        for layer in (block.xattn.kv, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    expected = head.linear.weight @ head.pooler.query_tokens.flatten() + head.linear.bias
    torch.testing.assert_close(head(batch(TOKENS)), expected.expand(3, 5), rtol=1e-5, atol=1e-5)


@depths
def test_fresh_weights_spread_as_published(depth: int) -> None:
    torch.manual_seed(3)
    head = PoolerProbe(PoolerConfig(depth=depth, positions=True), replace(OFFER, channels=192))
    last = max(1, depth - 1)
    expected = {"positions": 0.5, "pooler.cross_attention_block.mlp.fc2": 0.02 / math.sqrt(2 * last)}
    for number in range(depth - 1):
        for name in ("attn.proj", "mlp.fc2"):
            expected[f"pooler.blocks.{number}.{name}"] = 0.02 / math.sqrt(2 * (number + 1))
    for name, value in head.named_parameters():
        parameter = value.detach()
        part, kind = name.rsplit(".", 1) if "." in name else (name, "")
        if part == "linear":
            assert 0.6 / math.sqrt(192) < parameter.abs().max() <= 1 / math.sqrt(192), "torch's own default"
        elif kind == "bias":
            assert not parameter.any()
        elif "norm" in part:
            assert torch.equal(parameter, torch.ones(192))
        else:
            room = 0.15 if parameter.numel() < 2000 else 0.03
            assert float(parameter.std()) == pytest.approx(expected.get(part, 0.02), rel=room), name
            assert parameter.abs().max() < 6 * expected.get(part, 0.02)


def test_the_recipes_are_two_depths_each_with_and_without_the_table() -> None:
    found = {name: (recipe.head.depth, recipe.head.positions) for name, recipe in NAMES.items()}  # type: ignore[attr-defined]
    assert found == {
        "attentive-d1": (1, False), "attentive-d1-time": (1, True), "attentive-d4": (4, False),
        "attentive-d4-time": (4, True),
    }  # fmt: skip
    for recipe in NAMES.values():
        assert recipe in RECIPES
        assert recipe.head.fixed_frames == recipe.name.endswith("-time")
        head = recipe.head.build(replace(OFFER, channels=32))
        decayed, free = build_optimiser(head, recipe).param_groups
        assert (len(decayed["params"]), free["params"]) == (len(list(head.parameters())), [])
        rates = [learning_rate_at(epoch, recipe) / recipe.learning_rate for epoch in (0, 10, 20)]
        assert rates == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"attention_heads": 0}, "attention_heads=0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0"),
        ({"mlp_ratio": math.nan}, "mlp_ratio=nan"),
        ({"form": "quick"}, "form='quick' is none of fast, plain"),
    ],
)
def test_settings_that_make_no_pooler_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        PoolerConfig(**changes)


def test_a_width_that_does_not_divide_names_what_does() -> None:
    with pytest.raises(
        CacheError, match=r"30 channels .*attention_heads=16: set it to one of 1, 2, 3, 5, 6, 10, 15, 30"
    ):
        PoolerProbe(PoolerConfig(), replace(OFFER, channels=30))
    with pytest.raises(CacheError, match="the cache holds only the stem"):
        PoolerProbe(PoolerConfig(), replace(OFFER, layers=(-1,)))


def test_it_learns_a_toy_world_in_a_few_epochs(toy: Any, invoke: Any, tmp_path: Path) -> None:
    """24 clips of 8 classes in the tokens of an untrained CLIP: chance is a loss of ln 8."""
    sets = ["epochs=8", "batch_clips=8", "evaluate_every_epochs=8"]
    words = ["--cache", toy.float16, "--run", tmp_path / "run", "--device", "cpu"]
    changed = [word for one in sets for word in ("--set", one)]
    done = invoke("train", *words, "--recipe", "attentive-d1-time", *changed)
    assert done.exit_code == 0, done.stderr
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert abs(losses[0] - math.log(8)) < 0.35
    assert sum(losses[-3:]) / 3 < 0.9 * math.log(8)
    assert "(16 scored / 16 listed)" in done.stdout + done.stderr
