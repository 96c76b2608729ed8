"""What compression costs in accuracy, on the toy world: codec x layers x seed, top-1 against bytes per view.

    python tests/bench/codec_accuracy.py --out FOLDER [--epochs 12] [--seeds 2] [--jobs 1] [--minutes 0] [--docs]

    toy world ─▶ CLIP once: float16 cache, dense frames kept ─▶ cache recode ─▶ one cache per codec
                     float16 runs, each seed ─▶ scored on every codec's cache     (what a trained head notices)
                     codec x layers x seed   ─▶ trained and scored on the same    (what training makes of it)

Every step is a command line. Each result is a line of FOLDER/results.jsonl; a repeat does what is missing, so it may
run in pieces: `--minutes 10` starts nothing new after ten minutes. `--docs` writes table and plot into docs/. Layers
are chosen by the head (dist.layers) from caches that hold all, and bytes are computed for the chosen ones.

The validation split is larger than `vidxfer data toy` makes it: a video in 1,600 is 0.06 points. An epoch of DiST over
1,280 videos took 11.5 core-seconds on a quiet machine; all of it is about 150 core-minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from codec_table import CONTROL, EXACT, write_report
from typer.testing import CliRunner

from vidxfer.cli.main import app
from vidxfer.pipeline.clip.tiny import copy_toy_clip
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import write_toy

HEADS = {"dist-toy": "dist", "attentive-probe": "attentive"}
"""Recipe -> its short name. DiST also sees dense frames; the attentive probe the last block's tokens, without order."""


def codecs_for(channels: int) -> list[str]:
    """What is compared; the last keeps one direction per token: what remains without tokens, nearly."""
    quarter, eighth = channels // 4, channels // 8
    return [EXACT, "int8", "int6", "int4", "pq4", "pq", "rotate+pq", f"pca{quarter}+int8", f"pca{eighth}+int4", CONTROL]


def subsets_of(layers: list[int]) -> dict[str, list[int]]:
    """Layer subsets by name: all, every second, and four, evenly spread; the last block is in each."""
    blocks = [layer for layer in layers if layer >= 0]
    four = sorted({blocks[round(i * (len(blocks) - 1) / 3)] for i in range(4)})
    wanted = {"all": blocks, "every second": blocks[::-1][::2][::-1], "four": four}
    found: dict[str, list[int]] = {}
    for name, chosen in wanted.items():
        if chosen not in found.values():
            found[name] = chosen
    return found


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to be had: `trained_on` a codec's cache, scored on the cache of `codec`."""

    head: str
    codec: str
    trained_on: str
    layers: tuple[int, ...]
    seed: int
    epochs: int

    @property
    def run_name(self) -> str:
        layers = "-".join(map(str, self.layers))
        return f"{HEADS[self.head]}_{self.trained_on.replace('+', '_')}_{layers}_{self.seed}_{self.epochs}"


