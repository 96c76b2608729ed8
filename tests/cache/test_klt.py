"""klt: bit planes and parts by hand, massive tokens, blocks of frames, and numbers that caches decode to for ever."""

from __future__ import annotations

import math
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
from vidxfer.pipeline.cache.codecs.fit import Fitted, Fitting
from vidxfer.pipeline.cache.codecs.fit_klt import TrackSample, fit_kinds, wild_direction
from vidxfer.pipeline.cache.codecs.form import BLOCK_KINDS, block_frames, codec_form
from vidxfer.pipeline.cache.codecs.klt import KltLayer, dct
from vidxfer.pipeline.cache.codecs.parts import book, decode_parts, encode_parts, share_parts
from vidxfer.pipeline.cache.codecs.planes import decode_planes, encode_planes, plane_table, planes_of, share_bits
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.errors import ClipError

HERE = Path(__file__).parent
LAYERS, FRAMES, TOKENS, CHANNELS = 2, 4, 10, 48
CODECS = ("klt0.5", "klt1", "klt2", "klt3", "klt4", "klt6", "klt8")


def stream(seed: int, videos: int = 1, *, massive: float = 0.0, still: float = 0.0) -> Tensor:
    """[video layer frame token channel]: few strong directions; shares of massive tokens, and of what stands still."""
    basis = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(0))
    strength = 0.85 ** torch.arange(CHANNELS)
    draw = torch.Generator().manual_seed(seed)
    shape = (videos, LAYERS, FRAMES, TOKENS, CHANNELS)
    moving = torch.randn(shape, generator=draw)
    standing = torch.randn(shape, generator=draw)[:, :, :1].expand(shape)
    tokens = ((math.sqrt(1 - still) * moving + math.sqrt(still) * standing) * strength) @ basis
    where = torch.rand(shape[:-1], generator=draw) < massive
    tokens[..., 5] += where * (400 + 50 * torch.randn(shape[:-1], generator=draw))
    return tokens


@cache
def statistics(codec: str, massive: float = 0.0, still: float = 0.0) -> Fitted:
    fitting = Fitting([codec_form(codec)], 30)
    for seed in range(30):
        fitting.update(stream(seed, massive=massive, still=still))
    return fitting.finish(codec_form(codec), torch.device("cpu"))


@cache
def fitted(codec: str, massive: float = 0.0, still: float = 0.0) -> tuple[Quantiser, Dequantiser]:
    form, made = codec_form(codec), statistics(codec, massive, still)
    both = Quantiser(form, made.mean, made.std, made.arrays, range(LAYERS))
    return both, Dequantiser(spec_of(codec), made.mean, made.std, fitted=made.arrays)


def spec_of(codec: str, *, tokens: int = TOKENS, channels: int = CHANNELS) -> Any:
    from vidxfer.pipeline.cache.spec import CacheSpec
    from vidxfer.pipeline.video.sampling import Sampling

    return CacheSpec(
        clip_model="x", clip_weights_sha256="0", clip_precision="fp32", channels=channels, tokens=tokens, embed=4,
        layers=(3, 7), pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0), view_kind="train", views=1, crops=1,
        sampling=Sampling(dense_frames=FRAMES, alpha=1, image_px=32), codec=codec, calibration_videos=40,
        dataset="toy", dataset_fingerprint="0", split="train",
    )  # fmt: skip


def loss(found: Tensor, tokens: Tensor) -> float:
    return float((found - tokens).square().sum() / tokens.square().sum())


