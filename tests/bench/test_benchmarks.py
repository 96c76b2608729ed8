"""The benchmarks run: each on a few kilobytes, in a process of its own (zarrs must not have run where others fork)."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.training.recipes import RECIPES

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("bench_cache_reader", ("of the flat file", "| zarrs |", "vidxfer, past the file cache", "zarr-python")),
        ("bench_extract", ("videos/s", "slower of the two / extraction")),
        ("bench_memory", ("| writing | 100 |", "| reading, one epoch | 100 |")),
    ],
)
def test_a_benchmark_runs_and_writes_its_own_block(script: str, words: tuple[str, ...], tmp_path: Path) -> None:
    document = tmp_path / "bench.md"
    document.write_text("# Mine\n\nText.\n\n<!-- made by make bench: other -->\nkept\n<!-- end of other -->\n")
    command = [sys.executable, HERE / f"{script}.py", "--quick", "--write", document, "--folder", tmp_path]
    for _ in range(2 if script == "bench_memory" else 1):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith("# Mine\n\nText.\n\n<!-- made by make bench: other -->\nkept\n")
    assert text.count(f"python tests/bench/{script}.py --quick") == 1
    assert all(word in text for word in words), text
    assert [path.name for path in tmp_path.iterdir()] == ["bench.md"], "what was written for measuring is gone"


def test_the_first_look_at_a_gpu_runs_on_a_cpu_too() -> None:
    command = [sys.executable, str(HERE / "gpu_smoke.py"), "--small", "--here", "--parts", "goldens,recipes,epochs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("gradients right") == 4
    assert done.stdout.count(" ms a step") == len(RECIPES)
    assert done.stdout.count(": an epoch of 16 clips in ") == 5


def test_a_part_of_the_first_look_that_fails_is_a_result_and_not_its_end(tmp_path: Path) -> None:
    script = tmp_path / "gpu_smoke.py"
    parts = "PARTS = {'broken': None, 'fine': lambda *_: ['x'], "
    script.write_text((HERE / "gpu_smoke.py").read_text().replace("PARTS = {", parts))
    done = subprocess.run([sys.executable, str(script), "--parts", "broken,fine"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken: FAILED: TypeError: 'NoneType' object is not callable" in done.stdout
    assert "fine: passed" in done.stdout


def test_the_order_task_runs_and_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "real_order.py"), "--quick", "--work", str(tmp_path), "--tasks", "order"]
    printed = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.count('"top1"'))
    assert printed == [6, 0], "two probes on float16, two heads on float16 and on int8"
    page = (tmp_path / "frontier.md").read_text()
    assert "16 clips of 2 source videos are scored." in page
    assert page.count("| DiST | `float16` | 34.8 | 1.0x |") == page.count("| DiST | `int8` | 17.7 | 2.0x |") == 1
    assert "linear probe (cannot see order) | 25.0 | 50.0 |" in page
    assert (tmp_path / "frontier-bytes.svg").stat().st_size > 1000


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The experiment with every head, as a module."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("heads")


def test_heads_are_chosen_by_the_beginnings_of_their_labels(heads: Any) -> None:
    assert [head.label for head in heads.chosen("dist, tds-clip without")] == [
        "DiST", "TDS-CLIP without TD", "TDS-CLIP without SME", "TDS-CLIP without both",
    ]  # fmt: skip
    assert heads.chosen("") == heads.HEADS
    with pytest.raises(SystemExit, match="nobody"):
        heads.chosen("DiST,nobody")
    assert len({head.name for head in heads.HEADS}) == len(heads.HEADS), "each has a folder of its own"


def test_a_head_without_a_recipe_ends_the_experiment_before_its_work(heads: Any) -> None:
    with pytest.raises(SystemExit, match=r"no recipe here: \{'X': 'no-such-recipe'\}"):
        heads.expect_recipes((heads.Head(label="X", recipe="no-such-recipe"), heads.chosen("DiST")[0]))


def test_what_is_known_is_not_run_again_and_a_torn_line_is(heads: Any, tmp_path: Path) -> None:
    line = {"label": "DiST", "seed": 1, "epochs": 2, "top1": 0.5, "appearance": 0.5, "motion": 0.5, "within_pair": 0.5,
            "cpu_seconds": 3.0}  # fmt: skip
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "seed": 2})[:-4])
    bench = heads.Bench(tmp_path, 0, True)
    (dist,) = heads.chosen("DiST")
    known = [bench.known(heads.Job(head=dist, seed=seed, epochs=2)) for seed in (1, 2)]
    assert known == [True, False]
    assert not bench.known(heads.Job(head=dist, seed=1, epochs=12))
    two = [line, {**line, "seed": 2, "top1": 0.6, "cpu_seconds": 5.0}]
    row = heads.table(two, (dist,), toy=True).splitlines()[-1]
    assert (
        row
        == "| DiST | 2 | 55.0 (50.0 to 60.0) | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) | 4 |"
    )
