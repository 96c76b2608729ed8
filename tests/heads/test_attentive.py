"""The attentive probe reads every token, and the order of frames is not among what it can know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.heads.attentive import AttentiveConfig, AttentiveProbe
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.shapes import ClipBatch

INPUTS = Offer(layers=(-1, 0, 3), sparse_frames=8, alpha=2, grid=(4, 4), channels=64, embed=16, classes=5, image_px=64)


def probe(inputs: Offer = INPUTS) -> AttentiveProbe:
    torch.manual_seed(0)
    head = AttentiveProbe(AttentiveConfig(), inputs)
    with torch.no_grad():  # weights large enough that what is seen matters
        for parameter in head.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return head.eval()


def batch(tokens: torch.Tensor) -> ClipBatch:
    clips = len(tokens)
    names = tuple(map(str, range(clips)))
    return ClipBatch(tokens=tokens, embedding=None, dense=None, targets=None, labels=torch.zeros(clips), ids=names)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(8)))
def test_any_order_of_frames_gives_the_same_logits(order: list[int]) -> None:
    tokens = torch.randn(3, 1, 8, 17, 64, generator=torch.Generator().manual_seed(1))
    head = probe()
    torch.testing.assert_close(head(batch(tokens[:, :, order])), head(batch(tokens)), atol=1e-5, rtol=1e-5)


def test_another_content_of_one_patch_in_one_frame_is_seen() -> None:
    tokens = torch.randn(1, 1, 8, 17, 64, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 0, 5, 9] += 3.0 * torch.randn(64, generator=torch.Generator().manual_seed(2))
    assert (probe()(batch(changed)) - probe()(batch(tokens))).abs().max().item() > 1e-3


def test_it_asks_for_the_last_layer_and_nothing_else() -> None:
    needs = probe().needs
    assert (needs.layers, needs.sparse_frames, needs.pixels, needs.embedding, needs.text) == (
        (3,),
        8,
        "none",
        False,
        False,
    )


def test_every_parameter_learns() -> None:
    head = probe()
    head(batch(torch.randn(2, 1, 8, 17, 64))).square().sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("channels", [64, 96, 128, 30])
def test_any_width_of_clip_will_do(channels: int) -> None:
    head = AttentiveProbe(AttentiveConfig(), replace(INPUTS, channels=channels))
    assert head(batch(torch.randn(2, 1, 8, 17, channels))).shape == (2, 5)


def test_a_cache_with_the_stem_alone_is_refused() -> None:
    with pytest.raises(CacheError, match="reads the tokens of a CLIP block, and the cache holds only the stem"):
        AttentiveProbe(AttentiveConfig(), replace(INPUTS, layers=(-1,)))


def test_the_recipe_trains_and_scores_on_a_cache(toy: Any, invoke: Any, tmp_path: Any) -> None:
    words = ["--cache", toy.int8, "--run", tmp_path / "run"]
    done = invoke("train", *words, "--recipe", "attentive-probe", "--set", "epochs=2")
    assert done.exit_code == 0, done.stderr
    scored = invoke("evaluate", *words)
    assert scored.exit_code == 0, scored.stderr
    assert "(16 scored / 16 listed)" in scored.stdout


def test_queries_that_see_nothing_answer_for_themselves() -> None:
    """Both sums keep what goes around attention and MLP: with these silent, the mean query is normalised and read."""
    head = probe()
    for layer in (head.attention.out_proj, head.mlp[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        mean = head.query_cls_token.mean(dim=0)
        normed = (mean - mean.mean()) / (mean.var(unbiased=False) + 1e-5).sqrt()
        expected = head.classifier.weight @ normed + head.classifier.bias
        found = head(batch(torch.randn(2, 1, 8, 17, 64)))
    torch.testing.assert_close(found, expected.expand(2, 5), rtol=1e-4, atol=1e-5)
