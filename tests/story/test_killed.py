"""kill -9, SIGTERM and Ctrl-C in the middle of the real commands: what goes on equals what was never disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

KILLS = 5


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> bool:
    """Poll; False when the process ended first."""
    end = time.monotonic() + seconds
    while not true():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)
    return True


def has_children(pid: int) -> bool:
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            if thread.read_text():
                return True
    return False


def lines_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


@pytest.mark.slow
def test_an_extraction_killed_at_five_random_moments_ends_with_the_same_bytes(
    toy: Any, started: Any, invoke: Any, content: Any, tmp_path: Path
) -> None:
    words = ["extract", "--root", toy.root, "--model", toy.clip, "--dense-frames", 8, "--views", 3,
             "--shard-videos", 2, "--batch-frames", 8, "--decode-threads", 1, "--calibration-videos", 4]  # fmt: skip
    assert invoke(*words, "--cache", tmp_path / "calm").exit_code == 0
    ledger = tmp_path / "rough" / "train.ledger.jsonl"
    moments, killed = random.Random(5), []
    for kill in range(KILLS):
        process = started(*words, "--cache", tmp_path / "rough")
        before = lines_in(ledger)
        # The first kill falls into calibration or the first shards; each later one after one shard more.
        first = kill == 0
        if not wait_until(lambda: ledger.parent.exists() if first else lines_in(ledger) > before, process):  # noqa: B023
            break
        time.sleep(moments.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            parts = [part for part in (tmp_path / "rough").rglob("*.part") if part.is_file()]
            killed.append((lines_in(ledger), len(parts)))
    assert len(killed) == KILLS, f"killed in time only at {killed}"
    assert killed[-1][0] < 20, "the last kill came after the end"
    last = invoke(*words, "--cache", tmp_path / "rough", "--json")
    assert last.exit_code == 0, last.stderr
    assert [(one["stored"], one["failed"]) for one in json.loads(last.stdout)] == [(24, {}), (16, {})]
    rough, smooth = content(tmp_path / "rough"), content(tmp_path / "calm")
    assert rough.keys() == smooth.keys()
    assert [name for name in rough if rough[name] != smooth[name]] == []
    print(f"killed {len(killed)} times; ledger lines and part files then: {killed}")


EPOCHS, STEPS = 3, 6  # batches of 4 out of 24 videos


def train_words(toy: Any, run: Path, *more: object) -> list[object]:
    sets = [f"epochs={EPOCHS}", "warmup_epochs=1", "batch_clips=4", "evaluate_every_epochs=1", "checkpoint_seconds=0"]
    words: list[object] = ["train", "--cache", toy.int8, "--recipe", "dist-toy", "--run", run, "--device", "cpu"]
    return [*words, *(word for setting in sets for word in ("--set", setting)), *more]


def curve(run: Path) -> list[tuple[Any, ...]]:
    """Losses, rates and scores by step; times are left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "epoch", "loss", "learning_rate", "val_top1", "val_top5")
    return [tuple(line.get(key) for key in keys) for line in lines]


