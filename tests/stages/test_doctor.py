"""`vidxfer doctor`: the samples show what each way to frames does, and what is missing is said with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vidxfer.cli.main import FAILED, OK, app
from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video import samples
from vidxfer.pipeline.video.backends import BACKENDS, read_with
from vidxfer.pipeline.video.guard import Guard
from vidxfer.stages import doctor as module
from vidxfer.stages.doctor import ASKED, LIBRARIES, SampleCheck, check_library, check_sample, loaded_version

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def checked() -> dict[str, SampleCheck]:
    with Guard(2) as guard:
        return {name: check_sample(guard, samples.FOLDER / name, met) for name, met in samples.SAMPLES.items()}


def test_samples_are_small_and_all_named():
    found = {path.name: path.stat().st_size for path in samples.FOLDER.iterdir()}
    assert set(found) == set(samples.SAMPLES)
    assert sum(found.values()) < 200_000


def test_frames_say_their_numbers_and_other_pictures_say_none():
    frames = samples.drawn()
    assert [samples.number_of(picture) for picture in frames] == list(range(samples.FRAMES))
    assert samples.number_of(frames[3][::-1]) != 3
    assert samples.number_of(np.full_like(frames[0], 90)) is None
    assert samples.number_of(frames[0][:, :90]) is None


def test_the_chosen_way_reads_every_sample_right(checked):
    assert {name: one.by["auto"] for name, one in checked.items()} == dict.fromkeys(samples.SAMPLES, "right")
    assert all(one.right for one in checked.values())
    assert {one.by["pyav-sequential"] for one in checked.values()} == {"right"}
    assert {one.used for one in checked.values()} == {"pyav-sequential"}


def test_decord_alone_gives_wrong_frames_of_an_avi(checked):
    pytest.importorskip("decord")
    assert checked["mpeg4_b_frames.avi"].by["decord"].startswith("wrong frames: ")
    assert checked["av1.mp4"].by["decord"] not in ("right", "")


def test_a_sample_that_is_damaged_or_lacks_frames_is_not_right(tmp_path):
    other = tmp_path / "other.webm"
    shutil.copy(samples.FOLDER / "vp9.webm", other)
    other.write_bytes(other.read_bytes()[:-100])
    with Guard(1) as guard:
        one = check_sample(guard, other, "nowhere")
    assert not one.right
    assert "cut off" in one.by["auto"]


@pytest.mark.parametrize("backend", BACKENDS[2:])
def test_backends_agree_on_all_frames(backend):
    path = samples.FOLDER / "rotated.mp4"
    assert np.array_equal(read_with(backend, path), read_with("auto", path))
    assert np.array_equal(read_with(backend, path, ASKED), read_with("auto", path)[list(ASKED)])
    with pytest.raises(ValueError, match="none of auto, decord"):
        read_with("opencv", path)


def test_a_missing_library_is_said_with_its_remedy():
    assert loaded_version("zarr", "no_such_module") == (None, "not installed: No module named 'no_such_module'")
    assert loaded_version("numpy", "numpy") == (version("numpy"), None)
    loading: Future[tuple[str | None, str | None]] = Future()
    loading.set_result((None, "not installed: No module named 'zarr'"))
    missing = check_library("zarr", loading)
    assert missing.needed
    assert (missing.problem, missing.version) == ("not installed: No module named 'zarr'", None)
    assert missing.remedy == "pip install --force-reinstall zarr"
    dying: Future[tuple[str | None, str | None]] = Future()
    dying.set_exception(VideoError(VideoReason.CRASHED, "decord", "it died, SIGSEGV"))
    died = check_library("decord", dying)
    assert (died.needed, died.problem) == (False, "it died, SIGSEGV")
    assert "PyAV reads everything" in str(died.remedy)
    assert all(purpose for _, purpose, _ in LIBRARIES.values())


def test_jpeg_frames_that_come_back_wrong_are_said(monkeypatch):
    assert module.jpeg_frames() == "right"
    monkeypatch.setattr(module, "drawn", lambda: samples.drawn()[::-1])
    assert module.jpeg_frames() == "wrong pictures on cpu"


@pytest.mark.slow
def test_a_wheel_brings_the_package_and_the_samples(tmp_path):
    source = tmp_path / "source"
    beside = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "demo*", "runs", "zarr")
    shutil.copytree(ROOT, source, ignore=lambda folder, names: beside(folder, names) if folder == str(ROOT) else set())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if "No module named 'setuptools" in done.stderr or "Cannot import 'setuptools" in done.stderr:
        pytest.skip("no build backend is installed here")
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for name in samples.SAMPLES:
        assert f"vidxfer/pipeline/video/samples/{name}" in names
    assert {"vidxfer/__init__.py", "vidxfer/py.typed", "vidxfer/stages/library/opened.py"} <= set(names)
    assert not any("stages/public" in name for name in names), "the package has one name"
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "installed")
    code = "import vidxfer, vidxfer.pipeline.errors as e\n"
    code += "print(vidxfer.__file__, e.__file__, vidxfer.UsageError is e.UsageError)"
    there = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=there, capture_output=True, text=True)
    here = tmp_path / "installed/vidxfer"
    assert done.stdout.split() == [f"{here}/__init__.py", f"{here}/pipeline/errors.py", "True"], done.stderr


def test_the_command_exits_with_1_when_something_needed_is_missing(monkeypatch):
    kept = {name: LIBRARIES[name] for name in ("av", "pillow", "decord")}
    monkeypatch.setattr(module, "LIBRARIES", kept)
    well = CliRunner().invoke(app, ["doctor", "--json"])
    assert well.exit_code == OK
    report = json.loads(well.stdout)
    assert report["well"]
    assert report["jpeg"] == "right"
    assert report["libraries"][0]["version"].split(".")[0].isdigit()
    monkeypatch.setattr(module, "LIBRARIES", {**kept, "zarr": ("no_such_module", "the cache", True)})
    broken = CliRunner().invoke(app, ["doctor"])
    assert broken.exit_code == FAILED
    assert "missing: zarr: not installed: No module named 'no_such_module'" in broken.stdout
    assert broken.stdout.rstrip().endswith("Something that is needed does not work here.")
