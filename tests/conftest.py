"""Where golden vectors and real videos lie: VIDXFER_GOLDEN and VIDXFER_FIXTURES, else tests/, else ../shared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def _folder(variable: str, name: str) -> Path:
    named = os.environ.get(variable)
    if named is not None:
        if not Path(named).is_dir():
            pytest.fail(f"{variable}={named} is not a folder")
        return Path(named)
    for folder in (TESTS / name, TESTS.parent.parent / "shared" / name):
        if folder.is_dir():
            return folder
    pytest.skip(f"no {name} vectors on this machine: set {variable}")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of tensors made by running the official modules."""
    return _folder("VIDXFER_GOLDEN", "golden")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder of real videos, broken files and label lists."""
    return _folder("VIDXFER_FIXTURES", "fixtures")
