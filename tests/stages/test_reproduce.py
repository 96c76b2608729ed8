"""`vidxfer reproduction`: numbers of the last evaluation beside the published ones, and every known cause."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.reproduce import reproduction


@pytest.fixture
def evaluated(toy: Any, tmp_path: Path) -> Any:
    """A run folder with made-up predictions: in every 4 videos 2 right and 1 among the first five; `missing` absent."""

    def make(recipe: str = "dist-k400-b16-8f", *settings: str, missing: int = 0) -> Path:
        path = tmp_path / "run"
        Run.start(path, with_settings(named(recipe), list(settings)), {"online": False})
        lines, val = [], open_split(toy.int8, "val")
        for row, name in enumerate(val.video_ids[missing:], start=missing):
            label = int(val.labels[row])
            wrong = [other for other in range(8) if other != label]
            guesses = [label, *wrong[:4]] if row % 2 else [wrong[0], label, *wrong[1:4]]
            guesses = wrong[:5] if row % 4 == 2 else guesses
            lines.append(json.dumps({"id": name, "label": label, "top5_labels": guesses}))
        (path / "predictions.val.jsonl").write_text("\n".join(lines) + "\n")
        return path

    return make


def test_published_obtained_difference_and_coverage(toy: Any, evaluated: Any, invoke: Any) -> None:
    found = reproduction(evaluated(missing=4), toy.int8)
    assert found.published is not None
    assert (found.published.top1, found.published.data) == (83.6, "K400")
    assert (found.top1, found.top5, found.top1_of_listed) == (50.0, 75.0, 37.5)
    assert (found.scored, found.listed, found.views, found.crops) == (12, 16, 1, 1)
    shown = invoke("reproduction", "--run", evaluated(missing=4), "--cache", toy.int8)
    assert shown.exit_code == 0
    for words in ("83.6", "50.0", "-33.6", "12 scored / 16 listed", "counted as wrong 37.5"):
        assert words in shown.stdout
    assert all(f"  - {cause}" in shown.stdout for cause in found.causes)


def test_every_known_cause_of_a_gap_is_said(toy: Any, evaluated: Any) -> None:
    causes = "\n".join(reproduction(evaluated("dist-k400-b16-8f", "epochs=9", missing=1), toy.int8).causes)
    for words in (
        "trained on 24 of 24 listed videos of this copy; CVDF's copy has 240,258",
        "lists 16 validation videos, the published count is 19,881",
        "1 listed validation videos could not be scored",
        "2 stored training views per video",
        "tested on 1 x 1 views; the release's settings say 3 x 1",
        "tokens are int8",
        "CLIP is ",
        "8 dense frames per view; published: 16",
        "no mixing of clips",
        "settings differ from the recipe: epochs=9",
        "the run is not finished: epoch 0 of 9",
        "one run with seed 0",
    ):
        assert words in causes


def test_what_does_not_differ_is_not_a_cause(toy: Any, evaluated: Any) -> None:
    found = reproduction(evaluated("dist-toy"), toy.float16)
    assert found.published is None
    for words in ("int8", "CLIP is", "settings differ", "could not be scored", "published count"):
        assert words not in "\n".join(found.causes)


def test_a_run_without_a_fresh_evaluation_on_this_cache_is_refused(toy: Any, evaluated: Any) -> None:
    run = evaluated()
    file = run / "predictions.val.jsonl"
    kept = file.read_text()
    file.write_text(kept.replace('"id": "', '"id": "other '))
    with pytest.raises(RunError, match="not of the validation videos"):
        reproduction(run, toy.int8)
    first, *rest = [json.loads(line) for line in kept.splitlines()]
    file.write_text("\n".join(map(json.dumps, [{**first, "label": 5}, *rest])))
    with pytest.raises(RunError, match=r"predictions\.val\.jsonl:1: the label of .* is 5, in .*/val it is 0"):
        reproduction(run, toy.int8)
    file.write_text(kept + "{\n")
    with pytest.raises(RunError, match=r"predictions\.val\.jsonl:17: no line of an evaluation"):
        reproduction(run, toy.int8)
    file.write_text(kept)
    (run / "checkpoint").mkdir()
    (run / "checkpoint/weights.safetensors").write_bytes(b"")
    os.utime(file, (1, 1))
    with pytest.raises(RunError, match="is older than"):
        reproduction(run, toy.int8)
    file.unlink()
    with pytest.raises(RunError, match="vidxfer evaluate --run"):
        reproduction(run, toy.int8)
