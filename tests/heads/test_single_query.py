"""One query without keys and values equals attention written out, in every gradient and at every size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vidxfer.pipeline.heads.single_query import single_query_attention


def written_out(query: Tensor, tokens: Tensor, norm: nn.LayerNorm, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """By loops over clips and heads, with a key and a value for every token."""
    heads, channels = query.shape[-2:]
    clips = []
    for clip, x in enumerate(tokens):
        normed = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
        normed = normed * norm.weight + norm.bias
        parts = []
        for head in range(heads):
            rows = slice(head * channels, (head + 1) * channels)
            asked = query[clip, head] if query.ndim == 3 else query[head]
            shares = ((normed @ key[rows].t() + 3.0) @ asked / channels**0.5).softmax(0)  # any key bias
            parts.append(shares @ (normed @ value[rows].t() + bias[rows]))
        clips.append(torch.cat(parts))
    return torch.stack(clips)


def some(clips: int, tokens: int, width: int, heads: int, channels: int, own: bool, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(clips + 10 * tokens + 100 * width)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=dtype)

    scale = 10 ** (
        2 * torch.rand(clips, tokens, 1, generator=draw, dtype=dtype) - 1.5
    )  # small tokens, so that eps counts
    parts = [
        random(*([clips] if own else []), heads, channels), scale * (random(clips, tokens, width) + 0.5),
        1 + 0.3 * random(width), random(width), random(heads * channels, width), random(heads * channels, width),
        random(heads * channels),
    ]  # fmt: skip
    return [part.requires_grad_() for part in parts]


def results(parts: list[Tensor], attend: object) -> list[Tensor]:
    """The sum that is attended to, and the gradient of every argument."""
    query, tokens, weight, shift, key, value, bias = parts
    norm = nn.LayerNorm(tokens.shape[-1], dtype=tokens.dtype)
    del norm.weight, norm.bias
    norm.weight, norm.bias = weight, shift  # type: ignore[assignment]
    if attend is single_query_attention:
        out = single_query_attention(query, tokens, norm, key=key, value=value, value_bias=bias)
    else:
        out = written_out(query, tokens, norm, key, value, bias)
    looked_at = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * looked_at).sum(), [part for part in parts if part.requires_grad])]


@settings(max_examples=15, deadline=None)
@given(st.tuples(*map(st.integers, (1, 1, 1, 1), (3, 7, 3, 4))), st.sampled_from([1, 2, 6, 16]), st.booleans())
def test_it_is_the_attention_of_the_normed_tokens(sizes: tuple[int, int, int, int], width: int, own: bool) -> None:
    clips, tokens, heads, channels = sizes
    parts = some(clips, tokens, width, heads, channels, own, torch.float64)
    pairs = zip(results(parts, single_query_attention), results(parts, written_out), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("own", [False, True])
def test_in_float32_it_differs_by_rounding(own: bool) -> None:
    parts = some(3, 40, 64, 4, 16, own, torch.float32)
    for found, expected in zip(results(parts, single_query_attention), results(parts, written_out), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_tokens_without_gradient_stay_out_of_the_backward_pass() -> None:
    """Nothing of the size of the tokens but themselves is kept, and nothing is written to them."""
    parts = some(2, 50, 64, 4, 16, False, torch.float32)
    tokens = parts[1].detach()
    before, kept = tokens.clone(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        results([parts[0], tokens, *parts[2:]], single_query_attention)
    large = {one.untyped_storage().data_ptr() for one in kept if one.untyped_storage().nbytes() >= tokens.nbytes}
    assert large == {tokens.untyped_storage().data_ptr()}
    assert torch.equal(tokens, before)
