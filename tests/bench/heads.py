"""Every head on one cache: a small toy world, or a few real videos, made, trained, scored and compared in pieces.

    python tests/bench/heads.py --out FOLDER [--epochs 12] [--seeds 3] [--jobs 2] [--minutes 0] [--only DiST] [--real]

    toy world ─▶ CLIP once: one cache with frames ─▶ head x seed, equal epochs ─▶ overall, appearance, motion, in pairs
                                                                └─▶ vidxfer compare: table, plot

Every step is a command line. Each result is a line of FOLDER/results.jsonl, and a run that was ended goes on where it
stood; a repeat does what is missing, so it may run in pieces: `--minutes 10` starts nothing new after ten minutes.
`--only` takes labels with commas: of HEADS, those that begin so. `--real` trains each head once, and no ablation, on
the clips behind VIDXFER_REAL (4 labels; the tower is a really trained ViT-Ti/16). `--write FILE.md` also keeps table
and plot there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import machine
from toy_table import COLUMNS, scores_of, spread

EXTRACT = ("--with-frames", "--window", "5")
"""What the one cache keeps beside tokens, for every head in the list."""

TRAIN_VIDEOS, VAL_VIDEOS, DIFFICULTY = 640, 400, "easy"
REAL = Path(os.environ.get("VIDXFER_REAL", "../shared/real"))


@dataclass(frozen=True, kw_only=True)
class Head:
    """One row of the table.

    Attributes:
        label: in the table.
        recipe: that `vidxfer train` is told; None: CLIP alone.
        sets: what `--set` is given beside epochs and seed.
        seeds: at most so many.
    """

    label: str
    recipe: str | None
    sets: tuple[str, ...] = ()
    seeds: int = 100

    @property
    def ablation(self) -> bool:
        """Whether it is another row's head with something taken out."""
        return self.recipe is not None and self.seeds == 1

    @property
    def name(self) -> str:
        """Of its runs' folders."""
        return "".join(one if one.isalnum() else "-" for one in self.label.lower())


def _head(label: str, recipe: str | None, *sets: str, seeds: int = 100) -> Head:
    return Head(label=label, recipe=recipe, sets=sets, seeds=seeds)


NOT_TEMPORAL = ("head.convolution=false", "head.position=false", "head.cross_frame=false")
HEADS = (
    _head("zero-shot", None, seeds=1),
    _head("linear probe", "probe"),
    _head("frame transformer", "frame-transformer"),
    _head("attentive d1", "attentive-d1"),
    _head("attentive d1, table", "attentive-d1-time"),
    _head("attentive d4", "attentive-d4"),
    _head("attentive d4, table", "attentive-d4-time"),
    _head("MLAP (EVL without time)", "evl-toy", *NOT_TEMPORAL),
    _head("EVL K=4", "evl-toy"),
    _head("Side4Video", "side4video-toy"),
    _head("TDS-CLIP", "tds-toy"),
    _head("DiST", "dist-toy"),
    _head("TDS-CLIP without TD", "tds-toy", "head.td_blocks=none", seeds=1),
    _head("TDS-CLIP without SME", "tds-toy", "head.local_frames=1", seeds=1),
    _head("TDS-CLIP without both", "tds-toy", "head.td_blocks=none", "head.local_frames=1", seeds=1),
)
"""Label, recipe, its settings here, seeds. Ablations have one seed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to be had."""

    head: Head
    seed: int
    epochs: int

    def run(self, folder: Path) -> Path:
        """Its folder."""
        name = "zero-shot" if self.head.recipe is None else f"{self.head.name}_{self.seed}_{self.epochs}"
        return folder / "runs" / name


