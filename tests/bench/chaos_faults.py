"""Faults other than a kill: a disk that is full or cannot be written, a second extraction, bit flips, missing files, a
cache that moved, a scheduler that is lost. Each gives a row: what was done, what the user sees, what was lost.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.store import open_split
from vidxfer.stages.settings import ExtractRequest

Row = tuple[str, str, str]
FLIPS = 100
VIDXFER = Path(sys.executable).with_name("vidxfer")


@dataclass(frozen=True, kw_only=True)
class World:
    """A small data set, a tiny CLIP, and the request that extracts it."""

    folder: Path
    request: ExtractRequest

    def words(self, cache: Path) -> list[str]:
        """The request as a command line."""
        made = self.request
        return ["extract", "--root", str(made.data.root), "--model", made.clip.model, "--cache", str(cache),
                "--split", "train", "--dense-frames", "8", "--views", "2", "--shard-videos", "3", "--device", "cpu",
                "--calibration-videos", "4", "--batch-frames", "8", "--decode-threads", "1", "--decode-in", "threads",
                "--json"]  # fmt: skip

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and the message of a command."""
        done = subprocess.run([str(VIDXFER), *words], capture_output=True, text=True, timeout=300)
        return done.returncode, self.message(done.stderr + done.stdout)

    def message(self, text: str) -> str:
        """What it says at the end, without this run's folders."""
        named = re.compile(r"^(damaged: |The cache is whole|[A-Z]\w+(Error|Busy|Full|Corrupt|Mismatch|Incomplete): )")
        said = [line for line in text.splitlines() if named.match(line)]
        plain = " ".join(said[-2:]).replace(str(self.folder), "…")
        return plain.replace("|", "/")[:600]

    def start(self, cache: Path, *more: str) -> subprocess.Popen[str]:
        """An extraction that runs on; returns when its first shard is finished."""
        words = [str(VIDXFER), *self.words(cache), *more]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ledger = cache / "train.ledger.jsonl"
        while process.poll() is None and not (ledger.is_file() and ledger.stat().st_size):
            time.sleep(0.001)
        return process

    def content(self, cache: Path) -> dict[str, Any]:
        """Every array file by its name, and every ledger record without its time."""
        split = open_split(cache, "train")
        found: dict[str, Any] = {
            str(path.relative_to(split.path)): path.read_bytes()
            for path in sorted(split.path.rglob("*")) if path.is_file() and path != split.path / "zarr.json"
        }  # fmt: skip
        found["ledger"] = {shard: replace(one, seconds=0.0) for shard, one in split.ledger.finished().items()}
        return found

    def copy(self, name: str) -> Path:
        """A copy of the undisturbed cache, made the first time."""
        calm = self.folder / "calm-for-faults"
        if not calm.exists():
            code, said = self.run(*self.words(calm))
            assert code == 0, said
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(calm, target))

    def lost(self, cache: Path) -> str:
        """After the same command was run again: is all there?"""
        code, said = self.run(*self.words(cache))
        same = code == 0 and self.content(cache) == self.content(self.folder / "calm-for-faults")
        return "nothing: the same command ends with equal content" if same else f"DIFFERENT ({code}: {said})"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(world: World) -> Row:
    """Refused before the first byte where it is known; full in the middle where something else fills it."""
    world.copy("unused")
    disk = world.folder / "disk"
    with small_disk(disk, "300k"):
        before, said = world.run(*world.words(disk / "zarr"))
        nothing = not any(disk.iterdir())
    with small_disk(disk, "40m"):
        process = world.start(disk / "zarr")
        process.send_signal(signal.SIGSTOP)
        with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate()
        (disk / "ballast").unlink(missing_ok=True)
        lost = world.lost(disk / "zarr")
    seen = f"too small: exit {before}, nothing written: {nothing}: {said}"
    seen += f"<br>full in the middle: exit {process.returncode}: {world.message(err + out)}"
    return "full disk (tmpfs)", seen, lost


def read_only(world: World) -> Row:
    """Extraction says so; reading goes on."""
    disk = world.folder / "disk"
    source = world.copy("whole")
    with small_disk(disk, "60m"):
        shutil.copytree(source, disk / "zarr")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, said = world.run(*world.words(disk / "zarr"))
        new, also = world.run(*world.words(disk / "new"))
        checked, whole = world.run("cache", "verify", "--cache", str(disk / "zarr"))
    seen = f"extract: exit {code}: {said}<br>into a new folder: exit {new}: {also}<br>verify: exit {checked}: {whole}"
    return "read-only disk", seen, "nothing: the cache verifies"


def second_extract(world: World) -> Row:
    """The second one is refused and names the first; the first ends undisturbed."""
    world.copy("unused")
    cache = world.folder / "twice"
    shutil.rmtree(cache, ignore_errors=True)
    first = world.start(cache)
    first.send_signal(signal.SIGSTOP)  # so that it is still there when the second has started
    code, said = world.run(*world.words(cache))
    first.send_signal(signal.SIGCONT)
    first.communicate()
    seen = (
        f"second: exit {code}: {re.sub(r'pid [0-9]+ on [^ ]+', 'pid … on …', said)}<br>first: exit {first.returncode}"
    )
    return "a second extract on the same cache", seen, world.lost(cache)


