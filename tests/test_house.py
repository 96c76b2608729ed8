"""The house rules about code, read from its syntax trees: who may import what, and what nobody writes.

One test, one rule. A rule that has an exception names it here, with the reason.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("pipeline", "stages", "cli")
PUBLIC = "stages/public"
"""The folder that is the package `vidxfer` itself."""

FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

BASE = {"errors", "shapes", "spelled", "reading", "writing"}
MAY_IMPORT = {
    "spelled": set(),
    "errors": {"spelled"},
    "shapes": {"errors"},
    "grid": {"errors"},
    "reading": {"errors"},
    "writing": {"errors", "reading"},
    "disk": {"errors", "writing"},
    "precision": {"errors"},
    "typed": {"errors"},
    "resize": {"errors"},
    "visible": set(),
    "datasets": BASE,
    "video": {*BASE, "resize"},
    "clip": {*BASE, "precision", "resize"},
    "cache": {*BASE, "disk", "typed", "resize"},
    "heads": {*BASE, "grid"},
    "draw": {*BASE, "video", "cache"},
    "training": {*BASE, "disk", "grid", "precision", "typed", "video", "cache", "heads"},
}
"""Rooms of the pipeline, and what each may use: neither heads nor training know CLIP, no room knows a stage."""

EXCEPTIONS = {
    ("pipeline/datasets/toy_write.py", "pipeline.video.writer"): "the toy world writes real videos; imported late",
    ("pipeline/cache/spec.py", "pipeline.video.sampling"): "how views are drawn is a field of the spec; arithmetic",
    ("pipeline/cache/frames.py", "pipeline.video.sampling"): "which frames lie in a window; arithmetic",
}

SHELVES = {
    "pipeline/cache": ("codecs", "", "write", "read"),
    "stages": (
        "",
        "codecs",
        "shards",
        "spread",
        "videos",
        "planning",
        "comparing",
        "learning",
        "upkeep",
        "reporting",
        "library",
    ),
}
"""Shelves of a folder, lowest first; "" are the files that lie on no shelf. Imports go to the same shelf or down."""

ON_TOP = {
    "stages/extract.py": "stage one itself, what the other stages exist for",
    "stages/doctor.py": "looks at everything",
    "stages/public/__init__.py": "names what a person may use of every shelf",
}
"""Files on no shelf that may use every shelf, and that no shelf uses."""

MOST_FILES = 15
"""In one folder of SHELVES: more than that is a heap."""

DOORS = {
    "decord": ("pipeline/video/",),
    "av": ("pipeline/video/",),
    "open_clip": ("pipeline/clip/",),
    "timm": ("pipeline/clip/",),
    "zarr": ("pipeline/cache/",),
    "numcodecs": ("pipeline/cache/",),
    "crc32c": ("pipeline/cache/",),
    "PIL": ("pipeline/video/",),
    "torchvision": ("pipeline/video/",),
    "torchmetrics": ("pipeline/training/",),
    "tensorboard": ("pipeline/training/",),
    "safetensors": ("pipeline/clip/", "pipeline/training/", "pipeline/cache/"),
    "lightning_fabric": ("stages/",),
    "pyarrow": ("pipeline/datasets/",),
    "dask": ("stages/spread/",),
    "distributed": ("stages/spread/",),
    "dask_jobqueue": ("stages/spread/slurm.py",),
    "matplotlib": ("stages/plots.py", "stages/reporting/drawing.py"),
    "jinja2": ("stages/reporting/page.py",),
    "markupsafe": ("stages/reporting/page.py",),
    "typer": ("cli/",),
    "rich": ("cli/show.py",),
    "click": ("cli/",),
}
"""The only folders that may say `import` of these."""

HEAVY = ("torch", "torchvision", "open_clip", "timm", "av", "decord", "zarr", "numcodecs", "dask", "distributed",
         "lightning_fabric", "torchmetrics", "tensorboard", "safetensors", "einops", "numpy")  # fmt: skip
"""What `vidxfer --help` must not load."""

CATCHES_ANYTHING = {
    "pipeline/video/guarded.py": "a stranger's file may bring about any error, and must cost itself and no run",
}
"""Files with one handler of `Exception`, and why."""

MOST_LINES, MOST_STATEMENTS = 280, 40


def imports(tree: ast.Module) -> Iterator[str]:
    """Full dotted names of everything imported anywhere in a file, late imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written out in full"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """ "vidxfer.pipeline.cache.spec" -> "pipeline.cache.spec"; None for what is not ours."""
    return name.removeprefix("vidxfer.") if name.startswith("vidxfer.") else None


def defined(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_folder_of_code_is_named_in_the_packages() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {"vidxfer." + path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in FILES}
    assert set(settings["packages"]) == (folders - {"vidxfer.stages.public"}) | {"vidxfer"}
    assert settings["package-dir"] == {"vidxfer": PUBLIC, **{f"vidxfer.{floor}": floor for floor in FLOORS}}
    assert [path.name for path in (ROOT / PUBLIC).glob("*.py")] == ["__init__.py"], "else it has two names"
    links = {path.name: (path.readlink()).as_posix() for path in (ROOT / ".typings/vidxfer").iterdir()}
    public = {name: f"../../{PUBLIC}/{name}" for name in ("__init__.py", "py.typed")}
    assert links == {**public, **{floor: f"../../{floor}" for floor in FLOORS}}


def test_imports_go_down_only() -> None:
    wrong, used = [], set()
    for name, tree in TREES.items():
        floor, *rest = name.removesuffix(".py").split("/")
        for target in filter(None, map(own, imports(tree))):
            to_floor, *to_rest = target.split(".")
            if FLOORS.index(to_floor) > FLOORS.index(floor):
                wrong.append(f"{name} imports {target}")
            if floor != "pipeline" or not to_rest or rest[0] == to_rest[0] or rest[0] == "__init__":
                continue
            excused = [key for key in EXCEPTIONS if key[0] == name and target.startswith(key[1])]
            used.update(excused)
            if to_rest[0] not in MAY_IMPORT[rest[0]] and not excused:
                wrong.append(f"{name} imports {target}; {rest[0]} may use {', '.join(sorted(MAY_IMPORT[rest[0]]))}")
    assert not wrong, "\n".join(wrong)
    assert used == set(EXCEPTIONS), "an exception that nobody needs any more"


def module_of(target: str) -> str | None:
    """The file that holds an imported name of ours: "pipeline.cache.spec.CacheSpec" -> "pipeline/cache/spec.py"."""
    parts = target.split(".")
    return next((f for n in (len(parts), len(parts) - 1) if (f := "/".join(parts[:n]) + ".py") in TREES), None)


FILES_USED = {
    name: {f for target in filter(None, map(own, imports(tree))) if (f := module_of(target)) not in (None, name)}
    for name, tree in TREES.items()
}
"""For each file the files it imports from."""


@pytest.mark.parametrize("folder", SHELVES)
def test_shelves_import_down_only(folder: str) -> None:
    def height(name: str) -> int:
        if name in ON_TOP:
            return len(SHELVES[folder])
        shelf, slash, _ = name.removeprefix(f"{folder}/").partition("/")
        return SHELVES[folder].index(shelf if slash else "")

    inside = [name for name in TREES if name.startswith(f"{folder}/")]
    wrong = [
        f"{name} imports {used}"
        for name in inside
        for used in FILES_USED[name]
        if used.startswith(f"{folder}/") and height(used) > height(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_imports_go_in_a_circle() -> None:
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " imports ".join((*path[path.index(name) :], name))
        if name not in done:
            for used in sorted(FILES_USED[name]):
                walk(used, (*path, name))
            done.add(name)

    for name in TREES:
        walk(name, ())


def test_no_folder_is_a_heap() -> None:
    folders = {path.parent for path in FILES if path.relative_to(ROOT).as_posix().startswith(tuple(SHELVES))}
    counted = {folder.relative_to(ROOT).as_posix(): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counted.items() if count > MOST_FILES} == {}


def test_heavy_libraries_have_one_door_each() -> None:
    wrong = [
        f"{name} imports {target}; its door is {', '.join(DOORS[library]) or 'nowhere yet'}"
        for name, tree in TREES.items()
        for target in imports(tree)
        if (library := "tensorboard" if "tensorboard" in target.split(".") else target.split(".")[0]) in DOORS
        and not name.startswith(DOORS[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom vidxfer.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_only_errors_that_have_a_name_are_caught() -> None:
    wrong, used = [], []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if name in CATCHES_ANYTHING and isinstance(node.type, ast.Name) and node.type.id == "Exception":
                used.append(name)
                continue
            caught = set() if node.type is None else {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if node.type is None or "Exception" in caught or ("BaseException" in caught and not passed_on):
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong, wrong
    assert used == list(CATCHES_ANYTHING), "one place each, and no exception that nobody needs any more"


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "NotImplementedError", "import pdb", "breakpoint("])
def test_nothing_is_left_for_later(word: str) -> None:
    assert [path.name for path in FILES if word in path.read_text(encoding="utf-8")] == []


WRITERS = {"print", "input", "echo", "secho", "confirm", "prompt", "echo_via_pager", "write", "writelines", "pprint"}
STREAMS = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")


def spoken(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that put text on a terminal: by name, or as methods of typer and of the standard streams."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, method = called.rpartition(".")
        by_name = method in WRITERS and owner in ("", "typer", "click", "rich", "builtins", "pprint", *STREAMS)
        if by_name or (called in ("os.write", "os.writev") and ast.unparse(node.args[0]) in ("1", "2")):
            yield node


def test_nothing_reaches_a_terminal_but_through_show() -> None:
    found = {f"{name}:{one.lineno}" for name, tree in TREES.items() if name != "cli/show.py" for one in spoken(tree)}
    assert found == set()


def test_all_that_show_prints_was_made_harmless() -> None:
    tree = TREES["cli/show.py"]
    (printed,) = spoken(tree)
    assert ast.unparse(printed.args[0]).startswith("harmless(")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    texts = [ast.unparse(one.args[0]) for one in calls if ast.unparse(one.func) == "Text"]
    assert len(texts) == 3
    assert [text for text in texts if "harmless" not in text] == []
    columns = [one for one in calls if ast.unparse(one.func) == "TextColumn"]
    assert [ast.unparse(one) for one in columns if "markup=False" not in ast.unparse(one)] == []
    added = [one for one in calls if ast.unparse(one.func).endswith((".add_row", ".add_column")) and one.args]
    assert [ast.unparse(one) for one in added if "_cell" not in ast.unparse(one)] == []


def test_files_are_short() -> None:
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in TREES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def statements(function: ast.AST) -> int:
    """Statements of a function; those of functions inside it count there."""
    total = 0
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.stmt):
            total += 1
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            total += statements(child)
    return total


def test_functions_are_short() -> None:
    counted = {f"{name}:{node.name}": statements(node) for name, tree in TREES.items() for node in defined(tree)}
    assert {name: count for name, count in counted.items() if count > MOST_STATEMENTS} == {}


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public classes, functions and methods, not those inside functions."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_whatever_is_public_says_what_it_is() -> None:
    silent = [name for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    silent += [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in TREES.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)


def test_every_error_raised_on_purpose_is_in_the_tree() -> None:
    drawn = ast.get_docstring(TREES["pipeline/errors.py"]) or ""
    classes = [n.name for n in ast.walk(TREES["pipeline/errors.py"]) if isinstance(n, ast.ClassDef)]
    assert [name for name in classes if name != "VideoReason" and name not in drawn] == []
    elsewhere = [
        f"{name}: {node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
        if name != "pipeline/errors.py"
    ]
    assert elsewhere == []
