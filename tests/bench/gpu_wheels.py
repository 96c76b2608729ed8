"""Wheels for a machine without network that has torch: fetched here, unpacked there, and nothing is installed.

    python tests/bench/gpu_wheels.py [--folder wheels]        (or: make wheels)

Fetched are the files for Python 3.12 on Linux x86-64, in the versions of constraints.txt, each without what it needs in
turn: the list names all. Unpacked is only what the machine does not have. torchvision is not carried: it must fit the
torch that is there. av and decord are not carried: nothing here opens a video file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "wheels"
CARRIED = (
    "open_clip_torch", "ftfy", "wcwidth", "regex", "tqdm", "timm", "huggingface_hub", "PyYAML", "lightning-fabric",
    "lightning-utilities", "typing_extensions", "packaging", "zarr", "donfig", "numcodecs", "google-crc32c", "crc32c",
    "einops", "safetensors", "torchmetrics",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux1_x86_64")  # fmt: skip


def normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> list[str]:
    """Every carried distribution with its version of constraints.txt.

    Raises:
        SystemExit: one has no version there.
    """
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    known = {normal(line.partition("==")[0]): line for line in lines if not line.startswith("#")}
    if lacking := [name for name in CARRIED if normal(name) not in known]:
        raise SystemExit(f"constraints.txt has no version of {', '.join(lacking)}: add it, or do not carry it")
    return [known[normal(name)] for name in CARRIED]


def fetch(folder: Path) -> None:
    """Download what is not there yet, and say what there is."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version",
             "3.12", "--implementation", "cp", "--dest", str(folder)]  # fmt: skip
    subprocess.run([*words, *(f"--platform={name}" for name in PLATFORMS), *pinned()], check=True)
    files = sorted(folder.glob("*.whl"))
    for file in files:
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:6.2f} MB  in all, in {folder}")


def is_here(wheel: Path) -> bool:
    """Whether some version of the wheel's distribution is installed."""
    try:
        version(wheel.name.partition("-")[0])
    except PackageNotFoundError:
        return False
    return True


def unpacked(wheels: Path = WHEELS) -> list[Path]:
    """The folder with what was carried and is not installed, for sys.path; none where there is nothing to unpack."""
    lacking = [wheel for wheel in sorted(wheels.glob("*.whl")) if not is_here(wheel)]
    if not lacking:
        return []
    folder = Path(tempfile.mkdtemp(prefix="vidxfer-wheels-"))
    for wheel in lacking:
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
    return [folder]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=WHEELS, help="(wheels/, which git ignores)")
    fetch(parser.parse_args().folder)


if __name__ == "__main__":
    main()
