"""A training step: it waits for nothing, and its options change the weights as they say and nothing else."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vidxfer.pipeline.errors import RunError, UsageError
from vidxfer.pipeline.heads import FAMILIES, HEADS
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training import compiled
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.optimise import build_optimiser, restore
from vidxfer.pipeline.training.order import expect_enough_clips
from vidxfer.pipeline.training.pieces import filled, micro_batches
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.extract import extract
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.train import TrainRequest, train

spec = importlib.util.spec_from_file_location("syncs", Path(__file__).parent.parent / "bench" / "syncs.py")
assert spec is not None
assert spec.loader is not None
syncs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(syncs)

SETTINGS = ["epochs=1", "warmup_epochs=0", "batch_clips=8", "evaluate_every_epochs=1"]


class Lines:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        from vidxfer.stages.progress import Silent

        self.said: list[str] = []
        self.bar = Silent().bar

    def line(self, text: str) -> None:
        self.said.append(text)


def recipe_of(name: str, *settings: str) -> Recipe:
    return with_settings(named(name), [*SETTINGS, *syncs.SETTINGS.get(name, []), *settings])


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def weights(run: Path, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def cache(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two validation videos, with windows and the stem: every family trains without a video."""
    folder = tmp_path_factory.mktemp("steps")
    root = toy.smaller(folder / "small", count=16)
    extract(toy.request(folder / "zarr", root=root, with_frames=True, window=5, stem=True, train_views=1))
    return Path(folder / "zarr")