def vidxfer(*words: object) -> str:
    """Run one command line in this process, which has loaded torch already; its standard output."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(f"vidxfer {' '.join(map(str, words))}\nended with {done.exit_code}:\n{done.stderr[-2000:]}")
    return done.stdout


def cache_of(folder: Path, codec: str) -> Path:
    return folder / "caches" / codec.replace("+", "_")


def one_thread() -> None:
    """What every worker begins with."""
    torch.set_num_threads(1)


def recode(folder: Path, candidate: str) -> None:
    """The cache of a codec out of the float16 one; with `@pool2` behind its name, patches averaged over 2 x 2."""
    codec, _, pooled = candidate.partition("@pool")
    if candidate != EXACT:
        vidxfer(
            "cache", "recode", cache_of(folder, EXACT), "--to", cache_of(folder, candidate), "--codec", codec,
            *(("--pool", pooled) if pooled else ()),
        )  # fmt: skip


def result_of(folder: Path, job: Job) -> dict[str, Any]:
    """Train where the run is not there, score where it is scored on another cache; the line of the result."""
    began, run = time.monotonic(), folder / "runs" / job.run_name
    words: list[object] = ["--set", f"epochs={job.epochs}", "--set", f"evaluate_every_epochs={job.epochs}"]
    if job.head == "dist-toy":
        words += ["--set", f"dist.layers={list(job.layers)}"]
    vidxfer(
        "train", "--cache", cache_of(folder, job.trained_on), "--recipe", job.head, "--run", run,
        "--set", f"seed={job.seed}", "--set", f"warmup_epochs={min(1, job.epochs - 1)}", *words,
    )  # fmt: skip
    if job.codec == job.trained_on:
        score = json.loads((run / "result.json").read_text())["score"]
    else:
        score = json.loads(vidxfer("evaluate", "--run", run, "--cache", cache_of(folder, job.codec), "--json"))["score"]
    line = {**asdict(job), "top1": score["top1"], "scored": score["scored"],
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(line))
    return plain


class Bench:
    """The folder, what is known already, and how to get the rest."""

    def __init__(self, folder: Path, pool: ProcessPoolExecutor, jobs: int, minutes: float) -> None:
        self.folder, self.pool, self.jobs = folder, pool, jobs
        self.end = time.monotonic() + 60 * minutes if minutes else float("inf")
        self.file = folder / "results.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.results: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def prepare(self, train_videos: int, val_videos: int, difficulty: str) -> None:
        """World and float16 cache; a repeat keeps what is there."""
        root, clip = self.folder / "world" / "ssv2", copy_toy_clip(self.folder / "world" / "clip")
        design = ToyDesign(difficulty=difficulty)
        write_toy(root, train_videos=train_videos, val_videos=val_videos, design=design)
        vidxfer(
            "extract", "--dataset", "ssv2", "--root", root, "--model", clip,
            "--cache", cache_of(self.folder, EXACT), "--codec", EXACT, "--with-frames",
        )  # fmt: skip

    def info(self, split: str) -> dict[str, Any]:
        text = vidxfer("cache", "info", "--cache", cache_of(self.folder, EXACT), "--json")
        found: dict[str, Any] = json.loads(text)[split]
        return found

    def recode(self, codecs: list[str]) -> None:
        """A cache for every codec."""
        list(self.pool.map(recode, [self.folder] * len(codecs), codecs))

    def known(self, job: Any) -> bool:
        wanted = json.loads(json.dumps(asdict(job)))
        return any(all(line[name] == value for name, value in wanted.items()) for line in self.results)

    def do(self, jobs: Sequence[Any], work: Callable[[Path, Any], dict[str, Any]] = result_of) -> None:
        """What is not known yet, several at a time; two of one run never at once, nothing new once the time is over."""
        missing = [job for job in jobs if not self.known(job)]
        running: dict[Future[dict[str, Any]], Any] = {}
        while missing or running:
            busy = {job.run_name for job in running.values()}
            free = next((job for job in missing if job.run_name not in busy), None)
            if free is not None and len(running) < self.jobs and time.monotonic() < self.end:
                missing.remove(free)
                running[self.pool.submit(work, self.folder, free)] = free
                continue
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                del running[done]
                self.note(done.result())

    def note(self, line: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.results.append(line)
        print(json.dumps(line), flush=True)


def plan(
    codecs: list[str], subsets: dict[str, list[int]], seeds: range, epochs: int, epochs_attentive: int
) -> list[Job]:
    """Every result, the most telling first: float16 runs, their scores on every codec, then training on each codec."""
    last = tuple(subsets["all"][-1:])

    def job(head: str, codec: str, on: str, layers: tuple[int, ...], seed: int) -> Job:
        length = epochs if head == "dist-toy" else epochs_attentive
        return Job(head=head, codec=codec, trained_on=on, layers=layers, seed=seed, epochs=length)

    both = [*(("dist-toy", tuple(layers)) for layers in subsets.values()), ("attentive-probe", last)]
    jobs = [job(head, EXACT, EXACT, layers, seed) for head, layers in both for seed in seeds]
    jobs += [job(head, c, EXACT, layers, seed) for head, layers in both for seed in seeds for c in codecs if c != EXACT]
    jobs += [job("attentive-probe", c, c, last, seed) for seed in seeds for c in codecs if c != EXACT]
    for layers in subsets.values():
        jobs += [job("dist-toy", c, c, tuple(layers), seed) for seed in seeds for c in codecs]
    return list(dict.fromkeys(jobs))


def main() -> None:
    """Parse, make, train, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, required=True, help="folder of the world, caches, runs and results")
    words.add_argument("--epochs", type=int, default=12, help="of DiST")
    words.add_argument("--epochs-attentive", type=int, default=12, help="of the attentive probe, which is quicker")
    words.add_argument("--seeds", type=int, default=2)
    words.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    words.add_argument("--minutes", type=float, default=0, help="start nothing new after so long; 0: no limit")
    words.add_argument("--train-videos", type=int, default=1280)
    words.add_argument("--val-videos", type=int, default=1600)
    words.add_argument("--difficulty", default="easy", help="of the toy world")
    words.add_argument("--codecs", default="", help="instead of the list in this file, with commas")
    words.add_argument("--docs", action="store_true", help="write table and plot into docs/ too")
    asked = words.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    one_thread()
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn"), one_thread) as pool:
        bench = Bench(asked.out, pool, asked.jobs, asked.minutes)
        bench.prepare(asked.train_videos, asked.val_videos, asked.difficulty)
        info = bench.info("train")
        codecs = asked.codecs.split(",") if asked.codecs else codecs_for(info["spec"]["channels"])
        bench.recode(codecs)
        subsets = subsets_of(info["layers"])
        jobs = plan(codecs, subsets, range(asked.seeds), asked.epochs, asked.epochs_attentive)
        bench.do(jobs)
    command = "python tests/bench/codec_accuracy.py --out FOLDER " + shlex.join(
        word for word in sys.argv[1:] if word != str(asked.out) and word not in ("--out", "--docs")
    )
    write_report(bench.folder, info["spec"], bench.info("val"), subsets, codecs, bench.results, jobs,
                 command=command.strip(), docs=asked.docs)  # fmt: skip


if __name__ == "__main__":
    main()
