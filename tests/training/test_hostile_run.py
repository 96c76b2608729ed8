"""A run folder from a stranger: no file of it makes us wait, fill the memory or write outside of it."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vidxfer.pipeline.errors import RunError, VidxferError
from vidxfer.pipeline.training.journal import Journal, read_metrics
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.pipeline.writing import remove, write_text

from ..hostile import in_time

MADE = {"cache_fingerprint": "aaaa", "world": 1, "online": False, "class_names": ["a", "b"]}
SPARSE_BYTES = 300 << 30


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a busy disk takes seconds to sync."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def trained() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    head = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(head.parameters())
    head(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return head, optimiser, torch.ones(2, 3)


def made(folder: Path) -> Run:
    """A run with a checkpoint, two logged steps, a result and predictions."""
    run = Run.start(folder, named("probe"), MADE)
    run.save(*trained(), RunPlace(epoch=1, global_step=5))
    with Journal(folder, after_step=0) as journal:
        journal.add(5, loss=1.0)
    run.keep_result({"score": {"top1": 1.0}, "epoch_seconds": None})
    write_text(folder / "predictions.val.jsonl", "{}\n")
    return run


def read_everything(path: Path) -> None:
    """What train, evaluate, compare, predict and export read."""
    run = Run.open(path)
    run.progress()
    head = nn.Linear(3, 2)
    run.load_weights(head)
    run.load_optimiser(torch.optim.AdamW(head.parameters()))
    run.text()
    run.result()
    read_metrics(path)
    Run.start(path, named("probe"), MADE)


def write_everything(path: Path) -> None:
    """What train and evaluate write."""
    run = Run.open(path)
    with Journal(path, after_step=5) as journal:
        journal.add(6, loss=1.0)
    run.save(*trained(), RunPlace(epoch=2, global_step=6))
    run.keep_result({"score": {"top1": 0.5}, "epoch_seconds": 1.0})
    write_text(path / "predictions.val.jsonl", "{}\n")


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        path.unlink()
        make(path)

    return work


KINDS: dict[str, Callable[[Path], Any]] = {
    "sparse": lambda path: os.truncate(path, SPARSE_BYTES),
    "empty": lambda path: os.truncate(path, 0),
    "a byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "pipe": replaced(os.mkfifo),
    "endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "loop": replaced(lambda path: path.symlink_to(path)),
    "link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "folder": replaced(Path.mkdir),
    "deep json": lambda path: path.write_bytes(b"[" * 100_000),
    "long header": lambda path: path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:]),
}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that nobody touched."""
    return made(tmp_path_factory.mktemp("calm") / "run").path


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_file_of_a_run_hangs_or_fills_the_memory(
    calm: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(calm, path)
    names = sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_file() and "events" not in one.name)
    name, kind = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(sorted(KINDS)))
    KINDS[kind](path / name)
    read = name != "predictions.val.jsonl"  # that one `reproduce` alone reads
    with in_time():
        for work in (read_everything, write_everything):
            try:
                work(path)
            except VidxferError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert not (read and work is read_everything and kind in ("sparse", "pipe", "endless device", "folder"))


CHECKPOINT = [f"checkpoint/{name}" for name in ("weights.safetensors", "optimiser.pt", "text.safetensors")]


@pytest.mark.parametrize("name", ["recipe.json", "result.json", "checkpoint/progress.json", *CHECKPOINT])
def test_what_is_too_long_is_named_with_what_was_expected(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "run").path
    os.truncate(path / name, SPARSE_BYTES)
    with pytest.raises(VidxferError, match=f"{name}.*has {SPARSE_BYTES} bytes, expected at most"):
        read_everything(path)


def test_an_optimiser_that_would_unpack_to_more_than_the_file_is_not_unpacked(tmp_path: Path) -> None:
    file = made(tmp_path / "run").checkpoint / "optimiser.pt"
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, bytes(100_000_000) if entry.endswith("data/0") else old.read(entry))
    file.write_bytes(packed.getvalue())
    with pytest.raises(RunError, match=r"optimiser\.pt.*unpacks to"):
        read_everything(tmp_path / "run")


def outside(folder: Path) -> Path:
    """A folder that is none of the run's business, with what a link of a stranger could point to."""
    (folder / "outside").mkdir()
    for name in ("precious", "progress.json", "weights.safetensors"):
        (folder / "outside" / name).write_text("precious")
    return folder / "outside"


FILES = [
    *(f"{name}.part" for name in ("recipe.json", "run.json", "result.json", "metrics.jsonl", "predictions.val.jsonl")),
    *("result.json", "metrics.jsonl", "predictions.val.jsonl", *CHECKPOINT, "checkpoint/progress.json.part"),
]
FOLDERS = ["checkpoint", "checkpoint.new", "checkpoint.old", "tensorboard"]
LAID_OUT = [
    *((name, kind) for name in FILES for kind in ("link", "hard link", "pipe")),
    *((name, kind) for name in FOLDERS for kind in ("link", "link to folder", "link to nothing")),
]


@pytest.mark.parametrize(("name", "kind"), LAID_OUT)
def test_nothing_outside_is_written_whatever_is_laid_out_inside(
    calm: Path, tmp_path: Path, name: str, kind: str
) -> None:
    run, elsewhere = tmp_path / "run", outside(tmp_path)
    shutil.copytree(calm, run)
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    laid = {
        "link": lambda: path.symlink_to(elsewhere / "precious"),
        "link to folder": lambda: path.symlink_to(elsewhere),
        "link to nothing": lambda: path.symlink_to(elsewhere / "nothing"),
        "hard link": lambda: os.link(elsewhere / "precious", path),
        "pipe": lambda: os.mkfifo(path),
    }
    laid[kind]()
    with in_time():
        for work in (read_everything, write_everything):
            try:
                work(run)
            except VidxferError as error:
                assert str(run) in str(error)  # noqa: PT017
    assert {one.name: one.read_text() for one in elsewhere.iterdir()} == dict.fromkeys(
        ("precious", "progress.json", "weights.safetensors"), "precious"
    )


def test_a_run_folder_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    made(tmp_path / "disk2")
    (tmp_path / "run").symlink_to(tmp_path / "disk2")
    write_everything(tmp_path / "run")
    read_everything(tmp_path / "run")
    assert [line["step"] for line in read_metrics(tmp_path / "disk2")] == [5, 6]
    assert Run.open(tmp_path / "disk2").progress().global_step == 6


def test_ctrl_c_in_a_close_of_rmtree_is_ctrl_c_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between the close and its note, rmtree closes a second time; the real rmtree is run."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    close, interrupted = os.close, []

    def interrupting(fd: int) -> None:
        inner = not interrupted and Path(f"/proc/self/fd/{fd}").readlink().name == "inner"
        close(fd)
        if inner:
            interrupted.append(fd)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupting)
    with pytest.raises(KeyboardInterrupt):
        remove(tmp_path / "folder")
    assert interrupted