@pytest.fixture
def request_of(cache: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    def make(name: str, *settings: str, run: str = "run", **changes: Any) -> TrainRequest:
        return TrainRequest(recipe=recipe_of(name, *settings), cache=cache, run=tmp_path / run, device="cpu", **changes)

    return make


@pytest.mark.parametrize("name", syncs.recipes())
def test_a_step_of_every_family_waits_for_nothing(request_of: Callable[..., TrainRequest], name: str) -> None:
    """Assembling, mixing, forward, backward, the optimiser and the average: 3 to 6 waits per step before."""
    wanted = request_of(name, "batch_clips=4", "mixing.kind=tokens", "micro_batch=2", "ema=0.9", precision="bf16")
    now, late, what = syncs.count_training(lambda: train(wanted))
    assert (now, dict(what)) == (0, {})
    assert late == 1, "the loss of the step before, which a device has done by then"


def test_the_counter_sees_what_waits(request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer_module.soft_cross_entropy

    def curious(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(logits).all() or float(targets.sum()) < 0:
            raise AssertionError
        assert len(targets[targets > 2]) == 0
        return real(logits, targets + torch.tensor(0.0, device=targets.device))

    monkeypatch.setattr(trainer_module, "soft_cross_entropy", curious)
    now, _, what = syncs.count_training(lambda: train(request_of("probe", "batch_clips=4")))
    assert now == 4
    assert what == {"_local_scalar_dense": 6, "index": 3, "copy to the device": 3}, "of three steps"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_loss_that_is_no_number_is_named_and_nothing_behind_it_is_kept(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    real, steps = trainer_module.soft_cross_entropy, []

    def spoilt(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        steps.append(len(steps) + 1)
        return real(logits, targets) + (value if steps[-1] == 3 else 0.0)

    wanted = request_of("frame-transformer", "batch_clips=4", "checkpoint_seconds=0", "ema=0.5")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "soft_cross_entropy", spoilt)
        with pytest.raises(RunError, match=rf"the loss is {value} at step 3 \(videos .*The last checkpoint is kept"):
            train(wanted)
    assert len(losses(wanted.run)) == 2, "the steps before it are logged"
    assert all(bool(value.isfinite().all()) for value in weights(wanted.run).values())
    train(wanted)
    whole = replace(wanted, run=wanted.run.parent / "whole")
    train(whole)
    assert losses(wanted.run) == losses(whole.run)
    assert (wanted.run / "checkpoint/weights.safetensors").read_bytes() == (
        whole.run / "checkpoint/weights.safetensors"
    ).read_bytes()


def gradients_of(wanted: TrainRequest, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """All gradients of the first step, in one vector."""
    found: list[torch.Tensor] = []
    real = torch.optim.AdamW.step

    def step(self: Any, *more: Any) -> Any:
        values = [value.grad for group in self.param_groups for value in group["params"] if value.grad is not None]
        found.append(torch.cat([value.flatten().clone() for value in values]))
        return real(self, *more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(wanted)
    return found[0]


NORMED = ("probe", "frame-transformer", "side4video-toy", "tds-toy")
"""Families with batch norms."""

FREE = [name for name in syncs.recipes() if name not in NORMED]


@pytest.mark.parametrize("name", FREE)
def test_gradients_of_micro_batches_are_those_of_the_whole_batch(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calm = ["head.dropout=0"] if hasattr(named(name).head, "dropout") else []  # micro-batches draw other numbers
    one = gradients_of(request_of(name, *calm, run="one"), monkeypatch)
    cut = request_of(name, *calm, "micro_batch=3", run="cut")
    sizes: list[int] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: sizes.append(len(given[0].ids)) if isinstance(module, Head) else None
    )
    try:
        other = gradients_of(cut, monkeypatch)
    finally:
        hook.remove()
    assert sizes[:6] == [3, 3, 2, 3, 3, 2]
    assert float((one - other).norm() / one.norm()) < 2e-5
    assert losses(cut.run)[0] == pytest.approx(losses(cut.run.parent / "one")[0], rel=1e-5)


@pytest.mark.parametrize("name", ["probe", "frame-transformer", "attentive-probe"])
def test_where_batch_norms_see_a_micro_batch_it_is_said(request_of: Callable[..., TrainRequest], name: str) -> None:
    """The frame transformer's norm is over clips and frames, so that one clip is enough; it is a batch norm too."""
    shown = Lines()
    train(request_of(name, "micro_batch=4"), shown)
    said = "\n".join(shown.said)
    assert "train: micro-batches of 4 clips, 2 per step and device" in said
    assert ("statistics over the 4 clips of a micro-batch, not over 8" in said) is (name in NORMED)


@pytest.mark.parametrize(
    ("head", "micro", "devices", "text"),
    [
        ("tds", 7, 1, r"micro_batch=7 leaves a micro-batch of 1 clip of a device's 8.*divides"),
        ("probe", 1, 2, r"micro_batch=1 leaves a micro-batch of 1 clip of a device's 4"),
        ("sync", 2, 2, r"micro_batch=2 cuts each device's 4 clips.*head\.sync_batchnorm=false"),
        ("sync", 2, 1, None),
        ("sync", 4, 2, None),
        ("tds", 3, 1, None),
        ("frame-transformer", 1, 1, None),
    ],
)
def test_micro_batches_that_batch_norms_cannot_use_are_refused(
    head: str, micro: int, devices: int, text: str | None
) -> None:
    chosen = HEADS["tds"](sync_batchnorm=True) if head == "sync" else named(head).head
    recipe = Recipe(name="mine", head=chosen, batch_clips=8, micro_batch=micro)
    if text is None:
        expect_enough_clips(24, recipe, devices)
    else:
        with pytest.raises(UsageError, match=text):
            expect_enough_clips(24, recipe, devices)


def test_the_average_is_that_by_hand_and_is_what_is_scored_and_kept(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request_of("dist-toy", "batch_clips=4", "ema=0.75")
    seen: list[dict[str, torch.Tensor]] = []
    real = trainer_module.Trainer._stepped

    def stepped(self: Any, raw: Any) -> Any:
        loss = real(self, raw)
        seen.append({name: value.detach().double().clone() for name, value in self.bare.named_parameters()})
        return loss

    built: list[dict[str, torch.Tensor]] = []
    build = trainer_module.build_head

    def build_head(*given: Any) -> Any:
        head = build(*given)
        built.append({name: value.detach().double().clone() for name, value in head.named_parameters()})
        return head

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_stepped", stepped)
        patch.setattr(trainer_module, "build_head", build_head)
        report = train(wanted)
    average = built[0]
    for now in seen:
        average = {name: 0.75 * value + 0.25 * now[name] for name, value in average.items()}
    kept, own = weights(wanted.run), weights(wanted.run, "unaveraged")
    for name, value in average.items():
        torch.testing.assert_close(kept[name].double(), value, rtol=1e-5, atol=1e-6)
        assert torch.equal(own[name].double(), seen[-1][name])
    plain = replace(wanted, recipe=replace(wanted.recipe, ema=0.0), run=wanted.run.parent / "plain")
    train(plain)
    assert losses(plain.run) == losses(wanted.run), "the average is looked at by nobody who trains"
    assert not (plain.run / "checkpoint" / "unaveraged.safetensors").exists()
    scored = evaluate(EvaluateRequest(run=wanted.run, cache=wanted.cache, device="cpu"))
    assert report is not None
    assert scored.score == report.score
    with pytest.raises(RunError, match=r"ema: the run has 0\.75, you ask for 0\.0"):
        train(replace(wanted, recipe=plain.recipe))


def test_a_run_with_an_average_goes_on_bit_for_bit(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request_of("frame-transformer", "batch_clips=4", "ema=0.9", "micro_batch=3", "head.dropout=0.3")
    train(whole)
    broken = replace(whole, run=whole.run.parent / "broken")

    def agree(self: Any) -> bool:
        self.stopping = self.place.global_step >= 2
        return self.stopping

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_agree_to_stop", agree)
        train(broken)
    train(broken)
    assert losses(broken.run) == losses(whole.run)
    for name in ("weights", "unaveraged"):
        one, other = weights(whole.run, name), weights(broken.run, name)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_compiled_head_is_the_eager_one(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By aot_eager: what inductor makes of it takes minutes; every batch has one size, in validation too."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    sets = ("head.dropout=0.3", "head.blocks=1", "batch_clips=4")
    train(request_of("frame-transformer", *sets, run="eager"))
    wanted, shown = request_of("frame-transformer", *sets, "compile=true"), Lines()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # which torch 2.11 keeps
    with torch._dynamo.config.patch(error_on_recompile=False):
        train(wanted, shown)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 2, "one for training, and one for validation, whose only batch has two clips and is filled to four"
    assert any("torch.compile" in line for line in shown.said)
    assert losses(wanted.run) == pytest.approx(losses(wanted.run.parent / "eager"), rel=1e-5)
    torch._dynamo.reset()


def test_a_missing_compiler_is_named_before_anything_is_made(
    request_of: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = request_of("probe", "compile=true")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"g\+\+ is not in PATH.*Install g\+\+"):
        train(wanted)
    assert not wanted.run.exists()
    monkeypatch.setenv("CXX", "/no/such")
    with pytest.raises(UsageError, match=r"CXX=/no/such is no program"):
        compiled.expect_compiler(torch.device("cpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="triton is not installed"):
        compiled.expect_compiler(torch.device("cuda"))


def test_a_filled_batch_scores_the_same_and_a_cut_one_keeps_its_clips() -> None:
    offer = Offer(layers=(0, 1), sparse_frames=2, alpha=2, grid=(2, 2), channels=8, embed=8, classes=3, image_px=8)
    needs = replace(named("probe").head.needs(offer), layers=(0,), pixels="dense")
    batch = offer.fake_batch(needs, clips=5)
    larger = filled(batch, 8)
    assert larger.ids == ("0", "1", "2", "3", "4", "4", "4", "4")
    assert larger.tokens is not None
    assert batch.tokens is not None
    assert torch.equal(larger.tokens[:5], batch.tokens)
    assert torch.equal(larger.tokens[7], batch.tokens[4])
    assert filled(batch, 5) is batch
    parts = list(micro_batches(batch, 2))
    assert [part.ids for part in parts] == [("0", "1"), ("2", "3"), ("4",)]
    assert torch.equal(torch.cat([part.dense for part in parts if part.dense is not None]), batch.dense)
    assert list(micro_batches(batch, 0)) == [batch]
    assert list(micro_batches(batch, 5)) == [batch]


def test_on_cuda_adamw_is_fused_and_a_checkpoint_of_another_device_does_not_change_that() -> None:
    recipe = named("probe")
    head = torch.nn.Linear(3, 2)
    head.undecayed = frozenset  # type: ignore[assignment]
    here, there = (build_optimiser(head, recipe, torch.device(name)) for name in ("cpu", "cuda"))  # type: ignore[arg-type]
    assert [group["fused"] for group in there.param_groups] == [True, True]
    assert [group["fused"] for group in here.param_groups] == [None, None]
    head(torch.ones(1, 3)).sum().backward()
    here.step()
    restore(there, here.state_dict())
    assert [group["fused"] for group in there.param_groups] == [True, True]
    there.step()
    restore(here, there.state_dict())
    assert [group["fused"] for group in here.param_groups] == [None, None]
    assert float(here.state[head.weight]["step"]) == 2


def test_every_family_is_asked() -> None:
    assert len(syncs.recipes()) == len(FAMILIES)
