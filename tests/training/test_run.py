"""The run folder: one run per folder, a whole checkpoint at every moment, a curve without gaps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training import journal
from vidxfer.pipeline.training.journal import STATUS, Journal, read_metrics
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.run import Run, RunPlace

RECIPE = named("probe")
MADE = {"cache_fingerprint": "aaaa", "world": 1, "online": False, "precision": "fp32", "class_names": ["a", "b"]}


def trained(value: float) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    """A head whose every weight is `value`, an optimiser with a state, and texts."""
    head = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(head.parameters())
    head(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    nn.init.constant_(head.weight, value)
    return head, optimiser, torch.full((2, 3), value)


def weight_of(run: Run) -> float:
    head = nn.Linear(3, 2)
    run.load_weights(head)
    run.load_optimiser(torch.optim.AdamW(head.parameters()))
    assert float(run.text()[0, 0]) == float(head.weight.detach()[0, 0]), "text and weights of one checkpoint"
    return float(head.weight.detach()[0, 0])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a checkpoint at step 5 whose weights are 1."""
    run = Run.start(tmp_path / "run", RECIPE, MADE)
    run.save(*trained(1.0), RunPlace(epoch=1, step=2, global_step=5))
    return run


def test_a_run_is_taken_up_with_what_it_was_made_from(run: Run) -> None:
    again = Run.start(run.path, RECIPE, {**MADE, "code": "newer"})
    assert (again.recipe, again.made_from) == (RECIPE, MADE)
    assert again.progress() == RunPlace(epoch=1, step=2, global_step=5)


@pytest.mark.parametrize(
    ("settings", "made", "texts"),
    [
        (["epochs=50"], {}, ["epochs: the run has 40, you ask for 50"]),
        (["epochs=50", "seed=3"], {}, ["epochs", "seed: the run has 0, you ask for 3"]),
        (["optimiser.decay=all"], {}, ["optimiser: the run has {'betas'", "'decay': 'all'"]),
        (["head=dist"], {}, ["head: the run has {'kind': 'probe'}, you ask for {'kind': 'dist'"]),
        ([], {"cache_fingerprint": "bbbb"}, ["cache_fingerprint: the run has 'aaaa', you ask for 'bbbb'"]),
        ([], {"world": 2}, ["world: the run has 1, you ask for 2"]),
        ([], {"online": True}, ["online: the run has False, you ask for True"]),
        ([], {"precision": "bf16"}, ["precision: the run has 'fp32', you ask for 'bf16'"]),
        ([], {"class_names": ["b", "a"]}, ["class_names: the run has 2, you ask for 2 (the same names in another"]),
        ([], {"init_from": {"run": "x"}}, ["init_from: the run has None, you ask for {'run': 'x'}"]),
    ],
)
def test_a_run_of_another_recipe_or_cache_is_refused_with_each_difference(
    run: Run, settings: list[str], made: dict[str, Any], texts: list[str]
) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError) as caught:
        Run.start(run.path, with_settings(RECIPE, settings), {**MADE, **made})
    for text in [*texts, "--run", str(run.path)]:
        assert text in str(caught.value)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_what_an_older_version_did_not_record_does_not_stop_a_run(tmp_path: Path) -> None:
    Run.start(tmp_path / "run", RECIPE, {name: value for name, value in MADE.items() if name != "precision"})
    again = Run.start(tmp_path / "run", RECIPE, {**MADE, "templates": ["{}"]})
    assert "precision" not in again.made_from


def test_a_folder_that_is_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"recipe\.json is missing.*vidxfer train"):
        Run.open(tmp_path)


DAMAGE = ["", "{", "[1]", "null", "\udcff"]


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name in ("recipe.json", "run.json") for text in DAMAGE]
    + [("recipe.json", text) for text in ('{"name": "x"}', '{"epoch": 3}', '{"name": "x", "betas": [1], "dist": 3}')],
)
def test_a_damaged_run_folder_is_an_error_of_ours(run: Run, name: str, text: str) -> None:
    (run.path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match="damaged"):
        Run.open(run.path)


def test_a_run_without_a_checkpoint_begins_at_the_beginning(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "run", RECIPE, MADE)
    assert run.progress() == RunPlace()
    with pytest.raises(RunError, match="no checkpoint yet"):
        run.load_weights(nn.Linear(3, 2))


class Crash(BaseException):
    """Stands for SIGKILL or a power cut."""


