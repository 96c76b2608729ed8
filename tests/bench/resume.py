"""kill -9 in the middle of an epoch, for every family of heads: what goes on equals what was never disturbed.

    one cache of a toy world ─▶ recipe as it stands (dropout included), bf16: unbroken run
                                                                       └▶ kill -9, the same command again ─▶ table

Run by hand: `python tests/bench/resume.py --out FOLDER [--only evl-toy,tds-toy] [--two]`. Every run is a command of its
own. `--two` trains EVL online and TDS-CLIP from the cache in two processes (gloo) instead, all of which are killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measure import machine

from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.pipeline.heads import FAMILIES

VIDXFER = Path(sys.executable).with_name("vidxfer")
TRAIN_VIDEOS, CLIPS, EPOCHS = 24, 4, 2
STEPS = TRAIN_VIDEOS // CLIPS
SETS = (
    f"epochs={EPOCHS}",
    "warmup_epochs=1",
    f"batch_clips={CLIPS}",
    "evaluate_every_epochs=2",
    "checkpoint_seconds=0",
)
"""What a toy world this small makes necessary, and a checkpoint in every step, for the kill to fall between two."""

HEADER = (
    "| recipe | trained | steps | killed at step | largest difference of a loss | weights |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row: a recipe, how it is trained, and how that is called in the table."""

    recipe: str
    words: tuple[str, ...] = ()
    called: str = "cached"


def toy_cases() -> list[Case]:
    """The toy's recipes; of a family without one, those for any CLIP."""
    found = []
    for family in FAMILIES:
        toys = [one for one in family.recipes if one.name.endswith("-toy")]
        found += toys or [one for one in family.recipes if one.clip is None]
    return [Case(recipe=one.name, words=("--set", "head.blocks=3") * (one.name == "evl-toy")) for one in found]


TWO = [
    Case(
        recipe="evl-toy", words=("--set", "head.blocks=3", "--devices", "2", "--online"), called="2 processes, online"
    ),
    Case(recipe="tds-toy", words=("--devices", "2"), called="2 processes, cached"),
]


def command(*words: object) -> list[str]:
    """A command line of vidxfer."""
    return [str(VIDXFER), *map(str, words)]


def done(*words: object) -> None:
    """Run one to its end.

    Raises:
        SystemExit: it failed; with what it said.
    """
    ended = subprocess.run(command(*words), capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command(*words))} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")


def losses(run: Path) -> list[float]:
    """By step, as the journal has them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def killed(words: list[object], run: Path) -> int:
    """Start the command, kill it and its processes in the middle of the last epoch; lines it had in its journal."""
    with (run.parent / f"{run.name}.log").open("w") as log:
        process = subprocess.Popen(command(*words), stdout=log, stderr=log, start_new_session=True)
        lines = 0
        while lines < STEPS + 2:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(map(str, words))} ended before it was killed: see {log.name}")
            time.sleep(0.002)
            file = run / "metrics.jsonl"
            lines = file.read_bytes().count(b"\n") if file.is_file() else 0
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = (run / "metrics.jsonl").read_bytes().count(b"\n")
    if not STEPS < lines < EPOCHS * STEPS:
        raise SystemExit(f"the kill came after {lines} steps and not in the middle of the last epoch; run it again")
    return lines


def row(folder: Path, case: Case) -> str:
    """One line of the table."""
    runs = [folder / f"{case.recipe}-{case.called.replace(' ', '-')}-{kind}" for kind in ("whole", "broken")]
    words = ["train", "--cache", folder / "zarr", "--recipe", case.recipe, "--device", "cpu", "--precision", "bf16"]
    words += [word for setting in SETS for word in ("--set", setting)]
    whole, broken = ([*words, *case.words, "--run", run] for run in runs)
    done(*whole)
    at = killed(broken, runs[1])
    done(*broken)
    first, second = map(losses, runs)
    if len(first) != len(second):
        raise SystemExit(f"{case.recipe}: {len(first)} steps unbroken, {len(second)} broken off and gone on with")
    difference = max(abs(one - other) for one, other in zip(first, second, strict=True))
    kept = [(run / "checkpoint" / "weights.safetensors").read_bytes() for run in runs]
    same = "same bytes" if kept[0] == kept[1] else "DIFFER"
    return f"| {case.recipe} | {case.called} | {len(first)} | {at} | {difference!r} | {same} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 in mid-epoch and going on, for every family of heads.")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for world, cache and runs")
    parser.add_argument("--only", default="", help="recipes with commas (all of the toy's)")
    parser.add_argument("--two", action="store_true", help="two processes instead: EVL online, TDS-CLIP cached")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = asked.out.absolute()
    if not (folder / "zarr").exists():
        world = write_toy(folder / "ssv2", train_videos=TRAIN_VIDEOS, val_videos=4, design=ToyDesign(appearances=1))
        clip = write_tiny_clip(folder / "clip", image_px=32, channels=64, blocks=3, embed=32)
        done("extract", "--dataset", "ssv2", "--root", world.root, "--model", clip, "--cache", folder / "zarr",
             "--dense-frames", 8, "--stem", "--with-frames", "--window", 5)  # fmt: skip
    chosen = [
        one for one in (TWO if asked.two else toy_cases()) if not asked.only or one.recipe in asked.only.split(",")
    ]
    print(f"{machine()}; bf16", HEADER, sep="\n\n", flush=True)
    for case in chosen:
        print(row(folder, case), flush=True)


if __name__ == "__main__":
    main()
