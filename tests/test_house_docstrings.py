"""Attributes and arguments stand one a line: of two on one line the second is not found by who looks for its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("pipeline", "stages", "cli")


def names_of(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """What the docstring may explain: arguments; of a class its fields, methods and attributes too."""
    found = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    if isinstance(node, ast.ClassDef):
        for one in ast.walk(node):
            if isinstance(one, ast.AnnAssign):
                found.add(ast.unparse(one.target).removeprefix("self."))
            elif isinstance(one, ast.FunctionDef | ast.Attribute):
                found.add(one.name if isinstance(one, ast.FunctionDef) else one.attr)
    return found


def sharing_a_line(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line numbers, and the line, where a second explained name follows a first."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or not (text := ast.get_docstring(node, clean=False)):
            continue
        names, begin, section = names_of(node), node.body[0].lineno, None
        for place, line in enumerate(text.splitlines()):
            indent = len(line) - len(line.lstrip())
            if line.strip() in ("Attributes:", "Args:"):
                section = indent
            elif section is not None and (not line.strip() or indent <= section):
                section = None
            elif section is not None:
                later = re.findall(r"(?<=[.;?)]) ([a-z_]\w*(?:, [a-z_]\w*)*): ", line)
                if any(set(found.split(", ")) <= names for found in later):
                    yield begin + place, line.strip()


def test_attributes_and_arguments_stand_one_a_line() -> None:
    found = {}
    for path in (path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))):
        name = path.relative_to(ROOT).as_posix()
        lines = sharing_a_line(ast.parse(path.read_text(encoding="utf-8")))
        found |= {f"{name}:{number}": line for number, line in lines}
    assert found == {}


def test_two_names_on_a_line_are_found_and_a_colon_alone_is_not() -> None:
    text = '''
class Tower:
    """A tower.

    Attributes:
        model: its name. width: of a token.
        form: see the paper. note: this colon explains nothing, and so does
            this one: it does not.
    """

    model: str
    width: int
    form: str
'''
    assert list(sharing_a_line(ast.parse(text))) == [(6, "model: its name. width: of a token.")]
