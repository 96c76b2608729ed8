"""Run folders of 0.1.0 are opened, left as they are, and gone on with on the same curve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.probe import ProbeConfig
from vidxfer.pipeline.heads.recipe import Optimiser
from vidxfer.pipeline.training.build import build_head, offer_of_split
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.run import Run

KEPT = Path(__file__).parent / "run010"
SETTINGS = ["epochs=2", "warmup_epochs=1", "batch_clips=8", "evaluate_every_epochs=2"]
SIZES = ["dist.integration_channels=16", "dist.temporal_channels=4", "dist.layers=[0, 2]", "betas=[0.8, 0.99]",
         "warmup_learning_rate=1e-3"]  # fmt: skip


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["dist", "probe"])
def test_an_old_run_is_read_whole_and_not_written_to(toy: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(KEPT / name, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    run = Run.open(folder)
    split = open_split(toy.int8, "train")
    run.load_weights(build_head(run.recipe, offer_of_split(split, run.recipe)))
    assert (run.progress().global_step, run.text().shape) == (4, (8, 32))
    expected: Any = ProbeConfig()
    if name == "dist":
        sizes: Any = {"integration_channels": 16, "temporal_channels": 4, "pooling_layers": 1, "layers": (0, 2)}
        expected = DistConfig(**sizes)
        assert run.recipe.optimiser == Optimiser(betas=(0.8, 0.99), warmup_from=1e-3)
    assert run.recipe.head == expected
    assert bytes_of(folder) == bytes_of(KEPT / name)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)


@pytest.mark.parametrize(("name", "recipe", "sizes"), [("dist", "dist-toy", SIZES), ("probe", "probe", [])])
def test_an_old_run_goes_on_with_the_command_line_of_its_day(
    toy: Any, invoke: Any, tmp_path: Path, name: str, recipe: str, sizes: list[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(KEPT / name, run)
    sets = [word for setting in [*SETTINGS, *sizes] for word in ("--set", setting)]
    done = invoke("train", "--cache", toy.int8, "--recipe", recipe, "--run", run, "--device", "cpu", *sets)
    assert done.exit_code == 0, done.stderr
    assert "going on at epoch 2, step 2 of 3" in done.stderr
    curve = json.loads((KEPT / f"{name}.curve.json").read_text())
    assert [line["loss"] for line in read_metrics(run) if "loss" in line] == pytest.approx(curve, rel=1e-4)
    assert ("names of 0.1.0, still understood" in done.stderr) == bool(sizes)