def test_planes_by_hand() -> None:
    """Group 0 has 2 bits, group 1 has 1: with step 2 the numbers are floor(v / 2) + 2 and floor(v / 2) + 1."""
    assert planes_of([2, 1, 0]) == (2, 1)
    values = torch.tensor([[-3.0, -1, 1, 3, 3, 3, -3, -3] + [1.0, -1, 1, 1, -1, -1, -1, 1] + [0.0] * 8])
    codes, step = encode_planes(values, [2, 1, 0], width=4)
    assert step.tolist() == [2.0]
    numbers = [0, 1, 2, 3, 3, 3, 0, 0]
    low, high = (sum((number >> bit & 1) << i for i, number in enumerate(numbers)) for bit in (0, 1))
    ones = sum(bit << i for i, bit in enumerate([1, 0, 1, 1, 0, 0, 0, 1]))
    assert codes.tolist() == [[low, ones, high, 0]]  # plane 0 of both groups, plane 1 of the first, an empty byte
    back = decode_planes(codes, step, [2, 1, 0], plane_table(), count=24)
    assert back.tolist() == values.tolist()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 99), st.sampled_from([1e-2, 1.0, 500.0]))
@settings(max_examples=30, deadline=None)
def test_an_error_in_planes_is_at_most_half_a_step_where_nothing_is_cut_off(
    bits: list[int], seed: int, size: float
) -> None:
    falling = sorted(bits, reverse=True)
    values = torch.randn(7, 8 * len(bits), generator=torch.Generator().manual_seed(seed)) * size
    codes, step = encode_planes(values, falling, width=sum(bits))
    back = decode_planes(codes, step, falling, plane_table(), count=values.shape[1])
    reach = 2.0 ** torch.tensor(falling).repeat_interleave(8) / 2 * step.float()[:, None]
    within = (values.abs() <= reach * 0.999) & (reach > step.float()[:, None] / 2)
    assert ((back - values).abs() <= step.float()[:, None] * 0.501)[within].all()
    assert (back.abs() <= reach).all()  # what is cut off stays at the end of its range


def test_a_variance_four_times_larger_gets_one_bit_more() -> None:
    variance = torch.tensor([4.0**level for level in (6, 4, 3, 0) for _ in range(8)])
    assert share_bits(variance, 13) == [6, 4, 3, 0]
    assert share_bits(variance, 17) == [7, 5, 4, 1]
    assert share_bits(variance[:12], 9) == [6, 3]  # a short last group counts as if it were whole
    assert share_bits(torch.ones(16), 100) == [14, 14]


@given(st.integers(1, 300), st.integers(1, 60), st.floats(0.8, 1.0))
@settings(max_examples=30, deadline=None)
def test_parts_are_as_many_as_there_are_bytes_and_cover_the_strongest(count: int, most: int, fall: float) -> None:
    sizes = share_parts(fall ** torch.arange(count, dtype=torch.float64), most)
    assert 1 <= len(sizes) <= most
    assert sum(sizes) <= count
    assert len(sizes) == most or sum(sizes) == count
    assert sizes[:-1] == sorted(sizes[:-1])
    assert max(sizes) <= 16