@pytest.fixture(scope="module")
def unbroken(toy: Any, invoke: Any, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The curve of a run that nothing disturbed; this process has the one thread that those that are ended have."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    done = invoke(*train_words(toy, run))
    assert done.exit_code == 0, done.stderr
    assert len(curve(run)) == EPOCHS * (STEPS + 1)
    return curve(run)


def in_the_middle(run: Path, *, of_epoch: int) -> Callable[[], bool]:
    """Whether the run has logged a step of the epoch and not its last."""
    first = (of_epoch - 1) * (STEPS + 1)
    return lambda: lines_in(run / "metrics.jsonl") >= first + 2


def largest_difference(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> float:
    return max(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True) if a[2] is not None)


@pytest.mark.slow
def test_a_training_killed_in_two_epochs_has_the_curve_of_an_unbroken_one(
    toy: Any, started: Any, invoke: Any, unbroken: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    left = []
    for epoch in (1, 2):
        process = started(*train_words(toy, run))
        assert wait_until(in_the_middle(run, of_epoch=epoch), process), process.communicate()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        left.append(lines_in(run / "metrics.jsonl"))
    done = invoke(*train_words(toy, run))
    assert done.exit_code == 0, done.stderr
    assert "going on at epoch" in done.stderr
    print(f"killed with {left} of {len(unbroken)} lines; largest difference of a loss "
          f"{largest_difference(curve(run), unbroken)}")  # fmt: skip
    assert curve(run) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_a_training_with_a_checkpoint_that_goes_on(
    toy: Any, started: Any, invoke: Any, unbroken: list[tuple[Any, ...]], tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = started(*train_words(toy, run, "--set", "checkpoint_seconds=1000"))
    assert wait_until(in_the_middle(run, of_epoch=1), process), process.communicate()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert f"stopped by {number.name}" in err
    assert "not finished" in out
    assert "Traceback" not in err
    steps = json.loads((run / "checkpoint" / "progress.json").read_text())["global_step"]
    assert 0 < steps < EPOCHS * STEPS
    assert max(line[0] for line in curve(run)) == steps, "the checkpoint is of the last logged step"
    done = invoke(*train_words(toy, run, "--set", "checkpoint_seconds=1000"))
    assert done.exit_code == 0, done.stderr
    assert curve(run) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGUSR1, 75, "Stopped by SIGUSR1.")]
)
@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
def test_a_signal_ends_an_extraction_at_once_and_without_a_traceback(
    toy: Any, started: Any, tmp_path: Path, workers: tuple[object, ...], sent: int, code: int, said: str
) -> None:
    words = ["extract", "--root", toy.root, "--model", toy.clip, "--views", 8, "--batch-frames", 8,
             "--shard-videos", 2, "--decode-threads", 1, "--cache", tmp_path, *workers]  # fmt: skip
    process = started(*words, start_new_session=True)
    assert wait_until(lambda: lines_in(tmp_path / "train.ledger.jsonl") > 0, process), process.communicate()
    os.killpg(process.pid, sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert f"{said} Finished shards are kept: the same command goes on." in err
    assert lines_in(tmp_path / "train.ledger.jsonl") < 12


@pytest.mark.slow
def test_slurms_signal_ends_two_processes_after_the_same_step(
    toy: Any, started: Any, vidxfer: Any, tmp_path: Path
) -> None:
    """It reaches one of them, later both: all leave after one step, and go on as if nothing had been, dropout too."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    settings = ("checkpoint_seconds=1000", "ema=0.9", "head.dropout=0.5", "head.channels=32")
    sets = ("--recipe", "frame-transformer", "--devices", 2, *(word for one in settings for word in ("--set", one)))
    undisturbed = vidxfer(*train_words(toy, whole, *sets))
    assert undisturbed.returncode == 0, undisturbed.stderr
    steps = [0]
    for epoch, send in ((1, lambda process: process.send_signal), (2, lambda process: partial(os.killpg, process.pid))):
        process = started(*train_words(toy, run, *sets), start_new_session=True)
        assert wait_until(in_the_middle(run, of_epoch=epoch), process), process.communicate()
        send(process)(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        assert "stopped by SIGUSR1 with a checkpoint" in err
        assert "Traceback" not in err
        steps.append(json.loads((run / "checkpoint" / "progress.json").read_text())["global_step"])
    assert 0 < steps[1] < steps[2] < EPOCHS * STEPS
    done = vidxfer(*train_words(toy, run, *sets))
    assert done.returncode == 0, done.stderr
    assert curve(run) == curve(whole)
    weights = [(folder / "checkpoint" / "weights.safetensors").read_bytes() for folder in (whole, run)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_ctrl_c_while_workers_start_ends_them_too(toy: Any, started: Any, tmp_path: Path) -> None:
    """Signalled as soon as there is a child, the cluster is half made."""
    words = ["extract", "--root", toy.root, "--model", toy.clip, "--workers", 2, "--cache", tmp_path / "cache"]
    process = started(*words, start_new_session=True)
    assert wait_until(lambda: has_children(process.pid), process), process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
