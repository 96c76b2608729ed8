"""Hostile files: each comes to a typed reason or to its frames, in bounded time and memory, and the run goes on."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.examine import examine
from vidxfer.pipeline.video.guard import Guard, GuardLimits

from .conftest import decoded_in_sequence
from .hostile_files import Case, hostile, millions, moving, patched
from .hostile_files import number as four_bytes

SECONDS, MEMORY_BYTES = 60.0, 700 * 2**20


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return hostile(tmp_path_factory.mktemp("hostile"))


def outcome(guard: Guard, path) -> str:
    video = Video(id="x", path=path, label=None, split="val")
    try:
        guard.submit(path, examine, video).result(120)
    except VideoError as error:
        return error.reason.value
    return "read"


def test_every_hostile_file_comes_to_what_is_expected_and_the_next_is_read(cases):
    with Guard(1, GuardLimits(seconds=SECONDS, memory_bytes=MEMORY_BYTES)) as guard:
        found = {case.path.name: outcome(guard, case.path) for case in cases}
        assert found == {case.path.name: case.expected for case in cases}
        assert guard.restarts == 0
        assert outcome(guard, cases[0].path) == "read"
    assert guard.peak_bytes < MEMORY_BYTES


def test_headers_that_lie_about_their_length_change_no_frame(cases):
    from vidxfer.pipeline.video.reader import open_video

    reference = decoded_in_sequence(cases[0].path)
    lying = [case for case in cases if (case.expected == "read" and "seconds" in case.what) or "hours" in case.what]
    assert len(lying) == 2
    for case in lying:
        with open_video(case.path) as source:
            assert np.array_equal(source.read(range(50)).pixels, reference)


def test_a_decoder_that_fills_memory_is_ended_and_named(cases, tmp_path):
    path = tmp_path / "many.mp4"
    path.write_bytes(millions(cases[0].path.read_bytes(), 20_000_000))
    os.truncate(path, 21_000_000)  # so that every frame that its tables name lies inside the file
    with Guard(1, GuardLimits(memory_bytes=300 * 2**20)) as guard:
        began = time.monotonic()
        assert outcome(guard, path) == VideoReason.OUT_OF_MEMORY
        assert time.monotonic() - began < SECONDS
        assert outcome(guard, cases[0].path) == "read"
        assert guard.restarts == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_file_with_random_bytes_changed_is_read_or_refused(cases, tmp_path, seed):
    """Half of the changes fall into headers and tables, where sizes and counts stand."""
    rng, good = np.random.default_rng(seed), cases[0].path.read_bytes()
    header = good.index(b"moov")
    with Guard(1, GuardLimits(seconds=20, memory_bytes=MEMORY_BYTES)) as guard:
        found = []
        for trial in range(12):
            path, data = tmp_path / f"{trial}.mp4", bytearray(good)
            for at in rng.integers(header if trial % 2 else 0, len(good), 4):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            found.append(outcome(guard, path))
    assert set(found) <= {"read", *VideoReason}
    assert {VideoReason.CRASHED, VideoReason.TOO_SLOW}.isdisjoint(found)


def test_patches_change_what_they_name():
    data = b"....stsz" + bytes(12)
    assert patched(data, b"stsz", 4, four_bytes(258)) == b"....stsz" + bytes(4) + b"\0\0\1\2" + bytes(4)
    assert moving(4).shape == (4, 64, 96, 3)
