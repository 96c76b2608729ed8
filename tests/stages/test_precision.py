"""What a GPU's defaults reach, run on the CPU: bf16 and fp16 autocast, devices that stand in, two processes."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vidxfer.pipeline.cache.codecs.klt import KltLayer
from vidxfer.pipeline.errors import ClipError, RunError, UsageError
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.base import Head
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.precision import Where, head_precision, tower_precision
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.extract import extract
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import TrainRequest, make_fabric, train
from vidxfer.stages.settings import ClipChoice
from vidxfer.stages.upkeep.recode import RecodeRequest, recode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def small(recipe: Recipe) -> Recipe:
    """The same recipe for the toy cache's sizes: one epoch, of three steps on its 24 videos."""
    head = recipe.head
    if isinstance(head, DistConfig):
        head = replace(head, integration_channels=64, temporal_channels=32)
    if isinstance(head, EvlConfig):
        head = replace(head, blocks=2, clip_heads=None)
    return replace(
        recipe, head=head, dense_frames=None, sparse_frames=None, clip=None, batch_clips=8, epochs=1,
        warmup_epochs=0.0, learning_rate=1e-3,
    )  # fmt: skip


SMALL = {replace(small(recipe), name=""): recipe.name for recipe in RECIPES}
"""Every recipe, once where several differ only in sizes that a toy cache cannot have."""


