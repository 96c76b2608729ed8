"""Mixing equals the official one where it is the same thing, and keeps its own rules where it is not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.mixing import (
    Mix,
    Mixing,
    cut,
    draw_mix,
    mix_batch,
    mix_pixels,
    mix_targets,
    mix_tokens,
)
from vidxfer.pipeline.training.optimise import soft_targets

GRID, PATCH = 4, 8


def batch_of(clips: int = 3, seed: int = 0) -> ClipBatch:
    numbers = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers)

    labels = torch.arange(clips)
    return ClipBatch(
        tokens=random(clips, 2, 2, GRID * GRID + 1, 5),
        embedding=random(clips, 2, 6),
        dense=random(clips, 4, 3, GRID * PATCH, GRID * PATCH),
        targets=soft_targets(labels, 7, 0.1),
        labels=labels,
        ids=tuple(str(clip) for clip in range(clips)),
    )


def drawn(kind: str, step: int, **numbers: float) -> Mix:
    mix = draw_mix(Mixing(kind=kind, **numbers), image_px=GRID * PATCH, patch_px=PATCH, seed=0, step=step)
    assert mix is not None
    return mix


def official_cases(golden: Any) -> list[tuple[str, Any, dict[str, torch.Tensor]]]:
    """Name, what is told of it, and the tensors of the file, of every case in it."""
    file = golden("dist_mixup.safetensors")
    names = sorted(name for name in file.told if name.startswith("case"))
    assert names, f"{file.told.place} tells of no case"
    return [(name, file.json(name), file.tensors) for name in names]


def test_pixels_and_targets_equal_the_official_golden_ones(golden: Any) -> None:
    for case, told, official in official_cases(golden):
        box = tuple(told["bbox_yl_yh_xl_xh"]) if told["cutmix"] else None
        mix = Mix(share=told["lam_corrected"] if told["cutmix"] else told["lam_drawn"], box=box)
        video = mix_pixels(official["input.video"], mix)
        torch.testing.assert_close(video, official[f"output.{case}.video"], atol=0, rtol=0)
        wanted = official[f"output.{case}.target"]
        targets = mix_targets(soft_targets(official["input.labels"], wanted.shape[1], 0.1), mix)
        torch.testing.assert_close(targets, wanted, atol=0, rtol=0)


def test_the_official_golden_box_follows_from_its_lambda_and_centre(golden: Any) -> None:
    cut_cases = [(told, official) for _, told, official in official_cases(golden) if told["cutmix"]]
    assert cut_cases
    for told, official in cut_cases:
        height, width = official["input.video"].shape[-2:]
        possible = [
            mix
            for row in range(height)
            for column in range(width)
            if (mix := cut(told["lam_drawn"], (row, column), height=height, width=width)).box
            == tuple(told["bbox_yl_yh_xl_xh"])
        ]
        assert possible, "no centre gives this box"
        assert all(mix.share == told["lam_corrected"] for mix in possible)


@pytest.mark.parametrize("box", [None, (0, 0, 0, 0), (2, 2, 1, 3)])
def test_a_share_of_one_changes_nothing(box: tuple[int, int, int, int] | None) -> None:
    batch = batch_of()
    mixed = mix_batch(batch, Mix(share=1.0, box=box, unit_px=PATCH))
    for name in ("tokens", "embedding", "dense", "targets"):
        assert torch.equal(getattr(mixed, name), getattr(batch, name)), name


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["pixels", "tokens"]), st.integers(0, 10_000))
def test_the_share_is_the_area_that_is_left_and_targets_sum_to_one(kind: str, step: int) -> None:
    mix = drawn(kind, step)
    assert 0 <= mix.share <= 1
    if mix.box is not None:
        top, bottom, left, right = mix.box_px
        assert 0 <= top <= bottom <= GRID * PATCH
        assert 0 <= left <= right <= GRID * PATCH
        assert mix.share == pytest.approx(1 - (bottom - top) * (right - left) / (GRID * PATCH) ** 2, abs=1e-12)
        if kind == "tokens":
            assert all(edge % PATCH == 0 for edge in mix.box_px)
    batch = batch_of()
    assert batch.targets is not None
    torch.testing.assert_close(mix_targets(batch.targets, mix).sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("step", range(12))
def test_tokens_and_pixels_take_the_same_patches_from_the_same_partner(step: int) -> None:
    """Every token carries the number of its clip and patch, every pixel that of its patch: they must go on agreeing."""
    clips = 4
    number = torch.arange(clips * GRID * GRID, dtype=torch.float32).reshape(clips, GRID, GRID)
    cls = torch.zeros(clips, 1, 1, 1, 1)
    tokens = torch.cat([cls, number.reshape(clips, 1, 1, GRID * GRID, 1)], dim=3)
    pixels = number.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None, None].expand(-1, 2, 3, -1, -1)
    mix = drawn("tokens", step)
    from_tokens = mix_tokens(tokens, mix)[:, 0, 0, 1:, 0].reshape(clips, GRID, GRID)
    from_pixels = mix_pixels(pixels, mix)[:, 0, 0, ::PATCH, ::PATCH]
    assert torch.equal(from_tokens, from_pixels)


def test_the_cls_token_and_the_embedding_are_mixed_with_the_corrected_share() -> None:
    batch = batch_of()
    assert batch.tokens is not None
    assert batch.embedding is not None
    mix = Mix(share=0.75, box=(0, 2, 0, 2), unit_px=PATCH)
    mixed = mix_batch(batch, mix)
    assert mixed.tokens is not None
    assert mixed.embedding is not None
    cls = batch.tokens[:, :, :, 0]
    torch.testing.assert_close(mixed.tokens[:, :, :, 0], 0.75 * cls + 0.25 * cls.flip(0))
    torch.testing.assert_close(mixed.embedding, 0.75 * batch.embedding + 0.25 * batch.embedding.flip(0))


def test_the_batch_that_goes_in_is_left_as_it_is() -> None:
    batch, untouched = batch_of(), batch_of()
    for mix in (Mix(share=0.3), Mix(share=0.75, box=(0, 2, 0, 2), unit_px=PATCH)):
        mixed = mix_batch(batch, mix)
        assert (mixed.ids, mixed.labels) == (batch.ids, batch.labels)
        for name in ("tokens", "embedding", "dense", "targets"):
            assert torch.equal(getattr(batch, name), getattr(untouched, name)), name


def test_the_same_step_draws_the_same_and_others_differ() -> None:
    first, again = ([drawn("pixels", step) for step in range(40)] for _ in range(2))
    assert first == again
    assert len({mix.share for mix in first}) > 30


def test_draws_have_the_published_distribution() -> None:
    mixes = [drawn("pixels", step) for step in range(4000)]
    boxes = [mix for mix in mixes if mix.box is not None]
    assert len(boxes) / len(mixes) == pytest.approx(0.5, abs=0.03)
    shares = torch.tensor([mix.share for mix in mixes if mix.box is None])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.01)  # of Beta(0.8, 0.8)


@pytest.mark.parametrize(("numbers", "box"), [({"mixup_alpha": 0.0}, True), ({"cutmix_alpha": 0.0}, False)])
def test_an_alpha_of_zero_turns_one_way_off(numbers: dict[str, float], box: bool) -> None:
    assert {drawn("tokens", step, **numbers).box is not None for step in range(50)} == {box}


def test_nothing_is_drawn_by_default() -> None:
    assert draw_mix(Mixing(), image_px=224, patch_px=16, seed=0, step=0) is None


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"kind": "pixel"}, "none, published, pixels, tokens"),
        ({"mixup_alpha": -1.0}, "mixup_alpha"),
        ({"cutmix_alpha": math.nan}, "cutmix_alpha"),
        ({"cutmix_share": 1.5}, "cutmix_share"),
        ({"kind": "tokens", "mixup_alpha": 0.0, "cutmix_alpha": 0.0}, "mixes nothing"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(numbers: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Mixing(**numbers)


@pytest.mark.parametrize(
    ("kind", "online", "meant"),
    [
        ("published", True, "pixels"),
        ("published", False, "none"),
        ("tokens", True, "tokens"),
        ("none", True, "none"),
    ],
)
def test_published_mixing_is_pixels_online_and_nothing_with_a_cache(kind: str, online: bool, meant: str) -> None:
    assert Mixing(kind=kind).resolved(online=online) == Mixing(kind=meant)
