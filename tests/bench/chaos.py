"""What survives: SIGKILLs at random moments, and other ways in which a machine fails; the figures of docs/faults.md.

    python tests/bench/chaos.py [--kills 200] [--folder DIR] [--write docs/faults.md]

A kill ends the leading process of an extraction, or one of its two workers, at a random moment, most of them while
shards are being written; the same extraction then goes on, is killed again, and so on until it ends by itself. Then its
content is compared with that of an undisturbed one, and it begins anew. Processes are forked from one that has imported
everything, so that a kill costs about a second. With --folder a run that was stopped goes on: kills.jsonl has a line
for every kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from chaos_children import a_worker, answer_of, in_child, left_behind, status_of, wait_or_kill
from chaos_faults import FAULTS, World
from measure import machine

import vidxfer.stages.extract  # imported before anything is forked
import vidxfer.stages.upkeep.verify
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest

VIDEOS = 36
WORKERS_KILLED = 3
"""At most so many of one run: a shard whose worker died four times is left for the next run."""


def build(folder: Path) -> World:
    """36 videos of 8 frames in shards of 3, and a CLIP of two blocks."""
    data = write_toy(folder / "data", train_videos=VIDEOS, val_videos=8)
    clip = write_tiny_clip(folder / "clip", image_px=32, channels=64, blocks=2, embed=32)
    request = ExtractRequest(
        data=DataSource(kind="ssv2", root=data.root),
        clip=ClipChoice(model=str(clip), device="cpu"),
        store=CacheChoice(dense_frames=8, train_views=2, shard_videos=3, calibration_videos=4),
        cache=folder / "none",
        splits=("train",),
        batch_frames=8,
        decode_threads=1,
        decode_in="threads",
    )
    return World(folder=folder, request=request)


def kills(world: World, workers: int | None, wanted: int, log: Path, say: Callable[[str], None]) -> None:
    """Kill and go on until `wanted` kills are in the log; one line each, and one per comparison."""
    request = replace(world.request, cache=world.folder / f"rough-{workers}", engine=EngineChoice(workers=workers))
    calm = replace(world.request, cache=world.folder / "calm")
    shutil.rmtree(calm.cache, ignore_errors=True)
    answer_of(lambda: len(vidxfer.stages.extract.extract(calm)))
    content = world.content(calm.cache)
    shutil.rmtree(request.cache, ignore_errors=True)
    work_seconds = answer_of(lambda: timed(request))
    shutil.rmtree(request.cache)
    done = Counter(line["kind"] for line in lines_of(log) if line["workers"] == workers)
    while done["kill"] < wanted or request.cache.exists():  # the last one goes on to its end
        pid = in_child(lambda: vidxfer.stages.extract.extract(request))
        leader, from_start = workers is None or random.random() < 0.5, random.random() < 0.2
        whom = partial(int, pid) if leader else partial(a_worker, pid)
        most = 0 if done["kill"] >= wanted else 1 if leader else WORKERS_KILLED
        for _ in range(most):  # a run goes on without a worker that was killed
            if not wait_or_kill(pid, request.cache, random.uniform(0, work_seconds), from_start, whom):
                break
            note(log, workers, "kill", whom="leader" if leader else "worker", left=left_behind(request.cache))
            done["kill"] += 1
        status = status_of(pid)
        if status is None:
            note(log, workers, "hung")
        with suppress(ProcessLookupError):  # workers that outlived their leader
            os.killpg(pid, signal.SIGKILL)
        if request.cache.exists() and (request.cache / "train").exists():
            damage = answer_of(lambda: damaged(request))
            note(log, workers, "check", damage=damage)
        if status == 0:
            same = world.content(request.cache) == content
            note(log, workers, "compared", same=same)
            say(f"{workers or 'inline'}: {done['kill']} kills; content {'equal' if same else 'DIFFERENT'}")
            if same:
                shutil.rmtree(request.cache)
            else:
                request.cache.rename(world.folder / f"different-{time.time_ns()}")


def timed(request: ExtractRequest) -> float:
    """Seconds of an undisturbed extraction, from its first change in the cache on."""
    began: list[float] = []

    def watch() -> None:
        while not request.cache.exists():
            time.sleep(0.002)
        began.append(time.monotonic())

    watching = threading.Thread(target=watch)
    watching.start()
    vidxfer.stages.extract.extract(request)
    watching.join()
    return time.monotonic() - began[0]


def damaged(request: ExtractRequest) -> int:
    """Shards that are marked and not whole."""
    found = vidxfer.stages.upkeep.verify.verify(vidxfer.stages.upkeep.verify.VerifyRequest(cache=request.cache))
    return sum(len(one.damage) for one in found)


def note(log: Path, workers: int | None, kind: str, **what: Any) -> None:
    with log.open("a") as file:
        file.write(json.dumps({"workers": workers, "kind": kind, **what}) + "\n")


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def table_of_kills(log: Path) -> list[str]:
    """The kills as a markdown table."""
    lines = ["| run | SIGKILLs | of workers | files and folders `.part` left by them | sealed shards without a mark "
             "| torn ledger lines | checks of what was marked | damaged | runs ended and compared | equal | hung |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    found = lines_of(log)
    for workers in (None, 2):
        mine = [line for line in found if line["workers"] == workers]
        by_kind = {kind: [line for line in mine if line["kind"] == kind] for kind in ("kill", "check", "compared")}
        left = Counter[str]()
        for line in by_kind["kill"]:
            left.update(line["left"])
        cells = [
            "one process" if workers is None else f"{workers} workers", len(by_kind["kill"]),
            sum(line["whom"] == "worker" for line in by_kind["kill"]), f"{left['parts']} + {left['folders']}",
            left["sealed"], left["torn lines"], len(by_kind["check"]),
            sum(line["damage"] for line in by_kind["check"]), len(by_kind["compared"]),
            sum(line["same"] for line in by_kind["compared"]), sum(line["kind"] == "hung" for line in mine),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all; a quarter of them in runs with two workers")
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which of the others to run; empty: none")
    parser.add_argument("--write", type=Path, help="also write the result to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    described, began = machine(), time.monotonic()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="vidxfer-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    world = build(folder)
    log = folder / "kills.jsonl"
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    rows = []
    for name in filter(None, given.faults.split(",")):
        rows.append(FAULTS[name](world))
        say(f"{name}: {rows[-1]}")
    kills(world, 2, given.kills // 4, log, say)
    kills(world, None, given.kills - given.kills // 4, log, say)
    seconds = time.monotonic() - began
    text = "\n".join([
        "# What survives", "",
        f"Made by `python tests/bench/chaos.py --kills {given.kills}`",
        f"in {seconds / 60:.0f} minutes: {described}.", "",
        f"{VIDEOS} generated videos, shards of 3, tiny CLIP. \"Equal\": every array's bytes and every ledger record",
        "are those of an extraction that nothing disturbed.", "", "## SIGKILL at random moments", "",
        *table_of_kills(log), "", "## Other faults", "",
        "| fault | what the user sees | what was lost |", "|---|---|---|",
        *[f"| {fault} | {seen} | {lost} |" for fault, seen, lost in rows], "",
    ])  # fmt: skip
    print(text)
    if given.write:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