@pytest.fixture(scope="module")
def few(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ssv2 and cache: eight training and two validation videos; read-only."""
    folder = tmp_path_factory.mktemp("few")
    extract(toy.request(folder / "cache", root=toy.smaller(folder / "ssv2", 8)))
    return folder


def request(
    toy: Any, run: Path, recipe: Recipe | None = None, *, root: Path | None = None, **changes: Any
) -> TrainRequest:
    settings = {"cache": toy.int8, "device": "cpu", "precision": "bf16", **changes}
    if "clip" in changes:  # online, of videos: a cache is of one precision, and asks for that one
        asked = toy.request(run, root=root)
        clip = replace(changes["clip"], model=str(toy.clip))
        settings |= {"cache": run / "none", "data": asked.data, "store": asked.store, "clip": clip}
    return TrainRequest(recipe=recipe or small(named("dist-toy")), run=run, **settings)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """Of every forward of a head: autocast type (None: off), type of its tokens, training; of every loss: autocast."""
    found: list[tuple[Any, ...]] = []

    def casting() -> torch.dtype | None:
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

    def note(module: torch.nn.Module, batches: Any) -> None:
        if isinstance(module, Head):
            tokens = batches[0].tokens
            found.append((casting(), None if tokens is None else tokens.dtype, module.training))

    real = trainer_module.soft_cross_entropy

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert casting() is None
        assert targets.dtype == torch.float32
        return real(logits, targets)

    monkeypatch.setattr(trainer_module, "soft_cross_entropy", loss)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield found
    hook.remove()


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
@pytest.mark.parametrize("recipe", SMALL, ids=SMALL.values())
def test_every_recipe_trains_in_bf16(
    toy: Any, few: Path, tmp_path: Path, seen: list[Any], recipe: Recipe, online: bool
) -> None:
    clip = {"clip": ClipChoice(precision="fp16")} if online else {}  # what "auto" is on a CUDA device
    report = train(
        request(
            toy, tmp_path / "run", replace(recipe, batch_clips=4), root=few / "ssv2", cache=few / "cache",
            online=online, **clip,
        )
    )  # fmt: skip
    assert report is not None
    assert (report.finished, report.global_step) == (True, 2)
    assert report.score is not None
    assert {kind for kind, _, _ in seen} == {torch.bfloat16}
    assert {tokens for _, tokens, _ in seen} <= {torch.float32, None}
    assert {training for _, _, training in seen} == {True, False}, "trained and scored"
    weights = load_file(tmp_path / "run" / "checkpoint" / "weights.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    state = torch.load(tmp_path / "run" / "checkpoint" / "optimiser.pt", weights_only=True)["state"]
    assert {value.dtype for one in state.values() for value in one.values()} == {torch.float32}
    assert Run.open(tmp_path / "run").made_from["precision"] == "bf16"


def test_bf16_learns_what_float32_learns_and_is_not_it(toy: Any, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        train(request(toy, tmp_path / precision, precision=precision))
        losses[precision] = [line["loss"] for line in read_metrics(tmp_path / precision) if "loss" in line]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_klt_turns_tokens_back_in_the_precision_of_the_head(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """In training and in scoring; several caches: test_union.py."""
    recode(RecodeRequest(source=toy.float16, target=tmp_path / "klt", codec="klt4"))
    expected = torch.bfloat16 if precision == "bf16" else None
    products, real = set(), KltLayer.decode
    monkeypatch.setattr(KltLayer, "decode", lambda *words: (products.add(words[3]), real(*words))[1])
    train(request(toy, tmp_path / "run", cache=tmp_path / "klt", precision=precision))
    assert products == {expected}


def test_a_tower_in_fp16_feeds_a_head_in_float32(toy: Any, tmp_path: Path, seen: list[Any]) -> None:
    """The defaults of --online on a CUDA device without bf16: half-precision tokens met float32 weights."""
    report = train(request(toy, tmp_path / "run", online=True, precision="fp32", clip=ClipChoice(precision="fp16")))
    assert report is not None
    assert report.finished
    assert {(kind, tokens) for kind, tokens, _ in seen} == {(None, torch.float32)}


def test_a_bf16_run_goes_on_where_it_was_stopped(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(request(toy, tmp_path / "whole"))
    real = trainer_module.Trainer._step

    def step(self: Any, *words: Any) -> float:
        if self.place.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_step", step)
        stopped = train(request(toy, tmp_path / "run"))
    assert stopped is not None
    assert (stopped.finished, stopped.global_step) == (False, 2)
    train(request(toy, tmp_path / "run"))
    curves = [[line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line] for name in ("whole", "run")]
    assert curves[0] == curves[1]


def test_a_bf16_run_is_scored_predicts_and_is_begun_with(toy: Any, tmp_path: Path) -> None:
    train(request(toy, tmp_path / "run"))
    scores = [
        evaluate(EvaluateRequest(run=tmp_path / "run", cache=toy.int8, device="cpu", precision=precision)).score
        for precision in ("bf16", "fp32")
    ]
    assert [score.scored for score in scores] == [16, 16]
    assert scores[0].top1 == pytest.approx(scores[1].top1, abs=0.13)
    video = next(toy.videos.glob("*.webm"))
    shares = []
    for precision in ("bf16", "fp32"):
        (one,) = predict(
            PredictRequest(
                videos=(video,), run=tmp_path / "run", device="cpu", precision=precision, model=str(toy.clip)
            )
        )
        assert one.error is None
        shares.append(dict(one.top5))
    both = shares[0].keys() & shares[1].keys()
    assert len(both) >= 4
    assert [shares[0][name] for name in both] == pytest.approx([shares[1][name] for name in both], rel=0.1, abs=1e-4)
    begun = train(request(toy, tmp_path / "next", init_from=tmp_path / "run"))
    assert begun is not None
    assert begun.finished


@pytest.mark.parametrize("codec", ["int8", "rotate+int8"])
def test_what_a_cache_delivers_is_float32_in_scoring_too(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """A rotation is a product, and autocast would do it in bf16: it did, in scoring alone."""
    from vidxfer.pipeline.cache.codec import Dequantiser

    extract(toy.request(tmp_path / "c", codec=codec, root=toy.smaller(tmp_path / "few")))
    real, casting = Dequantiser.forward, []

    def forward(self: Any, *words: Any) -> torch.Tensor:
        casting.append(torch.is_autocast_enabled("cpu"))
        return real(self, *words)

    monkeypatch.setattr(Dequantiser, "forward", forward)
    train(request(toy, tmp_path / "run", cache=tmp_path / "c"))
    assert len(casting) == 2, "one step, one batch scored"
    assert not any(casting)


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.02), ("bf16", 0.15)])
def test_extraction_in_half_precision_is_that_of_float32_but_for_rounding(
    toy: Any, tmp_path: Path, precision: str, most: float
) -> None:
    from vidxfer.pipeline.cache.read.reader import CacheReader
    from vidxfer.pipeline.cache.store import open_split

    root = toy.smaller(tmp_path / "few")
    tokens = {}
    for name in ("fp32", precision):
        clip = ClipChoice(model=str(toy.clip), precision=name, device="cpu")
        extract(toy.request(tmp_path / name, root=root, codec="float16", clip=clip, layers=(-1, 0, 2)))
        split = open_split(tmp_path / name, "train")
        assert split.spec.clip_precision == name
        with CacheReader(split) as reader:
            tokens[name] = reader.read([0, 3], [0, 1]).codes.float()
    scale = tokens["fp32"].abs().mean()
    wrong = (tokens[precision] - tokens["fp32"]).abs().max() / scale
    assert 0 < wrong < most


@pytest.mark.parametrize(
    ("capability", "head", "line"),
    [
        ((7, 0), "fp32", "head: float32 on Tesla V100, which has no bf16 arithmetic"),
        ((7, 5), "fp32", "head: float32 on Tesla V100, which has no bf16 arithmetic"),
        ((8, 0), "bf16", "head: bf16 autocast on Tesla V100, weights and loss in float32"),
        ((9, 0), "bf16", "head: bf16 autocast on Tesla V100, weights and loss in float32"),
    ],
)
def test_auto_is_bf16_only_where_the_device_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], head: str, line: str
) -> None:
    """torch's own is_bf16_supported is true for all four."""
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    assert head_precision("auto", CUDA) == head
    assert Where(device=CUDA, precision=head).line("auto") == line
    assert set(asked) == {CUDA}, "the device that is used, not the current one"
    slow = Where(device=CUDA, precision="bf16").line("bf16")
    assert slow is not None
    assert ("emulates" in slow) == (capability < (8, 0))
    assert Where(device=CUDA, precision="fp32").line("fp32") is None


def test_a_cpu_computes_in_float32_unless_told_and_clip_in_fp16_on_cuda() -> None:
    assert [head_precision(asked, CPU) for asked in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    assert [tower_precision(asked, CPU) for asked in ("auto", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    assert [tower_precision(asked, CUDA) for asked in ("auto", "fp32")] == ["fp16", "fp32"]
    assert Where(device=CPU, precision="fp32").line("auto") is None
    for choose in (head_precision, tower_precision):
        with pytest.raises(UsageError, match="--precision 'half' is none of auto, fp32, bf16"):
            choose("half", CPU)
    with pytest.raises(UsageError, match="fp16 needs a loss that is scaled"):
        head_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("device", "devices", "given"),
    [("auto", 0, 4), ("cuda", 2, 2), ("cuda:1", 0, [1]), ("cuda:1", 1, [1]), ("cpu", 0, 1), ("cpu", 2, 2)],
)
def test_devices_are_those_asked_for(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, devices: int, given: object
) -> None:
    """Four CUDA devices are stood in for; what Fabric would be started with is looked at."""
    started: list[dict[str, Any]] = []

    class Recorded:
        def __init__(self, **settings: Any) -> None:
            started.append(settings)

        def launch(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("vidxfer.stages.learning.train.Fabric", Recorded)
    make_fabric(request(toy, tmp_path / "r", device=device, devices=devices))
    assert started[0]["devices"] == given
    assert started[0]["accelerator"] == ("cpu" if device == "cpu" else "cuda")
    assert (started[0]["strategy"] != "auto") == (isinstance(given, int) and given > 1)
    assert started[0]["precision"] == "32-true", "Fabric's mixed precision walks into the batch"
    for wrong in (("cuda", 5), ("cuda:4", 0), ("cuda:1", 2)):
        with pytest.raises(UsageError, match="more than the 4 CUDA devices here"):
            make_fabric(request(toy, tmp_path / "r", device=wrong[0], devices=wrong[1]))


RANKS = """
import sys, torch, torch.distributed
from pathlib import Path
from vidxfer.stages.learning import trainer
real = trainer.Trainer._step
def step(self, raw, epoch):
    kept = {}
    optimiser_step = self.optimiser.step
    def look(*words, **more):
        kept.update({name: p.grad.clone() for name, p in self.bare.named_parameters() if p.grad is not None})
        return optimiser_step(*words, **more)
    self.optimiser.step = look
    loss = real(self, raw, epoch)
    if self.place.global_step == 0:
        torch.save(kept, Path(sys.argv[0]).with_name(f"grads-{self.fabric.world_size}-{self.fabric.global_rank}.pt"))
    return loss
trainer.Trainer._step = step
from vidxfer.cli.main import app
if __name__ == "__main__":
    app()
"""


def test_two_processes_in_bf16_have_the_gradient_of_one(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are averaged, not summed, and every process goes on with the same ones (gloo stands in for nccl)."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    common = ["train", "--cache", toy.int8, "--recipe", "dist-toy", "--device", "cpu", "--precision", "bf16"]
    for setting in (*toy.settings(), "epochs=1", "warmup_epochs=0"):
        common += ["--set", setting]
    words = list(map(str, [script, *common, "--devices", 2, "--run", tmp_path / "run-2"]))
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished after 3 steps") == 1, "one process speaks"
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_step", trainer_module.Trainer._step)  # put back what the script changes
        patch.setattr(sys, "argv", [str(script)])
        runpy.run_path(str(script))
        train(request(toy, tmp_path / "run-1", toy.recipe("epochs=1", "warmup_epochs=0")))
    one, first, second = (torch.load(tmp_path / f"grads-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert one.keys() == first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {value.dtype for value in first.values()} == {torch.float32}
    flat, both = (torch.cat([value.flatten() for value in grads.values()]) for grads in (one, first))
    assert float((flat - both).norm() / flat.norm()) < 0.02
    losses = [[line["loss"] for line in read_metrics(tmp_path / f"run-{n}") if "loss" in line] for n in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert json.loads((tmp_path / "run-2" / "run.json").read_text())["world"] == 2


def test_a_device_that_is_too_small_is_told_with_what_to_lower(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr("vidxfer.pipeline.heads.dist.head.DistHead.forward", full)
        with pytest.raises(RunError, match=r"batch_clips=8 .*--set batch_clips=4"):
            train(request(toy, tmp_path / "run"))
    from vidxfer.pipeline.clip.load import load_tower

    tower = load_tower(str(toy.clip), device="cpu")
    monkeypatch.setattr("vidxfer.pipeline.clip.vit.run_taps", full)
    with pytest.raises(ClipError, match=r"5 frames at once .*--batch-frames"):
        tower.taps(torch.zeros(5, 3, 32, 32), (0,))
