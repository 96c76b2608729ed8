"""Decoding in child processes, so that one bad video costs itself and nothing else.

    submit(path, function, *args) ──▶ a free child runs it ──▶ its value, or its error
                                        ├── longer than the time limit   ──▶ killed: VideoError TOO_SLOW
                                        ├── more memory than the limit   ──▶ killed: VideoError OUT_OF_MEMORY
                                        ├── the process died (a segfault)──▶        VideoError CRASHED
                                        └── an error without a name      ──▶        VideoError UNEXPECTED
                                     and the next video gets a new child

A time limit inside Python cannot end a decoder that hangs in C, and nothing inside a process survives its segfault: a
process can do both. Children are started as commands, not forked, so that they hold neither threads, locks nor CUDA of
the parent, and may be had by processes that may have no `multiprocessing` children, as dask's workers. They import
what a task names and no more: PyAV, decord and NumPy take about 0.2 seconds and 60 MB.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, ParamSpec, Self, TypeVar

from vidxfer.pipeline.errors import VideoError, VideoReason, VidxferError
from vidxfer.pipeline.video.surprise import Surprises

P = ParamSpec("P")
T = TypeVar("T")
LOOK_SECONDS = 0.05
"""How often a child's memory is looked at: a decoder fills some 100 MB in that time."""

LAST_WORDS_BYTES = 4096
CHILD = "vidxfer.pipeline.video.guarded"
PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, kw_only=True)
class GuardLimits:
    """What one task may cost before its process is ended.

    Attributes:
        seconds: wall time of a task; above the cooperative `Limits.seconds` of opening plus reading, which name the
            cause better and so should act first.
        memory_bytes: resident memory of the child, libraries included. Address space is limited to twice that and a
            little, so that one huge allocation fails at once.
    """

    seconds: float = 150.0
    memory_bytes: int = 3 * 2**30