def deleted_shard(world: World) -> Row:
    """A file of a finished shard is gone."""
    return _file_fault(world, "a deleted shard", lambda path: path.unlink())


def truncated_shard(world: World) -> Row:
    """A file of a finished shard ends too early."""
    return _file_fault(world, "a truncated shard", lambda path: os.truncate(path, path.stat().st_size // 2))


def _file_fault(world: World, name: str, harm: Callable[[Path], None]) -> Row:
    cache = world.copy("harmed")
    split = open_split(cache, "train")
    harm(split.path / split.layout.owned["tokens"].key(4))
    code, said = world.run("cache", "verify", "--cache", str(cache))
    run = world.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    trained, trains = world.run("train", "--cache", str(cache), "--recipe", "dist-toy", "--run", str(run), "--device",
                                "cpu", "--set", "epochs=1", "--set", "warmup_epochs=0")  # fmt: skip
    seen = f"verify: exit {code}: {said}<br>train: exit {trained}: {trains}"
    return name, seen, world.lost(cache)


def moved(world: World) -> Row:
    """The cache lies in another folder than the one it was made in."""
    cache = world.copy("before")
    there = world.folder / "after" / "a move"
    shutil.rmtree(there.parent, ignore_errors=True)
    there.parent.mkdir()
    cache.rename(there)
    code, said = world.run("cache", "verify", "--cache", str(there))
    return "a cache moved to another folder", f"verify: exit {code}: {said}", world.lost(there)


def lost_scheduler(world: World) -> Row:
    """The scheduler of a cluster is killed in the middle; scheduler and workers are started again."""
    world.copy("unused")
    cache = world.folder / "lost"
    shutil.rmtree(cache, ignore_errors=True)

    @contextmanager
    def cluster(number: int) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
        file = world.folder / f"scheduler-{number}.json"
        file.unlink(missing_ok=True)
        both = ["--scheduler-file", str(file), "--no-dashboard"]
        words = {
            "dask_scheduler": [*both, "--port", "0", "--host", "127.0.0.1"],
            "dask_worker": [*both, "--nthreads", "1", "--resources", "GPU=1", "--memory-limit", "0"],
        }
        running = [
            subprocess.Popen([sys.executable, "-m", f"distributed.cli.{name}", *words[name]], start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for name in ("dask_scheduler", "dask_worker")
        ]  # fmt: skip
        try:
            while not file.is_file():
                time.sleep(0.05)
            yield file, running
        finally:
            for process in running:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    with cluster(1) as (file, running):
        leader = world.start(cache, "--scheduler-file", str(file))
        finished = (cache / "train.ledger.jsonl").read_bytes().count(b"\n")
        os.killpg(running[0].pid, signal.SIGKILL)
        out, err = leader.communicate(timeout=300)
    with cluster(2) as (file, _):
        code, said = world.run(*world.words(cache), "--scheduler-file", str(file))
    seen = f"exit {leader.returncode} after {finished} of 12 shards: {world.message(err + out)}"
    again = f"<br>restarted, same command: exit {code} {said}"
    return "a scheduler lost and restarted", re.sub(r"tcp://[0-9.:]+", "tcp://…", seen + again), world.lost(cache)


def bit_flips(world: World) -> Row:
    """One bit at a time, half of them drawn by bytes, half by files; who finds it?"""
    cache = world.copy("flipped")
    files = sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    drawn = random.Random(11)
    places = []
    for number in range(FLIPS):
        weights = [path.stat().st_size if number % 2 else 1 for path in files]
        path = drawn.choices(files, weights)[0]
        places.append((str(path), drawn.randrange(path.stat().st_size), 1 << drawn.randrange(8)))
    plan = world.folder / "flips.json"
    plan.write_text(json.dumps({"cache": str(cache), "places": places}))
    found: dict[str, list[bool]] = {}
    for reader in ("verify", "vidxfer", "zarr-python", "zarrs", "zarrs, chunk by chunk"):
        script = Path(__file__).with_name("chaos_flips.py")
        done = subprocess.run([sys.executable, str(script), str(plan), reader], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[reader] = json.loads(done.stdout)
    missed = sorted({Path(places[i][0]).relative_to(cache).as_posix() for i in range(FLIPS) if not found["verify"][i]})
    in_arrays = [i for i, (path, *_) in enumerate(places) if "/c/" in path]
    seen = "; ".join(
        f"{reader}: {sum(hits)} of {FLIPS}, in array data {sum(hits[i] for i in in_arrays)} of {len(in_arrays)}"
        for reader, hits in found.items()
    )
    return f"{FLIPS} random bit flips, one at a time", f"found by {seen}", f"not found by verify: {missed or 'none'}"


FAULTS: dict[str, Callable[[World], Row]] = {
    "full": full_disk, "read-only": read_only, "second": second_extract, "flips": bit_flips,
    "deleted": deleted_shard, "truncated": truncated_shard, "moved": moved, "scheduler": lost_scheduler,
}  # fmt: skip