def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Let the `at`-th change of a name or folder during a save be the last thing that happens (not done itself)."""
    done: list[str] = []

    def guard(kind: str, real: Any) -> Any:
        def step(*words: Any, **options: Any) -> Any:
            if len(done) >= at:
                raise Crash(kind)
            done.append(kind)
            return real(*words, **options)

        return step

    monkeypatch.setattr(os, "rename", guard("rename", os.rename))
    monkeypatch.setattr(os, "mkdir", guard("mkdir", os.mkdir))
    monkeypatch.setattr(shutil, "rmtree", guard("rmtree", shutil.rmtree))
    monkeypatch.setattr(torch, "save", guard("torch.save", torch.save))
    monkeypatch.setattr(os, "fsync", guard("fsync", os.fsync))
    return done


MOMENTS = 25


@pytest.mark.parametrize("at", range(MOMENTS))
def test_a_crash_at_any_moment_of_a_save_leaves_a_whole_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patched:
        crashing(patched, at)
        try:
            run.save(*trained(2.0), RunPlace(epoch=2, global_step=9))
            crashed = False
        except Crash:
            crashed = True
    again = Run.open(run.path)
    found = (again.progress(), weight_of(again))
    old, new = (RunPlace(epoch=1, step=2, global_step=5), 1.0), (RunPlace(epoch=2, global_step=9), 2.0)
    assert found in (old, new)
    if not crashed:
        assert found == new
    again.save(*trained(3.0), RunPlace(epoch=3, global_step=12))  # and the next save works
    assert (Run.open(run.path).progress().global_step, weight_of(Run.open(run.path))) == (12, 3.0)
    assert sorted(p.name for p in run.path.iterdir()) == ["checkpoint", "recipe.json", "run.json"]


def test_the_moments_of_a_save_that_are_tried_are_all_of_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        done = crashing(patched, 1000)
        run.save(*trained(2.0), RunPlace(epoch=2, global_step=9))
    assert done.count("rename") == 6  # four files, the old checkpoint away, the new one in its place
    assert len(done) < MOMENTS


@pytest.mark.parametrize("left", ["checkpoint.new", "checkpoint.old"])
def test_half_a_checkpoint_is_never_taken_for_a_whole_one(run: Run, left: str) -> None:
    run.checkpoint.rename(run.path / left)
    (run.path / left / "progress.json").unlink()
    assert Run.open(run.path).progress() == RunPlace()


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.pt", "text.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "gone"])
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(run: Run, name: str, damage: str) -> None:
    file = run.checkpoint / name
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[:-7], "empty": b"", "noise": bytes(len(whole))}[damage])
    if (name, damage) == ("progress.json", "gone"):
        return  # then there is no checkpoint, see above
    with pytest.raises(RunError, match=name):  # noqa: PT012  # each file is read by one of the two
        run.progress()
        weight_of(run)


def test_weights_that_do_not_fit_are_all_named(run: Run) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.extra = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(1))

    with pytest.raises(RunError) as caught:
        run.load_weights(Other())
    for text in ("bias: in the file only", "extra: missing in the file", "weight: file has (2, 3), head has (4, 3)"):
        assert text in str(caught.value)


def test_weights_are_loaded_without_pickle_code(run: Run) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, ("true",)

    torch.save({"state": Evil()}, run.checkpoint / "optimiser.pt")
    with pytest.raises(RunError, match=r"optimiser\.pt"):
        run.load_optimiser(torch.optim.AdamW(nn.Linear(3, 2).parameters()))


def test_the_result_of_a_run_is_kept_by_an_empty_repetition(run: Run) -> None:
    assert run.result() is None
    run.keep_result({"loss": 1.5, "epoch_seconds": 2.0, "data_wait_share": 0.1, "score": None})
    run.keep_result({"loss": 0.0, "epoch_seconds": None, "data_wait_share": 0.0, "score": {"top1": 1.0}})
    assert run.result() == {"loss": 1.5, "epoch_seconds": 2.0, "data_wait_share": 0.1, "score": {"top1": 1.0}}


def test_the_journal_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    with Journal(tmp_path, after_step=0) as journal:
        for step in range(1, 8):
            journal.add(step, loss=float(step))
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 8, "lo')  # what a kill leaves behind
    with Journal(tmp_path, after_step=5) as journal:
        journal.add(6, loss=60.0)
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 60.0)
    ]  # fmt: skip


def test_a_run_that_begins_anew_begins_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    with Journal(tmp_path, after_step=0):
        pass
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("torn", ["12", "null", "{}"])
def test_a_torn_line_that_is_still_json_is_cut_off_too(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n' + torn)
    with Journal(tmp_path, after_step=1):
        pass
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]


def test_tensorboard_has_the_numbers_of_the_journal_once_each(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path, after_step=0) as journal:
        for step in range(1, 6):
            journal.add(step, loss=float(step))
    with Journal(tmp_path, after_step=3) as journal:
        for step in range(4, 8):
            journal.add(step, loss=step * 10.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(line["step"], line["loss"]) for line in read_metrics(tmp_path)]


@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells it")
def test_peak_memory_is_of_the_process_itself_and_not_of_the_one_that_started_it() -> None:
    held = b"x" * (800 << 20)
    code = f"import torch; from {journal.__name__} import peak_memory_bytes as peak; print(peak(torch.device('cpu')))"
    told = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 50 << 20 < told < len(held)
    assert journal.peak_memory_bytes(torch.device("cpu")) > len(held)


@pytest.mark.skipif(not STATUS.is_file(), reason="the kernel's own figure is needed for comparison")
def test_peak_memory_is_in_bytes_where_the_kernel_does_not_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = journal.peak_memory_bytes(torch.device("cpu"))
    monkeypatch.setattr(journal, "STATUS", tmp_path / "no-status")
    assert 0.5 * told < journal.peak_memory_bytes(torch.device("cpu")) < 100 * told


def test_small_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidxfer.pipeline.training.run import write_text

    file = tmp_path / "run.json"
    write_text(file, json.dumps({"a": 1}))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", lambda *_, **__: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            write_text(file, json.dumps({"a": 2}))
    assert json.loads(file.read_text()) == {"a": 1}
