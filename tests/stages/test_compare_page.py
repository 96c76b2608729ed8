"""`vidxfer compare` as a page: intervals, seeds, pairs, CLIP alone, Markdown, a plot, and others' results apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vidxfer.cli import show
from vidxfer.cli.compared import markdown
from vidxfer.pipeline.errors import RunError, UsageError
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.resampled import mcnemar, share_interval
from vidxfer.stages.comparing.points import points
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.train import TrainRequest, train

TINY = ["epochs=1", "warmup_epochs=0", "batch_clips=8"]
FRAMES = ["head.channels=16", "head.blocks=1", "head.attention_heads=2"]


@pytest.fixture(scope="module")
def runs(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a probe, a frame transformer with and without its table, and CLIP alone."""
    folder = tmp_path_factory.mktemp("page")
    for name, recipe, settings in (
        ("probe-0", "probe", ["seed=0"]),
        ("probe-1", "probe", ["seed=1"]),
        ("table", "frame-transformer", FRAMES),
        ("no-table", "frame-transformer", [*FRAMES, "head.positions=false"]),
    ):
        made = with_settings(named(recipe), [*TINY, *settings])
        train(TrainRequest(recipe=made, cache=toy.int8, run=folder / name, device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "runs").mkdir()
        evaluate(EvaluateRequest(run=None, cache=toy.int8, device="cpu"))
    (folder / "runs" / "zero-shot").rename(folder / "zero-shot")
    return folder


def lines_of(run: Path, split: str = "val") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"predictions.{split}.jsonl").read_text().splitlines()]


def answering(run: Path, target: Path, right: str) -> Path:
    """A copy of a run whose answers are given: a letter per video in the order of ids, "r" for right."""
    shutil.copytree(run, target)
    lines = sorted(lines_of(run), key=lambda line: line["id"])
    changed = [{**line, "right": letter == "r"} for line, letter in zip(lines, right, strict=True)]
    (target / "predictions.val.jsonl").write_text("\n".join(map(json.dumps, changed)) + "\n")
    result = json.loads((target / "result.json").read_text())
    result["score"]["top1"] = right.count("r") / len(right)
    (target / "result.json").write_text(json.dumps(result))
    return target


def test_a_training_keeps_what_it_said_of_each_video_as_evaluate_says_it(toy: Any, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "table", tmp_path / "run")
    before = lines_of(tmp_path / "run")
    (tmp_path / "run/predictions.val.jsonl").unlink()
    evaluate(EvaluateRequest(run=tmp_path / "run", cache=toy.int8, device="cpu"))
    assert [(line["id"], line["top5_labels"]) for line in lines_of(tmp_path / "run")] == [
        (line["id"], line["top5_labels"]) for line in before
    ]
    score = json.loads((runs / "table/result.json").read_text())["score"]
    assert sum(line["right"] for line in before) == round(16 * score["top1"])


def test_intervals_are_those_of_the_numbers_of_right_videos(toy: Any, runs: Path) -> None:
    for row in compare((runs / "probe-0", runs / "zero-shot"), toy.int8).runs:
        lines = lines_of(row.run)
        assert row.top1_interval == share_interval(sum(line["right"] for line in lines), 16)
        assert row.top5_interval == share_interval(sum(line["label"] in line["top5_labels"] for line in lines), 16)
        assert row.top5 == sum(line["label"] in line["top5_labels"] for line in lines) / 16


def test_clip_alone_is_a_row_that_nothing_was_trained_for(toy: Any, runs: Path, invoke: Any) -> None:
    row, _ = compare((runs / "zero-shot", runs / "table"), toy.int8).runs
    assert (row.name, row.cost, row.epochs, row.scored, row.listed) == ("zero-shot", None, 0, 16, 16)
    told = invoke("compare", runs / "zero-shot", runs / "table", "--cache", toy.int8).stdout
    assert "zero-shot, tokens from" not in told, "it is no shorter training"
    with pytest.raises(RunError, match="no run folder"):
        compare((runs / "zero-shot",), toy.int8, split="train")


