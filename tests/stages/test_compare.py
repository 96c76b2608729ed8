"""Only like stands beside like: runs are compared over the same videos, labels and classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.errors import RunError, UsageError
from vidxfer.pipeline.training.recipes import named
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.train import TrainRequest, train


@pytest.fixture(scope="module")
def runs(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two probes: on int8 tokens, and on float16 tokens with another number of epochs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, epochs in (("int8", 1), ("float16", 2)):
        recipe = replace(named("probe"), epochs=epochs, warmup_epochs=0, batch_clips=8)
        train(TrainRequest(recipe=recipe, cache=getattr(toy, name), run=folder / name, device="cpu"))
    return folder


def rewrite(run: Path, target: Path, file: str, **changes: Any) -> Path:
    """A copy of a run in which some fields of a file are others; a value may be a function of the old one."""
    shutil.copytree(run, target)
    known = json.loads((target / file).read_text())
    known |= {name: value(known[name]) if callable(value) else value for name, value in changes.items()}
    (target / file).write_text(json.dumps(known))
    return target


def test_settings_in_which_runs_differ_are_columns(toy: Any, runs: Path, invoke: Any) -> None:
    report = compare((runs / "int8", runs / "float16"), toy.int8)
    assert report.differing == ("codec",)
    assert [row.settings["codec"] for row in report.runs] == ["int8", "float16"]
    assert (report.classes, report.chance) == (8, 0.125)
    table = invoke("compare", runs / "int8", runs / "float16", "--cache", toy.int8).stdout
    assert "codec" in table
    assert "not recorded" not in table
    alone = invoke("compare", runs / "int8", "--cache", toy.int8).stdout
    assert "codec" not in alone


def reverse(values: list[Any]) -> list[Any]:
    return values[::-1]


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("validation.json", {"ids": lambda ids: ["x1", *ids[1:]]}, ["validation videos", "'x1'"]),
    ("validation.json", {"ids": lambda ids: ids[1:], "labels": lambda labels: labels[1:]},
     ["validation videos: the run has 15, the others have 16"]),
    ("validation.json", {"labels": lambda labels: [7 - labels[0], *labels[1:]]}, ["validation labels", "number 0"]),
    ("validation.json", {"class_names": reverse, "labels": lambda labels: [7 - label for label in labels]},
     ["class_names: the run has 8, the others have 8 (the same names in another order)"]),
    ("validation.json", {"class_names": lambda names: [*names, "zzz"]},
     ["class_names: the run has 9, the others have 8", "'zzz', the others have none"]),
]  # fmt: skip


@pytest.mark.parametrize(("file", "changes", "texts"), CASES)
def test_a_run_of_other_videos_labels_or_classes_ends_with_code_2(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any, file: str, changes: dict[str, Any], texts: list[str]
) -> None:
    other = rewrite(runs / "int8", tmp_path / "other", file, **changes)
    result = invoke("compare", runs / "float16", other, "--cache", toy.int8)
    assert (result.exit_code, result.stdout) == (2, "")
    for text in [str(other), *texts]:
        assert text in result.stderr


def test_the_order_of_the_videos_does_not_matter(toy: Any, runs: Path, tmp_path: Path) -> None:
    other = rewrite(runs / "int8", tmp_path / "other", "validation.json", ids=reverse, labels=reverse)
    assert len(compare((other, runs / "float16"), toy.int8).runs) == 2


def test_what_is_missing_counts_as_wrong_in_a_column_of_its_own(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any
) -> None:
    score = {"top1": 0.5, "top5": 0.75, "top1_of_listed": 0.4375, "scored": 14, "listed": 16, "factors": {}}
    other = rewrite(runs / "int8", tmp_path / "other", "result.json", score=score)
    report = compare((runs / "float16", other), toy.int8)
    assert (report.runs[1].top1, report.runs[1].top1_of_listed, report.runs[1].scored) == (0.5, 0.4375, 14)
    table = invoke("compare", runs / "float16", other, "--cache", toy.int8).stdout
    for text in ("of listed", "14/16", "43.8%"):
        assert text in table
    assert "of listed" not in invoke("compare", runs / "float16", "--cache", toy.int8).stdout


def old(run: Path, target: Path, listed: int = 16, **made: Any) -> Path:
    """A copy of a run as 0.1.0 left it."""
    rewrite(run, target, "run.json", **made)
    (target / "validation.json").unlink()
    result = json.loads((target / "result.json").read_text())
    result["score"]["listed"] = listed
    (target / "result.json").write_text(json.dumps(result))
    return target


def test_an_old_run_is_compared_in_its_classes_and_its_number_of_videos(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any
) -> None:
    same = old(runs / "int8", tmp_path / "same", templates=None)
    result = invoke("compare", runs / "float16", same, "--cache", toy.int8)
    assert result.exit_code == 0, result.stderr
    assert " ".join(result.stderr.split()).count("ids and labels are not recorded, so not compared") == 1
    fewer = old(runs / "int8", tmp_path / "fewer", listed=15)
    with pytest.raises(UsageError, match="number of validation videos: the run has 15, the others have 16"):
        compare((fewer,), toy.int8)
    renamed = old(runs / "int8", tmp_path / "renamed", class_names=lambda names: ["A", *names[1:]])
    with pytest.raises(UsageError, match=r"class_names: the run has 8, the others have 8; .*the run has 'A'"):
        compare((renamed,), toy.int8)


def test_another_split_is_compared_as_evaluate_scored_it(toy: Any, runs: Path, tmp_path: Path, invoke: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "int8", run)
    with pytest.raises(RunError, match=r"predictions\.train\.jsonl is missing.*--split train"):
        compare((run,), toy.int8, split="train")
    score = json.loads(
        invoke("evaluate", "--cache", toy.int8, "--run", run, "--split", "train", "--json").stdout
    )["score"]  # fmt: skip
    (row,) = compare((run,), toy.int8, split="train").runs
    assert (row.top1, row.scored, row.listed) == (pytest.approx(score["top1"]), 24, 24)
    file = run / "predictions.train.jsonl"
    first, *rest = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(map(json.dumps, [{**first, "id": "another"}, *rest])))
    with pytest.raises(UsageError, match="validation videos: the run has 'another', the others have 'no such video'"):
        compare((run,), toy.int8, split="train")
    file.write_text("\n".join(map(json.dumps, [{**first, "label": (first["label"] + 1) % 8}, *rest])))
    with pytest.raises(UsageError, match=f"{first['id']}: "):
        compare((run,), toy.int8, split="train")


def test_runs_on_a_cache_without_validation_are_compared_with_each_other(toy: Any, runs: Path, tmp_path: Path) -> None:
    cache = tmp_path / "zarr"
    shutil.copytree(toy.int8, cache, ignore=shutil.ignore_patterns("val", "val.*"))
    assert len(compare((runs / "int8", runs / "float16"), cache).runs) == 2
    other = rewrite(runs / "int8", tmp_path / "other", "validation.json", ids=lambda ids: ["x1", *ids[1:]])
    with pytest.raises(UsageError, match="validation videos"):
        compare((runs / "float16", other), cache)


def test_a_run_says_when_it_goes_on_over_other_validation_videos(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any
) -> None:
    other = rewrite(runs / "int8", tmp_path / "other", "validation.json", ids=lambda ids: ["x1", *ids[1:]])
    sets = ["--set", "epochs=1", "--set", "warmup_epochs=0", "--set", "batch_clips=8"]
    result = invoke("train", "--cache", toy.int8, "--recipe", "probe", "--run", other, "--device", "cpu", *sets)
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stderr.split())
    assert "validation ids: earlier scores of this run are over 16, later ones over 16; the first" in told
    assert json.loads((other / "validation.json").read_text())["ids"][0] != "x1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ids": [], "labels": []}'])
def test_a_damaged_note_of_what_was_scored_is_an_error_of_ours(toy: Any, runs: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(runs / "int8", tmp_path / "run")
    (tmp_path / "run" / "validation.json").write_text(text)
    with pytest.raises(RunError, match=r"validation\.json is damaged"):
        compare((tmp_path / "run",), toy.int8)
