"""Small towers of every kind, made once for a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def folder_of(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small tower by its kind."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = small.write_tower(tmp_path_factory.mktemp("towers") / "tower", kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def tower_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """A small tower by its kind, loaded once, on the CPU in float32."""
    from vidxfer.pipeline.clip.load import load_tower

    loaded: dict[str, Any] = {}

    def tower(kind: str) -> Any:
        if kind not in loaded:
            loaded[kind] = load_tower(str(folder_of(kind)), device="cpu", precision="fp32")
        return loaded[kind]

    return tower
