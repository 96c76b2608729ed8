"""Side4Video and TDS-CLIP: the fast form equals the plain one, on any settings and grids, in training and evaluation.

In float64 any slip of the algebra would show; in float32 the two differ by rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads import HEADS
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.side4video.fast import spatial
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig
from vidxfer.pipeline.heads.side4video.net import side_width
from vidxfer.pipeline.heads.side4video.parts import shifted
from vidxfer.pipeline.heads.tds.fast import reference
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.heads.tds.parts import TemporalReference
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.optimise import soft_cross_entropy, soft_targets


def sized(*, frames: int = 3, grid: tuple[int, int] = (2, 3), patch: int = 4, layers: int = 3) -> Offer:
    return Offer(
        layers=tuple(range(layers)), sparse_frames=frames, alpha=1, grid=grid, channels=40, embed=8, classes=5,
        image_px=grid[0] * patch,
    )  # fmt: skip


def batch_of(config: Side4VideoConfig, offer: Offer, clips: int, dtype: torch.dtype, seed: int = 3) -> ClipBatch:
    """Random clips; the pictures are as wide as the grid."""
    draw = torch.Generator().manual_seed(seed)
    needs = config.needs(offer)
    shape = (clips, needs.pixel_frames(offer.sparse_frames, 1), 3, *(n * offer.patch_px for n in offer.grid))
    tokens = (clips, len(needs.layers), offer.sparse_frames, offer.tokens, offer.channels)
    return ClipBatch(
        tokens=torch.randn(tokens, generator=draw).to(dtype) * 3 + 0.5,
        embedding=None,
        dense=torch.randn(shape, generator=draw).to(dtype),
        targets=None,
        labels=torch.arange(clips) % offer.classes,
        ids=tuple(map(str, range(clips))),
    )


def built(config: Side4VideoConfig, offer: Offer, dtype: torch.dtype, seed: int = 0) -> Any:
    """A head with no parameter and no statistic at its initial value."""
    torch.manual_seed(seed)
    head = config.build(offer).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in head.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5 if name.endswith("var") else 0.2 * torch.randn_like(buffer))
    return head


def results(config: Side4VideoConfig, offer: Offer, batch: ClipBatch, *, training: bool) -> dict[str, Tensor]:
    """Logits, statistics and gradients of one form."""
    assert batch.dense is not None
    head = built(config, offer, batch.dense.dtype).train(training)
    logits = head(batch)
    soft_cross_entropy(logits, soft_targets(batch.labels, offer.classes, 0.1)).backward()
    gradients = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert all(one is not None for one in gradients.values())
    return {"logits": logits.detach(), **dict(head.named_buffers()), **gradients}


def deviation(config: Side4VideoConfig, offer: Offer, batch: ClipBatch, *, training: bool) -> float:
    """Largest difference of the two forms, as a share of the largest value of its tensor (or of 1, where larger)."""
    plain, fast = (results(replace(config, form=form), offer, batch, training=training) for form in ("plain", "fast"))
    assert plain.keys() == fast.keys()
    return max(
        float((value - fast[name]).abs().max() / value.abs().max().clamp(min=1)) for name, value in plain.items()
    )


CONFIGS: dict[str, tuple[Side4VideoConfig, Offer]] = {
    "side4video": (Side4VideoConfig(side_channels=128), sized()),
    "side4video, learned gate": (Side4VideoConfig(side_channels=64, gate="learned"), sized()),
    "side4video, one frame": (Side4VideoConfig(side_channels=64), sized(frames=1)),
    "side4video, one patch": (Side4VideoConfig(side_channels=64), sized(grid=(1, 1))),
    "side4video, some layers": (Side4VideoConfig(side_channels=64, layers=(2, 0)), sized()),
    "tds": (TdsConfig(side_channels=128), sized()),
    "tds, patches of 3 px": (TdsConfig(side_channels=64), sized(patch=3)),
    "tds, one frame": (TdsConfig(side_channels=64), sized(frames=1)),
    "tds, three local frames": (TdsConfig(side_channels=64, local_frames=3, sme_alpha=1.5, sme_beta=0.5), sized()),
    "tds, one local frame": (TdsConfig(side_channels=64, local_frames=1), sized()),
    "tds, first half": (TdsConfig(side_channels=64, td_blocks="first-half", gate="learned"), sized()),
    "tds, second half": (TdsConfig(side_channels=64, td_blocks="second-half"), sized()),
    "tds, no adapter": (TdsConfig(side_channels=64, td_blocks="none"), sized()),
    "tds, pool of 7": (TdsConfig(side_channels=64, td_kernel=7), sized(frames=8)),
    "tds, convolution of 5": (TdsConfig(side_channels=64, td_against="convolution", td_kernel=5), sized(frames=6)),
    "tds, direct": (TdsConfig(side_channels=64, td_against="direct"), sized(frames=4)),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", CONFIGS)
def test_fast_equals_plain(name: str, training: bool) -> None:
    config, offer = CONFIGS[name]
    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        assert deviation(config, offer, batch_of(config, offer, 2, dtype), training=training) < most


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_fast_equals_plain_on_any_sizes(data: st.DataObject) -> None:
    def pick(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    offer = sized(frames=pick(1, 4), grid=(pick(1, 3), pick(1, 3)), patch=pick(3, 5), layers=pick(1, 3))
    shared = {"side_channels": 64, "gate": data.draw(st.sampled_from(["fixed", "learned"]))}
    config = data.draw(st.sampled_from([
        Side4VideoConfig(**shared),
        TdsConfig(**shared, local_frames=data.draw(st.sampled_from([1, 3, 5])), td_kernel=3),
    ]))  # fmt: skip
    batch = batch_of(config, offer, pick(2, 3), torch.float64)
    assert deviation(config, offer, batch, training=data.draw(st.booleans())) < 1e-11


def test_what_the_loader_hands_over_is_not_written_to() -> None:
    for name in ("side4video", "tds"):
        config, offer = CONFIGS[name]
        batch = batch_of(config, offer, 2, torch.float32)
        assert batch.tokens is not None
        assert batch.dense is not None
        before = batch.tokens.clone(), batch.dense.clone()
        built(config, offer, torch.float32)(batch).sum().backward()
        assert torch.equal(batch.tokens, before[0])
        assert torch.equal(batch.dense, before[1])


@pytest.mark.parametrize("name", ["side4video", "tds"])
def test_under_autocast_fast_is_as_near_to_float32_as_plain(name: str) -> None:
    config, offer = CONFIGS[name]
    batch = batch_of(config, offer, 4, torch.float32)
    exact = results(config, offer, batch, training=True)
    off = {}
    for form in ("plain", "fast"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = results(replace(config, form=form), offer, batch, training=True)
        off[form] = float((found["logits"] - exact["logits"]).norm() / exact["logits"].norm())
        assert all(bool(value.isfinite().all()) for value in found.values())
    assert off["fast"] < max(0.05, 2 * off["plain"])


@pytest.mark.parametrize("name", [name for name, (_, offer) in CONFIGS.items() if offer.sparse_frames > 1])
@torch.no_grad()
def test_the_order_of_frames_changes_the_answer(name: str) -> None:
    config, offer = CONFIGS[name]
    head = built(config, offer, torch.float32).eval()
    batch = batch_of(config, offer, 2, torch.float32)
    assert batch.tokens is not None
    assert batch.dense is not None
    turned = torch.arange(offer.sparse_frames).roll(1)
    windows = batch.dense.unflatten(1, (offer.sparse_frames, -1))[:, turned].flatten(1, 2)
    other = head(replace(batch, tokens=batch.tokens[:, :, turned], dense=windows))
    assert float((other - head(batch)).abs().max()) > 1e-3


def test_class_tokens_are_those_of_the_neighbouring_frames_by_hand() -> None:
    """docs/spec/tds_clip_side4video.md §2.2b: the first half of the next frame, the second half of the one before."""
    cls = torch.tensor([[[11.0, 12.0, 13.0], [21.0, 22.0, 23.0], [31.0, 32.0, 33.0]]])  # of three channels, one is half
    assert shifted(cls).tolist() == [[[21.0, 0.0, 0.0], [31.0, 12.0, 13.0], [0.0, 22.0, 23.0]]]


@torch.no_grad()
def test_a_class_token_reaches_the_patches_of_the_neighbouring_frames_and_not_its_own() -> None:
    config, offer = Side4VideoConfig(side_channels=64), sized(frames=5, layers=1)
    block = built(config, offer, torch.float64).eval().visual.transformer.side_transformer[0]
    s, cls = torch.randn(1, 5, 6, 64).double(), torch.randn(1, 5, 64).double()
    other = cls.clone()
    other[:, 2] += 1 + torch.randn(64)
    positions = torch.randn(6, 64).double()
    moved = (spatial(block, s, other, positions) - spatial(block, s, cls, positions)).abs().amax(dim=(0, 2, 3))
    assert [float(one) > 1e-9 for one in moved] == [False, True, False, True, False]


def test_tds_with_everything_off_is_side4video() -> None:
    offer = sized()
    off = TdsConfig(side_channels=64, local_frames=1, td_blocks="none")
    ours, theirs = built(off, offer, torch.float32), built(Side4VideoConfig(side_channels=64), offer, torch.float32)
    assert off.needs(offer) == Side4VideoConfig(side_channels=64).needs(offer)
    theirs.load_state_dict(ours.state_dict())
    batch = batch_of(off, offer, 2, torch.float32)
    assert torch.equal(ours(batch), theirs(batch))


def test_a_learned_gate_begins_as_the_fixed_one_and_has_the_temperature_of_lst() -> None:
    offer = sized()
    fixed = built(Side4VideoConfig(side_channels=64), offer, torch.float64).eval()
    learned = Side4VideoConfig(side_channels=64, gate="learned").build(offer).double().eval()
    lacking = learned.load_state_dict(fixed.state_dict(), strict=False)
    assert lacking.missing_keys == ["visual.transformer.side_gates"]
    batch = batch_of(Side4VideoConfig(side_channels=64), offer, 2, torch.float64)
    torch.testing.assert_close(learned(batch), fixed(batch))
    inner = learned.visual.transformer
    with torch.no_grad():
        inner.side_gates.copy_(torch.tensor([0.1, 5.0, -5.0]))
    one, two = torch.randn(4, 7).double(), torch.randn(4, 7).double()
    share = 1 / (1 + torch.e**-1.0)
    torch.testing.assert_close(inner.fused(0, one, two), share * two + (1 - share) * one)
    torch.testing.assert_close(inner.fused(1, one, two), two)
    torch.testing.assert_close(inner.fused(2, one, two), one)


REFERENCES = {
    ("max-pool", 3): [[2.0, 2.0, 5.0, 5.0, 5.0]],
    ("max-pool", 5): [[2.0, 5.0, 5.0, 5.0, 5.0]],
    ("direct", 3): [[1.0, 1.0, 2.0, 0.0, 5.0]],
    ("convolution", 3): [[10 + 200.0, 1 + 20 + 0.0, 2 + 0 + 500.0, 0 + 50 + 400.0, 5 + 40.0]],
}


@pytest.mark.parametrize("against", REFERENCES)
def test_what_a_difference_is_taken_against_by_hand(against: tuple[str, int]) -> None:
    module = TemporalReference(against[0], 1, against[1])
    frames = torch.tensor([1.0, 2.0, 0.0, 5.0, 4.0])
    expected = torch.tensor(REFERENCES[against])
    if module.filter is not None:
        with torch.no_grad():
            module.filter.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1, 1))  # before, here, after
    torch.testing.assert_close(module(frames.view(1, 1, 5, 1, 1)).flatten()[None], expected)
    torch.testing.assert_close(reference(module, frames.view(1, 5, 1, 1)).flatten()[None], expected)


def test_needs_are_the_frames_of_clip_or_windows_around_them() -> None:
    offer = sized()
    found = {n: TdsConfig(local_frames=n).needs(offer) for n in (1, 3, 5)}
    assert [(one.pixels, one.window_frames) for one in found.values()] == [("sparse", 0), ("window", 3), ("window", 5)]
    assert TdsConfig().needs(offer).window_ends == "clamp"
    assert TdsConfig(window_ends="wrap").needs(offer).window_ends == "wrap", "as the release reads video files"
    assert Side4VideoConfig().needs(offer).pixels == "sparse"
    assert Side4VideoConfig().needs(replace(offer, layers=(-1, 0, 3))).layers == (0, 3)


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("side4video", {"side_channels": 100}, "side_channels=100 must be a multiple of 64"),
        ("side4video", {"side_channels": 0}, "multiple of 64"),
        ("side4video", {"gate": "open"}, "gate='open' is none of fixed, learned"),
        ("side4video", {"form": "slow"}, "form='slow' is none of fast, plain"),
        ("side4video", {"layers": ()}, r"layers=\(\) must be block numbers"),
        ("tds", {"side_channels": 65}, "multiple of 64"),
        ("tds", {"form": "slow"}, "none of fast, plain"),
        ("tds", {"local_frames": 7}, "local_frames=7 is none of 1, 3, 5"),
        ("tds", {"td_blocks": "some"}, "td_blocks='some' is none of all"),
        ("tds", {"td_against": "mean"}, "td_against='mean' is none of max-pool"),
        ("tds", {"td_kernel": 4}, "td_kernel=4 is none of 3, 5, 7"),
        ("tds", {"sme_alpha": -1.0}, "sme_alpha=-1.0"),
        ("tds", {"sme_beta": float("nan")}, "sme_beta=nan"),
    ],
)
def test_settings_there_are_not_are_refused(kind: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        HEADS[kind](**changes)


def test_patches_that_the_edge_would_change_are_refused() -> None:
    with pytest.raises(CacheError, match=r"patches of 2 px.*local_frames=1"):
        TdsConfig().build(sized(patch=2))
    TdsConfig(local_frames=1).build(sized(patch=2))


def test_a_width_that_goes_with_the_tower_is_the_released_one_where_there_is_one() -> None:
    """5/12 of a tower below 1024 channels, half of it from there on, in whole heads of 64 and at least one."""
    widths = {768: 320, 1024: 512, 384: 128, 192: 64, 96: 64, 1152: 576, 1280: 640, 1408: 704}
    assert {channels: side_width(channels) for channels in widths} == widths
    for config in (Side4VideoConfig(side_channels=None), TdsConfig(side_channels=None)):
        whole = config.settled(replace(sized(), channels=1024))
        assert (type(whole), whole.side_channels) == (type(config), 512)
        assert config.settled(replace(sized(), channels=768)).side_channels == 320
        assert whole.settled(replace(sized(), channels=768)) is whole, "decided once"
