"""Batch statistics of the side networks: too few clips, several devices, running ones, going on; initial weights."""

from __future__ import annotations

import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads import HEADS
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.heads.side4video.norm import BatchNorm
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.order import expect_enough_clips
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.train import TrainRequest, train

KINDS = ("side4video", "tds")
kinds = pytest.mark.parametrize("kind", KINDS)

OFFER = Offer(layers=(0, 1), sparse_frames=3, alpha=1, grid=(2, 2), channels=40, embed=8, classes=5, image_px=8)


def request(toy: Any, run: Path, kind: str, *settings: str, **more: Any) -> TrainRequest:
    recipe = with_settings(named(f"{kind}-toy"), [*toy.settings(), *settings])
    return TrainRequest(recipe=recipe, cache=toy.int8, run=run, device="cpu", **more)


@kinds
def test_one_clip_in_training_is_refused_and_at_evaluation_it_is_not(kind: str) -> None:
    torch.manual_seed(0)
    head = HEADS[kind](side_channels=64).build(OFFER)
    batch = OFFER.fake_batch(head.needs, 1)
    with pytest.raises(
        UsageError, match=r"a training step has only one clip \(0\).*larger batch_clips.*sync_batchnorm"
    ):
        head(batch)
    assert head.eval()(batch).shape == (1, 5)


@torch.no_grad()
@kinds
def test_one_clip_would_give_the_same_answer_for_any_video(kind: str) -> None:
    """docs/spec/tds_clip_side4video.md §2.3: why it is refused."""
    torch.manual_seed(0)
    head = HEADS[kind](side_channels=64).build(OFFER)
    features = [
        head.config.forms["fast"](head.visual, batch.tokens, batch.dense)
        for batch in (OFFER.fake_batch(head.needs, 1), OFFER.fake_batch(head.needs, 1))
    ]
    torch.testing.assert_close(features[0], features[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(features[0][0], head.visual.side_post_bn.bias, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [*KINDS, "probe"])
@pytest.mark.parametrize(
    ("rows", "batch", "devices", "fine"),
    [(24, 8, 1, True), (24, 8, 4, True), (24, 8, 8, False), (24, 1, 1, False), (1, 8, 1, False), (3, 8, 2, False),
     (4, 8, 2, True), (2, 8, 1, True), (9, 8, 1, True)],
)  # fmt: skip
def test_a_device_with_one_clip_is_refused_before_anything_is_computed(
    kind: str, rows: int, batch: int, devices: int, fine: bool
) -> None:
    """A last batch that is not whole is left out (9 clips: one step of 8): whole batches and small sets count."""
    recipe = Recipe(name="mine", head=HEADS[kind](), batch_clips=batch)
    if fine:
        expect_enough_clips(rows, recipe, devices)
        return
    with pytest.raises(UsageError, match=rf"recipe mine.*batch_clips={batch}, {rows} videos.*{devices} devices"):
        expect_enough_clips(rows, recipe, devices)


def test_where_statistics_are_of_all_devices_one_clip_each_is_enough() -> None:
    recipe = Recipe(name="mine", head=HEADS["tds"](sync_batchnorm=True), batch_clips=8)
    expect_enough_clips(24, recipe, 8)
    for rows, batch, devices in ((24, 1, 1), (1, 8, 1), (3, 8, 4)):
        with pytest.raises(UsageError, match="recipe mine"):
            expect_enough_clips(rows, replace(recipe, batch_clips=batch), devices)
    expect_enough_clips(1, Recipe(name="any", head=HEADS["frame-transformer"](), batch_clips=1), 1)


def test_a_run_that_could_not_learn_is_not_begun(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1 clips on a device.*--set batch_clips"):
        train(request(toy, tmp_path / "run", "tds", "batch_clips=1"))
    assert not (tmp_path / "run").exists()


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoint" / "weights.safetensors")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_a_run_goes_on_in_mid_epoch_bit_for_bit_running_statistics_too(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, precision: str
) -> None:
    whole = request(toy, tmp_path / "whole", kind, precision=precision, log_every_steps=1)
    train(whole)
    broken = replace(whole, run=tmp_path / "broken")

    def stop_after_four(self: Any) -> bool:
        self.stopping = self.place.global_step >= 4  # of three an epoch
        return bool(self.stopping)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_agree_to_stop", stop_after_four)
        report = train(broken)
    assert report is not None
    assert not report.finished
    assert weights(broken.run)["visual.side_post_bn.num_batches_tracked"] == 4
    train(broken)
    assert losses(broken.run) == losses(whole.run)
    one, other = weights(whole.run), weights(broken.run)
    assert one["visual.side_post_bn.num_batches_tracked"] == 6
    assert not torch.equal(one["visual.side_post_bn.running_mean"], torch.zeros(64))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert len(losses(whole.run)) == 6


@kinds
def test_scoring_reads_the_running_statistics_and_moves_none(kind: str) -> None:
    torch.manual_seed(0)
    head = HEADS[kind](side_channels=64).build(OFFER)
    head(OFFER.fake_batch(head.needs, 4))
    before = {name: value.clone() for name, value in head.named_buffers()}
    batch = OFFER.fake_batch(head.needs, 4)
    assert batch.tokens is not None
    assert batch.dense is not None
    with torch.no_grad():
        together = head.eval()(batch)
        alone = head(
            replace(batch, tokens=batch.tokens[:1], dense=batch.dense[:1], labels=batch.labels[:1], ids=batch.ids[:1])
        )
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in head.named_buffers())


PROCESS = """
import sys, torch, torch.distributed as dist
from dataclasses import replace
from vidxfer.pipeline.heads import HEADS
from vidxfer.pipeline.heads.base import Offer
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
offer = Offer(layers=(0, 1), sparse_frames=3, alpha=1, grid=(2, 2), channels=40, embed=8, classes=5, image_px=8)
kept = {}
for form, sync in (("fast", True), ("plain", True), ("fast", False)):
    name = form + ("" if sync else ", own")
    torch.manual_seed(0)
    head = HEADS["tds"](side_channels=64, sync_batchnorm=sync, form=form).build(offer).double()
    batch = offer.fake_batch(head.needs, 4)
    mine = replace(batch, tokens=batch.tokens[rank::world].double(), dense=batch.dense[rank::world].double(),
                   labels=batch.labels[rank::world], ids=batch.ids[rank::world])
    head(mine).square().sum().div(4 / world).backward()
    for parameter in head.parameters():
        if world > 1:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world
    kept |= {f"{name}.{key}": one.grad for key, one in head.named_parameters()}
    kept |= {f"{name}.{key}": one.clone() for key, one in head.named_buffers()}
torch.save(kept, f"{folder}/{world}-{rank}.pt")
"""


def processes(folder: Path, world: int) -> list[dict[str, Tensor]]:
    """Gradients and statistics of one training step of four clips over so many processes."""
    words = [[sys.executable, folder / "one.py", rank, world, folder] for rank in range(world)]
    running = [subprocess.Popen(list(map(str, one)), stderr=subprocess.PIPE, text=True) for one in words]
    said = [one.communicate(timeout=120)[1] for one in running]
    assert [one.returncode for one in running] == [0] * world, said
    return [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)]


