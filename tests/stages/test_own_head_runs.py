"""A head in a person's own file, by the installed command: trained, gone on with, in two processes, scored, refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

HEAD = """
from dataclasses import dataclass
from typing import ClassVar

import torch
from vidxfer import Head, HeadConfig, Needs, UsageError


@dataclass(frozen=True, kw_only=True)
class MeanConfig(HeadConfig):
    kind: ClassVar[str] = "mean"
    width: int = 1

    def needs(self, offer):
        return Needs(embedding=True)

    def build(self, offer):
        return Mean(self, offer)


class Mean(Head):
    def __init__(self, config, offer):
        super().__init__()
        self.needs, self.classes = config.needs(offer), config.width * offer.classes
        self.classifier = torch.nn.Linear(offer.embed, self.classes)

    def forward(self, batch):
        return self.classifier(batch.embedding.mean(dim=1))


@dataclass(frozen=True, kw_only=True)
class OtherConfig(MeanConfig):
    kind: ClassVar[str] = "other"


@dataclass(frozen=True, kw_only=True)
class NoHead(MeanConfig):
    kind: ClassVar[str] = "no-head"

    def build(self, offer):
        return torch.nn.Linear(1, 1)


@dataclass(frozen=True, kw_only=True)
class Needless(MeanConfig):
    kind: ClassVar[str] = "needless"

    def build(self, offer):
        head = Mean(self, offer)
        del head.needs
        return head
"""
SETTINGS = [f"--set={one}" for one in ("epochs=3", "warmup_epochs=1", "batch_clips=8", "evaluate_every_epochs=3")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toy: Any, vidxfer: Any) -> Path:
    """A folder with the package mypkg, and the run runs/mean of its head."""
    folder: Path = tmp_path_factory.mktemp("own")
    (folder / "mypkg").mkdir()
    (folder / "mypkg/myhead.py").write_text(HEAD)
    done = vidxfer(*words_of(toy), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def words_of(toy: Any, head: str = "MeanConfig") -> list[Any]:
    """`vidxfer train` with a head of mypkg."""
    return ["train", "--head", f"mypkg.myhead:{head}", "--cache", toy.int8, "--device", "cpu", *SETTINGS]


def test_its_run_is_named_by_its_kind_and_says_where_the_class_was(place: Path) -> None:
    recipe, made = (json.loads((place / f"runs/mean/{name}.json").read_text()) for name in ("recipe", "run"))
    assert (recipe["name"], recipe["head"]) == ("mean", {"kind": "mean", "width": 1})
    assert made["head"] == "mypkg.myhead:MeanConfig"


READERS = {
    "evaluate": ["--run", "runs/mean", "--cache", "{cache}", "--json"],
    "predict": ["{video}", "--run", "runs/mean", "--json"],
    "compare": ["runs/mean", "--cache", "{cache}", "--json"],
    "reproduction": ["--run", "runs/mean", "--cache", "{cache}", "--json"],
    "export": ["out.pth", "--run", "runs/mean"],
}


def command_of(name: str, toy: Any) -> list[str]:
    """A command that reads the run, without `--head`."""
    video = sorted(toy.videos.glob("*.webm"))[0]
    return [name, *(word.format(cache=toy.int8, video=video) for word in READERS[name])]


@pytest.mark.parametrize("name", READERS)
def test_what_reads_runs_wants_the_head_again_and_imports_nothing_by_itself(
    name: str, place: Path, toy: Any, vidxfer: Any
) -> None:
    (place / "mypkg/__init__.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    missing = vidxfer(*command_of(name, toy), cwd=place)
    assert missing.returncode == 1
    assert "its head is of kind 'mean', which is none of vidxfer's" in missing.stderr
    assert "It was trained with --head mypkg.myhead:MeanConfig." in missing.stderr
    assert not (place / "imported").exists()
    if name in ("evaluate", "export"):
        other = vidxfer(*command_of(name, toy), "--head", "mypkg.myhead:OtherConfig", cwd=place)
        assert other.returncode == 1
        assert "Added here: other (mypkg.myhead:OtherConfig)" in other.stderr
    done = vidxfer(*command_of(name, toy), "--head", "mypkg.myhead:MeanConfig", cwd=place)
    if name == "export":
        assert "holds a head of kind 'mean'; released layouts: dist" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    (place / "mypkg/__init__.py").unlink()
    (place / "imported").unlink()


def test_the_file_may_move_and_its_settings_may_not(place: Path, toy: Any, vidxfer: Any) -> None:
    (place / "moved_head.py").write_text(HEAD)
    (place / "wider_head.py").write_text(HEAD.replace("width: int = 1", "width: int = 1\n    depth: int = 2"))
    (place / "renamed_head.py").write_text(HEAD.replace("width", "breadth"))
    words = command_of("evaluate", toy)
    assert vidxfer(*words, "--head", "moved_head:MeanConfig", cwd=place).returncode == 0
    assert vidxfer(*words, "--head", "wider_head:MeanConfig", cwd=place).returncode == 0, "a new setting has a default"
    done = vidxfer(*words, "--head", "renamed_head:MeanConfig", cwd=place)
    assert done.returncode == 1
    assert "has not the fields of a MeanConfig: missing: none; unknown: width" in done.stderr


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("NoHead", "NoHead.build gave a Linear, expected a module that inherits from vidxfer.Head"),
        ("Needless", "Needless.build gave a Mean without needs: set self.needs = config.needs(offer)"),
        ("MeanConfig", "forward of the head gave (8, 16), expected logits [clip class] = (8, 8)"),
    ],
)
def test_a_head_that_does_not_give_what_it_should_is_refused(
    head: str, words: str, place: Path, toy: Any, vidxfer: Any
) -> None:
    done = vidxfer(*words_of(toy, head), "--set", "head.width=2", "--run", f"runs/bad-{head}", cwd=place)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_in_two_processes_is_stopped_and_goes_on(place: Path, toy: Any, vidxfer: Any, started: Any) -> None:
    words = [
        *words_of(toy),
        "--devices",
        2,
        "--set",
        "epochs=400",
        "--set",
        "evaluate_every_epochs=400",
        "--run",
        "two",
    ]
    running = started(*words, cwd=place, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    for line in running.stderr:
        if "epoch 2/" in line:
            break
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 1
    stopped = json.loads((place / "two/checkpoint/progress.json").read_text())
    assert 0 < stopped["global_step"] < 1200
    again = vidxfer(*words[:1], *words[3:], cwd=place)
    assert again.returncode == 1
    assert "two: its head is of kind 'mean'" in again.stderr
    done = vidxfer(*words, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["global_step"] == 1200
    assert "going on at epoch" in done.stderr
