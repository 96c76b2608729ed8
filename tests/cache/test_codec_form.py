"""Names of codecs: one spelling each, and their sizes are those of the arrays that come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.codec import Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitting
from vidxfer.pipeline.cache.codecs.form import codec_form

QUANTISERS = ("int8", "float16", "int6", "int4", "pq", "pq2", "pq4", "pq16")


@given(st.sampled_from(QUANTISERS), st.sampled_from(["", "rotate+", "pca"]), st.integers(2, 75), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_shapes_types_and_bytes_are_those_of_what_is_made(
    quantiser: str, turned: str, channels: int, kept: int
) -> None:
    name = (f"pca{min(kept, channels - 1)}+" if turned == "pca" else turned) + quantiser
    form = codec_form(name)
    assert form.name == name
    tokens = torch.randn(2, 3, 1, 2, channels, generator=torch.Generator().manual_seed(channels))
    fitting = Fitting([form], 1)
    fitting.update(tokens)
    fitted = fitting.finish(form, torch.device("cpu"))
    shapes = {one: shape for one, (_, shape) in form.fitted_shapes(3, channels, tokens=2, frames=1).items()}
    assert shapes == {one: tuple(values.shape) for one, values in fitted.arrays.items()}
    codes, scale = Quantiser(form, fitted.mean, fitted.std, fitted.arrays, range(3))(tokens)
    assert codes.shape == (2, 3, 1, 2, form.code_width(channels))
    assert codes.dtype == getattr(torch, form.code_dtype)
    expected = form.scale_shape(channels)
    assert (None if scale is None else tuple(scale.shape)) == (None if expected is None else (2, 3, 1, 2, *expected))
    found = [0 if one is None else one.numel() * one.element_size() // 12 for one in (codes, scale)]
    assert tuple(found) == form.token_bytes(channels)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("int9", "codec='int9' must be one of int8, float16, int6, int4, pq (also pq2, pq4, pq16)"),
        ("int9", "Nearest: int8."),
        ("flaot16", "Nearest: float16."),
        ("pca+int8", "pca needs a number, as in pca64+int8"),
        ("int4+pca64", "Nearest: pca64+int4."),
        ("pca64", "as in pca64+int8"),
        ("pca0+int8", "pca keeps at least 1 direction"),
        ("pca064+int8", "Nearest: pca64+int8."),
        ("rotat+pq", "Nearest: rotate+pq."),
        ("PQ4", "Nearest: pq4."),
        ("pq3", "values per codeword are pq2, pq4, pq8, pq16 (pq is pq8)"),
        ("", "must be one of"),
        ("klt9", "or klt0.5, klt1 … klt8"),
        ("klt", "Nearest: klt"),
        ("rotate+klt4", "must be one of"),
    ],
)
def test_a_name_that_is_unknown_gets_the_list_and_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ValueError, match="codec=") as caught:
        codec_form(name)
    assert words in str(caught.value)


def test_a_codec_has_one_spelling(world: Any) -> None:
    assert codec_form("rotate+pq8").name == "rotate+pq"
    with pytest.raises(ValueError, match="codec='pq8' is spelled 'pq'"):
        replace(world.SPEC, codec="pq8")


def test_keeping_as_many_directions_as_there_are_channels_is_refused_with_the_way_out(world: Any) -> None:
    with pytest.raises(ValueError, match=r"keeps 6 directions, CLIP has 6 channels.*write rotate\+int4"):
        replace(world.SPEC, codec="pca6+int4")


def test_bytes_of_one_view_of_the_stock_b16_cache(world: Any) -> None:
    """12 blocks, 8 frames, 197 tokens, 768 channels; float16 takes 29.05 MB."""
    shape: dict[str, Any] = {"channels": 768, "tokens": 197, "layers": tuple(range(12)), "views": 1, "embed": 512}
    spec = replace(world.SPEC, sampling=replace(world.SPEC.sampling, dense_frames=16), **shape)
    tokens = 12 * 8 * 197
    for codec, per_token in (
        ("float16", 768 * 2), ("int8", 768 + 2), ("int6", 576 + 12 * 2), ("int4", 384 + 24 * 2), ("pq", 96 + 2),
        ("pq4", 192 + 2), ("pca192+int4", 96 + 6 * 2), ("pca64+int8", 64 + 2), ("rotate+pq16", 48 + 2),
    ):  # fmt: skip
        assert sum(replace(spec, codec=codec).form.token_bytes(768)) == per_token
        assert 0 < replace(spec, codec=codec).bytes_per_view - tokens * per_token < 10_000
