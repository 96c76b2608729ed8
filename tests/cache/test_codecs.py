"""Packed and fitted codecs: how much each loses, that the fast form equals the plain one, and folding into a linear."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.codecs.fit import SAMPLE_TOKENS, Fitting, TokenSample, dealt, fit_rotation
from vidxfer.pipeline.cache.codecs.form import codec_form
from vidxfer.pipeline.cache.codecs.pack import decode_grouped, encode_grouped, pack, unpack
from vidxfer.pipeline.cache.codecs.pq import encode_pq, fit_codebook, nearest
from vidxfer.pipeline.errors import ClipError

CPU = torch.device("cpu")
LAYERS, FRAMES, TOKENS, CHANNELS = 2, 4, 16, 48
EVERY = ["float16", "int8", "int6", "int4", "pq", "pq2", "rotate+int8", "rotate+int4", "pca12+int6", "pca20+pq4",
         "pca12+float16"]  # fmt: skip


def stream(seed: int, videos: int = 1) -> Tensor:
    """[video layer frame token channel] with few strong directions, two outlier channels and an offset."""
    basis = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(0))
    strength = 0.85 ** torch.arange(CHANNELS)
    draw = torch.Generator().manual_seed(seed)
    tokens = (torch.randn(videos, LAYERS, FRAMES, TOKENS, CHANNELS, generator=draw) * strength) @ basis
    tokens[..., :2] = tokens[..., :2] * 60 + 300
    return tokens + 0.5


@cache
def fitted(codec: str) -> tuple[Quantiser, Dequantiser]:
    form = codec_form(codec)
    fitting = Fitting([form], 20)
    for seed in range(20):
        fitting.update(stream(seed))
    found = fitting.finish(form, CPU)
    both = Quantiser(form, found.mean, found.std, found.arrays, range(LAYERS))
    return both, decoder_of(codec, found)


def decoder_of(codec: str, found: Any, layers: list[int] | None = None) -> Dequantiser:
    return Dequantiser(SPEC(codec), found.mean, found.std, fitted=found.arrays, layers=layers)


def SPEC(codec: str) -> Any:  # noqa: N802
    from vidxfer.pipeline.cache.spec import CacheSpec
    from vidxfer.pipeline.video.sampling import Sampling

    return CacheSpec(
        clip_model="x", clip_weights_sha256="0", clip_precision="fp32", channels=CHANNELS, tokens=TOKENS, embed=4,
        layers=(3, 7), pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0), view_kind="train", views=1, crops=1,
        sampling=Sampling(dense_frames=FRAMES, alpha=1, image_px=32), codec=codec, calibration_videos=40,
        dataset="toy", dataset_fingerprint="0", split="train",
    )  # fmt: skip


@given(st.sampled_from([4, 6]), st.lists(st.integers(0, 15), min_size=0, max_size=6), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_packing_comes_back_whatever_the_shape(bits: int, outer: list[int], units: int) -> None:
    shape = (*[1 + size % 3 for size in outer], units * {4: 2, 6: 4}[bits])
    codes = torch.randint(0, 2**bits, shape, dtype=torch.uint8)
    packed = pack(codes, bits=bits)
    assert packed.numel() * 8 == codes.numel() * bits
    assert torch.equal(unpack(packed, bits=bits), codes)


def test_packed_bytes_are_as_the_format_says() -> None:
    assert pack(torch.tensor([5, 12], dtype=torch.uint8), bits=4).tolist() == [5 | 12 << 4]
    word = 1 | 2 << 6 | 62 << 12 | 33 << 18
    assert pack(torch.tensor([1, 2, 62, 33], dtype=torch.uint8), bits=6).tolist() == list(word.to_bytes(3, "little"))


@given(st.sampled_from([4, 6]), st.integers(1, 130), st.sampled_from([8, 32, 64]), st.integers(0, 99),
       st.sampled_from([1e-3, 1.0, 3000.0]))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_error_of_a_grouped_value_is_at_most_half_a_step_of_its_group(
    bits: int, count: int, group: int, seed: int, size: float
) -> None:
    values = torch.randn(3, 2, count, generator=torch.Generator().manual_seed(seed)) * size
    codes, scale = encode_grouped(values, bits=bits, group=group)
    back = decode_grouped(codes, scale, bits=bits, group=group, count=count)
    step = scale.float().repeat_interleave(group, -1)[..., :count]
    assert back.shape == values.shape
    assert ((back - values).abs() <= step * (0.5 + 1 / 16) + 1e-7).all()


@pytest.mark.parametrize(
    ("codec", "most"),
    [("float16", 4e-4), ("int8", 0.01), ("int6", 0.03), ("int4", 0.12), ("pq2", 0.35), ("pq", 0.75),
     ("rotate+int8", 0.01), ("rotate+int4", 0.12), ("pca12+int8", 0.16), ("pca12+float16", 0.16),
     ("rotate+pq", 0.4), ("pca12+pq2", 0.25)],
)  # fmt: skip
def test_the_error_on_tokens_outside_the_sample_stays_below_what_is_promised(codec: str, most: float) -> None:
    quantise, decode = fitted(codec)
    tokens = stream(1000, videos=3)
    back = decode(*quantise(tokens))
    error = (back - tokens) / quantise.std[:, None, None]  # in standard deviations: outliers must not hide the rest
    relative = error.square().mean().sqrt() / ((tokens - quantise.mean[:, None, None]) / quantise.std[
        :, None, None]).square().mean().sqrt()  # fmt: skip
    print(f"{codec}: {relative:.4f}")
    assert relative < most


def test_rotating_before_codewords_loses_less_than_codewords_alone() -> None:
    tokens, losses = stream(1001, videos=2), []
    for codec in ("pq", "rotate+pq"):
        quantise, decode = fitted(codec)
        losses.append(((decode(*quantise(tokens)) - tokens) / quantise.std[:, None, None]).square().mean())
    assert losses[1] < 0.6 * losses[0]


@pytest.mark.parametrize("codec", EVERY)
@pytest.mark.parametrize("layers", [None, [7], [7, 3]])
def test_a_linear_layer_on_the_tokens_equals_the_folded_one_on_the_values(codec: str, layers: list[int] | None) -> None:
    form = codec_form(codec)
    fitting = Fitting([form], 4)
    for seed in range(4):
        fitting.update(stream(seed))
    found = fitting.finish(form, CPU)
    codes, scale = Quantiser(form, found.mean, found.std, found.arrays, range(LAYERS))(stream(9, videos=2))
    decode = decoder_of(codec, found, layers).double()
    decode.dtype = torch.float64
    places = SPEC(codec).layer_positions(layers)
    codes, scale = codes[:, places], None if scale is None else scale[:, places]
    linear = torch.nn.Linear(CHANNELS, 7).double()
    tokens = decode(codes, scale)
    for i in range(len(places)):
        values = decode.values(codes[:, i], None if scale is None else scale[:, i], i)
        weight, bias = decode.fold(linear.weight, linear.bias, i)
        torch.testing.assert_close(values @ weight.T + bias, linear(tokens[:, i]), rtol=1e-9, atol=1e-9)
        assert weight.shape == (7, form.values(CHANNELS))
        no_bias = decode.fold(linear.weight, None, i)[1]
        torch.testing.assert_close(no_bias + linear.bias, bias)
        if form.part:
            tables, shift = decode.fold_codebook(linear.weight, linear.bias, i)
            read = sum(tables[part][codes[:, i, ..., part].long()] for part in range(len(tables)))
            assert scale is not None
            folded = scale[:, i].double().unsqueeze(-1) * read + shift
            torch.testing.assert_close(folded, linear(tokens[:, i]), rtol=1e-9, atol=1e-9)


def test_gradients_reach_a_folded_linear_layer_as_they_reach_the_plain_one() -> None:
    quantise, decode = fitted("pca12+int6")
    codes, scale = quantise(stream(9, videos=2))
    linear = torch.nn.Linear(CHANNELS, 5)
    linear(decode(codes, scale)[:, 1]).square().sum().backward()
    assert linear.weight.grad is not None
    plain, linear.weight.grad = linear.weight.grad, None
    weight, bias = decode.fold(linear.weight, linear.bias, 1)
    assert scale is not None
    (decode.values(codes[:, 1], scale[:, 1], 1) @ weight.T + bias).square().sum().backward()
    torch.testing.assert_close(linear.weight.grad, plain, rtol=1e-4, atol=plain.abs().max().item() * 1e-5)


@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_nearest_codeword_is_the_nearest(parts: int, tokens: int, size: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    cut, book = torch.randn(tokens, parts, size, generator=draw), torch.randn(parts, 256, size, generator=draw)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vidxfer.pipeline.cache.codecs.pq.DISTANCE_VALUES_MOST", 256 * 7)
        found = nearest(cut, book)
    distance = (cut.double()[:, :, None] - book.double()[None]).square().sum(-1)
    chosen = distance.gather(-1, found.long().unsqueeze(-1)).squeeze(-1)
    assert (chosen <= distance.amin(-1) + 1e-5).all()


def test_codewords_of_a_sample_smaller_than_their_number_are_its_tokens() -> None:
    values = torch.randn(20, 10, generator=torch.Generator().manual_seed(3))
    book = fit_codebook(values, 4, seed=0)
    codes, scale = encode_pq(values, book)
    picked = torch.cat([book[part][codes[:, part].long()] for part in range(3)], dim=1)[:, :10]
    torch.testing.assert_close(picked * scale.float().unsqueeze(-1), values, rtol=0, atol=4e-3)


@pytest.mark.parametrize("codec", ["int6", "int4", "pq", "rotate+int8", "pca12+float16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_refused_by_every_codec(codec: str, value: float) -> None:
    quantise, _ = fitted(codec)
    tokens = stream(1)
    tokens[0, 1, 2, 3, 4] = value
    with pytest.raises(ClipError, match="not finite"):
        quantise(tokens)


@pytest.mark.parametrize("codec", ["int6", "int4", "pq", "rotate+int8", "pca12+pq2"])
def test_tokens_that_are_all_zero_or_equal_stay_finite(codec: str) -> None:
    quantise, decode = fitted(codec)
    for tokens in (torch.zeros(1, LAYERS, FRAMES, TOKENS, CHANNELS), torch.full((1, LAYERS, 1, 1, CHANNELS), 4.5)):
        assert torch.isfinite(decode(*quantise(tokens))).all()


def test_a_rotation_has_its_directions_at_right_angles_and_the_strongest_first() -> None:
    values = stream(5, videos=20)[:, 0].flatten(0, -2)
    values = (values - values.mean(0)) / values.std(0)
    rotation, std = fit_rotation(values, 30, spread=0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(30), rtol=0, atol=1e-5)
    assert (std[:-1] >= std[1:]).all()
    torch.testing.assert_close((values @ rotation.T).square().mean(0).sqrt()[:5], std[:5], rtol=1e-4, atol=1e-4)
    again, _ = fit_rotation(values.clone(), 30, spread=0)
    assert torch.equal(again, rotation)


@given(st.integers(1, 70), st.sampled_from([2, 4, 8]))
def test_directions_are_dealt_to_parts_once_each_and_evenly(count: int, part: int) -> None:
    order = dealt(count, part)
    assert sorted(order.tolist()) == list(range(count))
    whole = order[: count // part * part].view(-1, part).sum(1)
    assert not len(whole) or part % 2 or whole.max() == whole.min()


def test_the_sample_is_bounded_and_comes_back_to_eleven_bits() -> None:
    sample = TokenSample(3)
    for seed in range(3):
        sample.update(stream(seed).repeat(1, 1, 30, 5, 1)[0])
    assert len(sample.layer(0, torch.zeros(CHANNELS), torch.ones(CHANNELS))) <= SAMPLE_TOKENS
    everything = torch.cat([stream(seed)[0, 0].flatten(0, 1) for seed in range(3)])
    drawn = sample.layer(0, torch.zeros(CHANNELS), torch.ones(CHANNELS))
    nearest_token = torch.cdist(drawn[:50].double(), everything.double()).amin(1)
    assert (nearest_token / drawn[:50].norm(dim=1) < 2e-3).all()


@pytest.mark.parametrize("codec", ["int6", "rotate+int4", "pca3+pq2"])
def test_plain_zarr_and_numpy_give_the_same_tokens_by_the_formulas_of_the_format(
    world: Any, tmp_path: Path, codec: str
) -> None:
    split = world.fill(world.make(tmp_path, codec=codec))
    group = zarr.open_group(tmp_path / "train", mode="r")
    codes, scale = group["tokens"][4, 1, 2], group["scale"][4, 1, 2].astype(np.float32)
    form = split.spec.form
    count = form.values(split.spec.channels)
    if form.part:
        book = group["codebook"][2]
        values = np.concatenate([book[part][codes[..., part]] for part in range(len(book))], -1)[..., :count]
        values = values * scale[..., None]
    else:
        bits = {"int6": 6, "int4": 4}[form.quantiser]
        flat = np.unpackbits(codes, axis=-1, bitorder="little")
        levels = np.packbits(flat.reshape(*codes.shape[:-1], -1, bits), axis=-1, bitorder="little")[..., 0]
        levels = levels[..., :count].astype(np.float32) - 2 ** (bits - 1)
        values = levels * np.repeat(scale, form.group, axis=-1)[..., :count]
    if form.transform:
        values = (values * group["component_std"][2]) @ group["rotation"][2]
    plain = values * group["channel_std"][2] + group["channel_mean"][2]
    found = Dequantiser.of(split)(*(torch.from_numpy(group[n][4:5, 1]) for n in ("tokens", "scale")))
    np.testing.assert_allclose(found[0, 2].numpy(), plain, rtol=1e-4, atol=1e-5)


def test_an_array_that_the_codec_needs_and_is_not_given_is_named(world: Any) -> None:
    spec = replace(world.SPEC, codec="rotate+int4")
    ones = torch.ones(3, 6)
    with pytest.raises(ValueError, match=r"codec rotate\+int4 needs rotation \[layer component channel\]"):
        Dequantiser(spec, ones, ones)
