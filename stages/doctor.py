"""What works on this machine? Small videos are read in every way, every library is loaded, CLIP's device is tried.

    samples x (what is chosen, decord, PyAV by time stamp, PyAV in sequence) ─▶ right, wrong frames, or why not
    libraries, each in a child process ─▶ version, or what it said ─▶ what to install
    this process ─▶ CUDA ─▶ a small product on it

Each frame of a sample shows its own number, so a wrong frame is seen. All is well when the chosen way reads every
sample right and no needed library is missing. decord may be missing: it is used only where a person asks for it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidxfer.pipeline.errors import VideoError, VidxferError
from vidxfer.pipeline.video.backends import BACKENDS, read_with
from vidxfer.pipeline.video.guard import Guard, GuardLimits
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.samples import FOLDER, FRAMES, SAMPLES, drawn, number_of

ASKED = (2, 5, 9, 11)
"""Frames that are asked for: in several groups of pictures, so that seeking is tried."""

LIBRARIES = {
    "torch": ("torch", "training and CLIP", True),
    "torchvision": ("torchvision", "open_clip needs it", True),
    "open_clip_torch": ("open_clip", "CLIP", True),
    "timm": ("timm", "other image towers", True),
    "av": ("av", "reading videos", True),
    "pillow": ("PIL.Image", "frame folders", True),
    "zarr": ("zarr", "the cache", True),
    "numcodecs": ("numcodecs", "the cache", True),
    "crc32c": ("crc32c", "the cache", True),
    "distributed": ("distributed", "extraction on several devices", True),
    "lightning-fabric": ("lightning_fabric", "training", True),
    "torchmetrics": ("torchmetrics", "training", True),
    "safetensors": ("safetensors", "weights", True),
    "decord": ("decord", "--decoder decord", False),
    "dask-jobqueue": ("dask_jobqueue", "batch systems, extra slurm", False),
    "obstore": ("obstore", "caches behind a URL, extra remote", False),
    "pyarrow": ("pyarrow", "parquet lists, extra parquet", False),
    "matplotlib": ("matplotlib", "plots, extra plots", False),
}
"""Distribution -> what is imported, what it is for, whether nothing works without it."""

SECONDS, LIBRARY_BYTES = 120.0, 16 * 2**30
"""A first import on a slow disk takes its time; torch with CUDA maps many GB that it never uses."""


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """One sample.

    Attributes:
        name, met: the file, and where such files are met.
        by: backend -> "right", "wrong frames: 2 1 11 11", or why it cannot.
        used, why: the way chosen, and the reason.
        right: the chosen way gave the right frames, and as many as there are.
    """

    name: str
    met: str
    by: dict[str, str]
    used: str
    why: str
    right: bool


@dataclass(frozen=True, kw_only=True)
class LibraryCheck:
    """One library.

    Attributes:
        name: of the distribution.
        purpose: what vidxfer needs it for.
        needed: nothing works without it.
        version: None where it cannot be loaded.
        problem: why it cannot be loaded; None: it can.
        remedy: what to do about that.
    """

    name: str
    purpose: str
    needed: bool
    version: str | None
    problem: str | None
    remedy: str | None


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Everything that was tried.

    Attributes:
        well: extraction and training can run.
        machine, device: in a line each.
        jpeg: see `jpeg_frames`.
        samples, libraries: one each.
    """

    well: bool
    machine: str
    device: str
    jpeg: str
    samples: tuple[SampleCheck, ...]
    libraries: tuple[LibraryCheck, ...]


def doctor(folder: Path = FOLDER) -> DoctorReport:
    """Try everything; nothing is written. Takes some seconds, most of them to load the libraries.

    Args:
        folder: of the samples.
    """
    with Guard(2, GuardLimits(seconds=SECONDS, memory_bytes=LIBRARY_BYTES)) as guard:
        loading = {name: guard.submit(name, loaded_version, name, module) for name, (module, _, _) in LIBRARIES.items()}
        samples = tuple(check_sample(guard, folder / name, met) for name, met in SAMPLES.items())
        libraries = tuple(check_library(name, version) for name, version in loading.items())
    jpeg = jpeg_frames()
    whole = all(sample.right for sample in samples) and jpeg == "right"
    return DoctorReport(
        well=whole and not any(library.needed and library.problem for library in libraries),
        jpeg=jpeg,
        machine=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        device=device(),
        samples=samples,
        libraries=libraries,
    )


