"""A training step of every family in two trees of the code: core time of the training thread, memory, waits.

    python tests/bench/bench_step.py --before FOLDER [--rounds 3] [--write docs/bench.md]

FOLDER is another tree of vidxfer, as of `git archive COMMIT | tar x -C FOLDER`. Both trees train the same recipe on the
same cache in turn, each time in a process of its own; waits are counted by syncs.py in one more run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, machine, write_block

EPOCHS, FIRST = 4, 4
"""Epochs of a run, and the first step that is counted."""

OPTIONS: dict[str, list[str]] = {
    "": [],
    "--micro-batch 2": ["micro_batch=2"],
    "--ema 0.99": ["ema=0.99"],
}


def request_of(name: str, settings: list[str], cache: Path, run: Path) -> Any:
    from syncs import SETTINGS

    from vidxfer.pipeline.training.recipes import named, with_settings
    from vidxfer.stages.learning.train import TrainRequest

    sets = [f"epochs={EPOCHS}", "warmup_epochs=1", "batch_clips=4", "evaluate_every_epochs=100", *settings]
    recipe = with_settings(named(name), [*sets, *SETTINGS.get(name, [])])
    return TrainRequest(recipe=recipe, cache=cache, run=run, device="cpu")


def child(name: str, settings: list[str], cache: Path, *, counted: bool) -> None:
    """Train, and print what a step took as JSON."""
    import torch
    from syncs import count_training

    from vidxfer.pipeline.training.journal import peak_memory_bytes
    from vidxfer.stages.learning.train import train
    from vidxfer.stages.learning.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        request = request_of(name, settings, cache, Path(folder) / "run")
        if counted:
            now, late, _ = count_training(lambda: train(request))
            print(json.dumps({"now": now, "late": late}))
            return
        step, after = Trainer._step, Trainer._agree_to_stop
        began, seconds = [0.0], []

        def timed(self: Any, *given: Any) -> Any:
            began[0] = time.thread_time()
            return step(self, *given)

        def ended(self: Any) -> bool:
            if self.place.global_step >= FIRST:
                seconds.append(time.thread_time() - began[0])
            return after(self)

        Trainer._step, Trainer._agree_to_stop = timed, ended  # type: ignore[method-assign]
        train(request)
        print(json.dumps({"seconds": statistics.median(seconds), "bytes": peak_memory_bytes(torch.device("cpu"))}))


def measured(tree: Path, name: str, settings: list[str], cache: Path, *, counted: bool = False) -> dict[str, float]:
    words = [sys.executable, __file__, "--child", name, json.dumps(settings), str(cache), str(int(counted))]
    environment = {**os.environ, "PYTHONPATH": str(tree / ".typings"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{tree} {name}: {done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(before: Path, name: str, option: str, cache: Path, rounds: int) -> str:
    """One line of the table: before, after, ratio."""
    runs: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for _ in range(rounds):
        runs["before"].append(measured(before, name, [], cache))
        runs["after"].append(measured(ROOT, name, OPTIONS[option], cache))
    times = {side: statistics.median(run["seconds"] for run in some) for side, some in runs.items()}
    peaks = {side: max(run["bytes"] for run in some) / 1e6 for side, some in runs.items()}
    counts = {
        "before": measured(before, name, [], cache, counted=True),
        "after": measured(ROOT, name, OPTIONS[option], cache, counted=True),
    }
    return (
        f"| {name} {option} | {1e3 * times['before']:.2f} ms | {1e3 * times['after']:.2f} ms | "
        f"{times['after'] / times['before']:.2f} | {peaks['before']:.0f} MB | {peaks['after']:.0f} MB | "
        f"{counts['before']['now']:.0f} | {counts['after']['now']:.0f} + {counts['after']['late']:.0f} late |"
    )


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]), counted=sys.argv[5] == "1")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="folder of another tree of vidxfer")
    parser.add_argument("--commit", default="", help="what to call it in the table")
    parser.add_argument("--cache", type=Path, required=True, help="small, with windows and the stem")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="document whose block is written")
    asked = parser.parse_args()
    from syncs import recipes

    words = "| head | before | after | after / before | memory before | after | waits before | after |"
    lines = [machine(), "", words, "|---" * 8 + "|"]
    todo = [(name, "") for name in recipes()] + [("dist-toy", option) for option in OPTIONS if option]
    for name, option in todo:
        lines.append(row(asked.before, name, option, asked.cache, asked.rounds))
        print(lines[-1], flush=True)
    text = "\n".join([f"Before: {asked.commit or asked.before}. {lines[0]}. rounds={asked.rounds}", *lines[1:]])
    print(text)
    if asked.write:
        write_block(asked.write, "step", text)


if __name__ == "__main__":
    main()
