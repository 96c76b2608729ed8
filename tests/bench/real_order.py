"""What is lost where it counts: heads trained on each candidate, on an order task of real footage, scored in pairs.

    python tests/bench/real_order.py --work FOLDER --candidates float16 int8 int4@pool2 [--minutes 50] [--docs]

    order    windows of real videos, forward and backward, speed 1 and 2 (real_windows.py) ─┐
    labels   list.csv of the same footage, its own four labels                             ─┼─▶ CLIP once: float16 cache
    toy      the toy world, its tiny CLIP                                                  ─┘          │ cache recode
        candidate x head x seed ◀── trained and scored on the candidate's own cache ◀── a cache per candidate
            └─▶ results.jsonl, runs ─▶ frontier.py: paired differences to float16, table, plots, docs/frontier.md

A candidate is a codec, and `@pool2` behind it where patches are averaged over 2 x 2. What is finished stays in the work
folder: caches, runs, lines. `--minutes` starts nothing new after so long. The footage is `--videos`, with or without a
list.csv; without it the clips behind VIDXFER_REAL. `--quick`: small videos, toy world's tower: does it run?

Heads (`GAUGES`): token_motion.py sees tokens alone, and is the gauge of a codec. DiST finds no order with so little
footage, and is trained on float16 alone. The two probes cannot see order: within a pair they must stay at chance, or
something else tells the classes apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from codec_accuracy import Bench, cache_of, one_thread, recode, vidxfer
from codec_table import EXACT
from frontier import Result
from frontier_page import write_page
from real_windows import FRAMES, REVERSE, STEPS, write_windows

from vidxfer.pipeline.clip.tiny import copy_toy_clip
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.pipeline.training.predictions import read_predictions
from vidxfer.pipeline.video.writer import write_video

REAL = Path(os.environ.get("VIDXFER_REAL", "../shared/real")).absolute()
LAYERS = "0,4,7,11"
"""Four of the twelve blocks, evenly spread, the last among them; the massive tokens of this tower begin in block 7."""


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """A head as it is trained on a task.

    Attributes:
        recipe, epochs: of the run.
        head: one that is not vidxfer's own; the recipe says the rest.
        seeds: at most so many.
        sets: further settings.
        precision: of the training.
        alone: it is trained on float16 alone: it cannot see the order of frames, or has not learned to.
    """

    recipe: str
    epochs: int
    sets: tuple[str, ...] = ()
    precision: str = "fp32"
    alone: bool = False
    head: str | None = None
    seeds: int = 3


SMALL_DIST = ("dist.integration_channels=32", "dist.temporal_channels=16", "dist.classifier=linear")
MOTION = "token_motion:TokenMotionConfig"
GAUGES: dict[str, dict[str, Gauge]] = {
    "order": {
        "probe": Gauge(recipe="probe", epochs=12, alone=True, seeds=1),
        "attentive": Gauge(recipe="attentive-d1", epochs=6, alone=True, seeds=1),
        "motion": Gauge(recipe="evl-toy", head=MOTION, epochs=8, sets=("learning_rate=2e-3",), seeds=6),
        "dist": Gauge(recipe="dist-toy", epochs=40, sets=SMALL_DIST, precision="bf16", alone=True, seeds=1),
    },
    "labels": {
        "attentive": Gauge(recipe="attentive-d1", epochs=12, seeds=1),
        "dist": Gauge(recipe="dist-toy", epochs=12, sets=SMALL_DIST, precision="bf16", seeds=1),
    },
    "toy": {"evl": Gauge(recipe="evl-toy", epochs=12, seeds=1)},
}
"""Task -> short name of a head -> how it is trained there."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to be had: a head trained on a candidate's cache and scored there."""

    task: str
    head: str
    candidate: str
    seed: int
    epochs: int

    @property
    def run_name(self) -> str:
        """Of its folder below the task's."""
        return f"{self.head}_{self.candidate.replace('+', '_')}_{self.seed}_{self.epochs}"

    def run(self, work: Path) -> Path:
        """Its folder."""
        return work / self.task / "runs" / self.run_name


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is made.

    Attributes:
        windows: of one video and split.
        views: of each clip of the order task that is trained on.
        toy: videos of the toy world, to train on and to score.
        layers, model: blocks of the footage's tower, and that tower.
        epochs: of every run; None: each head's own.
    """

    windows: int
    views: int
    toy: tuple[int, int]
    layers: str
    model: Path
    epochs: int | None = None


def prepare(work: Path, task: str, footage: Path, sizes: Sizes) -> None:
    """Videos and the float16 cache of a task; a repeat keeps what is there."""
    folder = work / task
    folder.mkdir(parents=True, exist_ok=True)
    if task == "toy":
        model, root = copy_toy_clip(folder / "clip"), folder / "ssv2"
        write_toy(root, train_videos=sizes.toy[0], val_videos=sizes.toy[1], design=ToyDesign(difficulty="easy"))
        words: list[object] = ["--dataset", "ssv2", "--root", root, "--model", model, "--with-frames"]
    else:
        if task == "order":
            write_windows(footage, folder, sizes.windows)
        root = folder if task == "order" else footage
        words = ["--dataset", "csv", "--root", root, "--labels", root / "list.csv", "--model", sizes.model,
                 "--layers", sizes.layers, "--no-flips", "--with-frames", "--dense-frames", FRAMES,
                 "--views", sizes.views if task == "order" else 1]  # fmt: skip
    vidxfer("extract", *words, "--cache", cache_of(folder, EXACT), "--codec", EXACT, "--device", "cpu")


def train(work: Path, job: Job, gauge: Gauge) -> None:
    """One run; one that is finished is left as it is, one that was ended goes on."""
    sets = [f"epochs={job.epochs}", f"evaluate_every_epochs={job.epochs}", f"seed={job.seed}",
            f"warmup_epochs={min(1, job.epochs - 1)}", *gauge.sets]  # fmt: skip
    vidxfer(
        "train", "--cache", cache_of(work / job.task, job.candidate), "--recipe", gauge.recipe, "--run", job.run(work),
        *(("--head", gauge.head) if gauge.head else ()), "--precision", gauge.precision, "--device", "cpu",
        *[word for one in sets for word in ("--set", one)],
    )  # fmt: skip


def result_of(work: Path, job: Job) -> dict[str, Any]:
    """Train where the run is not there; the line of the result."""
    began, used = time.monotonic(), time.process_time()
    train(work, job, GAUGES[job.task][job.head])
    lines = list(read_predictions(job.run(work), "val"))
    line = {**asdict(job), "top1": sum(one.right for one in lines) / len(lines), "scored": len(lines)}
    if job.task == "order":
        line["within_pair"] = within_pair(job.run(work))
    return {**line, "cpu_seconds": round(time.process_time() - used, 1), "seconds": round(time.monotonic() - began, 1)}


def within_pair(run: Path) -> float:
    """How often the class is more probable than the same frames in the other order; equal ones are half right."""
    found, classes = [], sorted(REVERSE)
    for one in read_predictions(run, "val"):
        shares = dict(zip(one.best, one.shares, strict=True))
        own, other = shares[one.label], shares[classes.index(REVERSE[one.label_name])]
        found.append(0.5 if own == other else float(own > other))
    return sum(found) / len(found)


def sources_of(work: Path, task: str, footage: Path) -> dict[str, str]:
    """Id of a video of the task -> the recording it is cut from; an id that is missing is its own."""
    if task == "order":
        found: dict[str, str] = json.loads((work / task / "windows.json").read_text(encoding="utf-8"))["sources"]
        return found
    if task == "labels":
        with (footage / "list.csv").open(newline="", encoding="utf-8") as file:
            return {row["id"]: row["path"] for row in csv.DictReader(file) if row.get("id")}
    return {}


def plan(tasks: list[str], candidates: list[str], seeds: int, epochs: int | None) -> list[Job]:
    """Every result, float16 first, one candidate after the other; every first seed before any second one."""
    jobs = []
    for seed in range(seeds):
        for candidate in (EXACT, *(one for one in candidates if one != EXACT)):
            for task in tasks:
                for head, gauge in GAUGES[task].items():
                    if seed < gauge.seeds and (candidate == EXACT or not gauge.alone):
                        length = epochs or gauge.epochs
                        jobs.append(Job(task=task, head=head, candidate=candidate, seed=seed, epochs=length))
    return jobs


def write_footage(folder: Path) -> Path:
    """A few small videos of a square that moves, and their list, for --quick."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{number}.mp4,{'dark' if number < 2 else 'light'},{('train', 'val')[number % 2]}" for number in range(4)]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *rows, ""]), encoding="utf-8")
    for number in range(4):
        frames = np.full((STEPS + 9, 64, 64, 3), 40 * number, dtype=np.uint8)
        for at, frame in enumerate(frames):
            frame[20:36, at : at + 16] = 200
        write_video(folder / f"{number}.mp4", frames, codec="libx264")
    return folder


