"""V-JEPA 2's attentive probe, in both forms, equals the official module (tests/golden/README_more.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.pooler import FORMS, PoolerConfig, PoolerProbe
from vidxfer.pipeline.shapes import ClipBatch

FILES = ["vjepa2_probe_d1.safetensors", "vjepa2_probe_d4.safetensors"]
each = pytest.mark.parametrize("name", FILES)
either = pytest.mark.parametrize("form", FORMS)


def loaded(found: Any, form: str) -> PoolerProbe:
    """The probe of a file's sizes with its weights; the items of the file are the tokens of one frame."""
    sizes = found.config
    offer = Offer(
        layers=(0,),
        sparse_frames=1,
        alpha=1,
        grid=(1, sizes["tokens"] - 1),
        channels=sizes["dim"],
        embed=1,
        classes=sizes["classes"],
        image_px=1,
    )
    head = PoolerProbe(
        PoolerConfig(
            depth=sizes["depth"],
            attention_heads=sizes["heads"],
            mlp_ratio=sizes["mlp_ratio"],
            form=form,
        ),
        offer,
    )
    found.load_into(head, "param.")
    assert head.pooler.cross_attention_block.norm1.eps == sizes["ln_eps"]
    return head


def batch(items: Tensor) -> ClipBatch:
    """[clip item channel] as the tokens of one frame per clip."""
    clips = len(items)
    return ClipBatch(
        tokens=items[:, None, None], embedding=None, dense=None, targets=None, labels=torch.zeros(clips),
        ids=tuple(map(str, range(clips))),
    )  # fmt: skip


def expect_near(found: Tensor, expected: Tensor, share: float) -> None:
    """Within a share of the largest value, and 1e-6."""
    torch.testing.assert_close(found, expected, rtol=0, atol=share * float(expected.abs().max()) + 1e-6)


@each
@either
def test_golden_logits_loss_and_all_gradients(golden: Callable[[str], Any], name: str, form: str) -> None:
    found = golden(name)
    head = loaded(found, form)
    items = found.tensors["input.tokens"].clone()
    logits = head(batch(items))
    loss = torch.nn.functional.cross_entropy(logits, found.tensors["input.labels"])
    loss.backward()
    torch.testing.assert_close(logits, found.tensors["output.logits"], rtol=0, atol=2e-5)
    torch.testing.assert_close(loss, found.tensors["output.loss"], rtol=0, atol=1e-5)
    gradients = found.below("grad.")
    assert gradients.keys() == {parameter for parameter, _ in head.named_parameters()}
    for parameter, value in head.named_parameters():
        assert value.grad is not None
        expect_near(value.grad, gradients[parameter], 1e-4)
    assert torch.equal(items, found.tensors["input.tokens"]), "nobody writes to the tokens"


@each
def test_golden_values_inside_the_plain_form(golden: Callable[[str], Any], name: str) -> None:
    found = golden(name)
    head = loaded(found, "plain")
    cross, parts = head.pooler.cross_attention_block, {}
    parts |= {"cross.norm_tokens": cross.norm1, "cross.attn_out": cross.xattn, "cross.mlp_out": cross.mlp}
    parts |= {"pooled": cross}
    for number, block in enumerate(head.pooler.blocks):
        parts |= {f"block{number}.attn_out": block.attn, f"block{number}.mlp_out": block.mlp}
        parts |= {f"block{number}.out": block}
    inside: dict[str, Tensor] = {}
    for key, part in parts.items():
        part.register_forward_hook(lambda module, given, out, key=key: inside.update({key: out}))
    head(batch(found.tensors["input.tokens"]))
    expected = found.below("inter.")
    assert expected.keys() == inside.keys()
    for key, value in inside.items():
        expect_near(value, expected[key], 2e-5)


def of_tower(channels: int, grid: int, depth: int, frames: int, classes: int = 174, form: str = "plain") -> Any:
    """A probe without memory for its numbers, and the multiply-accumulates of one clip through it."""
    offer = Offer(
        layers=(11,), sparse_frames=frames, alpha=2, grid=(grid, grid), channels=channels, embed=512, classes=classes,
        image_px=224,
    )  # fmt: skip
    with torch.device("meta"):
        head = PoolerConfig(depth=depth, form=form).build(offer)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        head(offer.fake_batch(head.needs, 1, device="meta"))
    return sum(p.numel() for p in head.parameters()), counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("channels", "grid", "depth", "millions", "giga"),
    [
        (768, 14, 4, (27.90, 28.07), (46.78, 116.4, 324.4)),
        (768, 14, 1, (6.63, 6.81), (1.867, 3.729, 7.452)),
        (1024, 16, 4, (49.51, 49.75), (107.9, 267.8, 743.3)),
        (1024, 16, 1, (11.73, 11.96), (4.326, 8.642, 17.27)),
    ],
)
def test_parameters_and_multiplications_are_those_of_the_spec(
    channels: int, grid: int, depth: int, millions: tuple[float, ...], giga: tuple[float, ...]
) -> None:
    for classes, expected in zip((174, 400), millions, strict=True):
        parameters, _ = of_tower(channels, grid, depth, 8, classes)
        blocks = (depth - 1) * (12 * channels**2 + 13 * channels) + 11 * channels**2 + 12 * channels
        assert parameters == blocks + channels + channels * classes + classes
        assert round(parameters / 1e6, 2) == expected
    counted = [of_tower(channels, grid, depth, frames)[1] / 1e9 for frames in (8, 16, 32)]
    assert counted == pytest.approx(giga, rel=6e-4)


def test_the_fast_form_of_depth_one_multiplies_forty_times_less() -> None:
    plain, fast = (of_tower(768, 14, 1, 8, form=form)[1] / 1e9 for form in ("plain", "fast"))
    tokens, heads, width = 8 * 197, 16, 768
    by_hand = 3 * width**2 + 2 * tokens * heads * width + 8 * width**2 + 174 * width  # q, K, V; tokens; MLP; classes
    assert fast * 1e9 == by_hand
    assert plain / fast > 40
