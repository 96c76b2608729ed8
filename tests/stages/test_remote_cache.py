"""Training, scoring and looking at a cache behind a URL; extraction needs a folder and says so at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.extract import extract


@pytest.fixture(scope="module")
def url(toy: Any) -> str:
    """The toy world's int8 cache in fsspec's memory, which only this process sees."""
    memory = fsspec.filesystem("memory")
    for path in sorted(p for p in toy.int8.rglob("*") if p.is_file()):
        memory.pipe(f"/toy/{path.relative_to(toy.int8)}", path.read_bytes())
    return "memory://toy"


def test_a_cache_behind_a_url_is_trained_on_scored_and_shown(url: str, toy: Any, tmp_path: Path, invoke: Any) -> None:
    words = ["--recipe", "probe", "--set", "epochs=2", "--set", "warmup_epochs=1", "--set", "batch_clips=8"]
    scores = {}
    for name, cache in (("near", toy.int8), ("far", url)):
        run = tmp_path / name
        done = invoke("train", "--cache", cache, "--run", run, *words, "--device", "cpu")
        assert done.exit_code == 0, done.output
        assert invoke("evaluate", "--cache", cache, "--run", run, "--device", "cpu").exit_code == 0
        scores[name] = (run / "predictions.val.jsonl").read_text()
        assert invoke("compare", run, "--cache", cache).exit_code == 0
    assert scores["far"] == scores["near"]
    assert Run.open(tmp_path / "far").made_from["cache"] == url
    shown = invoke("cache", "info", "--cache", url, "--json")
    assert shown.exit_code == 0
    assert '"path": "memory://toy/train"' in shown.stdout


def test_dist_reads_its_layers_and_dense_frames_with_a_cache_behind_a_url(
    url: str, toy: Any, tmp_path: Path, invoke: Any
) -> None:
    settings = [word for one in toy.settings() for word in ("--set", one)]
    for cache in (toy.int8, url):
        done = invoke("train", "--cache", cache, "--run", tmp_path / str(cache)[-3:], "--recipe", "dist-toy", *settings)
        assert done.exit_code == 0, done.output
    near, far = (Run.open(tmp_path / name).result() for name in ("nt8", "toy"))
    assert near is not None
    assert far is not None
    assert near["score"] == far["score"]


def test_extraction_to_a_url_is_refused_before_anything_is_done(toy: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match="memory://new: this command needs a local folder"):
        extract(toy.request(Path("memory://new")))
    assert list(tmp_path.iterdir()) == []


def test_verify_says_that_a_url_needs_copying(url: str, invoke: Any) -> None:
    done = invoke("cache", "verify", "--cache", url)
    assert done.exit_code == 1
    assert "memory://toy/train: this command needs a local folder" in done.stderr