def main() -> None:
    """Parse, make, train, score, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vidxfer-real-order")
    words.add_argument("--candidates", nargs="+", default=[EXACT, "int8"], help="codecs; @pool2 behind it: pooled")
    words.add_argument("--tasks", nargs="+", choices=list(GAUGES), help="all of them; labels needs a list.csv")
    words.add_argument("--videos", type=Path, default=REAL / "clips", help="folder of the footage")
    words.add_argument("--model", type=Path, default=REAL / "vit-tiny-augreg", help="tower of the footage's tasks")
    words.add_argument("--seeds", type=int, default=1, help="of the heads that have no fewer (GAUGES)")
    words.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    words.add_argument("--minutes", type=float, default=0, help="start nothing new after so long; 0: no limit")
    words.add_argument("--docs", action="store_true", help="write docs/frontier.md and its plots")
    words.add_argument("--quick", action="store_true", help="smallest sizes, the toy world's tower: does it run?")
    asked = words.parse_args()
    work, footage = asked.work.absolute(), asked.videos.absolute()
    work.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(windows=36, views=3, toy=(640, 400), layers=LAYERS, model=asked.model.absolute())
    if asked.quick:
        sizes = Sizes(windows=2, views=1, toy=(32, 32), layers="0,4", model=copy_toy_clip(work / "clip"), epochs=1)
        footage = write_footage(work / "footage")
    tasks = asked.tasks or [task for task in GAUGES if task != "labels" or (footage / "list.csv").is_file()]
    one_thread()
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn"), one_thread) as pool:
        bench = Bench(work, pool, asked.jobs, asked.minutes)
        for task in tasks:
            began = time.monotonic()
            prepare(work, task, footage, sizes)
            list(pool.map(recode, [work / task] * len(asked.candidates), asked.candidates))
            print(f"{task}: videos and caches after {time.monotonic() - began:.0f} s", flush=True)
        jobs = plan(tasks, asked.candidates, asked.seeds, sizes.epochs)
        bench.do(jobs, result_of)
    lines = {tuple(line[name] for name in asdict(jobs[0])): line for line in bench.results}
    results = [Result(line=lines[tuple(asdict(job).values())], run=job.run(work)) for job in jobs if bench.known(job)]
    command = "python tests/bench/real_order.py " + shlex.join(
        word for word in sys.argv[1:] if word != str(asked.work) and word not in ("--work", "--docs")
    )
    write_page(work, results, lambda task: sources_of(work, task, footage), asked=len(jobs), command=command.strip(),
               docs=asked.docs)  # fmt: skip


if __name__ == "__main__":
    main()
