"""The benchmarks run: each on a few kilobytes, in a process of its own (zarrs must not have run where others fork)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
