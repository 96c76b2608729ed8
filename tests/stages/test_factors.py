"""Classes that are made of factors: a score per factor, from the data set through the cache to every report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.settings import DataSource

FACTORS = {"kind": tuple("aabbccdd"), "side": tuple("lrlrlrlr")}


@pytest.fixture
def cache(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of eight videos whose data set says what its eight classes are made of."""
    plain = DataSource.load
    monkeypatch.setattr(DataSource, "load", lambda self, split: replace(plain(self, split), factors=FACTORS))
    monkeypatch.chdir(tmp_path)
    extract(toy.request(tmp_path / "zarr", root=toy.smaller(tmp_path / "ssv2", 8)))
    return tmp_path / "zarr"


def test_factors_are_stored_and_change_no_fingerprint(cache: Path, toy: Any) -> None:
    assert open_split(cache, "train").factors == FACTORS
    data = DataSource(kind="ssv2", root=toy.root)
    assert data.load("train").factors == FACTORS
    assert data.load("train").fingerprint == open_split(toy.int8, "train").spec.dataset_fingerprint


def test_evaluate_and_compare_print_each_factor(cache: Path, invoke: Callable[..., Any]) -> None:
    trained = invoke("train", "--cache", cache, "--recipe", "probe", "--run", "runs/probe", "--set", "epochs=1",
                     "--set", "warmup_epochs=0", "--set", "batch_clips=4", "--json")  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    said = json.loads(trained.stdout)["score"]["factors"]
    shown = invoke("evaluate", "--cache", cache, "--run", "runs/probe")
    assert f"kind {said['kind']:.1%}, side {said['side']:.1%} (2 scored / 2 listed)" in shown.stdout
    assert json.loads(invoke("evaluate", "--cache", cache, "--run", "runs/probe", "--json").stdout)["score"][
        "factors"
    ] == pytest.approx(said)
    table = invoke("compare", "runs/probe", "--cache", cache).stdout
    for word in ("kind", "side", "25.0%", "50.0%"):  # chance: four kinds, two sides
        assert word in table
    line = json.loads((cache.parent / "runs/probe/predictions.val.jsonl").read_text().splitlines()[0])
    assert set(line) == {"id", "label", "label_name", "right", "top5", "top5_labels"}


def test_a_cache_without_factors_compares_as_before() -> None:
    old = Path(__file__).parent.parent / "cache/format1/int8"
    assert open_split(old, "train").factors == {}
    assert compare((), old).factor_chance == {}
