"""The fast form of DiST equals the plain one: outputs, gradients of parameters and of inputs, on any sizes.

In float64 any slip of the algebra would show; in float32 the two differ by rounding.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import FORMS, DistConfig
from vidxfer.pipeline.heads.dist.net import DistNet, DistSizes

SMALL = DistSizes(integration_channels=128, temporal_channels=24, pooling_layers=2)


def sized(*, frames: int = 4, alpha: int = 2, grid: int = 3, patch: int = 4, layers: int = 3) -> Offer:
    return Offer(
        layers=tuple(range(layers)),
        sparse_frames=frames,
        alpha=alpha,
        grid=(grid, grid),
        channels=40,
        embed=12,
        classes=1,
        image_px=grid * patch,
    )


def built(config: DistSizes, inputs: Offer, dtype: torch.dtype = torch.float64, seed: int = 0) -> DistNet:
    """A net with no parameter at its initial value: norms that scale and shift, biases that are not zero."""
    torch.manual_seed(seed)
    net = DistNet(config, inputs, inputs.layers).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def clips_of(net: DistNet, inputs: Offer, clips: int) -> tuple[Tensor, Tensor]:
    dtype, side = net.proj.dtype, inputs.image_px
    tokens = torch.randn(
        clips, len(inputs.layers), inputs.sparse_frames, inputs.tokens, inputs.channels, dtype=dtype
    ).requires_grad_()
    dense = torch.randn(clips, inputs.sparse_frames * inputs.alpha, 3, side, side, dtype=dtype).requires_grad_()
    return tokens, dense


def results(net: DistNet, form: str, tokens: Tensor, dense: Tensor) -> dict[str, Tensor | None]:
    """Output and all gradients of a sum with fixed random weights."""
    net.zero_grad(set_to_none=True)
    tokens.grad = dense.grad = None
    video = FORMS[form](net, tokens, dense)
    (video * torch.randn(video.shape, generator=torch.Generator().manual_seed(1), dtype=video.dtype)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"video": video.detach(), "tokens": tokens.grad, "dense": dense.grad, **gradients}


def deviation(net: DistNet, tokens: Tensor, dense: Tensor) -> dict[str, float]:
    """Largest difference of the two forms by name, as a share of the largest value (or of 1, where that is larger)."""
    plain, fast = (results(net, form, tokens, dense) for form in ("plain", "fast"))
    assert [name for name, value in plain.items() if value is None] == [n for n, v in fast.items() if v is None]
    pairs = {name: (value, fast[name]) for name, value in plain.items() if value is not None}
    return {name: float((a - b).abs().max() / a.abs().max().clamp(min=1)) for name, (a, b) in pairs.items()}


CONFIGS = {
    "as published": (SMALL, sized()),
    "alpha 4": (SMALL, sized(alpha=4)),
    "alpha 1": (SMALL, sized(alpha=1)),
    "one token": (SMALL, sized(grid=1)),
    "one layer": (SMALL, sized(layers=1)),
    "one frame": (SMALL, sized(frames=1, alpha=1)),
    "mlp ratios": (
        replace(SMALL, temporal_mlp_ratio=1.5, integration_mlp_ratio=0.5, integration_temporal_mlp_ratio=1.0),
        sized(),
    ),
    "kernels of 1 and 5": (replace(SMALL, stem_frames=1, kernel_frames=5), sized()),
    "no pooling": (replace(SMALL, pooling_layers=0), sized()),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
def test_fast_equals_plain(name: str, dtype: torch.dtype, most: float) -> None:
    config, inputs = CONFIGS[name]
    net = built(config, inputs, dtype)
    assert max(deviation(net, *clips_of(net, inputs, clips=2)).values()) < most


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_fast_equals_plain_on_any_sizes(data: st.DataObject) -> None:
    def pick(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    inputs = sized(frames=pick(1, 4), alpha=pick(1, 4), grid=pick(1, 4), patch=pick(1, 3), layers=pick(1, 3))
    config = DistSizes(
        integration_channels=data.draw(st.sampled_from([16, 64, 128])),
        temporal_channels=pick(1, 9),
        pooling_layers=pick(0, 2),
        stem_frames=data.draw(st.sampled_from([1, 3, 5])),
        kernel_frames=data.draw(st.sampled_from([1, 3, 5])),
        integration_mlp_ratio=data.draw(st.sampled_from([0.5, 2.0])),
    )
    net = built(config, inputs, seed=pick(0, 99))
    assert max(deviation(net, *clips_of(net, inputs, clips=pick(1, 3))).values()) < 1e-12


def test_a_key_bias_has_no_gradient_in_the_fast_form() -> None:
    inputs = sized()
    net = built(SMALL, inputs)
    for attention in (net.adapooling_nets[0].spatial_transformer, net.adapooling_nets[1].temporal_transformer):
        results(net, "fast", *clips_of(net, inputs, clips=2))
        assert attention.attn.in_proj_bias.grad.chunk(3)[1].eq(0).all()


def test_what_the_loader_hands_over_is_not_written_to() -> None:
    inputs = sized(layers=2)
    net = built(SMALL, inputs)
    tokens, dense = (tensor.detach() for tensor in clips_of(net, inputs, clips=2))
    before = tokens.clone(), dense.clone()
    FORMS["fast"](net, tokens, dense).sum().backward()
    assert torch.equal(tokens, before[0])
    assert torch.equal(dense, before[1])


def test_under_autocast_fast_is_as_near_to_float32_as_plain() -> None:
    inputs = sized()
    net = built(SMALL, inputs, torch.float32)
    tokens, dense = clips_of(net, inputs, clips=2)
    exact = results(net, "plain", tokens, dense)
    off = {}
    for form in FORMS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = results(net, form, tokens, dense)
        off[form] = {name: (found[name] - value).norm() for name, value in exact.items() if value is not None}
        assert off[form]["video"] < 0.05 * exact["video"].norm()
    for name in off["plain"]:
        assert off["fast"][name] < 2 * off["plain"][name] + 0.02 * exact[name].norm(), name


def test_torch_compile_takes_it_whole() -> None:
    inputs = sized(layers=2)
    net = built(replace(SMALL, pooling_layers=1), inputs)
    tokens, dense = clips_of(net, inputs, clips=2)
    expected = results(net, "fast", tokens, dense)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own modules
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")  # inductor would call a compiler
        net.zero_grad(set_to_none=True)
        video = compiled(tokens, dense)
        video.sum().backward()
    torch.testing.assert_close(video.detach(), expected["video"])
    assert net.temporal_stem.weight.grad is not None


def test_sizes_can_be_asked_without_numbers() -> None:
    inputs = sized()
    with torch.device("meta"):
        net = DistNet(SMALL, inputs, inputs.layers)
        video = FORMS["fast"](net, torch.empty(2, 3, 4, inputs.tokens, inputs.channels), torch.empty(2, 8, 3, 12, 12))
    assert video.shape == (2, inputs.embed)


def test_a_form_there_is_not_is_an_error() -> None:
    with pytest.raises(UsageError, match="'slow' is none of fast, plain"):
        DistConfig(form="slow")
