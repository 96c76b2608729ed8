"""Mixing where clips meet the head: before CLIP online, after the cache otherwise, and the same after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.ahead import RawBatch
from vidxfer.pipeline.training.loader import Assembler, ClipLoader, online_features
from vidxfer.pipeline.training.mixing import Mixing, mix_batch, mix_pixels, mix_targets
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.learning.trainer import Trainer

CPU = torch.device("cpu")
NEEDS = Needs(layers=(0, 1, 2), embedding=True, pixels="dense")
BOTH_WAYS = range(6)
"""Steps among whose draws are mixup and CutMix."""


@pytest.fixture(scope="module")
def raw(toy: Any) -> RawBatch:
    source = cached_source(toy.float16, "train", None)
    with ClipLoader(source.split, NEEDS, source.find_videos()) as loader:
        return next(loader.batches([[(0, 0), (3, 1), (5, 0)]]))


@pytest.mark.parametrize("step", BOTH_WAYS)
def test_cached_clips_are_mixed_after_the_cache(toy: Any, raw: RawBatch, step: int) -> None:
    split = open_split(toy.float16, "train")
    assemble = Assembler(split, NEEDS, CPU, smoothing=0.1, mixing=Mixing(kind="tokens"), seed=3)
    plain, mixed = assemble(raw), assemble(raw, step=step)
    mix = assemble._draw(step)
    assert mix is not None
    assert mix.box is None or mix.unit_px == 8, "the tower's patch"
    wanted = mix_batch(plain, mix)
    for name in ("tokens", "embedding", "dense", "targets"):
        assert torch.equal(getattr(mixed, name), getattr(wanted, name)), name


@pytest.mark.parametrize("step", BOTH_WAYS)
def test_online_pixels_are_mixed_before_clip_sees_them(toy: Any, raw: RawBatch, step: int) -> None:
    split, tower = open_split(toy.float16, "train"), load_tower(str(toy.clip), device="cpu")
    assemble = Assembler(split, NEEDS, CPU, smoothing=0.1, tower=tower, mixing=Mixing(kind="pixels"), seed=3)
    plain, mixed = assemble(raw), assemble(raw, step=step)
    mix = assemble._draw(step)
    assert mix is not None
    assert raw.dense is not None
    assert plain.targets is not None
    dense = mix_pixels(raw.dense, mix)
    tokens, embedding = online_features(tower, dense, 2, NEEDS)
    assert torch.equal(mixed.dense, dense)
    torch.testing.assert_close(mixed.tokens, tokens)
    torch.testing.assert_close(mixed.embedding, embedding)
    assert torch.equal(mixed.targets, mix_targets(plain.targets, mix))
    assert not torch.allclose(mixed.tokens, mix_batch(plain, mix).tokens), "CLIP is not linear"


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
