"""The command line: quick, honest about its options, and readable by programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from vidxfer.cli.main import app

HEAVY = ["torch", "torchvision", "av", "decord", "zarr", "numcodecs", "open_clip", "dask", "numpy", "lightning_fabric",
         "torchmetrics", "safetensors", "tensorboard"]  # fmt: skip


def commands(group: Any, *path: str) -> list[tuple[str, ...]]:
    """Every command as words, in the order of the help."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *path, name) if hasattr(command, "commands") else [(*path, name)]
    return found


COMMANDS = commands(typer.main.get_command(app))


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\ntry:\n    from vidxfer.cli.main import app\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
    )
    script += f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "extract" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("words", [[*path, "--help"] for path in COMMANDS], ids=lambda words: " ".join(words[:-1]))
def test_every_command_has_an_example_that_names_it(invoke: Any, words: list[str]) -> None:
    result = invoke(*words)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert f"Example: vidxfer {' '.join(words[:-1])} " in text


@pytest.mark.parametrize("words", [list(path) for path in COMMANDS], ids=" ".join)
def test_every_option_says_what_it_is(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(words)}: {parameter.name} has no help"


def test_examples_name_only_options_that_exist() -> None:
    root: Any = typer.main.get_command(app)
    for path in COMMANDS:
        command = root
        for word in path:
            command = command.commands[word]
        known = {opt for parameter in command.params for opt in parameter.opts}
        example = command.help[command.help.index("Example:") :]
        assert set(re.findall(r"--[a-z-]+", example)) <= known, path


def test_options_of_one_name_mean_the_same_in_every_command() -> None:
    root: Any = typer.main.get_command(app)
    seen: dict[str, tuple[str, str]] = {}
    for path in [p for p in COMMANDS if p[0] in ("plan", "extract", "train", "evaluate", "predict")]:
        for parameter in root.commands[path[0]].params:
            if parameter.name in ("cache", "root", "json", "decode_threads", "device"):
                kind = (str(parameter.help), str(parameter.opts))
                assert seen.setdefault(parameter.name, kind) == kind, (path, parameter.name)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["extract", "--codec", "int9"], "int8, float16"),
        (["extract", "--decoder", "pyva"], "pyav"),
        (["extract", "--device", "cup"], "cpu"),
        (["extract", "--precision", "fp23"], "fp32"),
        (["extract", "--split", "vall"], "val"),
        (["extract", "--layers", "1;2"], "3,7,11"),
        (["extract", "--layers", "99"], "blocks 0 to 2"),
        (["extract", "--dense-frames", "9"], "alpha"),
        (["extract", "--test-crops", "2"], "1 or 3"),
        (["extract", "--seed", "-1"], "seed"),
        (["extract", "--limit", "0"], "--limit"),
        (["extract", "--dataset", "ssv3"], "ssv2"),
        (["plan", "--codec", "int9"], "int8, float16"),
        (["plan", "--test-crops", "2"], "1 or 3"),
        (["plan", "--limit", "x"], "--limit"),
        (["extract", "--cachee", "x"], "--cache"),
        (["train", "--recipe", "dist-toyy"], "dist-toy"),
        (["train", "--set", "epoch=3"], "epochs"),
        (["train", "--device", "cup"], "cpu"),
        (["train", "--device", "meta"], "cpu"),
        (["train", "--precision", "fp16"], "bf16"),
        (["train", "--devices", "-1"], "--devices"),
        (["trian"], "train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_option_exits_with_2_and_names_what_is_known(
    toy: Any, invoke: Any, tmp_path: Path, words: list[str], text: str
) -> None:
    command = words[0]
    more: list[object] = []
    if command in ("extract", "plan"):
        more = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr"]
    if command == "train":
        more = ["--cache", toy.int8, "--run", tmp_path / "run"]
    result = invoke(command, *more, *words[1:])
    assert result.exit_code == 2, result.stderr
    assert text in result.stderr
    assert not (tmp_path / "zarr").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["evaluate", "--device", "cup"], ["evaluate", "--precision", "fp16"]])
def test_a_run_that_is_not_there_or_a_mistyped_device_is_said_plainly(
    toy: Any, invoke: Any, tmp_path: Path, words: list[str]
) -> None:
    result = invoke(*words, "--run", tmp_path / "none", "--cache", toy.int8)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "train", "cache info"])
