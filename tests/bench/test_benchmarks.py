"""The benchmarks run: each on a few kilobytes, in a process of its own (zarrs must not have run where others fork)."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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


def gpu(out: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """The script about the GPU on this CPU: its exit code, and its parts in order."""
    command = [sys.executable, str(HERE / "gpu.py"), "--small", "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_what_the_gpu_says_is_a_page_on_a_cpu_too(tmp_path: Path) -> None:
    code, (goldens, epochs) = gpu(tmp_path, "--parts", "goldens,epochs")
    assert code == 0, (goldens["failed"], epochs["failed"])
    assert [row["holds"] for row in goldens["rows"]] == [True] * 14, "seven files in two forms"
    assert all(1e-4 < row["bf16 outputs"] < 0.1 for row in goldens["rows"]), "bf16 is another arithmetic"
    assert {row["way"] for row in epochs["rows"]} >= {"online, frames in memory", "cached tokens and frames"}
    assert {(row["codec"], row["pooled"]) for row in epochs["rows"]} >= {("int8", 1), ("klt4", 1), ("klt1", 2)}
    text = (tmp_path / "gpu.md").read_text()
    assert "2 of 2 parts ended; 14 of 14 proofs hold." in text
    assert text.count("## ") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.md", "rates.json", "results.jsonl"]


@pytest.fixture
def gpu_script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, as a module."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("gpu")


def test_a_gradient_of_rounding_alone_is_no_difference_and_a_missing_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    off = importlib.import_module("gpu_proofs").gradients_off
    heads = [torch.nn.Linear(2, 1) for _ in range(2)]
    for head, (weight, bias) in zip(heads, (([2.0, -4.0], 1e-9), ([2.0, -4.0004], 3e-9)), strict=True):
        head.weight.grad, head.bias.grad = torch.tensor([weight]), torch.tensor([bias])
    assert off(*heads) == pytest.approx(1e-4, rel=1e-2)
    heads[0].bias.grad, heads[1].bias.grad = torch.tensor([0.01]), torch.tensor([0.02])
    assert off(*heads) == pytest.approx(0.5)
    heads[0].bias.grad = None
    assert off(*heads) == pytest.approx(1.0)


def test_a_part_that_fails_hangs_or_disproves_is_a_result_and_not_the_end(
    gpu_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_parts.py").write_text(
        "import time\n"
        "def breaks(folder, small):\n    yield {'what': 1.5}\n    raise ValueError('as it is')\n"
        "def hangs(folder, small):\n    yield {'what': 2}\n    time.sleep(60)\n"
        "def denies(folder, small):\n    yield {'holds': False}\n"
        "def rates(folder, small):\n    yield {'holds': True, 'rates': {'clip_frames_per_second': 7.0}}\n"
    )
    script = tmp_path / "gpu.py"
    text = (HERE / "gpu.py").read_text()
    parts = {name: f'"{name}": Part("odd_parts", {limit}),' for name, limit in
             (("breaks", 60), ("hangs", 3), ("denies", 60), ("rates", 60))}  # fmt: skip
    script.write_text(text.replace("PARTS = {", "PARTS = {" + "".join(parts.values()), 1))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{HERE}")
    monkeypatch.setattr(gpu_script, "HERE", tmp_path)
    about = importlib.import_module("gpu_page").ABOUT
    monkeypatch.setattr(gpu_script, "PARTS", {name: gpu_script.Part("odd_parts", 3.0 if name == "hangs" else 60.0)
                                              for name in parts})  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    for name in parts:
        monkeypatch.setitem(about, name, name)
    results = gpu_script.run(list(parts), tmp_path / "out", minutes=2, small=True)
    breaks, hangs, denies, rates = results
    assert breaks["failed"].startswith("failed with exit code 1")
    assert breaks["failed"].endswith("ValueError: as it is")
    assert (breaks["rows"], hangs["rows"]) == ([{"what": 1.5}], [{"what": 2}]), "what was known is kept"
    assert hangs["failed"].startswith("took longer than its 3 s")
    assert hangs["seconds"] < 10
    assert (denies["failed"], rates["failed"]) == ("", "")
    assert [gpu_script.is_good([one]) for one in results] == [False, False, False, True]
    assert json.loads((tmp_path / "out" / "rates.json").read_text()) == {"clip_frames_per_second": 7.0}
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "2 of 4 parts ended; 1 of 2 proofs hold." in page
    assert "**NO**" in page
    (late,) = gpu_script.run(["rates"], tmp_path / "out", minutes=0.01, small=True)
    assert late["failed"] == "not begun: no time was left"


def test_the_order_task_runs_and_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "real_order.py"), "--quick", "--work", str(tmp_path), "--tasks", "order",
               "--candidates", "int8@pool2", "float16@pool2"]  # fmt: skip
    printed = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.count('"top1"'))
    assert printed == [6, 0], "four heads on float16, one on both candidates"
    page = (tmp_path / "frontier.md").read_text()
    assert "16 clips of 2 source videos are scored." in page
    assert "| DiST | `float16` | 34.8 | 1.0x |" in page, "2 layers, 4 frames, 17 tokens, 128 channels, 2 bytes"
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| motion of tokens | ")]
    assert [row[1:4] for row in rows] == [
        ["`float16`", "34.8", "1.0x"], ["`int8@pool2`", "5.2", "6.7x"], ["`float16@pool2`", "10.2", "3.4x"],
    ]  # fmt: skip
    assert [(" to " in row[9], " to " in row[10]) for row in rows] == [(False, False), (True, True), (True, False)]
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
