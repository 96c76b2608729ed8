"""Tokens to codes and back: how much is lost, and that it is never more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.codecs.fit import Calibration
from vidxfer.pipeline.cache.codecs.plain import decode_int8, encode_float16, encode_int8
from vidxfer.pipeline.errors import CacheError, ClipError

LAYERS, FRAMES, TOKENS, CHANNELS = 2, 2, 9, 32


def residual_stream(seed: int, *, outlier: float = 1.0, constant: int = 0, scale: float = 1.0) -> torch.Tensor:
    """[view layer frame token channel]; `constant` channels never move, two are `outlier` times larger."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(3, LAYERS, FRAMES, TOKENS, CHANNELS, generator=generator)
    tokens[..., :2] = tokens[..., :2] * outlier + outlier
    if constant:
        tokens[..., -constant:] = 7.25
    return tokens * scale


def calibrated(*batches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    calibration = Calibration()
    for tokens in batches:
        calibration.update(tokens)
    return calibration.finish()


@given(
    st.integers(0, 10_000), st.sampled_from([1.0, 10.0, 100.0]), st.integers(0, 5), st.sampled_from([1e-3, 1.0, 300.0])
)
@settings(max_examples=60, deadline=None)
def test_the_error_of_every_value_is_at_most_half_a_step(
    seed: int, outlier: float, constant: int, scale: float
) -> None:
    mean, std = calibrated(residual_stream(1, outlier=outlier, constant=constant, scale=scale))
    tokens = residual_stream(seed, outlier=outlier, constant=constant, scale=scale)
    codes, scales = encode_int8(tokens, mean, std)
    assert codes.dtype == torch.int8
    assert scales.dtype == torch.float16
    assert torch.isfinite(scales).all()
    assert (scales > 0).all()
    back = decode_int8(codes, scales, mean, std)
    step = scales.float().unsqueeze(-1) * std[:, None, None, :]
    allowed = step * (0.5 + 1 / 16) + tokens.abs() * 1e-6 + 1e-6 * scale
    assert ((back - tokens).abs() <= allowed).all()


def test_ordinary_channels_survive_outliers_a_hundred_times_larger() -> None:
    tokens = residual_stream(2, outlier=100.0)
    mean, std = calibrated(residual_stream(3, outlier=100.0), residual_stream(4, outlier=100.0))
    back = decode_int8(*encode_int8(tokens, mean, std), mean, std)
    ordinary, found = tokens[..., 2:], back[..., 2:]
    cosine = torch.nn.functional.cosine_similarity(ordinary, found, dim=-1)
    assert cosine.min() > 0.999  # a scale per token without the static norm scores below 0.95 here
    naive_step = tokens.abs().amax(-1, keepdim=True) / 127
    naive = (ordinary / naive_step).round() * naive_step
    assert torch.nn.functional.cosine_similarity(ordinary, naive, dim=-1).min() < 0.95


def test_a_channel_that_was_constant_does_not_blow_up_the_others_when_it_moves_a_little() -> None:
    mean, std = calibrated(residual_stream(5, constant=4))
    assert (std > 0).all()
    tokens = residual_stream(6, constant=4)
    tokens[..., -1] += 0.003
    back = decode_int8(*encode_int8(tokens, mean, std), mean, std)
    assert (back - tokens).abs().max() < 0.05


def test_calibration_in_pieces_equals_the_plain_formula() -> None:
    first, second = residual_stream(7, outlier=50.0), residual_stream(8, outlier=50.0)
    mean, std = calibrated(first, second.bfloat16().float()[:1], second[1:])
    whole = torch.cat([first, second.bfloat16().float()[:1], second[1:]]).double().movedim(1, 0).flatten(1, -2)
    torch.testing.assert_close(mean.double(), whole.mean(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(std.double(), whole.std(1, correction=0), rtol=1e-6, atol=1e-7)


def test_a_layer_that_never_moves_gets_std_one() -> None:
    _, std = calibrated(torch.full((1, LAYERS, FRAMES, TOKENS, CHANNELS), 3.3))
    assert (std == 1).all()


def test_float16_is_exact_and_refuses_what_it_cannot_hold() -> None:
    tokens = residual_stream(9, outlier=100.0)
    assert torch.equal(encode_float16(tokens), tokens.half())
    for value in (70_000.0, float("nan"), float("inf")):
        with pytest.raises(ClipError, match="--codec int8"):
            encode_float16(torch.full((1, 1), value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_tokens_that_are_not_finite_are_refused(value: float) -> None:
    tokens = residual_stream(10)
    tokens[0, 1, 0, 3, 4] = value
    ones = torch.ones(LAYERS, CHANNELS)
    with pytest.raises(ClipError, match="not finite"):
        encode_int8(tokens, torch.zeros_like(ones), ones)
    with pytest.raises(ClipError, match="not finite"):
        calibrated(tokens)
    with pytest.raises(ClipError, match="no tokens"):
        calibrated()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layers", [None, [7], [7, -1]])
def test_the_dequantiser_equals_the_plain_form(world: Any, layers: list[int] | None, dtype: torch.dtype) -> None:
    spec = replace(world.SPEC, channels=CHANNELS)
    tokens = torch.randn(3, 3, FRAMES, TOKENS, CHANNELS)
    mean, std = calibrated(tokens)
    codes, scale = encode_int8(tokens, mean, std)
    positions = spec.layer_positions(layers)
    module = Dequantiser(spec, mean, std, layers=layers, dtype=dtype)
    found = module(codes[:, positions], scale[:, positions])
    assert torch.equal(found, decode_int8(codes, scale, mean, std, dtype)[:, positions])
    assert module.state_dict() == {}
    exact = Dequantiser(replace(spec, codec="float16"), mean, std, layers=layers, dtype=dtype)
    assert torch.equal(exact(tokens.half()[:, positions], None), tokens.half()[:, positions].to(dtype))


def test_a_layer_that_was_not_stored_is_named(world: Any) -> None:
    with pytest.raises(CacheError, match=r"layers \[4\] are not in the cache, which holds \[-1, 3, 7\]"):
        world.SPEC.layer_positions([3, 4])
