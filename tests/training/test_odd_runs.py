"""A run folder with any value replaced: it opens as it is, or an error of the tree says what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import RunError, VidxferError
from vidxfer.pipeline.training.build import build_head, offer_of, offer_of_split
from vidxfer.pipeline.training.journal import Journal
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.train import made_from

from ..hostile import ODD, changed, places


@pytest.fixture(scope="module")
def finished(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder with everything that a finished run has, and its cache."""
    split = open_split(toy.int8, "train")
    path, recipe = tmp_path_factory.mktemp("odd") / "run", named("probe")
    run = Run.start(path, recipe, json.loads(json.dumps(made_from(split, online=False))))
    text = torch.as_tensor(split.text)
    head = build_head(recipe, offer_of_split(split, recipe))
    run.save(head, torch.optim.AdamW(head.parameters()), text, RunPlace(epoch=1, global_step=3))
    score = {"top1": 0.5, "top5": 1.0, "scored": 16, "listed": 16, "factors": {"shape": 0.5}, "missing": {}}
    run.keep_result({"score": score, "epoch_seconds": 1.5, "data_wait_share": 0.1, "loss": 2.0})
    (path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 9, "loss": 1.0}\n')
    return path, toy.int8


def used(path: Path, cache: Path) -> str:
    """What every command does with a run folder first: "opens", or the name of the error."""
    try:
        run = Run.open(path)
        spec = CacheSpec.from_dict(run.made_from["spec"])
        offer = offer_of(spec, run.recipe, classes=len(run.made_from["class_names"]))
        run.progress()
        compare((path,), cache)
        if offer.channels < 1000 and offer.classes < 1000:
            head = build_head(
                run.recipe, replace(offer, text=run.text(), logit_scale=float(run.made_from["logit_scale"]))
            )
            run.load_weights(head)
        run.made_from["clip"]["model"], run.made_from["clip"]["pretrained"]
    except VidxferError as error:
        return type(error).__name__
    return "opens"


def test_the_folder_as_it_is_is_used(finished: tuple[Path, Path]) -> None:
    assert used(*finished) == "opens"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_ends_outside_the_error_tree(finished: tuple[Path, Path], data: st.DataObject) -> None:
    names = ("recipe.json", "run.json", "result.json", "checkpoint/progress.json")
    file = finished[0] / data.draw(st.sampled_from(names))
    before = file.read_text()
    document = json.loads(before)
    path = data.draw(st.sampled_from(list(places(document))))
    change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    made = changed(document, path, change, data.draw(st.sampled_from(ODD)))
    try:
        file.write_text(json.dumps(made))
        used(*finished)
    finally:
        file.write_text(before)


@pytest.mark.parametrize("name", ["recipe.json", "run.json", "result.json", "checkpoint/progress.json"])
@pytest.mark.parametrize("text", ["", "[", "null", "3", "[" * 100_000, '{"a": 1}', "\x00"])
def test_a_file_that_holds_something_else_is_named(finished: tuple[Path, Path], name: str, text: str) -> None:
    file = finished[0] / name
    before = file.read_text()
    try:
        file.write_text(text)
        assert used(*finished) == "RunError"
    finally:
        file.write_text(before)


@pytest.mark.parametrize("name", ["weights.safetensors", "text.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_off_file_of_the_checkpoint_is_named(finished: tuple[Path, Path], name: str, share: float) -> None:
    file = finished[0] / "checkpoint" / name
    before = file.read_bytes()
    try:
        file.write_bytes(before[: int(share * len(before))])
        assert used(*finished) == "RunError"
    finally:
        file.write_bytes(before)


def test_the_value_is_named_with_what_was_expected(finished: tuple[Path, Path]) -> None:
    file = finished[0] / "run.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(before), "class_names": 5}))
        with pytest.raises(RunError, match="class_names is 5, expected a list"):
            Run.open(finished[0])
        file.write_text(json.dumps({n: v for n, v in json.loads(before).items() if n != "logit_scale"}))
        with pytest.raises(RunError, match="lacks 'logit_scale', which is needed here"):
            print(Run.open(finished[0]).made_from["logit_scale"])
    finally:
        file.write_text(before)


@pytest.mark.parametrize(("name", "value"), [("loss", "low"), ("epoch_seconds", [1.5]), ("score", 0.5)])
def test_a_result_of_another_type_is_named(finished: tuple[Path, Path], name: str, value: object) -> None:
    file = finished[0] / "result.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(before), name: value}))
        with pytest.raises(RunError, match=rf"result\.json.*{name} is .*, expected"):
            Run.open(finished[0]).result()
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    "line", ["3", "null", '{"step": null}', '{"step": "a"}', '{"step": []}', "[" * 100_000, "\x80"]
)
def test_strange_lines_of_the_metrics_are_dropped(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n{{"step": 3}}\n')
    with Journal(tmp_path, after_step=2):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_recipe_comes_back_as_it_was_written() -> None:
    from vidxfer.pipeline.training.recipes import RECIPES, from_dict

    for recipe in RECIPES:
        assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert asdict(from_dict(json.loads(json.dumps(recipe.to_dict())))) == asdict(recipe)
