"""Heads of a person's own: what may be added, what `--head` may name, and what a run folder of another head says."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vidxfer.pipeline.errors import RunError, UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.probe import ProbeConfig
from vidxfer.pipeline.training import own_heads
from vidxfer.pipeline.training.own_heads import add_head, expect_known_head, import_head, known_heads, place_of
from vidxfer.pipeline.training.recipes import named, recipe

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from vidxfer import Head, HeadConfig, Needs, Offer


@dataclass(frozen=True, kw_only=True)
class OwnConfig(HeadConfig):
    kind: ClassVar[str] = "own"
    width: int = 3

    def needs(self, offer: Offer) -> Needs:
        return Needs(embedding=True)

    def build(self, offer: Offer) -> Head:
        raise SystemExit("built")


number = 3
"""


class _Parts(HeadConfig):
    """The two methods that every head has."""

    def needs(self, offer: Offer) -> Needs:
        return Needs(embedding=True)

    def build(self, offer: Offer) -> Head:
        raise AssertionError(offer)


@dataclass(frozen=True, kw_only=True)
class Good(_Parts):
    kind: ClassVar[str] = "good-1"
    width: int = 3
    layers: tuple[int, ...] | None = (0, 2)
    rate: float = 1


@pytest.fixture(autouse=True)
def only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added here is not known to other tests."""
    monkeypatch.setattr(own_heads, "_own", {})
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module and a package in it; none of them stays imported."""
    before = set(sys.modules)
    (tmp_path / "own_head_file.py").write_text(MODULE)
    (tmp_path / "own_head_pkg/deep").mkdir(parents=True)
    (tmp_path / "own_head_pkg/deep/heads.py").write_text(MODULE + "import own_head_file\n")
    (tmp_path / "own_head_broken.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_head"):
            del sys.modules[name]


def test_a_head_that_was_added_is_known_and_names_its_recipe() -> None:
    add_head(Good)
    add_head(Good)
    assert known_heads()["good-1"] is Good
    assert place_of(Good) == {"head": f"{__name__}:Good"}
    assert place_of(ProbeConfig) == {}, "of vidxfer's own nothing is said"
    found = recipe("probe", "head.width=5", "epochs=3", head=Good)
    assert (found.name, found.head, found.epochs) == ("good-1", Good(width=5), 3)
    assert found.learning_rate == named("probe").learning_rate
    assert recipe(None, "epochs=7", head=Good).learning_rate == 3.2e-4
    assert recipe("probe", "head=good-1").head == Good()


def test_a_class_that_was_edited_replaces_the_one_of_its_name() -> None:
    add_head(Good)
    edited = type("Good", (Good,), {"__module__": Good.__module__, "__qualname__": "Good"})
    add_head(edited)
    assert known_heads()["good-1"] is edited


def bad(**body: Any) -> type:
    """A class of settings with something that will not do."""
    return dataclass(frozen=True, kw_only=True)(type("Bad", (_Parts,), {"kind": "bad", "__module__": __name__, **body}))


CLASSES = {
    "no class": (lambda: number_of_a_head, "this is of type int, not a class of settings: a frozen dataclass"),
    "another class": (lambda: dict, "this is the class dict, not a class of settings"),
    "the base": (lambda: HeadConfig, "this is the class HeadConfig, not"),
    "abstract": (lambda: dataclass(frozen=True)(type("A", (HeadConfig,), {"kind": "a"})), "it lacks build, needs"),
    "no dataclass": (lambda: type("B", (_Parts,), {"kind": "b"}), r"needs @dataclass\(frozen=True"),
    "not frozen": (lambda: dataclass(type("C", (_Parts,), {"kind": "c"})), r"needs @dataclass\(frozen=True"),
    "no kind": (lambda: dataclass(frozen=True)(type("D", (_Parts,), {})), "kind is None: it needs kind: ClassVar"),
    "a path as kind": (lambda: bad(kind="../../x"), r"kind is '\.\./\.\./x'"),
    "a kind of vidxfer's": (lambda: bad(kind="probe"), "kind = 'probe' is a head of vidxfer's: choose another"),
    "no default": (lambda: bad(__annotations__={"width": int}), "each setting needs a value to begin with .*width"),
    "a setting of another type": (lambda: bad(__annotations__={"w": int}, w="3"), "w is '3', expected a whole number"),
    "a path": (lambda: bad(__annotations__={"w": Path}, w=Path("x")), "cannot keep its settings .TypeError.*texts"),
    "a set": (lambda: bad(__annotations__={"w": set}, w=field(default_factory=set)), "cannot keep its settings"),
    "a list": (lambda: bad(__annotations__={"w": Any}, w=field(default_factory=lambda: (1,))), "come back .*as Bad"),
}
number_of_a_head = 3


