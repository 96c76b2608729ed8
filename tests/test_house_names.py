"""A name means one thing, and says what it holds.

No two files define a public class, a type or a shared constant of the same name. Local names are no empty words.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("pipeline", "stages", "cli")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]

PROTOCOLS = {
    "PUBLISHED": "the tables of all heads in pipeline/heads are made of each family's own",
    "RECIPES": "as PUBLISHED",
}
"""Names that several files define because one table reads them all."""

EMPTY = frozenset({"at", "found", "got", "it", "mine", "n", "one", "some", "thing", "things", "this"})
"""Words that say nothing of a value; `match`, `offset` or `view` do."""


def types_and_constants(tree: ast.Module) -> Iterator[str]:
    """Public classes, type aliases and constants of a file; type variables mean nothing outside of it."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not ast.unparse(node.value or node).startswith(
            "TypeVar("
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def imported(tree: ast.Module) -> Iterator[str]:
    """Names that a file takes from other files of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidxfer."):
            yield from (name.name for name in node.names)


def meaning_several_things(sources: dict[str, str]) -> dict[str, list[str]]:
    """Name -> files that define it, where there are several: of every type, and of constants that are imported."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    shared = {name for tree in trees.values() for name in imported(tree)}
    defined: dict[str, list[str]] = {}
    for file, tree in trees.items():
        for name in set(types_and_constants(tree)):
            is_type = name[0].isupper() and not name.isupper()
            if is_type or (name.isupper() and name in shared and not name.startswith("_")):
                defined.setdefault(name, []).append(file)
    return {name: files for name, files in sorted(defined.items()) if len(files) > 1}


def test_a_public_name_means_one_thing() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    found = meaning_several_things(sources)
    assert {name: files for name, files in found.items() if name not in PROTOCOLS} == {}
    assert set(PROTOCOLS) <= set(found), "an exception that nobody needs goes"


def test_homonyms_are_found_and_local_limits_are_not() -> None:
    one = "from typing import TypeVar\nT = TypeVar('T')\nAHEAD = 2\nMOST = 3\nclass Run:\n    pass\n"
    other = "from typing import TypeVar\nT = TypeVar('T')\nAHEAD = 4\nMOST = 5\nRun = tuple[int, int]\n"
    third = "from vidxfer.one import AHEAD, Run\n"
    found = meaning_several_things({"one.py": one, "other.py": other, "third.py": third})
    assert found == {"AHEAD": ["one.py", "other.py"], "Run": ["one.py", "other.py"]}


NAMED = ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.FunctionDef
"""What gives a name by a word of its own, and not by a node."""


def local_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of parameters, targets, caught errors and functions; no methods and fields of a class."""
    members = [node for cls in ast.walk(tree) if isinstance(cls, ast.ClassDef) for node in cls.body]
    own = {id(node.target if isinstance(node, ast.AnnAssign) else node) for node in members}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in own:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, NAMED) and node.name and id(node) not in own:
            yield node.lineno, node.name


@pytest.mark.parametrize("folder", FLOORS)
def test_local_names_say_what_they_hold(folder: str) -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in local_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in EMPTY
    ]
    assert silent == [], "give these names a word that says what is in them"


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "def f(one): pass",
        "f = lambda at: 0",
        "for n in x: pass",
        "[0 for some in x]",
        "with x as it: pass",
        "if (got := x): pass",
        "a, (b, *mine) = x",
        "try:\n    x\nexcept OSError as this:\n    pass",
        "match x:\n    case [thing]:\n        pass",
        "def f():\n    def some(): pass",
    ],
)
def test_an_empty_name_is_seen_wherever_it_is_given(text: str) -> None:
    assert len([name for _, name in local_names(ast.parse(text)) if name in EMPTY]) == 1


def test_a_method_a_field_and_a_read_name_are_no_local_names() -> None:
    text = "class A:\n    things: int\n    def at(self): return found\n"
    assert [name for _, name in local_names(ast.parse(text)) if name in EMPTY] == []
