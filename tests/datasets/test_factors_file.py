"""class_factors.json beside any data set: what a class is made of, by class name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/open door/a.mp4", "train/close door/b.mp4", "val/open door/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"video")
    return tmp_path


def write(root: Path, value: object) -> None:
    (root / "class_factors.json").write_text(value if isinstance(value, str) else json.dumps(value))


VERBS = {"open door": "open", "close door": "close"}


def test_values_follow_the_order_of_the_classes_and_change_no_fingerprint(root: Path) -> None:
    before = load_dataset("folder", root, "train")
    assert before.factors == {}
    write(root, {"verb": {**VERBS, "a class of no video": "sit"}, "noun": dict.fromkeys(VERBS, "door")})
    found = load_dataset("folder", root, "train")
    assert found.class_names == ("close door", "open door")
    assert found.factors == {"verb": ("close", "open"), "noun": ("door", "door")}
    assert found.fingerprint == before.fingerprint
    assert load_dataset("folder", root, "val").factors == found.factors


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", r"class_factors\.json:1:2: not JSON"),
        (["verb"], r'expected \{"factor": \{"class name": "value"'),
        ({"verb": ["open", "close"]}, "Mend it, or delete it"),
        ({"verb": {"open door": 1, "close door": 2}}, "expected"),
        ({"verb": {"open door": "open"}}, "'verb' has no value for 'close door', 1 of 2 classes. Add them, or delete"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error_that_says_what_to_do(root: Path, value: object, message: str) -> None:
    write(root, value)
    with pytest.raises(DatasetError, match=message):
        load_dataset("folder", root, "train")
