"""The guard: what hangs, grows or crashes costs one video, says so, and the next one is read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason, VidxferError
from vidxfer.pipeline.video import guard as module
from vidxfer.pipeline.video.guard import Guard, GuardLimits


def refused(future) -> VideoError:
    with pytest.raises(VideoError) as caught:
        future.result(30)
    return caught.value


def test_values_and_errors_come_back_as_they_are():
    with Guard(processes=2) as guard:
        big = np.arange(3_000_000, dtype=np.uint8)
        sums = [guard.submit("a.mp4", np.add, big, number) for number in range(4)]
        assert all(np.array_equal(future.result(30), big + number) for number, future in enumerate(sums))
        with pytest.raises(SystemExit):
            guard.submit("a.mp4", sys.exit, 3).result(30)
        assert guard.submit("a.mp4", divmod, 7, 2).result(30) == (3, 1)


def test_a_hang_is_ended_and_named_and_the_next_video_is_read():
    with Guard(processes=1, limits=GuardLimits(seconds=0.3)) as guard:
        began = time.monotonic()
        error = refused(guard.submit("slow.mp4", time.sleep, 60))
        assert time.monotonic() - began < 5
        assert (error.reason, error.path) == (VideoReason.TOO_SLOW, "slow.mp4")
        assert error.detail == "not done after 0.3 seconds; its process was ended"
        assert guard.submit("good.mp4", abs, -3).result(30) == 3
        assert guard.restarts == 1


def test_a_crash_is_named_with_its_signal():
    with Guard(processes=1) as guard:
        error = refused(guard.submit("bad.mp4", os.abort))
        assert error.reason == VideoReason.CRASHED
        assert "SIGABRT" in error.detail
        error = refused(guard.submit("bad.mp4", signal.raise_signal, signal.SIGSEGV))
        assert "SIGSEGV" in error.detail
        assert refused(guard.submit("bad.mp4", os._exit, 7)).detail == "the process that read it died, exit code 7"
        assert guard.submit("good.mp4", abs, -3).result(30) == 3


def test_memory_beyond_the_limit_is_named_whether_it_is_filled_or_only_asked_for():
    limits = GuardLimits(memory_bytes=300 * 2**20)
    with Guard(processes=1, limits=limits) as guard:
        asked = refused(guard.submit("wide.mp4", bytearray, 2**40))
        filled = refused(guard.submit("fat.mp4", np.tile, np.ones(2**20, np.uint8), 1100))
        assert asked.reason == filled.reason == VideoReason.OUT_OF_MEMORY
        assert guard.submit("good.mp4", abs, -3).result(30) == 3
        assert guard.peak_bytes > limits.memory_bytes


def test_children_load_no_torch_for_decoding():
    code = "import vidxfer.pipeline.video.reader, vidxfer.pipeline.draw, av, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_signals_to_a_whole_job_do_not_make_a_good_video_bad():
    with Guard(processes=1) as guard:
        running = guard.submit("good.mp4", time.sleep, 0.5)
        while not (children := list(guard._children)):
            time.sleep(0.01)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            children[0].process.send_signal(number)
        assert running.result(30) is None


def test_children_end_with_a_parent_that_was_killed(tmp_path):
    code = (
        "import time, sys\nfrom vidxfer.pipeline.video.guard import Guard\nguard = Guard(processes=1)\n"
        "guard.submit('x', time.sleep, 60)\nwhile not guard._children: time.sleep(0.01)\n"
        "print(list(guard._children)[0].process.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_that_cannot_start_is_no_fault_of_the_video(monkeypatch):
    monkeypatch.setattr(module, "CHILD", "vidxfer.no_such_module")
    with Guard(processes=1) as guard:
        with pytest.raises(VidxferError, match=r"no process to decode in could be started.*no_such_module") as caught:
            guard.submit("good.mp4", abs, -3).result(30)
        assert not isinstance(caught.value, VideoError)


def test_a_closed_guard_takes_nothing_and_cancels_what_waits():
    guard = Guard(processes=1)
    running, waiting = guard.submit("a", time.sleep, 30), guard.submit("b", time.sleep, 30)
    while not guard._children:
        time.sleep(0.01)
    guard.close()
    assert running.exception(10) is not None
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        guard.submit("c", abs, 1)