class Guard:
    """A few child processes that run functions for a limited time in limited memory; for `with`, or `close` it.

    Args:
        processes: tasks at the same time, one process each, started when first needed.
        limits: of each task.

    Attributes:
        peak_bytes: the most resident memory that any child was seen to have.
        restarts: how many children were ended, or found dead.
    """

    def __init__(self, processes: int = 2, limits: GuardLimits | None = None) -> None:
        self.limits = limits or GuardLimits()
        self.processes = max(1, processes)
        self.peak_bytes = self.restarts = 0
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._children: set[_Child] = set()
        self._lock, self._closed, self._process_id = threading.Lock(), False, os.getpid()
        self._surprises = Surprises()

    def submit(
        self, path: str | os.PathLike[str], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Run `function` in a child. It and its arguments are pickled: it must be importable there, by name.

        The result raises what the function raised, or a VideoError about `path`: TOO_SLOW, OUT_OF_MEMORY, CRASHED,
        UNEXPECTED; or UnforeseenError where that comes too often to be the videos' fault (surprise.py).
        """
        future: Future[T] = Future()
        task = _Task(path=path, message=pickle.dumps((function, args, kwargs), protocol=5), future=future)
        with self._lock:
            if self._closed:
                raise RuntimeError("the guard is closed")
            if len(self._threads) < self.processes:
                thread = threading.Thread(target=self._serve, name=f"guard-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._tasks.put(task)
        return future

    def close(self) -> None:
        """End the children; tasks that wait are cancelled, running ones fail."""
        if self._process_id != os.getpid():  # a fork's copy: the children are not its own
            return
        with self._lock:
            self._closed = True
            children = list(self._children)
        with contextlib.suppress(queue.Empty):
            while True:
                if task := self._tasks.get_nowait():
                    task.future.cancel()
        for child in children:
            child.process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        """One thread, one child at a time."""
        child: _Child | None = None
        while task := self._tasks.get():
            if not task.future.set_running_or_notify_cancel():
                continue
            try:
                child = child or self._start()
                if self._closed:
                    child.process.kill()
            except VidxferError as error:
                task.future.set_exception(error)
                continue
            if not self._run(child, task):
                child = None
        if child is not None:
            self._stop(child)

    def _start(self) -> _Child:
        child = _Child(self.limits)
        with self._lock:
            self._children.add(child)
        return child

    def _stop(self, child: _Child) -> None:
        child.end()
        with self._lock:
            self._children.discard(child)

    def _run(self, child: _Child, task: _Task) -> bool:
        """Run a task to its end; returns whether the child is still good."""
        good = False
        try:
            answer = self._answer(child, task)
        except VideoError as error:
            task.future.set_exception(error)
        else:
            good = child.resident_bytes() < self.limits.memory_bytes // 2
            value = pickle.loads(answer)
            with self._lock:
                surprise = self._surprises.error_of(value, task.path)
            if surprise is None:
                task.future.set_result(value)
            else:
                task.future.set_exception(surprise)
                good = good and isinstance(value, VidxferError | MemoryError)  # after any other nothing is certain
        if not good:
            self._stop(child)
            with self._lock:
                self.restarts += 1
        return good

    def _answer(self, child: _Child, task: _Task) -> bytes:
        """What the child sends back.

        Raises:
            VideoError: it did not, for the reason named.
        """
        deadline = time.monotonic() + self.limits.seconds
        try:
            child.pipe.send_bytes(task.message)
            while not child.pipe.poll(LOOK_SECONDS):
                used = child.resident_bytes()
                self.peak_bytes = max(self.peak_bytes, used)
                if used > self.limits.memory_bytes:
                    detail = f"reading it took {used / 1e9:.2f} GB, more than {self.limits.memory_bytes / 1e9:.2f} GB"
                    raise VideoError(VideoReason.OUT_OF_MEMORY, task.path, f"{detail}; its process was ended")
                if time.monotonic() > deadline:
                    detail = f"not done after {self.limits.seconds:g} seconds; its process was ended"
                    raise VideoError(VideoReason.TOO_SLOW, task.path, detail)
            self.peak_bytes = max(self.peak_bytes, child.resident_bytes())
            return child.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise VideoError(VideoReason.CRASHED, task.path, child.last_words()) from error


def shared_guard(processes: int, limits: GuardLimits | None = None) -> Guard:
    """The process's own guard of that size, closed when the process ends: children outlive a shard that way."""
    return _shared(processes, limits or GuardLimits(), os.getpid())


@cache
def _shared(processes: int, limits: GuardLimits, process_id: int) -> Guard:
    """One per process, because threads do not cross a fork."""
    guard = Guard(processes, limits)
    atexit.register(guard.close)
    return guard


@dataclass(frozen=True, kw_only=True)
class _Task:
    path: str | os.PathLike[str]
    message: bytes
    future: Future[Any]


class _Child:
    """A process that waits for functions at the other end of a socket."""

    def __init__(self, limits: GuardLimits) -> None:
        ours, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD, str(theirs.fileno()), str(2 * limits.memory_bytes + 2**30)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's to answer
            )
        self.pipe = Connection(ours.detach())
        try:
            self.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            words = self.last_words()
            self.end()
            raise VidxferError(
                f"no process to decode in could be started: {words}. With --decode-in threads none is needed; then a "
                "video on which the decoder hangs or crashes stops the run."
            ) from error

    def resident_bytes(self) -> int:
        """Resident memory; 0 where the system does not tell or the process has ended."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
        except (OSError, IndexError):
            return 0

    def last_words(self) -> str:
        """How the process ended, with the last line it wrote."""
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "its process closed its pipe"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(max(0, os.fstat(self._stderr.fileno()).st_size - LAST_WORDS_BYTES))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the process that read it died, {how}" + (f": {lines[-1][:200]}" if lines else "")

    def end(self) -> None:
        """Kill it if need be, and give back what it held."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self._stderr.close()