def test_every_part_gets_its_nearest_codeword() -> None:
    draw = torch.Generator().manual_seed(1)
    sizes, codewords = [1, 2, 2, 5], torch.randn(256, 136, generator=draw)
    values = torch.randn(9, 10, generator=draw)
    codes = encode_parts(values, sizes, codewords)
    first = 0
    for part, size in enumerate(sizes):
        own = codewords[:, size * (size - 1) // 2 :][:, :size]
        assert torch.equal(own, book(codewords, size))
        nearest = torch.cdist(values[:, first : first + size].double(), own.double()).argmin(1)
        assert codes[:, part].tolist() == nearest.tolist()
        assert torch.equal(decode_parts(codes, sizes, codewords)[:, first : first + size], own[nearest])
        first += size


def test_the_transform_over_frames_is_the_cosine_transform() -> None:
    root = math.sqrt(0.5)
    torch.testing.assert_close(dct(2), torch.tensor([[root, root], [root, -root]]))
    for frames in (1, 3, 8, 16):
        torch.testing.assert_close(dct(frames) @ dct(frames).T, torch.eye(frames), rtol=0, atol=1e-6)
        still = dct(frames) @ torch.ones(frames)
        torch.testing.assert_close(still, torch.tensor([math.sqrt(frames)] + [0.0] * (frames - 1)), rtol=0, atol=1e-5)
    assert [block_frames(frames) for frames in (1, 7, 8, 16, 17, 24, 32, 34)] == [1, 7, 8, 16, 1, 12, 16, 2]


@pytest.mark.parametrize("codec", CODECS)
def test_massive_tokens_spoil_nothing_and_are_kept_themselves(codec: str) -> None:
    quantise, decode = fitted(codec, massive=0.02)
    plain_quantise, plain_decode = fitted(codec)
    massive, plain = stream(1000, 4, massive=0.02)[..., 1:, :], stream(1000, 4)[..., 1:, :]
    back = decode(*quantise(stream(1000, 4, massive=0.02)))[..., 1:, :]
    usual = loss(plain_decode(*plain_quantise(stream(1000, 4)))[..., 1:, :], plain)
    large = massive[..., 5] > 200
    assert 0 < large.sum() < 20
    # Without massive tokens the wild direction is the strongest of the ordinary ones, so it saves a little more then.
    assert loss(back[~large], massive[~large]) < 1.6 * usual
    assert loss(back[large], massive[large]) < 0.003
    everywhere = stream(2000, massive=1.0)  # no largest number of them
    assert loss(decode(*quantise(everywhere))[..., 1:, :], everywhere[..., 1:, :]) < 0.003


def test_what_stands_still_costs_little() -> None:
    """At the same bytes, four equal frames of a block are decoded far better than four that have nothing in common."""
    quantise, decode = fitted("klt1", still=0.95)
    restless_quantise, restless_decode = fitted("klt1")
    still, restless = stream(77, 3, still=0.95), stream(77, 3)
    assert loss(decode(*quantise(still)), still) < 0.4 * loss(restless_decode(*restless_quantise(restless)), restless)


def test_more_bits_lose_less_and_the_class_row_is_always_fine() -> None:
    tokens, losses = stream(5, 2), []
    for codec in CODECS:
        quantise, decode = fitted(codec)
        back = decode(*quantise(tokens))
        losses.append(loss(back[..., 1:, :], tokens[..., 1:, :]))
        assert loss(back[..., 0, :], tokens[..., 0, :]) < 2e-4
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-6 < losses[-3] < 1e-4 < losses[2] < 0.005 < losses[0] < 0.15


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_tokens_that_cannot_be_stored_are_refused(codec: str, value: float) -> None:
    tokens = stream(1)
    tokens[0, 1, 2, 3, 4] = value
    with pytest.raises(ClipError, match="not finite"):
        fitted(codec)[0](tokens)


@pytest.mark.parametrize("codec", ["klt0.5", "klt2", "klt4"])
def test_a_sample_of_one_still_or_empty_video_gives_finite_tokens(codec: str) -> None:
    form = codec_form(codec)
    for only in (torch.zeros(1, LAYERS, FRAMES, TOKENS, CHANNELS), stream(3)[:, :, :1].expand(-1, -1, FRAMES, -1, -1)):
        fitting = Fitting([form], 1)
        fitting.update(only)
        made = fitting.finish(form, torch.device("cpu"))
        decode = Dequantiser(spec_of(codec), made.mean, made.std, fitted=made.arrays)
        back = decode(*Quantiser(form, made.mean, made.std, made.arrays, range(LAYERS))(stream(4)))
        assert torch.isfinite(back).all()


def test_a_mean_is_drawn_to_that_of_all_patches_where_videos_disagree() -> None:
    sample = TrackSample(2, tokens_most=100, bytes_most=10**6)
    one = torch.zeros(1, 1, 1, 3, 2)
    one[..., 1, :], one[..., 2, :] = torch.tensor([5.0, 0]), torch.tensor([-5.0, 0])
    other = one.clone()
    other[..., 1, :] = torch.tensor([7.0, 0])  # place 1: 5 and 7; place 2: -5 twice; all patches together: 0.5
    sample.update(one)
    sample.update(other)
    mean, _ = sample.statistics()
    # place 1: mean 6, its variance over videos (1² + 1²) / 2 / (2 - 1) = 1, distance to 0.5 is 5.5² = 30.25
    torch.testing.assert_close(mean[0, 1], torch.tensor([0.5 + (1 - 1 / 30.25) * 5.5, 0]))
    torch.testing.assert_close(mean[0, 2], torch.tensor([-5.0, 0]))
    single = TrackSample(1, tokens_most=100, bytes_most=10**6)
    single.update(one)
    torch.testing.assert_close(single.statistics()[0][0, 1:], torch.zeros(2, 2))  # one video says nothing of places


def test_kinds_are_told_apart_by_what_moves() -> None:
    draw = torch.Generator().manual_seed(0)
    still = torch.randn(200, 12, generator=draw) * torch.tensor([3.0] * 3 + [0.1] * 9)
    moving = torch.randn(200, 12, generator=draw) * torch.tensor([1.0] * 12)
    deviations, kinds = fit_kinds(torch.cat([still, moving]))
    assert deviations.shape == (BLOCK_KINDS, 12)
    assert not set(kinds[:200].tolist()) & set(kinds[200:].tolist())
    assert wild_direction(torch.eye(3)[[0] * 3 + [1] * 300] * torch.tensor([90.0, 1, 1])).tolist() == [1, 0, 0]


def by_the_format(group: Any, layer: int, codes: Any, scale: Any, bits: float) -> Any:
    """Patches [frame patch channel] of one view in one layer, by the formulas of docs/cache-format.md, in NumPy."""
    channels = group["wild"].shape[1]
    width = max(3, int(bits * channels / 8))
    places, frames = -(-channels // width), len(codes)
    patches, mean = codes[:, places:], group["place_mean"][layer][1:]
    values = np.zeros((frames, patches.shape[1], channels - 1))
    if bits >= 3:
        share = scale[:, places:, 1]
        first = 0
        component_bits = group["component_bits"][layer].astype(int)
        numbers = np.zeros((frames, patches.shape[1], 8 * len(component_bits)))
        for plane in range(component_bits.max()):
            for chosen in np.flatnonzero(component_bits > plane):
                byte = patches[..., first]
                for i in range(8):
                    numbers[..., chosen * 8 + i] += (byte >> i & 1) * 2.0**plane
                first += 1
        middle = np.repeat((2.0**component_bits - 1) / 2, 8)
        values = ((numbers - middle) * scale[:, places:, :1])[..., : channels - 1]
    else:
        share = scale[:, places:]
        block = max(divisor for divisor in range(1, 17) if frames % divisor == 0)
        waves = np.array([[math.cos(math.pi * (t + 0.5) * f / block) * math.sqrt((1 if f == 0 else 2) / block)
                           for t in range(block)] for f in range(block)])  # fmt: skip
        for start in range(0, frames, block):
            for patch in range(patches.shape[1]):
                row = patches[start : start + block, patch].reshape(-1)
                deviation = group["coefficient_std"][layer][row[1]]
                chosen = []
                for byte, size in zip(row[2:], group["part_sizes"][layer].astype(int), strict=False):
                    chosen += list(group["codewords"][layer][byte][size * (size - 1) // 2 :][:size])
                coefficients = np.zeros(len(deviation))
                order = np.argsort(-deviation, kind="stable")[: len(chosen)]
                coefficients[order] = np.array(chosen) * deviation[order]
                gain = group["gain"][layer] * 2.0 ** ((int(row[0]) - 128) / 8)
                values[start : start + block, patch] = waves.T @ coefficients.reshape(block, -1) * gain
    return mean + share[..., None] * group["wild"][layer] + values @ group["rotation"][layer]


@pytest.mark.parametrize("codec", ["klt1", "klt2", "klt4"])
def test_plain_zarr_and_numpy_give_the_same_tokens_by_the_formulas_of_the_format(
    toy: Any, tmp_path: Path, codec: str
) -> None:
    from vidxfer.stages.upkeep.recode import RecodeRequest, recode

    recode(RecodeRequest(source=toy.float16, target=tmp_path / "zarr", codec=codec, splits=("train",)))
    group = zarr.open_group(tmp_path / "zarr" / "train", mode="r")
    arrays = {name: np.asarray(group[name][:]) for name in group if name not in ("tokens", "scale")}
    codes, scale = group["tokens"][4, 1], group["scale"][4, 1].astype(np.float64)
    from vidxfer.pipeline.cache.store import open_split

    split = open_split(tmp_path / "zarr", "train")
    with CacheReader(split) as reader:
        read = reader.read([4], [1])
        found = Dequantiser.of(split)(read.codes, read.scale)[0]
        with (
            pytest.raises(ValueError, match="decodes all frames of a view together")
            if codec != "klt4"
            else (pytest.MonkeyPatch.context())
        ):
            reader.read([4], [1], frames=[[0, 2]])
    for layer in range(len(split.spec.layers)):
        plain = by_the_format(arrays, layer, codes[layer], scale[layer], split.spec.form.bits)
        np.testing.assert_allclose(found[layer, :, 1:].numpy(), plain, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("stored", ["codecs_of_0_1_0", "codecs_klt"])
def test_caches_decode_to_the_numbers_that_they_did_when_they_were_made(stored: str) -> None:
    """Codes, arrays and tokens of every codec; those of 0.1.0's were written by 0.1.0."""
    kept = np.load(HERE / f"{stored}.npz")
    names = sorted({name.split("/")[0] for name in kept})
    assert len(names) == {"codecs_of_0_1_0": 15, "codecs_klt": 7}[stored]
    for name in names:
        arrays = {
            key.removeprefix(f"{name}/"): torch.from_numpy(kept[key]) for key in kept if key.startswith(f"{name}/")
        }
        fitted_arrays = {key.removeprefix("fitted/"): v for key, v in arrays.items() if key.startswith("fitted/")}
        spec = spec_of(name.replace("_", "+"), tokens=5, channels=24)
        back = Dequantiser(spec, arrays["mean"], arrays["std"], fitted=fitted_arrays)(
            arrays["codes"], arrays.get("scale")
        )
        torch.testing.assert_close(back, arrays["tokens"], rtol=1e-5, atol=1e-4)


def test_a_layer_is_decoded_in_whole_blocks_only() -> None:
    quantise, decode = fitted("klt1")
    codes, scale = quantise(stream(1))
    assert scale is not None
    with pytest.raises(ValueError, match="in blocks of 4; got 3"):
        decode(codes[:, :, :3], scale[:, :, :3])
    assert isinstance(decode.klt(0), KltLayer)
    with pytest.raises(ValueError, match="decoded whole"):
        decode.fold(torch.ones(2, CHANNELS), None, 0)


@pytest.mark.parametrize("codec", ["klt1", "klt8"])
def test_a_product_in_bfloat16_is_off_by_its_rounding_and_massive_tokens_spoil_nothing(codec: str) -> None:
    quantise, decode = fitted(codec, massive=0.1)
    made = statistics(codec, massive=0.1)
    rounded = Dequantiser(spec_of(codec), made.mean, made.std, fitted=made.arrays, product=torch.bfloat16)
    tokens = stream(99, massive=0.1)
    exact, found = decode(*quantise(tokens)), rounded(*quantise(tokens))
    assert found.dtype == torch.float32
    assert torch.equal(found[:, :, :, 0], exact[:, :, :, 0]), "the class row is turned by nothing"
    off, ordinary = (found - exact).norm(dim=-1), exact.norm(dim=-1).median()
    assert 0 < float(off.max()) < 2**-7 * 2 * float(ordinary)
    assert float(exact.norm(dim=-1).max()) > 10 * float(ordinary), "there are massive ones"