def vidxfer(*words: object, cwd: Path | None = None, threads: int = 1) -> str:
    """Run one command; its standard output. What it says on standard error is shown only if it fails."""
    command = [str(Path(sys.executable).with_name("vidxfer")), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def cpu_seconds() -> float:
    """Of the commands that this process has run: a busy machine makes them wait, not longer."""
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_children.ru_utime + of_children.ru_stime


def one_thread() -> None:
    """What every worker begins with."""
    torch.set_num_threads(1)


def result_of(folder: Path, job: Job, toy: bool) -> dict[str, Any]:
    """Train where the run is not there, and score."""
    began, cache, run, used = time.monotonic(), folder / "zarr", job.run(folder), cpu_seconds()
    if job.head.recipe is None:
        vidxfer("evaluate", "--cache", cache, "--zero-shot", cwd=folder)
    else:
        sets = {"epochs": job.epochs, "warmup_epochs": min(1, job.epochs - 1), "evaluate_every_epochs": job.epochs,
                "seed": job.seed}  # fmt: skip
        words = [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
        words += [word for one in job.head.sets for word in ("--set", one)]
        vidxfer("train", "--cache", cache, "--recipe", job.head.recipe, "--run", run, "--device", "cpu", *words)
    trained, used = time.monotonic() - began, cpu_seconds() - used
    if toy:
        scores = scores_of(cache, None if job.head.recipe is None else run)
    else:
        lines = [json.loads(line) for line in (run / "predictions.val.jsonl").read_text().splitlines()]
        scores = {"top1": sum(line["right"] for line in lines) / len(lines), "scored": len(lines)}
    seconds = {
        "train_seconds": round(trained, 1),
        "cpu_seconds": round(used, 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    return {"label": job.head.label, "seed": job.seed, "epochs": job.epochs, **scores, **seconds}


class Bench:
    """The folder, what is known already, and how to get the rest."""

    def __init__(self, folder: Path, minutes: float, toy: bool) -> None:
        self.folder, self.toy, self.file = folder, toy, folder / "results.jsonl"
        self.end = time.monotonic() + 60 * minutes if minutes else float("inf")
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.results: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def prepare(self, extract: tuple[str, ...], jobs: int) -> None:
        """The one cache; a repeat keeps what is there."""
        began, cache, extract = time.monotonic(), self.folder / "zarr", (*extract,)
        if self.toy:
            from vidxfer.pipeline.clip.tiny import copy_toy_clip
            from vidxfer.pipeline.datasets.toy import ToyDesign
            from vidxfer.pipeline.datasets.toy_write import write_toy

            root, clip = self.folder / "ssv2", copy_toy_clip(self.folder / "clip")
            write_toy(root, train_videos=TRAIN_VIDEOS, val_videos=VAL_VIDEOS, design=ToyDesign(difficulty=DIFFICULTY))
            data = ["--dataset", "ssv2", "--root", root, "--model", clip]
        else:
            clips = REAL.absolute() / "clips"
            data = ["--dataset", "csv", "--root", clips, "--labels", clips / "list.csv",
                    "--model", REAL.absolute() / "vit-tiny-augreg"]  # fmt: skip
        vidxfer("extract", *data, "--cache", cache, *extract, threads=jobs)
        print(f"world and cache: {time.monotonic() - began:.0f} s", flush=True)

    def known(self, job: Job) -> bool:
        """Whether its result is there."""
        return any((line["label"], line["seed"], line["epochs"]) == (job.head.label, job.seed, job.epochs)
                   for line in self.results)  # fmt: skip

    def do(self, jobs: list[Job], at_once: int) -> None:
        """What is not known yet, several at a time; nothing new once the time is over."""
        missing = [job for job in jobs if not self.known(job)]
        running: dict[Future[dict[str, Any]], Job] = {}
        with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), one_thread) as pool:
            while missing or running:
                if missing and len(running) < at_once and time.monotonic() < self.end:
                    job = missing.pop(0)
                    running[pool.submit(result_of, self.folder, job, self.toy)] = job
                    continue
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[done]
                    self.note(done.result())

    def note(self, line: dict[str, Any]) -> None:
        """Keep and show a result."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.results.append(line)
        print(json.dumps(line), flush=True)


def table(results: list[dict[str, Any]], heads: tuple[Head, ...], toy: bool) -> str:
    """The table in Markdown: mean over seeds, and the least and the most of them, beside chance."""
    columns = COLUMNS if toy else ("top1",)
    chance = "| chance | | 3.1 | 25.0 | 12.5 | 50.0 | |" if toy else "| chance | | 25.0 | |"
    names = " | ".join(("top-1", "on appearance alone", "on motion alone", "within a pair of motions")[: len(columns)])
    lines = [f"| head | seeds | {names} | seconds |", "|---|---" + "|---" * (len(columns) + 1) + "|", chance]
    for head in heads:
        own = [line for line in results if line["label"] == head.label]
        if own:
            cells = [spread([100 * line[column] for line in own]) for column in columns]
            seconds = statistics.mean(line["cpu_seconds"] for line in own)
            lines.append(f"| {head.label} | {len(own)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def report(bench: Bench, jobs: list[Job], heads: tuple[Head, ...], write: Path | None) -> None:
    """Table, comparison and plot into FOLDER, and, where asked, table and plot beside each other elsewhere."""
    done = [job for job in jobs if bench.known(job)]
    known = [line for line in bench.results if any(
        (line["label"], line["seed"], line["epochs"]) == (job.head.label, job.seed, job.epochs) for job in done
    )]  # fmt: skip
    runs = [job.run(bench.folder) for job in done]
    plot = (write or bench.folder / "heads.md").with_suffix(".svg")
    words = ["compare", *runs, "--cache", bench.folder / "zarr", "--plot", plot, "--markdown"]
    compared = vidxfer(*words) if runs else ""
    scored = max((line["scored"] for line in known), default=0)
    text = "\n".join([
        f"{machine()}. {len(done)} of {len(jobs)} results are there; {jobs[0].epochs if jobs else 0} epochs each.",
        "",
        table(known, heads, bench.toy),
        "",
        f"Per cent of {scored} validation videos: mean over seeds (least to most). Seconds: one training on one core.",
        "",
    ])  # fmt: skip
    (write or bench.folder / "heads.md").write_text(text, encoding="utf-8")
    (bench.folder / "compare.md").write_text(compared, encoding="utf-8")
    print(text)


def chosen(only: str) -> tuple[Head, ...]:
    """The heads of which a label begins with one of the words; all of them where there is none."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    unknown = [word for word in words if not any(head.label.lower().startswith(word) for head in HEADS)]
    if unknown:
        raise SystemExit(f"--only {unknown}: no head is called so; there are {', '.join(h.label for h in HEADS)}")
    return tuple(head for head in HEADS if not words or head.label.lower().startswith(tuple(words)))


def expect_recipes(heads: tuple[Head, ...]) -> None:
    """Stop before the work where a recipe is not there."""
    known = {one["recipe"]["name"] for one in json.loads(vidxfer("recipes", "--json"))}
    if missing := {head.label: head.recipe for head in heads if head.recipe is not None and head.recipe not in known}:
        raise SystemExit(f"these heads have no recipe here: {missing}. Choose others with --only, or mend HEADS.")


def main() -> None:
    """Parse, make, train, score, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, required=True, help="folder of the world, cache, runs and results")
    words.add_argument("--epochs", type=int, default=12, choices=range(1, 13))
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time, one thread each")
    words.add_argument("--minutes", type=float, default=0, help="start nothing new after so long; 0: no limit")
    words.add_argument("--only", default="", help="beginnings of labels, with commas")
    words.add_argument("--real", action="store_true", help="the clips behind VIDXFER_REAL, one seed")
    words.add_argument("--extract", default=" ".join(EXTRACT), help="what the cache keeps beside tokens")
    words.add_argument("--write", type=Path, help="keep the table in this file, and the plot beside it")
    asked = words.parse_args()
    heads = tuple(head for head in chosen(asked.only) if not (asked.real and head.ablation))
    expect_recipes(heads)
    folder = asked.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, asked.minutes, toy=not asked.real)
    bench.prepare(tuple(asked.extract.split()), asked.jobs)
    seeds = range(1, (1 if asked.real else asked.seeds) + 1)
    jobs = [Job(head=head, seed=seed, epochs=asked.epochs) for seed in seeds for head in heads if seed <= head.seeds]
    bench.do(jobs, asked.jobs)
    report(bench, jobs, heads, asked.write)


if __name__ == "__main__":
    main()