def test_a_cache_that_is_not_there_says_how_to_make_it(invoke: Any, tmp_path: Path, command: str) -> None:
    more: list[object] = ["--run", tmp_path / "run"] if command != "cache info" else []
    result = invoke(*command.split(), "--cache", tmp_path / "none", *more)
    assert result.exit_code == 1
    if command != "evaluate":
        assert "vidxfer extract" in result.stderr
    assert not (tmp_path / "run").exists()


def test_plan_as_json_says_the_bytes_that_extraction_then_needs(toy: Any, invoke: Any, tmp_path: Path) -> None:
    words = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr", "--dense-frames", 8, "--json",
             "--shard-videos", 6, "--views", 2]  # fmt: skip
    planned = json.loads(invoke("plan", *words, "--no-measure").stdout)
    assert not (tmp_path / "zarr").exists()
    made = json.loads(invoke("extract", *words).stdout)
    for plan, done in zip(planned["splits"], made, strict=True):
        assert (plan["split"], plan["videos"]) == (done["split"], done["videos"])
        files = [p for p in (tmp_path / "zarr" / plan["split"]).rglob("c/**/*") if p.is_file()]
        on_disk = sum(p.stat().st_size for p in files)
        assert plan["total_bytes"] == pytest.approx(on_disk, rel=0.03)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["--frame-quality", 80], "--with-frames"),
        (["--frame-subsampling", "4:2:0"], "--with-frames"),
        (["--slurm-partition", "gpu"], "--slurm JOBS"),
        (["--slurm-setup", "module load x"], "--slurm JOBS"),
    ],
)
def test_an_option_that_would_do_nothing_says_what_it_goes_with(
    toy: Any, invoke: Any, tmp_path: Path, words: list[Any], missing: str
) -> None:
    refused = invoke("extract", "--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr", *words)
    assert refused.exit_code == 2
    assert f"add {missing}" in refused.stderr
    assert not (tmp_path / "zarr").exists()


def test_a_cache_that_is_a_file_is_refused_before_the_calibration(toy: Any, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "zarr").write_text("")
    refused = invoke("extract", "--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr")
    assert refused.exit_code == 1
    assert "is no folder that a cache can lie in" in refused.stderr
    assert "calibrate" not in refused.stderr


def test_cache_info_never_shows_more_bytes_than_a_finished_cache_has(toy: Any, invoke: Any) -> None:
    found = json.loads(invoke("cache", "info", "--cache", toy.int8, "--json").stdout)
    for split in found.values():
        assert 0.9 < split["bytes_on_disk"] / split["bytes_when_finished"] <= 1.01


def test_cache_info_as_json_counts_what_is_stored(toy: Any, invoke: Any) -> None:
    found = json.loads(invoke("cache", "info", "--cache", toy.int8, "--json").stdout)
    assert found.keys() == {"train", "val"}
    assert (found["train"]["stored"], found["train"]["failed"], found["train"]["pending"]) == (24, 0, 0)
    assert found["train"]["shape"]["view"] == 2
    shown = invoke("cache", "info", "--cache", toy.int8)
    assert found["train"]["fingerprint"] in shown.stdout


def test_an_extraction_as_json_is_one_document_on_standard_output(toy: Any, vidxfer: Any, tmp_path: Path) -> None:
    words = ["--root", toy.root, "--model", toy.clip, "--dense-frames", 8, "--limit", 8, "--cache", tmp_path / "zarr"]
    done = vidxfer("extract", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert [(one["split"], one["stored"]) for one in json.loads(done.stdout)] == [("train", 8), ("val", 8)]
    assert "extract train" in done.stderr, "bars go to standard error"


def test_numbers_are_shown_with_units_a_person_uses() -> None:
    from vidxfer.cli.show import duration, size

    assert [size(n) for n in (0, 999, 1000, 29_050_000, 999_600_000, 7.3e12, 2e15)] == [
        "0 B", "999 B", "1 kB", "29.1 MB", "1 GB", "7.3 TB", "2e+03 TB"
    ]  # fmt: skip
    assert [duration(s) for s in (0.04, 4.2, 89.96, 185, 25_920)] == [
        "0.0 s", "4.2 s", "90.0 s", "3 min 5 s", "7 h 12 min"
    ]  # fmt: skip
