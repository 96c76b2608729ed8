"""Stage two's protocol by a second hand: what a training does is done again here in plain torch, number by number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.precision import Where
from vidxfer.pipeline.training import loader as loading
from vidxfer.pipeline.training.mixing import Mixing
from vidxfer.pipeline.training.order import epoch_order
from vidxfer.pipeline.training.recipes import named
from vidxfer.stages.learning import predict as predicting
from vidxfer.stages.learning import sources as sourcing
from vidxfer.stages.learning import trainer as training
from vidxfer.stages.learning.predict import PredictRequest, TrainedRun, predict
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.learning.trainer import Trainer

STEPS = 3
"""Of an epoch: 24 videos in batches of 8."""

RECIPE = replace(
    named("probe"), epochs=2, warmup_epochs=1, batch_clips=8, evaluate_every_epochs=1, learning_rate=0.05,
    optimiser=Optimiser(warmup_from=0.01, betas=(0.8, 0.95), eps=1e-3), weight_decay=0.5, label_smoothing=0.3, seed=5,
)  # fmt: skip


def clips_of(cache: Path, name: str, clips: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of normalised frame embeddings [clip embed] and labels: those of the mirrored class where a view is so."""
    split = open_split(cache, name)
    rows = Rows(split)
    with CacheReader(split) as reader:
        frames = [torch.as_tensor(reader.embedding([row], [view])[0]).float() for row, view in clips]
    means = torch.stack([(one / one.norm(dim=-1, keepdim=True)).mean(dim=0) for one in frames])
    labels = [int(split.labels[row]) for row, _ in clips]
    flips = [rows.view(row, view).flip for row, view in clips]
    swapped = [split.flip_pairs.get(label, label) if flip else label for label, flip in zip(labels, flips, strict=True)]
    return means, torch.tensor(swapped)


class PlainProbe:
    """The probe and its training, without a line of the trainer, the head, the optimiser or the schedule."""

    def __init__(self, recipe: Recipe, embed: int, classes: int) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.linear = nn.Linear(embed, classes)
        self.norm = nn.BatchNorm1d(embed, affine=False)
        options = {"betas": recipe.optimiser.betas, "eps": recipe.optimiser.eps}
        decayed, free = ({"params": [one]} for one in (self.linear.weight, self.linear.bias))
        self.optimiser = torch.optim.AdamW(
            [{**decayed, "weight_decay": recipe.weight_decay}, {**free, "weight_decay": 0.0}], **options
        )

    def rate(self, epoch: float) -> float:
        """Linear to the cosine's value at the end of the warm-up, then the cosine."""
        top, start, warm, whole = (
            self.recipe.learning_rate, self.recipe.optimiser.warmup_from, self.recipe.warmup_epochs, self.recipe.epochs
        )  # fmt: skip
        end = top * (1 + math.cos(math.pi * warm / whole)) / 2
        return (
            start + (end - start) * epoch / warm if epoch < warm else top * (1 + math.cos(math.pi * epoch / whole)) / 2
        )

    def learn(self, cache: Path) -> list[float]:
        """All epochs; returns the loss of each step."""
        split, losses = open_split(cache, "train"), []
        for epoch in range(self.recipe.epochs):
            order = epoch_order(range(24), split.spec.stored_views, seed=self.recipe.seed, epoch=epoch)
            for step in range(STEPS):
                means, labels = clips_of(cache, "train", order[8 * step : 8 * step + 8])
                for group in self.optimiser.param_groups:
                    group["lr"] = self.rate(epoch + step / STEPS)
                self.optimiser.zero_grad()
                logits = self.linear(self.norm.train()(means))
                loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
                loss.backward()
                self.optimiser.step()
                losses.append(float(loss.detach()))
        return losses

    def logits(self, means: torch.Tensor) -> torch.Tensor:
        """In evaluation: with the running statistics."""
        with torch.no_grad():
            scaled = (means - self.norm.running_mean) / (self.norm.running_var + 1e-5).sqrt()  # type: ignore[operator]
            answer: torch.Tensor = scaled @ self.linear.weight.t() + self.linear.bias
        return answer


def request(toy: Any, run: Path, **changes: Any) -> TrainRequest:
    return TrainRequest(recipe=RECIPE, cache=toy.float16, run=run, device="cpu", **changes)


@pytest.fixture(scope="module")
def plain(toy: Any) -> tuple[PlainProbe, list[float]]:
    split = open_split(toy.float16, "train")
    probe = PlainProbe(RECIPE, split.spec.embed, len(split.class_names))
    return probe, probe.learn(toy.float16)


