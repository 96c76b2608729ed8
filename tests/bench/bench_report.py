"""A report at the size of Something-Something V2: 174 classes, 24,777 videos, two runs; bytes, seconds, memory.

hard links to a few toy videos ─▶ a cache of hardly any bytes, answers drawn at random ─▶ vidxfer report, by itself

    python tests/bench/bench_report.py FOLDER [--videos 24777 --classes 174 --runs 2]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import stored  # noqa: E402

from vidxfer.pipeline.cache.split import Split  # noqa: E402
from vidxfer.pipeline.cache.store import create_split  # noqa: E402
from vidxfer.pipeline.cache.write.writer import SplitWriter  # noqa: E402
from vidxfer.pipeline.datasets.toy import ToyDesign  # noqa: E402
from vidxfer.pipeline.datasets.toy_write import write_toy  # noqa: E402
from vidxfer.pipeline.shapes import View  # noqa: E402
from vidxfer.pipeline.training.recipes import named, with_settings  # noqa: E402
from vidxfer.pipeline.training.run import Run  # noqa: E402
from vidxfer.pipeline.training.validation import keep_validation  # noqa: E402
from vidxfer.stages.learning.train import made_from  # noqa: E402
from vidxfer.stages.settings import DataSource  # noqa: E402

MOST_BYTES, MOST_SECONDS = 8_000_000, 30
MISSING_EVERY = 10
"""Every so many videos one is an empty file."""


def world(folder: Path, *, videos: int, classes: int) -> Split:
    """A data set of hard links, and a cache of its validation split in which every row is stored."""
    write_toy(folder / "toy", train_videos=8, val_videos=8, design=ToyDesign(appearances=1))
    files = sorted((folder / "toy").rglob("*.webm"))
    for number in range(videos):
        name = f"Pretending to put something number {number % classes} behind something"
        for split in ("train", "val")[number >= classes :]:
            (folder / "data" / split / name).mkdir(parents=True, exist_ok=True)
            os.link(files[number % len(files)], folder / "data" / split / name / f"{split}-{number}.webm")
    data = DataSource(kind="folder", root=folder / "data")
    dataset = data.load("val")
    spec = replace(
        stored.SMALL, view_kind="test", split="val", dataset=dataset.name, dataset_fingerprint=dataset.fingerprint,
        sampling=replace(stored.SMALL.sampling, image_px=64),
    )  # fmt: skip
    shape = (len(spec.layers), spec.channels)
    split = create_split(
        folder / "zarr",
        spec,
        video_ids=[video.id for video in dataset.videos],
        labels=[-1 if video.label is None else video.label for video in dataset.videos],
        class_names=dataset.class_names,
        text=np.ones((len(dataset.class_names), spec.embed), dtype=np.float32),
        channel_mean=np.zeros(shape, dtype=np.float32),
        channel_std=np.ones(shape, dtype=np.float32),
        shard_videos=2000,
        informs={"data": data.to_dict(), "clip": {"model": "none", "pretrained": None}, "logit_scale": 100.0,
                 "templates": ["{}"]},
    )  # fmt: skip
    fill(split)
    for video in dataset.videos[::MISSING_EVERY]:
        video.path.unlink()  # a hard link: what it was a link to stays
        video.path.touch()
    return split


def fill(split: Split) -> None:
    """Store every row: zeros, and one view in the middle of the picture."""
    spec = split.spec
    view = View(indices=tuple(range(16)), crop=(0.0, 11.0, 64.0, 64.0), resize_first=True, flip=False, grey=False)
    codes = np.zeros((1, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels), dtype=np.int8)
    scale, embedding = np.ones(codes.shape[:-1], np.float16), np.zeros((1, spec.sparse_frames, spec.embed))
    with SplitWriter(split) as writer:
        for number in writer.pending():
            with writer.shard(number) as shard:
                for row in shard.rows:
                    shard.add(row, codes, scale, embedding, [view])


def finished_run(folder: Path, split: Split, seed: int, steps: int) -> Path:
    """A run folder as a training leaves it, whose answers are drawn: about six of ten are right."""
    rng, names = np.random.default_rng(seed), split.class_names
    recipe = with_settings(named("probe"), [f"seed={seed}"])
    run = Run.start(folder / f"run-{seed}", recipe, made_from(split, online=False))
    lines, right = [], 0
    for id_, label in zip(split.video_ids, split.labels.tolist(), strict=True):
        others = rng.choice(len(names), 5, replace=False).tolist()
        best = [label, *[one for one in others if one != label][:4]] if rng.random() < 0.6 else others
        shares = sorted((rng.dirichlet([0.6] * 5) * 0.98).round(6).tolist(), reverse=True)
        top5 = [[names[one], share] for one, share in zip(best, shares, strict=True)]
        right += best[0] == label
        said = {"id": id_, "label": label, "label_name": names[label], "right": best[0] == label}
        lines.append(json.dumps({**said, "top5": top5, "top5_labels": best}))
    (run.path / "predictions.val.jsonl").write_text("\n".join(lines) + "\n")
    with (run.path / "metrics.jsonl").open("w") as stream:
        for step in range(1, steps + 1):
            entry = {"step": step, "loss": 5 * 0.9999**step, "data_wait_share": float(rng.random()), "epoch": 1}
            stream.write(json.dumps({**entry, "clips_per_second": 100.0}) + "\n")
    count = len(lines)
    score = {"top1": right / count, "top5": 0.8, "top1_of_listed": right / count, "scored": count, "listed": count,
             "missing": {}, "factors": {}}  # fmt: skip
    run.keep_result({"score": score, "epoch_seconds": 1.0, "data_wait_share": 0.1, "loss": 1.0})
    keep_validation(run, split)
    return run.path


def main() -> None:
    """Make the runs, where they are not there yet, and report on them."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    for name, default in (("videos", 24_777), ("classes", 174), ("runs", 2), ("steps", 30_000)):
        asked.add_argument(f"--{name}", type=int, default=default)
    given = asked.parse_args()
    split = world(given.folder, videos=given.videos, classes=given.classes)
    runs = [finished_run(given.folder, split, seed, given.steps) for seed in range(given.runs)]
    page = given.folder / "report.html"
    words = [str(Path(sys.executable).with_name("vidxfer")), "report", *map(str, runs)]
    began = time.monotonic()
    subprocess.run([*words, "--cache", str(given.folder / "zarr"), "--out", str(page)], check=True)
    seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    size, memory = page.stat().st_size, used.ru_maxrss * 1024
    print(
        f"{given.classes} classes, {given.videos:,} videos, {given.runs} runs: {size / 1e6:.2f} MB, "
        f"{seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of CPU), {memory / 1e6:.0f} MB of memory at most"
    )
    assert size < MOST_BYTES
    if seconds >= MOST_SECONDS:
        print(f"more than {MOST_SECONDS} s", file=sys.stderr)


if __name__ == "__main__":
    main()
