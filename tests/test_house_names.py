"""A name means one thing: no two files define a public class, a type or a shared constant of the same name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("pipeline", "stages", "cli")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]

PROTOCOLS = {
    "PUBLISHED": "the tables of all heads in pipeline/heads are made of each family's own",
    "RECIPES": "as PUBLISHED",
}
"""Names that several files define because one table reads them all."""


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