@pytest.fixture(scope="module")
def trained(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("protocol") / "run"
    train(request(toy, run))
    return run


def logged(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def assert_is(run: Path, probe: PlainProbe) -> None:
    found = load_file(run / "checkpoint" / "weights.safetensors")
    expected = {
        "classifier.weight": probe.linear.weight.detach(),
        "classifier.bias": probe.linear.bias.detach(),
        "norm.running_mean": probe.norm.running_mean,
        "norm.running_var": probe.norm.running_var,
        "norm.num_batches_tracked": torch.tensor(2 * STEPS),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_training_is_that_of_plain_torch(trained: Path, plain: tuple[PlainProbe, list[float]]) -> None:
    probe, losses = plain
    assert logged(trained, "loss") == pytest.approx(losses, rel=1e-5)
    assert_is(trained, probe)


def test_a_training_that_went_on_is_that_of_plain_torch(
    toy: Any, tmp_path: Path, plain: tuple[PlainProbe, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = Trainer._step, []

    def stop_after_four(self: Trainer, *given: Any) -> float:
        steps.append(self.place.global_step)
        if len(steps) == 4:
            self.stop.asked = "SIGTERM"
        return real(self, *given)

    monkeypatch.setattr(Trainer, "_step", stop_after_four)
    for _ in range(2):
        train(request(toy, tmp_path / "run"))
    assert steps == [0, 1, 2, 3, 4, 5]
    assert logged(tmp_path / "run", "loss") == pytest.approx(plain[1], rel=1e-5)
    assert_is(tmp_path / "run", plain[0])


def test_validation_is_scored_on_its_own_videos_with_running_statistics(
    toy: Any, trained: Path, plain: tuple[PlainProbe, list[float]]
) -> None:
    score = json.loads((trained / "result.json").read_text())["score"]
    assert (score["scored"], score["listed"]) == (16, 16)
    means, labels = clips_of(toy.float16, "val", [(row, 0) for row in range(16)])
    best = plain[0].logits(means).topk(5, dim=1).indices
    assert score["top1"] == pytest.approx(float((best[:, 0] == labels).float().mean()))
    assert score["top5"] == pytest.approx(float((best == labels[:, None]).any(dim=1).float().mean()))


def test_every_step_is_made_at_the_official_rate_and_logs_it(
    toy: Any, tmp_path: Path, golden_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = json.loads((golden_dir / "dist_schedule.json").read_text())
    recipe = replace(
        RECIPE, epochs=golden["max_epoch"], warmup_epochs=golden["warmup_epochs"], evaluate_every_epochs=36,
        learning_rate=golden["base_lr"] * golden["lr_mult"],
        optimiser=replace(RECIPE.optimiser, warmup_from=golden["warmup_start_lr"] * golden["lr_mult"]),
    )  # fmt: skip
    used, real = [], torch.optim.AdamW.step

    def step(self: Any, *given: Any, **options: Any) -> Any:
        used.append([group["lr"] for group in self.param_groups])
        return real(self, *given, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(Trainer, "_save", lambda self: None)  # 36 checkpoints that nobody reads
    train(TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu"))
    rates = logged(tmp_path / "run", "learning_rate")
    assert len(used) == len(rates) == golden["max_epoch"] * STEPS
    official = {row["epoch_float"] * STEPS: row["lr_dist_group"] for row in golden["rows"]}
    seen = {round(at): rate for at, rate in official.items() if abs(at - round(at)) < 1e-9 and round(at) < len(rates)}
    assert len(seen) >= 10
    for at, rate in seen.items():
        assert rates[at] == pytest.approx(rate, rel=1e-9), f"step {at}"
        assert used[at] == pytest.approx([rate, rate], rel=1e-9), f"step {at}"


def test_targets_reach_the_loss_smoothed(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets)
        return logits.sum()

    monkeypatch.setattr(training, "soft_cross_entropy", note)
    recipe = replace(RECIPE, label_smoothing=0.4)
    train(TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu"))
    for targets in seen:  # 8 classes: 0.4 / 8 everywhere, and 0.6 more on the label
        expected = torch.tensor([0.05] * 7 + [0.65]).expand(8, 8)
        torch.testing.assert_close(targets.sort(dim=1).values, expected)


def test_an_online_training_draws_another_view_of_every_video_in_every_epoch_to_its_end(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, real = [], sourcing.draw_view

    def note(spec: Any, video_id: str, number: int, *picture: int) -> Any:
        view = real(spec, video_id, number, *picture)
        drawn.append((spec.split, video_id, number, view))
        return view

    targets, loss = [], training.soft_cross_entropy

    def label(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        targets.append(wanted.argmax(dim=1).tolist())
        return loss(logits, wanted)

    monkeypatch.setattr(sourcing, "draw_view", note)
    monkeypatch.setattr(training, "soft_cross_entropy", label)
    recipe = replace(RECIPE, epochs=3, evaluate_every_epochs=3)
    report = train(TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu", online=True))
    assert report is not None
    assert (report.finished, report.global_step) == (True, 9)
    ids = {name: set(open_split(toy.float16, name).video_ids) for name in ("train", "val")}
    for epoch in range(3):
        assert {name for split, name, number, _ in drawn if (split, number) == ("train", epoch)} == ids["train"]
    assert {(name, number) for split, name, number, _ in drawn if split == "val"} == {(one, 0) for one in ids["val"]}
    assert len(drawn) == 3 * 24 + 16
    split = open_split(toy.float16, "train")
    label_of = dict(zip(split.video_ids, split.labels.tolist(), strict=True))
    for epoch in range(3):  # a mirrored view carries the label of the mirrored class
        views = {name: view for part, name, number, view in drawn if (part, number) == ("train", epoch)}
        expected = [split.flip_pairs.get(label_of[n], label_of[n]) if v.flip else label_of[n] for n, v in views.items()]
        seen = [label for batch in targets[STEPS * epoch : STEPS * epoch + STEPS] for label in batch]
        assert sorted(seen) == sorted(expected)
    one = next(iter(ids["train"]))
    assert len({view for _, name, _, view in drawn if name == one}) == 3


def test_each_step_mixes_its_own_draw_and_scoring_mixes_nothing(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = [], loading.draw_mix

    def note(mixing: Any, **given: int) -> Any:
        asked.append((given["seed"], given["step"]))
        return real(mixing, **given)

    monkeypatch.setattr(loading, "draw_mix", note)
    recipe = replace(RECIPE, mixing=Mixing(kind="tokens"))
    train(TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu"))
    assert asked == [(5, step) for step in range(2 * STEPS)]


def test_predict_sums_the_probabilities_of_all_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4]])
    monkeypatch.setattr(predicting, "pixel_views", lambda *_: (torch.zeros(2, 2, 3, 8, 8), "pyav"))
    monkeypatch.setattr(predicting, "online_features", lambda *_: (None, torch.zeros(2, 2, 5)))
    spec = type("Spec", (), {"sampling": type("Sampling", (), {"alpha": 2})})
    head: Any = lambda batch: shares.log() + 7  # noqa: E731  # a constant is no matter
    head.needs, head.probabilities = Needs(embedding=True), lambda logits: logits.softmax(dim=-1)
    loaded: Any = TrainedRun.__new__(TrainedRun)
    loaded.head, loaded.class_names = head, ("x", "y", "z")
    loaded.where = Where(device=torch.device("cpu"), precision="fp32")
    answer = predicting._one(Path("a.mp4"), spec, None, loaded)  # type: ignore[arg-type]
    assert [name for name, _ in answer.top5] == ["y", "x", "z"]
    assert [share for _, share in answer.top5] == pytest.approx([0.4, 0.35, 0.25])


def test_predict_uses_running_statistics(toy: Any, trained: Path, plain: tuple[PlainProbe, list[float]]) -> None:
    """Two views are two items of a batch: its own statistics would make their inputs ±1."""
    video = sorted(toy.videos.glob("*.webm"))[0]
    (answer,) = predict(PredictRequest(videos=(video,), run=trained, views=2, device="cpu"))
    spec = replace(open_split(toy.float16, "train").spec, view_kind="test", views=2, crops=1)
    dense, _ = predicting.pixel_views(video, spec, Needs(pixels="dense"))
    seen = load_tower(str(toy.clip), device="cpu").taps(dense[:, ::2].flatten(0, 1), ()).embedding.unflatten(0, (2, -1))
    means = F.normalize(seen.float(), dim=-1).mean(dim=1)
    expected = plain[0].logits(means).softmax(dim=1).sum(dim=0) / 2
    names = open_split(toy.float16, "train").class_names
    assert dict(answer.top5) == pytest.approx(
        {names[at]: float(expected[at]) for at in expected.topk(5).indices}, rel=1e-4
    )
