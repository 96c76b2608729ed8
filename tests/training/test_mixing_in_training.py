"""Mixing where clips meet the head: before CLIP online, after the cache otherwise, and the same after a restart."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.ahead import RawBatch
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.training.mixing import Mixing
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.learning.trainer import Trainer

CPU = torch.device("cpu")
NEEDS = Needs(layers=(0, 1, 2), embedding=True, pixels="dense")
PARTS = ("tokens", "embedding", "dense", "targets")
BOTH_WAYS = range(6)
"""Steps among whose draws are mixup and CutMix."""


@pytest.fixture(scope="module")
def raw(toy: Any) -> RawBatch:
    source = cached_source(toy.float16, "train", None)
    with ClipLoader(source.split, NEEDS, source.find_videos()) as loader:
        return next(loader.batches([[(0, 0), (3, 1), (5, 0)]]))


def drawn_by_hand(seed: int, step: int, side: int) -> tuple[float, tuple[int, int, int, int] | None]:
    """λ and the box (top, bottom, left, right) of one step, by docs/spec/dist.md §3 with its numbers."""
    numbers = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step, 0x6D6978])))
    if numbers.random() >= 0.5:
        return numbers.beta(0.8, 0.8), None
    root = np.sqrt(1 - numbers.beta(1.0, 1.0))
    row, column = numbers.integers(side), numbers.integers(side)
    half = int(side * root) // 2
    top, bottom, left, right = (
        max(0, row - half),
        min(side, row + half),
        max(0, column - half),
        min(side, column + half),
    )
    return 1 - (bottom - top) * (right - left) / side**2, (int(top), int(bottom), int(left), int(right))


@pytest.mark.parametrize("step", BOTH_WAYS)
def test_cached_clips_are_mixed_after_the_cache(toy: Any, raw: RawBatch, step: int) -> None:
    split = open_split(toy.float16, "train")
    assemble = Assembler(split, NEEDS, CPU, smoothing=0.1, mixing=Mixing(kind="tokens"), seed=3)
    plain, mixed = assemble(raw), assemble(raw, step=step)
    share, box = drawn_by_hand(3, step, side=4)  # 32 px, patches of 8 px
    before, after = ({n: getattr(one, n).numpy() for n in PARTS} for one in (plain, mixed))
    for clip, partner in ((0, 2), (1, 1), (2, 0)):
        own, other, found = ({n: values[at] for n, values in side.items()} for side, at in
                             ((before, clip), (before, partner), (after, clip)))  # fmt: skip
        blend = {name: share * own[name] + (1 - share) * other[name] for name in PARTS}
        wanted = dict(blend)
        if box is not None:
            top, bottom, left, right = box
            wanted |= {"tokens": own["tokens"].copy(), "dense": own["dense"].copy()}
            wanted["tokens"][:, :, 0] = blend["tokens"][:, :, 0]  # CLS has no place in the picture
            for row in range(top, bottom):
                for column in range(left, right):
                    wanted["tokens"][:, :, 1 + 4 * row + column] = other["tokens"][:, :, 1 + 4 * row + column]
                    pixels = (..., slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                    wanted["dense"][pixels] = other["dense"][pixels]
        for name in PARTS:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, rtol=1e-5, err_msg=name)


def test_the_steps_tried_mix_in_both_ways() -> None:
    assert {drawn_by_hand(3, step, side=4)[1] is None for step in BOTH_WAYS} == {True, False}


@pytest.mark.parametrize("step", BOTH_WAYS)
def test_online_pixels_are_mixed_before_clip_sees_them(toy: Any, raw: RawBatch, step: int) -> None:
    split, tower = open_split(toy.float16, "train"), load_tower(str(toy.clip), device="cpu")
    assemble = Assembler(split, NEEDS, CPU, smoothing=0.1, tower=tower, mixing=Mixing(kind="pixels"), seed=3)
    plain, mixed = assemble(raw), assemble(raw, step=step)
    share, box = drawn_by_hand(3, step, side=32)  # boxes of whole pixels: nothing snaps to patches
    assert isinstance(raw.dense, torch.Tensor)
    assert plain.targets is not None
    partner = [2, 1, 0]
    if box is None:
        dense = share * raw.dense + (1 - share) * raw.dense[partner]
    else:
        top, bottom, left, right = box
        dense = raw.dense.clone()
        dense[..., top:bottom, left:right] = raw.dense[partner][..., top:bottom, left:right]
    seen = tower.taps(dense[:, ::2].flatten(0, 1), (0, 1, 2))  # CLIP sees every second frame: alpha is 2
    tokens = seen.tokens.unflatten(1, (3, -1)).transpose(0, 1)
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(mixed.dense, dense)
    close(mixed.tokens, tokens.clone())
    close(mixed.embedding, seen.embedding.unflatten(0, (3, -1)).clone())
    close(mixed.targets, share * plain.targets + (1 - share) * plain.targets[partner])
    blend = share * plain.tokens + (1 - share) * plain.tokens[partner]
    assert not torch.allclose(mixed.tokens, blend), "CLIP is not linear"


def test_scoring_mixes_nothing(toy: Any, raw: RawBatch) -> None:
    assemble = Assembler(open_split(toy.float16, "train"), NEEDS, CPU, mixing=Mixing(kind="tokens"))
    assert torch.equal(assemble(raw).dense, raw.dense)


def test_pixels_cannot_be_mixed_before_clip_on_a_cache(toy: Any, tmp_path: Path) -> None:
    request = TrainRequest(recipe=toy.recipe("mixing.kind=pixels"), cache=toy.int8, run=tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match=r"--online, or use mixing\.kind=tokens"):
        train(request)
    assert not request.run.exists(), "refused before anything is made"


def test_mixing_changes_training_and_is_remembered(toy: Any, tmp_path: Path) -> None:
    losses = {}
    for kind in ("none", "tokens", "again"):
        recipe = toy.recipe(f"mixing.kind={'tokens' if kind == 'again' else kind}")
        report = train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / kind, device="cpu"))
        assert report is not None
        losses[kind] = report.loss
    assert losses["tokens"] == losses["again"] != losses["none"]
    assert Run.open(tmp_path / "tokens").recipe.mixing == Mixing(kind="tokens")


def test_a_restarted_run_mixes_as_the_unbroken_one_does(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.recipe("mixing.kind=tokens", "evaluate_every_epochs=2")
    whole = train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "whole", device="cpu"))
    real, steps = Trainer._step, []

    def stop_after_four(self: Trainer, *given: Any) -> float:
        steps.append(self.place.global_step)
        if len(steps) == 4:
            self.stop.asked = "SIGTERM"
        return real(self, *given)

    monkeypatch.setattr(Trainer, "_step", stop_after_four)
    broken = TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "broken", device="cpu")
    first = train(broken)
    second = train(broken)
    assert whole is not None
    assert first is not None
    assert second is not None
    assert (first.finished, second.finished, steps) == (False, True, [0, 1, 2, 3, 4, 5])
    assert second.loss == whole.loss
