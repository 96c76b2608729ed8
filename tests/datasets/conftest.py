"""Small data sets on disk. The video files are empty words: nothing in this room opens a video."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LABELS = {
    "Lifting something up completely, then letting it drop down": "1",
    "Approaching something with your camera": "0",
    "Something falling like a rock": "2",
}
TRAIN = [
    {"id": "78687", "label": "approaching a cup", "template": "Approaching [something] with your camera"},
    {"id": "42326", "template": "Lifting [something] up completely, then letting it drop down"},
    {"id": "-7", "template": "[Something] falling like a rock"},
]
VALIDATION = [{"id": "1", "template": "[Something] falling like a rock"}]


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Make files below tmp_path; returns tmp_path."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"video")
        return tmp_path

    return make


@pytest.fixture
def ssv2_root(tmp_path: Path) -> Callable[..., Path]:
    """Write Something-Something V2 with three training videos; every part can be replaced."""

    def make(
        *,
        prefix: str = "",
        labels_in: str = "labels",
        videos_in: str = "20bn-something-something-v2",
        labels: Any = LABELS,
        train: Any = TRAIN,
        videos: tuple[str, ...] = ("78687.webm", "42326.webm", "-7.webm", "1.webm"),
    ) -> Path:
        for stem, value in {"labels": labels, "train": train, "validation": VALIDATION}.items():
            file = tmp_path / labels_in / f"{prefix}{stem}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        (tmp_path / videos_in).mkdir(exist_ok=True)
        for name in videos:
            (tmp_path / videos_in / name).write_bytes(b"video")
        return tmp_path

    return make
