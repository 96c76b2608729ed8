"""The frame-transformer probe sees the order of frames with its table over time, and not without; dropout resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.frames import FrameTransformer, FrameTransformerConfig
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.build import head_randomness
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.train import train

OFFER = Offer(layers=(0,), sparse_frames=6, alpha=2, grid=(4, 4), channels=64, embed=24, classes=5, image_px=64)
CPU = torch.device("cpu")


def logits(embedding: torch.Tensor, *, positions: bool, **changes: Any) -> torch.Tensor:
    """In eval mode, of weights large enough that what is seen matters."""
    torch.manual_seed(0)
    head = FrameTransformerConfig(channels=32, positions=positions, **changes).build(OFFER).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3.0)
        names = tuple(map(str, range(len(embedding))))
        batch = ClipBatch(
            tokens=None, embedding=embedding, dense=None, targets=None, labels=torch.zeros(len(names)), ids=names
        )
        return head(batch)


EMBEDDING = torch.randn(3, 6, 24, generator=torch.Generator().manual_seed(1))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_frames_shuffled_give_identical_logits_without_the_table(order: list[int]) -> None:
    shuffled = logits(EMBEDDING[:, order], positions=False)
    torch.testing.assert_close(shuffled, logits(EMBEDDING, positions=False), atol=2e-5, rtol=2e-5)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)).filter(lambda order: order != list(range(6))))
def test_frames_shuffled_give_other_logits_with_the_table(order: list[int]) -> None:
    shuffled = logits(EMBEDDING[:, order], positions=True)
    assert (shuffled - logits(EMBEDDING, positions=True)).abs().amax(dim=1).min() > 1e-4


def test_frames_see_each_other() -> None:
    """One frame exchanged between two clips changes both, and no third one."""
    swapped = EMBEDDING.clone()
    swapped[0, 2], swapped[1, 2] = EMBEDDING[1, 2], EMBEDDING[0, 2]
    before, after = logits(EMBEDDING, positions=False), logits(swapped, positions=False)
    assert (before[:2] - after[:2]).abs().min() > 1e-3
    torch.testing.assert_close(before[2], after[2])


def test_its_needs_are_the_embeddings_alone() -> None:
    for positions in (True, False):
        config = FrameTransformerConfig(positions=positions)
        needs = config.needs(OFFER)
        assert (needs.embedding, needs.layers, needs.pixels, needs.sparse_frames) == (True, (), "none", 6)
        assert config.fixed_frames == positions
    head = FrameTransformerConfig().build(OFFER)
    assert isinstance(head, FrameTransformer)
    assert "positions" in head.undecayed()


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"channels": 30}, "attention_heads=4"), ({"blocks": 0}, "blocks=0"), ({"dropout": 1.0}, "dropout=1.0")],
)
def test_sizes_that_no_transformer_has(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        FrameTransformerConfig(**changes)


def test_what_is_random_inside_a_head_follows_from_seed_step_and_process() -> None:
    def drawn(*words: int) -> list[float]:
        with head_randomness(*words, CPU):
            return torch.rand(4).tolist()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert drawn(0, 7, 0) == drawn(0, 7, 0)
    others = [drawn(0, 7, 0), drawn(1, 7, 0), drawn(0, 8, 0), drawn(0, 7, 1)]
    assert len({tuple(one) for one in others}) == 4
    assert torch.equal(torch.get_rng_state(), before), "nobody else's numbers move"


SETTINGS = ["epochs=2", "warmup_epochs=1", "batch_clips=8", "evaluate_every_epochs=2", "head.dropout=0.5",
            "head.channels=32"]  # fmt: skip


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def test_a_head_with_dropout_goes_on_with_the_curve_of_an_unbroken_run(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidxfer.pipeline.training.recipes import named, with_settings
    from vidxfer.stages.settings import TrainRequest

    request = TrainRequest(
        recipe=with_settings(named("frame-transformer"), SETTINGS), cache=toy.int8, run=tmp_path / "whole", device="cpu"
    )
    train(request)
    broken = replace(request, run=tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_agree_to_stop", stop_after(4))
        report = train(broken)
        assert report is not None
        assert not report.finished
    torch.manual_seed(99)  # another process would not have the state of this one either
    train(broken)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    weights = [(tmp_path / name / "checkpoint" / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    calm = with_settings(request.recipe, ["head.dropout=0"])
    train(replace(request, recipe=calm, run=tmp_path / "calm"))
    assert losses(tmp_path / "calm") != losses(tmp_path / "whole"), "there was something random to continue"


def stop_after(steps: int) -> Any:
    def agree(self: Any) -> bool:
        self.stopping = self.place.global_step >= steps
        return self.stopping

    return agree
