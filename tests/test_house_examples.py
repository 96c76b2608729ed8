"""The worked examples of docs/house.md run as they stand there, and what they add is used as the document says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.datasets import load, load_dataset
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.heads import HEADS
from vidxfer.pipeline.training.run import Run
from vidxfer.stages import settings
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.train import TrainRequest, train

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/house.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## How to add an? (.*)\n((?:.*\n)*?)(?=## )", TEXT, flags=re.MULTILINE))


def run(what: str, folder: Path) -> dict[str, Any]:
    """Execute the one block of a section in an empty folder; returns the names it made."""
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[what], flags=re.DOTALL)
    assert block.count("\nassert ") >= 3, "an example shows what comes out"
    (folder / what).mkdir()
    made: dict[str, Any] = {"__name__": "example", "folder": folder / what}
    exec(compile(block, f"docs/house.md: {what}", "exec", dont_inherit=True), made)
    return made


def test_there_is_an_example_for_everything_that_is_added() -> None:
    assert set(SECTIONS) == {"head", "data set", "codec", "tower"}


@pytest.mark.parametrize("what", SECTIONS)
def test_the_files_to_touch_are_there_but_for_the_new_ones(what: str) -> None:
    touched = SECTIONS[what].partition("Files to touch:\n")[2]
    named = set(re.findall(r"`((?:pipeline|tests)/[\w/]+\.py|README\.md)`", touched))
    new = {name for name in named if re.search(r"peak|dashed|log8|stripes", name)}
    assert len(new) == 2 or what == "codec"
    assert sorted(name for name in named - new if not (ROOT / name).is_file()) == []
    assert not any((ROOT / name).exists() for name in new), "an example has another name than what is there"


def test_the_head_of_the_example_trains_on_a_cache(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("head", tmp_path)
    family = made["FAMILY"]
    monkeypatch.setitem(HEADS, family.config.kind, family.config)
    with pytest.raises(UsageError, match=r"head\.layer=-2"):
        family.config(layer=-2)
    (recipe,) = family.recipes
    report = train(TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu"))
    assert report is not None
    assert report.finished
    assert Run.open(tmp_path / "run").recipe == recipe, "its settings come back from the run folder"


def test_the_data_set_of_the_example_is_loaded_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("data set", tmp_path)
    (line,) = re.findall(r'`"dashed": (.*?)` in', " ".join(SECTIONS["data set"].split()))
    monkeypatch.setitem(load._ADAPTERS, "dashed", eval(line, {"dashed": type("dashed", (), made)}))
    monkeypatch.setattr(load, "KINDS", (*load.KINDS, "dashed"))
    assert load_dataset("dashed", made["folder"], "train").videos == made["dataset"].videos
    with pytest.raises(UsageError, match="no split test"):
        load_dataset("dashed", made["folder"], "test")
    (made["folder"] / "val" / "closed.mp4").touch()
    with pytest.raises(DatasetError, match=r"'closed\.mp4' has no class"):
        load_dataset("dashed", made["folder"], "train")


def test_the_codec_of_the_example_keeps_its_promise(tmp_path: Path) -> None:
    made = run("codec", tmp_path)
    assert made["codes"][made["values"] < 0].min() >= 128, "the sign is the highest bit"


def test_the_tower_of_the_example_fills_a_cache(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("tower", tmp_path)
    monkeypatch.setattr(settings, "load_tower", lambda *named, **options: made["tower"])
    cache = tmp_path / "cache"
    (report,) = extract(toy.request(cache, splits=("val",), limit=2, codec="float16"))
    split = open_split(cache, "val")
    assert (report.stored, split.spec.layers, split.spec.clip_model) == (2, (0, 1), "stripes")
    assert (split.spec.tokens, split.spec.channels, split.text.shape[1]) == (5, 8, 6)