def test_runs_are_named_by_what_differs_and_seeds_of_one_head_have_a_mean(toy: Any, runs: Path, tmp_path: Path) -> None:
    one = answering(runs / "probe-0", tmp_path / "one", "rrrr" + "w" * 12)
    two = answering(runs / "probe-1", tmp_path / "two", "r" * 10 + "w" * 6)
    found = compare((one, two, runs / "table", runs / "no-table"), toy.int8)
    assert [row.name for row in found.runs] == [
        "probe (seed=0)", "probe (seed=1)", "frame-transformer (positions=True)", "frame-transformer (positions=False)",
    ]  # fmt: skip
    assert [row.cost is not None and row.cost.sees_order for row in found.runs] == [False, False, True, False]
    (group,) = found.seeds
    assert (group.name, group.runs) == ("probe", (one, two))
    # Of 4/16 and 10/16: each is 3/16 from the mean, and two values have one degree of freedom.
    assert group.top1 == pytest.approx((7 / 16, (2 * (3 / 16) ** 2) ** 0.5))
    low, high = (share_interval(right, 16) or (0.0, 0.0) for right in (4, 10))
    assert group.top1_interval == (low[0], high[1])
    assert compare((one, runs / "table"), toy.int8).seeds == ()


def test_pairs_over_the_same_videos_are_counted_by_hand(toy: Any, runs: Path, tmp_path: Path, invoke: Any) -> None:
    one = answering(runs / "probe-0", tmp_path / "one", "rrrrrrrr" + "wwwwwwww")
    two = answering(runs / "table", tmp_path / "two", "rrrrrrwr" + "rrrrrwww")
    found = compare((two,), toy.int8, against=one)
    (pair,) = found.pairs
    assert [row.run for row in found.runs] == [one, two]
    assert (pair.run, pair.videos, pair.only_other, pair.only_this) == (two, 16, 1, 5)
    assert pair.difference == 4 / 16
    assert pair.p == 2 * (1 + 6) / 64 == mcnemar(1, 5)
    low, high = pair.interval
    assert -1 / 16 <= low < 4 / 16 < high <= 9 / 16
    assert found.notes == ()
    told = invoke("compare", one, two, "--cache", toy.int8, "--against", one).stdout
    assert "+25.0 (" in told
    assert "0.22" in told
    same = compare((one, two), toy.int8, against=two).pairs[0]
    assert (same.only_other, same.only_this, same.difference) == (5, 1, -0.25)


def test_pairs_are_of_the_videos_that_both_scored_and_other_scores_are_told(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any
) -> None:
    one = answering(runs / "probe-0", tmp_path / "one", "r" * 16)
    two = answering(runs / "table", tmp_path / "two", "w" * 16)
    file = two / "predictions.val.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:10]) + "\n")
    found = compare((two,), toy.int8, against=one)
    assert (found.pairs[0].videos, found.pairs[0].only_other) == (10, 10)
    assert [note for note in found.notes if "0 of 10 videos right in predictions.val.jsonl" in note] == list(
        found.notes
    )
    told = invoke("compare", two, "--cache", toy.int8, "--against", one).stderr
    assert "scored again since its training" in " ".join(told.split())
    file.write_text("")
    with pytest.raises(UsageError, match="none of the videos"):
        compare((two,), toy.int8, against=one)
    file.unlink()
    with pytest.raises(RunError, match=r"predictions\.val\.jsonl is missing.*vidxfer evaluate --run"):
        compare((two,), toy.int8, against=one)


def test_results_of_others_stand_in_a_block_of_their_own(toy: Any, runs: Path, invoke: Any) -> None:
    told = invoke("compare", runs / "probe-0", "--cache", toy.int8, "--published").stdout
    ours, _, theirs = told.partition("Published by others")
    for words in ("TDS-CLIP", "71.8", "Views differ", "CLIP and K710 before"):
        assert words in theirs
        assert words not in ours
    assert "Published" not in invoke("compare", runs / "probe-0", "--cache", toy.int8).stdout
    report = json.loads(invoke("compare", runs / "probe-0", "--cache", toy.int8, "--published", "--json").stdout)
    assert len(report["runs"]) == 1
    assert {"system": "MViT", "top1": 68.7, "top5": None}.items() <= next(
        one.items() for one in report["published"] if one["system"] == "MViT"
    )