def check_library(name: str, loading: Future[tuple[str | None, str | None]]) -> LibraryCheck:
    """The check of one library that a child process has tried to load."""
    _, purpose, needed = LIBRARIES[name]
    try:
        version, problem = loading.result()
    except VideoError as error:  # the child died, or the library raised something of its own
        version, problem = None, error.detail
    remedy = None if problem is None else remedy_for(name)
    return LibraryCheck(name=name, purpose=purpose, needed=needed, version=version, problem=problem, remedy=remedy)


def loaded_version(name: str, module: str) -> tuple[str | None, str | None]:
    """Import a module: its distribution's version, or why it cannot be imported."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return None, f"not installed: {error}"
    except ImportError as error:
        return None, str(error)
    return importlib.metadata.version(name), None


def remedy_for(name: str) -> str:
    """What to do about a library that cannot be loaded."""
    if name == "decord" and not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return "nothing: it has no wheels for this machine, and PyAV reads everything"
    if name == "decord":
        return "pip install decord; without it PyAV reads everything, to the same frames"
    return f"pip install --force-reinstall {name}" if LIBRARIES[name][2] else f"pip install {name}, if it is wanted"


def check_sample(guard: Guard, path: Path, met: str) -> SampleCheck:
    """Read one sample by every backend, each time in a child process."""
    by = {}
    for backend in BACKENDS:
        try:
            numbers = guard.submit(path, numbers_by, backend, path).result()
        except (VidxferError, ValueError, OSError) as error:
            by[backend] = error.detail if isinstance(error, VideoError) else f"{type(error).__name__}: {error}"
        else:
            shown = " ".join("?" if number is None else str(number) for number in numbers)
            by[backend] = "right" if numbers == list(ASKED) else f"wrong frames: {shown}"
    try:
        used, why, frame_count = guard.submit(path, chosen, path).result()
    except VideoError as error:
        used, why, frame_count = "-", error.detail, 0
    return SampleCheck(
        name=path.name, met=met, by=by, used=used, why=why, right=by["auto"] == "right" and frame_count == FRAMES
    )


def numbers_by(backend: str, path: Path) -> list[int | None]:
    """The numbers that the asked frames show."""
    return [number_of(picture) for picture in read_with(backend, path, ASKED)]


def chosen(path: Path) -> tuple[str, str, int]:
    """(path chosen, why, number of frames)."""
    with open_video(path) as source:
        frames = source.read(ASKED)
        return frames.decoder, source.why, source.frame_count


def jpeg_frames() -> str:
    """Write frames as JPEG, as a cache does, and decode them on the device of training: "right", or what is wrong."""
    try:
        import torch

        from vidxfer.pipeline.video.jpeg import decode_frames, encode_frames
    except (ImportError, OSError) as error:
        return f"cannot be decoded: {type(error).__name__}: {error}"
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files, _ = encode_frames(drawn(), quality=90, subsampling="4:4:4", most_bytes=100_000)
    try:
        decoded = decode_frames([np.frombuffer(file, np.uint8) for file in files], where)
    except RuntimeError as error:
        return f"cannot be decoded on {where}: {error}"
    pictures = decoded.permute(0, 2, 3, 1).cpu().numpy()
    numbers = [number_of(picture) for picture in pictures]
    return "right" if numbers == list(range(FRAMES)) else f"wrong pictures on {where}"


def device() -> str:
    """What CLIP and training would run on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"unknown: torch cannot be loaded ({error})"
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        seen = f"no CUDA device is seen by torch {torch.__version__}, built {built}"
        return f"CPU, {torch.get_num_threads()} threads; {seen}"
    names = []
    for number in range(torch.cuda.device_count()):
        try:
            ones = torch.ones(256, 256, device=f"cuda:{number}")
            works = "works" if float((ones @ ones)[0, 0]) == 256 else "gives wrong products"
        except RuntimeError as error:  # a driver or an architecture that this torch was not built for
            works = f"cannot be used: {str(error).splitlines()[0]}"
        total = torch.cuda.get_device_properties(number).total_memory
        names.append(f"cuda:{number} {torch.cuda.get_device_name(number)}, {total / 1e9:.0f} GB, {works}")
    return "; ".join(names)