@pytest.mark.parametrize("what", CLASSES)
def test_what_no_run_folder_could_keep_is_refused(what: str) -> None:
    make, words = CLASSES[what]
    with pytest.raises(UsageError, match=words):
        add_head(make())
    assert known_heads().keys() == own_heads.HEADS.keys()
    assert known_heads()["probe"] is ProbeConfig


def test_two_heads_of_one_kind_are_told_apart() -> None:
    add_head(Good)
    with pytest.raises(UsageError, match=r"Bad and \S+:Good both have kind = 'good-1'"):
        add_head(bad(kind="good-1"))


def test_head_names_a_class_in_a_file_or_a_package_of_this_folder(files: Path) -> None:
    assert import_head("own_head_file:OwnConfig").__module__ == "own_head_file"
    assert import_head("own_head_pkg.deep.heads:OwnConfig").__module__ == "own_head_pkg.deep.heads"
    assert sys.path[-1] == str(files), "behind everything that is installed"
    assert sys.path.count(str(files)) == 1


NAMES = {
    "own_head_file": "own_head_file' is not package.module:Class, like mypkg.myhead:PeakConfig",
    "own_head_file:": "is not package.module:Class",
    ":OwnConfig": "is not package.module:Class",
    "own_head_file.OwnConfig": "is not package.module:Class",
    "./own_head_file:OwnConfig": "A file myhead.py in this folder is the module myhead",
    "own_head_file:OwnConfig()": "is not package.module:Class",
    "own_head_none:OwnConfig": "no module 'own_head_none' in .*none of that name is installed",
    "own_head_pkg.none.heads:OwnConfig": r"no module 'own_head_pkg\.none' in",
    "own_head_file.py:OwnConfig": r"no module 'own_head_file\.py' in",
    "own_head_file:Owen": r"own_head_file\.py has no 'Owen'; settings of heads there: OwnConfig$",
    "own_head_file:number": "number is of type int, not a class of settings",
    "own_head_file:Head": "Head is the class Head, not a class of settings",
    "json:JSONDecoder": "JSONDecoder is the class JSONDecoder, not",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_to_no_head_says_why(name: str, files: Path) -> None:
    with pytest.raises(UsageError, match=f"^--head .*{NAMES[name]}"):
        import_head(name)


def test_an_error_of_the_file_itself_is_left_as_it_is(files: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_head("own_head_broken:OwnConfig")
    assert sys.path[0] != str(files)


def test_the_folder_is_searched_first_and_hides_no_library_afterwards(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tabnanny", "pyclbr"):  # of the standard library, and loaded by nobody
        (files / f"{name}.py").write_text(MODULE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert import_head("tabnanny:OwnConfig").kind == "own"
    assert not hasattr(importlib.import_module("pyclbr"), "OwnConfig")
    for name in ("tabnanny", "pyclbr"):
        monkeypatch.delitem(sys.modules, name)


def test_a_run_of_an_unknown_head_names_it_and_what_to_do() -> None:
    stored, made = {"head": {"kind": "own", "width": 3}}, {"head": "mypkg.file:OwnConfig"}
    words = (
        r"runs/x: its head is of kind 'own', which is none of vidxfer's: dist, .*trained with --head mypkg\.file:Own"
    )
    with pytest.raises(RunError, match=words + ".*imports nothing by itself.*--head package"):
        expect_known_head(Path("runs/x"), stored, made)
    add_head(Good)
    with pytest.raises(RunError, match=r"Added here: good-1 \(\S+:Good\)"):
        expect_known_head(Path("runs/x"), stored, made)
    expect_known_head(Path("runs/x"), {"head": {"kind": "good-1"}}, {})
    expect_known_head(Path("runs/x"), {"head": "dist"}, {})  # of 0.1.0
