"""A head in a person's own file, by `--head`: trained, in two processes, gone on with, scored, refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.training import own_heads

HEAD = """
from dataclasses import dataclass
from typing import ClassVar

import os
import signal

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
        self.calls = getattr(self, "calls", 0) + 1
        if str(self.calls) == os.environ.get("STOP_AT"):
            os.kill(os.getpid(), signal.SIGTERM)
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
FROZEN = (
    HEAD
    + """

@dataclass(frozen=True, kw_only=True)
class NormConfig(MeanConfig):
    kind: ClassVar[str] = "norm"

    def needs(self, offer):
        return Needs(embedding=True, frozen=("visual.ln_post.weight",))
"""
)
SETTINGS = [f"--set={one}" for one in ("epochs=3", "warmup_epochs=1", "batch_clips=8", "evaluate_every_epochs=3")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy: Any, invoke: Any) -> Path:
    """A folder with the package mypkg, and the run runs/mean of its head."""
    folder: Path = tmp_path_factory.mktemp("own")
    (folder / "mypkg").mkdir()
    (folder / "mypkg/myhead.py").write_text(HEAD)
    with pytest.MonkeyPatch.context() as patch:
        begin(folder, patch)
        done = invoke(*words_of(toy))
        assert done.exit_code == 0, done.output
    return folder


def begin(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """As a new process begins in a folder: no head was added, and none of its files was imported."""
    patch.chdir(folder)
    patch.setattr(own_heads, "_own", {})
    patch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypkg", *MOVED)]:
        del sys.modules[name]


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the run, as the current one."""
    begin(trained, monkeypatch)
    yield trained
    (trained / "mypkg/__init__.py").unlink(missing_ok=True)


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
    "report": ["runs/mean", "--cache", "{cache}", "--out", "report.html", "--json"],
    "reproduction": ["--run", "runs/mean", "--cache", "{cache}", "--json"],
    "export": ["out.pth", "--run", "runs/mean"],
    "train": ["--recipe", "probe", "--cache", "{cache}", "--run", "runs/mean"],
}


def command_of(name: str, toy: Any) -> list[str]:
    """A command that reads the run, without `--head`."""
    video = sorted(toy.videos.glob("*.webm"))[0]
    return [name, *(word.format(cache=toy.int8, video=video) for word in READERS[name])]


@pytest.mark.parametrize("name", READERS)
def test_what_reads_runs_wants_the_head_again_and_imports_nothing_by_itself(
    name: str, place: Path, toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mypkg/__init__.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    words = command_of(name, toy)
    for wrong, said in {
        (): "It was trained with --head mypkg.myhead:MeanConfig.",
        ("--head", "mypkg.myhead:OtherConfig"): "Added here: other (mypkg.myhead:OtherConfig)",
    }.items():
        refused = invoke(*words, *wrong)
        assert refused.exit_code == 1
        assert "its head is of kind 'mean', which is none of vidxfer's" in refused.stderr
        assert said in refused.stderr
        assert (place / "imported").exists() == bool(wrong)
    (place / "imported").unlink()
    done = invoke(*words, "--head", "mypkg.myhead:MeanConfig")
    if name == "export":
        assert "holds a head of kind 'mean', and --as is 'dist'. Released layouts: dist" in done.stderr
    elif name == "train":
        assert "mean holds a run with other settings" in done.stderr
    else:
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)


def test_a_page_names_the_head_in_its_command_and_a_plan_counts_it(place: Path, toy: Any, invoke: Any) -> None:
    own = ["--head", "mypkg.myhead:MeanConfig"]
    done = invoke(*command_of("report", toy), *own)
    assert done.exit_code == 0, done.stderr
    assert "vidxfer report runs/mean --head mypkg.myhead:MeanConfig --cache" in (place / "report.html").read_text()
    plan = ["plan", "--dataset", "ssv2", "--root", toy.root, "--model", toy.clip, "--no-measure", "--json"]
    counted = json.loads(invoke(*plan, *own).stdout)
    parameters = 32 * 8 + 8  # a linear layer from the embedding to the classes: weights and biases
    assert counted["training_bytes"] > 4 * 4 * parameters, "values, gradients and two moments, and batches"


MOVED = {
    "moved_head": HEAD,
    "wider_head": HEAD.replace("width: int = 1", "width: int = 1\n    depth: int = 2"),
    "renamed_head": HEAD.replace("width", "breadth"),
}


def test_the_file_may_move_and_its_settings_may_not(
    place: Path, toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in MOVED.items():
        begin(place, monkeypatch)
        (place / f"{name}.py").write_text(text)
        done = invoke(*command_of("evaluate", toy), "--head", f"{name}:MeanConfig")
        assert done.exit_code == (name == "renamed_head"), done.output
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
    head: str, words: str, place: Path, toy: Any, invoke: Any
) -> None:
    done = invoke(*words_of(toy, head), "--set", "head.width=2", "--run", f"runs/bad-{head}")
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_head_whose_size_cannot_be_told_without_clip_is_said_in_a_comparison(
    place: Path, toy: Any, invoke: Any
) -> None:
    (place / "moved_head.py").write_text(FROZEN)
    own = ["--head", "moved_head:NormConfig", "--cache", toy.int8]
    done = invoke("train", *own, "--device", "cpu", *SETTINGS)
    assert done.exit_code == 0, done.output
    compared = invoke("compare", "runs/norm", *own)
    assert compared.exit_code == 1
    assert "its head cannot be built from what the run says" in compared.stderr
    assert "visual.ln_post.weight" in compared.stderr


def test_a_training_in_two_processes_is_stopped_and_goes_on(trained: Path, toy: Any, vidxfer: Any) -> None:
    words = [*words_of(toy), "--devices", 2, "--run", "two", "--json"]
    stopped = vidxfer(*words, cwd=trained, STOP_AT="5")
    assert stopped.returncode == 75, stopped.stderr
    assert "GLOBAL_RANK" not in stopped.stderr, "what a library logs is not printed"
    assert json.loads(stopped.stdout)["global_step"] == 6, "both processes agree on the stop one step later"
    done = vidxfer(*words, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["global_step"] == 9
    assert "going on at epoch 3, step 1 of 3" in done.stderr
