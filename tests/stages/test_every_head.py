"""Every family end to end from one cache, its videos moved away: trained, killed, gone on with, scored, compared.

The cache has the stem, all blocks, dense frames and windows of five. A new family in the table is asked the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.errors import CacheError, DatasetError
from vidxfer.pipeline.heads import FAMILIES
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.extract import extract
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import train
from vidxfer.stages.settings import TrainRequest


def recipes_of(recipes: tuple[Recipe, ...]) -> list[Recipe]:
    """Those for the toy, where the family has some; else those for any CLIP."""
    return [one for one in recipes if one.name.endswith("-toy")] or [one for one in recipes if one.clip is None]


RECIPES = {one.name: one for family in FAMILIES for one in recipes_of(family.recipes)}
SETTINGS = {"evl-toy": ["head.blocks=0"]}
"""EVL over every block reads the stem."""

STEPS, LAST = 3, 5
"""Steps of each of two epochs, and the step after which the kill comes: in the middle of the second one."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved behind it."""


@dataclass(frozen=True)
class World:
    """A cache of six training and two validation videos, which lie elsewhere now, and runs that nothing disturbed."""

    cache: Path
    video: Path
    runs: Callable[[str], Path]

    def request(self, name: str, run: Path, checkpoint_seconds: int = 1000) -> TrainRequest:
        sets = ["epochs=2", "warmup_epochs=1", "batch_clips=2", "evaluate_every_epochs=2"]
        sets.append(f"checkpoint_seconds={checkpoint_seconds}")
        recipe = with_settings(RECIPES[name], [*sets, *SETTINGS.get(name, [])])
        return TrainRequest(recipe=recipe, cache=self.cache, run=run, device="cpu", precision="bf16")


@pytest.fixture(scope="module")
def world(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("every")
    data = toy.smaller(folder / "ssv2")
    extract(toy.request(folder / "zarr", root=data, stem=True, with_frames=True, window=5))
    data.rename(folder / "moved")
    video = sorted((folder / "moved" / toy.videos.name).glob("*.webm"))[0]

    @cache
    def run_of(name: str) -> Path:
        train(whole.request(name, folder / "runs" / name))
        return folder / "runs" / name

    whole = World(cache=folder / "zarr", video=video, runs=run_of)
    return whole


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


@pytest.mark.parametrize("name", RECIPES)
def test_a_head_killed_in_mid_epoch_goes_on_from_the_one_cache_and_answers(
    world: World, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.request(name, tmp_path / "run", checkpoint_seconds=0)  # one in every step
    save = trainer_module.Trainer._save

    def killed(self: Any) -> None:
        if self.place.global_step == LAST:  # neither its line nor its checkpoint is written yet
            raise Killed
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_save", killed)
        with pytest.raises(Killed):
            train(request)
    assert len(losses(request.run)) == LAST - 1, "a loss is read one step late"
    report = train(request)
    calm = world.runs(name)
    assert losses(request.run) == losses(calm)
    assert len(losses(calm)) == len(set(losses(calm))) == 2 * STEPS
    kept = [run / "checkpoint" / "weights.safetensors" for run in (request.run, calm)]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert report is not None
    scored = evaluate(EvaluateRequest(run=request.run, cache=world.cache, device="cpu", precision="bf16"))
    assert scored.score == report.score
    assert (scored.score.scored, scored.score.listed) == (2, 2)
    (answer,) = predict(PredictRequest(videos=(world.video,), run=request.run, device="cpu"))
    assert (answer.error, len(answer.top5)) == (None, 5)


def test_all_of_them_stand_in_one_comparison(world: World) -> None:
    rows = compare(tuple(map(world.runs, RECIPES)), world.cache).runs
    assert [row.name for row in rows] == list(RECIPES)
    for row in rows:
        assert (row.tokens, row.scored, row.listed) == ("cache", 2, 2)
        assert row.cost.parameters > 0, row.name
        assert row.cost.bytes_per_view > 0, row.name
        assert 0 < row.cost.forward_gflop < row.cost.training_gflop, row.name
        predictions = (row.run / "predictions.val.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["right"] for line in predictions) == round(2 * row.top1)
    blind = {"probe", "attentive-probe", "attentive-d1", "attentive-d4"}
    assert {row.name for row in rows if not row.cost.sees_order} == blind & set(RECIPES)


def test_the_videos_are_gone(world: World, tmp_path: Path) -> None:
    """Or the tests above would not say that the cache is enough."""
    with pytest.raises(DatasetError, match="ssv2"):
        train(replace(world.request("tds-toy", tmp_path / "run"), frames_from="videos"))


def test_every_block_of_evl_without_the_stem_names_the_option_that_keeps_it(toy: Any, tmp_path: Path) -> None:
    recipe = with_settings(named("evl-toy"), ["head.blocks=0"])
    with pytest.raises(CacheError, match=r"reads CLIP layers \[-1\].*`vidxfer extract --stem`"):
        train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()
