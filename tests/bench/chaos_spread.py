"""kill -9 at random moments of `vidxfer extract`, in one process and with two workers: nothing differs in the end.

    an extraction ─▶ killed ─▶ the same command ─▶ killed ─▶ … ─▶ finished ─▶ compared, byte by byte ─▶ the next one

Victims of a run with workers are, in turn by chance: the leading process, one worker, or everybody at once. A run in
one process has one victim. After each kill it is counted what lay there: shards half written, sealed, half moved in,
and lines of the ledger that were torn. Not a test of the suite: 100 kills take about half an hour.

    python tests/bench/chaos_spread.py --kills 100 --workers 2      and      --workers 0: one process
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

VIDXFER = Path(sys.executable).with_name("vidxfer")
TRAIN, VAL, SHARD = 48, 8, 2


def extract_words(world: Path, cache: Path) -> list[str]:
    """The command that is killed and run again."""
    words = ["extract", "--root", world / "ssv2", "--model", world / "clip", "--cache", cache, "--dense-frames", 16,
             "--views", 4, "--shard-videos", SHARD, "--calibration-videos", 8, "--batch-frames", 16]  # fmt: skip
    return [str(VIDXFER), *map(str, words)]


def make_world(folder: Path) -> None:
    """Videos and a tiny CLIP."""
    from vidxfer.pipeline.clip.tiny import write_tiny_clip
    from vidxfer.pipeline.datasets.toy_write import write_toy

    write_toy(folder / "ssv2", train_videos=TRAIN, val_videos=VAL)
    write_tiny_clip(folder / "clip", image_px=32, channels=64, blocks=3, embed=32)


def content(cache: Path) -> dict[str, str]:
    """Every file's hash; of a ledger the last line of each shard, without identity and times."""
    found = {}
    for file in sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"):
        name = str(file.relative_to(cache))
        if file.name.endswith(".ledger.jsonl"):
            last: dict[int, Any] = {}
            for line in map(json.loads, file.read_text().splitlines()):
                last[line["shard"]] = {k: v for k, v in line.items() if k not in ("cache_id", "seconds", "line_crc32c")}
            found[name] = json.dumps([last[shard] for shard in sorted(last)])
        elif file.name == "zarr.json" and file.parent.parent == cache:
            continue  # identity and time of making
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def torn(cache: Path) -> Counter[str]:
    """What a kill left behind."""
    found: Counter[str] = Counter()
    for folder in cache.glob(".*"):
        if folder.name.endswith(".commit"):
            found["shards half moved in"] += 1
        elif "-" in folder.name:
            found["shards sealed, not moved in" if (folder / "shard.json").exists() else "shards half written"] += 1
        else:
            found["splits half made"] += 1
    found["part files"] += sum(1 for path in cache.rglob("*.part") if path.is_file())
    for ledger in cache.glob("*.ledger.jsonl"):
        raw = ledger.read_bytes()
        found["torn ledger lines"] += raw != b"" and not raw.endswith(b"\n")
    return found


def lines(cache: Path) -> int:
    """Lines of all ledgers."""
    return sum(path.read_bytes().count(b"\n") for path in cache.glob("*.ledger.jsonl"))


def children(pid: int) -> list[int]:
    """Worker processes of a leading process, whichever of its threads started them; empty once it has gone."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return found


def is_worker(pid: int) -> bool:
    """Whether that is a worker process, and not a helper of multiprocessing."""
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def wait_for(true: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it came true before the process or the time ended."""
    end = time.monotonic() + seconds
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def kill_once(words: list[str], cache: Path, workers: int, chance: random.Random) -> tuple[str | None, int]:
    """Start the command and kill somebody; who it was, or None if it finished first, and the exit code."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    before = lines(cache)
    if chance.random() < 0.2:  # a fifth of the kills fall anywhere: start, calibration, making of the splits
        time.sleep(chance.uniform(0, 12 if workers else 6))
    else:
        wait_for(lambda: lines(cache) > before, process, 120)
        time.sleep(chance.expovariate(1 / 0.15))
    if process.poll() is not None:
        return None, process.returncode
    victims = chance.choice(["the leading process", "one worker", "everybody"]) if workers else "the process"
    mine = children(process.pid)
    if victims == "one worker":
        alive = [child for child in mine if is_worker(child)]
        if not alive:
            victims = "the leading process"
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(alive), signal.SIGKILL)
            return victims, process.wait(timeout=300)
    if victims == "everybody":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(is_worker(child) for child in mine):
        assert time.monotonic() < end, f"workers outlived their leading process: {mine}"
        time.sleep(0.01)
    return victims, -signal.SIGKILL


def main() -> None:
    """Kill until enough were killed, finish, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="0: one process")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    killed: Counter[str] = Counter()
    left: Counter[str] = Counter()
    extractions = differing = written = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vidxfer-chaos-") as name:
        folder = Path(name)
        make_world(folder)
        more = ["--workers", str(asked.workers), "--device", "cpu"] if asked.workers else ["--device", "cpu"]
        # One thread of arithmetic everywhere: floating-point sums then come out the same in every process.
        os.environ["OMP_NUM_THREADS"] = "1"
        subprocess.run([*extract_words(folder, folder / "calm"), "--device", "cpu"], check=True, capture_output=True)
        calm = content(folder / "calm")
        while sum(killed.values()) < asked.kills:
            cache = folder / f"rough-{extractions}"
            words = [*extract_words(folder, cache), *more]
            finished = False
            while not finished and sum(killed.values()) < asked.kills:
                victim, code = kill_once(words, cache, asked.workers, chance)
                if victim is not None:
                    killed[victim] += 1
                    left += torn(cache) if cache.is_dir() else Counter()
                finished = code == 0
            if not finished:
                subprocess.run(words, check=True, capture_output=True)
            found = content(cache)
            differing += found != calm
            written += lines(cache)
            extractions += 1
            print(
                f"{time.monotonic() - began:7.0f} s: {sum(killed.values())} kills, {extractions} extractions finished, "
                f"{differing} of them differ from the calm one",
                flush=True,
            )
            if found != calm:
                for key in sorted({*found, *calm}):
                    if found.get(key) != calm.get(key):
                        print(f"{key}:\n  calm  {calm.get(key)}\n  rough {found.get(key)}")
    print(f"kills: {dict(killed)}")
    print(f"found after them: {dict(left)}")
    print(f"ledger lines in the end: {written} for {extractions} extractions of {(TRAIN + VAL) // SHARD} shards")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
