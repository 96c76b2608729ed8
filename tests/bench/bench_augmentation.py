"""What caching changes in accuracy, on the toy world: online with and without pixel mixing, cached with 1 and 4 views …

    python tests/bench/bench_augmentation.py FOLDER [--seeds 2] [--epochs 12]

Makes the toy world and the caches in FOLDER, trains each way with each seed through the command line, and prints a
table in Markdown. Everything is resumable: a repeat reads what is there. About 25 minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

WAYS: list[tuple[str, str, list[str]]] = [
    ("online, pixel mixing (published order)", "v1", ["--online", "--set", "mixing.kind=pixels"]),
    ("online, no mixing", "v1", ["--online"]),
    ("cached, 1 view", "v1", []),
    ("cached, 4 views", "v4", []),
    ("cached, 4 views, token mixing", "v4", ["--set", "mixing.kind=tokens"]),
    ("cached, 1 view, bank of 16 frames for 8", "bank", ["--set", "sparse_frames=8"]),
]
"""Name, cache, and what `vidxfer train` is told beyond the rest."""

CACHES = {"v1": [], "v4": ["--views", "4"], "bank": ["--bank-frames", "16"]}


def vidxfer(*words: object) -> str:
    """Run one command and return its standard output; bars go to the terminal."""
    command = [str(Path(sys.executable).with_name("vidxfer")), *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Parse, make, train, print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path)
    words.add_argument("--seeds", type=int, default=2)
    words.add_argument("--epochs", type=int, default=12)
    asked = words.parse_args()
    folder: Path = asked.folder
    vidxfer("data", "toy", folder)
    data = ["--root", folder / "ssv2", "--model", folder / "clip"]
    for name, options in CACHES.items():
        vidxfer("extract", *data, "--cache", folder / name, "--split", "train", *options)
        vidxfer("extract", *data, "--cache", folder / name, "--split", "val")
    print("| way | val top-1, each seed | mean | s per epoch | training cache |")
    print("|---|---|---|---|---|")
    for way, cache, options in WAYS:
        results = [one_run(folder, way, cache, options, seed, asked.epochs) for seed in range(asked.seeds)]
        tops = [100 * result["score"]["top1"] for result in results]
        seconds = statistics.median(result["epoch_seconds"] for result in results)
        held = json.loads(vidxfer("cache", "info", "--cache", folder / cache, "--json"))["train"]["bytes_on_disk"]
        size = "none needed" if "--online" in options else f"{held / 1e6:.0f} MB"
        shown = ", ".join(f"{top:.1f}" for top in tops)
        print(f"| {way} | {shown} | {statistics.mean(tops):.1f} | {seconds:.1f} | {size} |", flush=True)


def one_run(folder: Path, way: str, cache: str, options: list[str], seed: int, epochs: int) -> dict[str, Any]:
    """Train one way with one seed, or read what is there."""
    run = folder / "runs" / f"{way.replace(',', '').replace(' ', '-')}-{seed}"
    vidxfer(
        "train", "--cache", folder / cache, "--recipe", "dist-toy", "--run", run,
        "--set", f"epochs={epochs}", "--set", f"evaluate_every_epochs={epochs}", "--set", f"seed={seed}", *options,
    )  # fmt: skip
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


if __name__ == "__main__":
    main()