def test_synchronised_statistics_of_two_devices_are_those_of_one_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gloo, in both forms: what two processes of two clips compute is what one of four does."""
    (tmp_path / "one.py").write_text(PROCESS)
    monkeypatch.setattr(sys, "argv", ["one.py", "0", "1", str(tmp_path)])
    runpy.run_path(str(tmp_path / "one.py"))
    alone = torch.load(tmp_path / "1-0.pt")
    first, second = processes(tmp_path, 2)
    for two in (first, second):
        assert two.keys() == alone.keys()
        for name, value in alone.items():
            if ", own" not in name:
                torch.testing.assert_close(two[name], value, atol=1e-9, rtol=1e-9, msg=name)
    mean = "fast, own.visual.side_pre_bn3d.running_mean"
    assert not torch.allclose(first[mean], second[mean]), "as released: each device its own"
    gradient = "fast, own.visual.side_conv1.weight"
    assert not torch.allclose(first[gradient], alone[gradient])


def test_batch_norm_is_torchs_own_where_one_device_computes() -> None:
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm1d(6)
    x = torch.randn(5, 2, 3, 6) * 3 + 1
    for _ in range(3):
        torch.testing.assert_close(ours.rows(x), theirs(x.flatten(0, 2)).view_as(x))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval().rows(x), theirs.eval()(x.flatten(0, 2)).view_as(x))


@pytest.mark.slow
def test_two_devices_train_a_run_with_statistics_of_both(toy: Any, tmp_path: Path, vidxfer: Any) -> None:
    words = ["train", "--cache", toy.int8, "--recipe", "tds-toy", "--device", "cpu", "--devices", 2, "--run"]
    sets = [word for setting in (*toy.settings(), "epochs=1", "warmup_epochs=0") for word in ("--set", setting)]
    done = vidxfer(*words, tmp_path / "run", *sets, "--set", "head.sync_batchnorm=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished after 3 steps") == 1
    found = weights(tmp_path / "run")
    assert found["visual.side_post_bn.num_batches_tracked"] == 3
    assert all(bool(value.isfinite().all()) for value in found.values())


INITIAL = {
    "attn.in_proj_weight": lambda d: d**-0.5,
    "attn.out_proj.weight": lambda d: d**-0.5 * 24**-0.5,
    "mlp.fc1.weight": lambda d: (2 * d) ** -0.5,
    "mlp.fc2.weight": lambda d: d**-0.5 * 24**-0.5,
    "conv.0.weight": lambda d: (3 * d) ** -0.5,
    "conv.1.weight": lambda d: (3 * 3) ** -0.5,
    "mse.conv1.weight": lambda d: (3 * d) ** -0.5,
    "mse.conv2.weight": lambda d: (3 * (d // 16)) ** -0.5,
}
"""Standard deviations of docs/spec/tds_clip_side4video.md §4; a uniform draw in ±1/sqrt(n) has 1/sqrt(3 n)."""


def test_weights_begin_as_released() -> None:
    torch.manual_seed(0)
    head = HEADS["tds"](side_channels=192).build(replace(OFFER, channels=256))
    found = dict(head.named_parameters())
    for name, wanted in INITIAL.items():
        both = torch.cat([found[f"visual.transformer.side_transformer.{k}.{name}"].flatten() for k in (0, 1)])
        assert float(both.detach().std()) == pytest.approx(wanted(192), rel=0.08), name
        assert float(both.detach().mean().abs()) < 0.1 * wanted(192), name
        bounded = "conv" in name
        assert (float(both.detach().abs().max()) <= 3**0.5 * wanted(192) * 1.001) == bounded, name
    inner = "visual.transformer."
    assert float(found[f"{inner}side_spatial_position_embeddings"].detach().std()) == pytest.approx(0.01, rel=0.1)
    linear = torch.cat([found[f"{inner}side_linears.{k}.weight"].flatten() for k in (0, 1)])
    assert float(linear.detach().std()) == pytest.approx((3 * 256) ** -0.5, rel=0.03), "not what was meant: §4"
    for name, value in found.items():
        if name.endswith(("in_proj_bias", "out_proj.bias")) or (".bias" in name and ("bn" in name or "ln" in name)):
            assert value.eq(0).all(), name
        elif name.endswith(".bias"):
            assert not value.eq(0).all(), name