def test_json_has_every_number_and_markdown_every_column(toy: Any, runs: Path, invoke: Any) -> None:
    words = ["compare", runs / "probe-0", runs / "table", "--cache", toy.int8]
    report = json.loads(invoke(*words, "--json").stdout)
    row = report["runs"][1]
    assert row["cost"] == {
        "parameters": 4040, "forward_gflop": pytest.approx(2.9952e-05), "training_gflop": pytest.approx(8.576e-05),
        "bytes_per_view": 256, "frames_per_view": 0, "frame_bytes_per_view": None, "sees_order": True,
    }  # fmt: skip
    assert len(row["top1_interval"]) == 2
    told = invoke(*words, "--markdown").stdout
    heads = [line for line in told.splitlines() if line.startswith("|  |")]
    assert heads[0] == "|  | val top-1 | val top-5 | appearance | motion | scored |"
    assert heads[1].startswith(
        "|  | trains | sees order | forward GFLOP | training GFLOP | tokens read | frames seen |"
    )
    (cost,) = [line for line in told.splitlines() if line.startswith("| frame-transformer | 4.04 k")]
    assert cost.startswith("| frame-transformer | 4.04 k | yes | 3e-05 | 8.58e-05 | 256 B | - | 1 | ")
    both = invoke(*words, "--markdown", "--json")
    assert (both.exit_code, both.stdout) == (2, "")


def test_a_cell_of_markdown_cannot_end_its_cell(capsys: pytest.CaptureFixture[str]) -> None:
    markdown(["a", "b"], [["x|y\\", "new\nline"]])
    assert capsys.readouterr().out == "| a | b |\n| --- | ---: |\n| x\\|y\\\\ | new\\\\nline |\n"


@pytest.mark.parametrize("width", [80, 120])
def test_every_table_fits_and_no_number_is_broken(
    toy: Any, runs: Path, width: int, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "console", lambda stderr=False: Console(stderr=stderr, highlight=False, width=width))
    monkeypatch.chdir(runs)
    names = ["zero-shot", "probe-0", "probe-1", "table", "no-table"]
    told = invoke("compare", *names, "--cache", toy.int8, "--against", "table").stdout
    ruled = [line.rstrip() for line in told.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(ruled) > 30
    assert max(map(len, ruled)) <= width
    for row in compare(tuple(runs / name for name in names), toy.int8).runs:
        low, high = (100 * end for end in row.top1_interval or (0.0, 0.0))
        assert f"{row.top1:.1%} ({low:.1f}–{high:.1f})" in told
    cells = [line.split("│")[1].strip() for line in told.splitlines() if line.startswith("│")]
    assert cells.count("probe (seed=0)") >= 4, "each block has the names"


def test_a_plot_has_a_point_per_head_and_comes_whole_or_not_at_all(
    toy: Any, runs: Path, tmp_path: Path, invoke: Any
) -> None:
    names = ("zero-shot", "probe-0", "probe-1", "table", "no-table")
    found = compare(tuple(runs / name for name in names), toy.int8)
    drawn = points(found)
    assert [(one.label, one.filled) for one in drawn] == [
        ("zero-shot", False), ("probe", False), ("frame-transformer (positions=True)", True),
        ("frame-transformer (positions=False)", False),
    ]  # fmt: skip
    assert [one.x for one in drawn] == [
        0.0, *(row.cost.training_gflop for row in (found.runs[1], *found.runs[3:]) if row.cost is not None)
    ]  # fmt: skip
    assert drawn[1].y == pytest.approx(100 * found.seeds[0].top1[0])
    assert all(one.low <= one.y <= one.high for one in drawn)
    words = ["compare", *(runs / name for name in names), "--cache", toy.int8, "--plot"]
    assert invoke(*words, tmp_path / "p.svg").exit_code == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    refused = invoke(*words, tmp_path / "p.pdf")
    assert (refused.exit_code, refused.stdout) == (2, ""), "before anything is read"
    assert [path.name for path in tmp_path.iterdir()] == ["p.svg"]


def test_runs_of_other_epochs_say_so_in_their_names(toy: Any, runs: Path, tmp_path: Path) -> None:
    recipe = replace(with_settings(named("probe"), TINY), epochs=2, seed=1)
    train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "longer", device="cpu"))
    found = compare((runs / "probe-0", tmp_path / "longer"), toy.int8)
    assert [row.name for row in found.runs] == ["probe (epochs=1, seed=0)", "probe (epochs=2, seed=1)"]
    assert found.seeds == (), "they differ in more than the seed"
