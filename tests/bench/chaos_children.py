"""Children that are forked, waited for and killed: the tools of chaos.py."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

HUNG_SECONDS = 240
"""A run that takes longer than this counts as hung; it is ended, and the table says so."""


def in_child(work: Callable[[], Any]) -> int:
    """Start `work` in a child that leads a process group of its own; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            work()
        code = 0
    finally:
        os._exit(code)


def answer_of(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a child: threads that it starts must not be there when the next one forks."""
    read, write = os.pipe()

    def tell() -> None:
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(work(), pipe)

    pid = in_child(tell)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(pid, 0)
    if not raw:
        raise RuntimeError("a child ended without an answer")
    return pickle.loads(raw)


def left_behind(cache: Path) -> dict[str, int]:
    """What a kill left: part files and folders, sealed shards that wait for their mark, a torn line of the ledger."""
    ledger = cache / "train.ledger.jsonl"
    raw = ledger.read_bytes() if ledger.is_file() else b""
    # os.walk passes over folders that are renamed meanwhile: where a worker was killed, the others go on
    found = [Path(top) / name for top, folders, files in os.walk(cache) for name in [*folders, *files]]
    parts = [path for path in found if path.name.endswith(".part")]
    return {
        "parts": sum(path.is_file() for path in parts),
        "folders": sum(path.is_dir() for path in parts),
        "sealed": sum((path / "shard.json").is_file() for path in parts),
        "torn lines": int(bool(raw) and not raw.endswith(b"\n")),
        "lines": raw.count(b"\n"),
    }


def status_of(pid: int) -> int | None:
    """The exit code of a child; None where it had to be ended after `HUNG_SECONDS`."""
    end = time.monotonic() + HUNG_SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def wait_or_kill(pid: int, cache: Path, seconds: float, from_start: bool, whom: Callable[[], int | None]) -> bool:
    """Wait until the child ends or the time is up, then kill; whether something was killed.

    The time counts from the start of the process, or from the moment when it first changed something in the cache.
    """
    before, end = seen_in(cache), time.monotonic() + seconds if from_start else None
    while end is None or time.monotonic() < end:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
        if end is None and seen_in(cache) != before:
            end = time.monotonic() + seconds
        time.sleep(0.002)
    target = whom()
    if target is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(target, signal.SIGKILL)
    return True


def seen_in(cache: Path) -> tuple[set[str], int]:
    """What changes when a shard is begun or finished: names beside the split, and bytes of the ledger."""
    ledger = cache / "train.ledger.jsonl"
    names = {path.name for path in cache.iterdir()} if cache.is_dir() else set()
    return names - {"train.lock"}, ledger.stat().st_size if ledger.is_file() else 0


def a_worker(pid: int) -> int | None:
    """One of the leader's worker processes; None while there is none."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        found = [one.pid for one in children if "spawn_main" in " ".join(one.cmdline())]
        return random.choice(found) if found else None
    return None
