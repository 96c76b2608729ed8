"""Attention of one query over many normed tokens, without a key and a value for each token.

    q · (K LN(x) + k)    = (γ ⊙ Kᵀ q)° · x / σ + a constant              the query is projected to the tokens' space
    Σ aₙ (V LN(xₙ) + v)  = V (γ ⊙ (Σ aₙ xₙ / σₙ)° + β) + v               the values are projected after their sum

° subtracts the mean over channels. σ is the standard deviation of a token. The key bias and the norm's β add the same
number to the scores of all tokens, and the softmax cancels it. Per token there remain two products of `heads` columns
each, instead of two of the full width (docs/spec/more_heads.md §1.3, evl.md §4.2).
"""

from __future__ import annotations

from einops import einsum, rearrange
from torch import Tensor, nn


def single_query_attention(
    query: Tensor, tokens: Tensor, norm: nn.LayerNorm, *, key: Tensor, value: Tensor, value_bias: Tensor
) -> Tensor:
    """softmax(q · (K LN(tokens))ᵀ / √channels) (V LN(tokens) + v), by head, heads side by side.

    It is differentiable in every argument. For tokens that need no gradient, no gradient is computed.

    Args:
        query: projected query with its bias, not scaled: [head channel] for all clips, or [clip head channel].
        tokens: [clip token width], before the norm. They are not modified.
        norm: layer norm over the tokens' width, with scale and shift.
        key: weight of the keys' projection [(head channel) width].
        value: weight of the values' projection [(head channel) width].
        value_bias: bias of the values' projection [(head channel)].

    Returns:
        [clip (head channel)].
    """
    heads, channels = query.shape[-2:]
    keys, values = (
        rearrange(weight, "(head channel) width -> head channel width", head=heads) for weight in (key, value)
    )
    turned = einsum(query * channels**-0.5, keys, "... head channel, head channel width -> ... head width")
    inverse_spread = (tokens.var(dim=-1, correction=0, keepdim=True) + norm.eps).rsqrt()
    scores = tokens @ _centred(turned * norm.weight).mT * inverse_spread
    shares = scores.softmax(dim=-2) * inverse_spread
    seen = _centred(shares.mT @ tokens) * norm.weight + norm.bias
    by_head = einsum(seen, values, "clip head width, head channel width -> clip head channel")
    return rearrange(by_head, "clip head channel -> clip (head channel)") + value_bias


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)
