"""A run may begin with another run's weights: a transfer, as from Kinetics-710 to Kinetics-400."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.train import TrainRequest, train


def request(toy: Any, run: Path, **changes: Any) -> TrainRequest:
    recipe = toy.recipe("epochs=1", "warmup_epochs=0", "learning_rate=0.0", "warmup_learning_rate=0.0")
    return TrainRequest(recipe=recipe, cache=toy.int8, run=run, device="cpu", **changes)


def test_a_run_begins_with_the_named_runs_weights_and_remembers_it(toy: Any, tmp_path: Path) -> None:
    first = train(
        TrainRequest(
            recipe=toy.recipe("epochs=1", "warmup_epochs=0", "seed=7"), cache=toy.int8, run=tmp_path / "a", device="cpu"
        )
    )
    assert first is not None
    assert first.finished
    train(request(toy, tmp_path / "b", init_from=tmp_path / "a"))  # a rate of zero keeps what it began with
    train(request(toy, tmp_path / "c"))
    weights = {name: load_file(tmp_path / name / "checkpoint" / "weights.safetensors") for name in "abc"}
    assert all((weights["a"][key] == weights["b"][key]).all() for key in weights["a"])
    assert any((weights["a"][key] != weights["c"][key]).any() for key in weights["a"])
    assert Run.open(tmp_path / "b").made_from["init_from"]["run"] == str(tmp_path / "a")


def test_a_beginning_that_is_no_run_is_refused_before_a_folder_is_made(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder"):
        train(request(toy, tmp_path / "b", init_from=tmp_path / "nowhere"))
    assert not (tmp_path / "b").exists()
