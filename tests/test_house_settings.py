"""A setting does something: each field is read by code that holds an object of its class.

Which class' field does `x.name` read? Answered from annotations alone, well enough to say that nobody reads a field.

A value is known by the set of classes that its annotation names: `X | None`, `tuple[X, ...]` and `dict[str, X]` are all
X, and so are an item of one, and what a loop over one gives. Known are parameters, fields, `self`, what functions and
properties return, attributes set from any of these, `replace(x, …)`, and what `isinstance` asks for.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("pipeline", "stages", "cli")

SETTINGS = {"Recipe", "Optimiser", "ClipShape", "DistSizes", "DistConfig", "EvlSizes", "EvlConfig", "Mixing",
            "Published", "Sampling", "DataSource", "ClipChoice", "CacheChoice", "EngineChoice",
            "SlurmChoice", "TlsFiles"}  # fmt: skip
"""Classes of settings, with every `…Request`: a field that nobody reads would be a setting that does nothing."""

TELL_ONLY = {
    "pipeline/heads/dist/release.py": "says which settings a file of others has, and builds nothing by them",
    "pipeline/heads/evl/release.py": "says which settings a file of others has, and builds nothing by them",
}
"""Files that read settings and do nothing by them."""

PASSED_ON = {
    "replace",
    "sorted",
    "list",
    "tuple",
    "next",
    "zip",
    "enumerate",
    "max",
    "min",
    "filter",
    "checked",
    "copy",
}
"""Functions whose result is of the kind of their arguments."""

CHECKS = {"__post_init__"}
"""Where a class looks at its own fields without using them."""

BINDS_OR_LOADS = (
    ast.arg, ast.Assign, ast.AnnAssign, ast.For, ast.AsyncFor, ast.comprehension, ast.withitem, ast.NamedExpr, ast.Call,
    ast.Attribute,
)  # fmt: skip
"""Nodes that `Reads.scope` looks at."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Names = dict[str, set[str]]


class Reads:
    """`read` holds (class, field) of every attribute that some code loads.

    Args:
        trees: the files of the house.
    """

    def __init__(self, trees: Iterable[ast.Module]) -> None:
        files = list(trees)
        self.classes = {n.name: n for tree in files for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        self.bases = {
            name: [base for base in map(ast.unparse, node.bases) if base in self.classes]
            for name, node in self.classes.items()
        }
        self.known: dict[ast.AST, set[str]] = {}
        self.parts: dict[ast.AST, tuple[list[ast.AST], list[ast.AST]]] = {}
        self.members: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.shared: Names = defaultdict(set, {name: {name} for name in self.classes})
        self.read: set[tuple[str, str]] = set()
        for name, node in self.classes.items():
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                    self.members[name, one.target.id] = self.named(one.annotation)
                elif isinstance(one, ast.FunctionDef):
                    self.members[name, one.name] = self.named(one.returns) | (
                        {name} & {ast.unparse(one.returns or one)}
                    )
        for tree in files:
            for one in tree.body:
                if isinstance(one, ast.FunctionDef):
                    self.shared[one.name] |= self.named(one.returns)
        for _ in range(3):  # what a constructor stores is known to the methods, and what these store to others
            for tree in files:
                self.scope(tree, None, self.shared)

    def named(self, annotation: ast.AST | None) -> set[str]:
        """The classes that an annotation names."""
        if annotation is None:
            return set()
        if annotation not in self.known:
            self.known[annotation] = set(re.findall(r"\w+", ast.unparse(annotation))) & set(self.classes)
        return set(self.known[annotation])

    def lineage(self, name: str) -> list[str]:
        """A class and those it inherits from."""
        return [name, *(one for base in self.bases[name] for one in self.lineage(base))]

    def kinds(self, node: ast.AST | None, names: Names) -> set[str]:
        """The classes that a value may be of, or hold."""
        if isinstance(node, ast.Name):
            return names.get(node.id) or self.shared.get(node.id, set())
        if isinstance(node, ast.Attribute):
            owners = {one for kind in self.kinds(node.value, names) for one in self.lineage(kind)}
            own = set().union(*(self.members.get((owner, node.attr), set()) for owner in owners))
            return (
                own if owners and node.attr not in ("values", "items", "get") else self.kinds(node.value, names) | own
            )
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            given = [*node.args] if called in PASSED_ON else [node.func]
            return set().union(*(self.kinds(one, names) for one in given))
        if isinstance(node, ast.Subscript | ast.Starred | ast.Await | ast.NamedExpr):
            return self.kinds(node.value, names)
        if isinstance(node, ast.IfExp | ast.BoolOp | ast.Tuple | ast.List | ast.BinOp):
            return set().union(*(self.kinds(one, names) for one in ast.iter_child_nodes(node)))
        if isinstance(node, ast.Dict):
            return set().union(*(self.kinds(one, names) for one in node.values))
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            return self.kinds(node.elt, names)
        return self.kinds(node.value, names) if isinstance(node, ast.DictComp) else set()

    def bind(self, target: ast.AST | None, kinds: set[str], names: Names) -> None:
        """A name, several names, or an attribute may be of these classes."""
        if isinstance(target, ast.Name):
            names[target.id] = names.get(target.id, set()) | kinds
        elif isinstance(target, ast.Attribute):
            for owner in self.kinds(target.value, names):
                self.members[owner, target.attr] |= kinds
        elif isinstance(target, ast.Tuple | ast.List | ast.Starred):
            for one in ast.iter_child_nodes(target):
                self.bind(one, kinds, names)

    def inside(self, node: ast.AST) -> tuple[list[ast.AST], list[ast.AST]]:
        """What binds or loads in a file, class or function itself, and the classes and functions in it."""
        if node not in self.parts:
            own, inner, left = [], [], list(ast.iter_child_nodes(node))
            while left:
                one = left.pop()
                is_inner = isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                if is_inner or isinstance(one, BINDS_OR_LOADS):
                    (inner if is_inner else own).append(one)
                left += [] if is_inner else ast.iter_child_nodes(one)
            self.parts[node] = own, inner
        return self.parts[node]

    def scope(self, node: ast.AST, owner: str | None, names: Names) -> None:
        """One file, class or function: names are bound first, then what is loaded is noted."""
        own, inner = self.inside(node)
        for one in own:
            if isinstance(one, ast.arg):
                self.bind(
                    ast.Name(one.arg),
                    {owner} if owner and one.arg in ("self", "cls") else self.named(one.annotation),
                    names,
                )
        for one in own * 2:  # a name may be bound by one that is bound further down
            if isinstance(one, ast.Assign):
                for target in one.targets:
                    self.bind(target, self.kinds(one.value, names), names)
            elif isinstance(one, ast.AnnAssign):
                self.bind(one.target, self.named(one.annotation), names)
            elif isinstance(one, ast.For | ast.AsyncFor | ast.comprehension):
                self.bind(one.target, self.kinds(one.iter, names), names)
            elif isinstance(one, ast.withitem):
                self.bind(one.optional_vars, self.kinds(one.context_expr, names), names)
            elif isinstance(one, ast.NamedExpr):
                self.bind(one.target, self.kinds(one.value, names), names)
            elif isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "isinstance":
                self.bind(one.args[0], self.named(one.args[1]), names)
        for one in own:
            if (
                isinstance(one, ast.Attribute)
                and isinstance(one.ctx, ast.Load)
                and getattr(node, "name", "") not in CHECKS
            ):
                self.read |= {(up, one.attr) for kind in self.kinds(one.value, names) for up in self.lineage(kind)}
        for one in inner:
            within = one.name if isinstance(one, ast.ClassDef) else owner
            self.scope(one, within, dict(names) if names is not self.shared else {})


def unread(trees: list[ast.Module]) -> list[str]:
    """Fields of settings that no code reads of an object of their class."""
    reads = Reads(trees)
    settings = {name: node for name, node in reads.classes.items() if name in SETTINGS or name.endswith("Request")}
    fields = [
        (name, one.target.id)
        for name, node in settings.items()
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if "ClassVar" not in ast.unparse(one.annotation)
    ]
    return [f"{name}.{field}" for name, field in fields if (name, field) not in reads.read]


def test_every_setting_is_read_by_somebody() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    assert set(files) >= set(TELL_ONLY)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items() if name not in TELL_ONLY]
    assert {n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)} >= SETTINGS
    assert unread(trees) == []


def test_a_setting_of_a_name_that_others_have_is_missed_when_its_own_class_is_never_read() -> None:
    text = """
class A(Base):
    seed: int
class ARequest(A):
    seed: int
    size: int
    def __post_init__(self): assert self.size > 0
class BRequest:
    seed: int
    many: tuple[ARequest, ...]
class Runner:
    def __init__(self, request: BRequest): self.asked = request
    def run(self): return [replace(one, seed=1).USED for one in self.asked.many]
"""
    assert unread([ast.parse(text.replace("USED", "size"))]) == ["ARequest.seed", "BRequest.seed"]
    assert unread([ast.parse(text.replace("USED", "seed"))]) == ["ARequest.size", "BRequest.seed"]
