"""The house rule about files of strangers: nothing is written but through pipeline/writing.py, and caches and run
folders are read through pipeline/reading.py.

Read from the syntax trees. What goes another way is named here with the reason; one that nobody needs is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOORS = ("pipeline/reading.py", "pipeline/writing.py")
TREES = {
    name: ast.parse(path.read_text(encoding="utf-8"))
    for floor in ("pipeline", "stages", "cli")
    for path in sorted((ROOT / floor).rglob("*.py"))
    if (name := path.relative_to(ROOT).as_posix()) not in DOORS
}

WRITES = {"write_text", "write_bytes", "touch", "mkdir", "rename", "unlink", "rmdir", "symlink_to", "hardlink_to",
          "chmod", "lchmod", "savefig", "tofile", "makedirs", "save_file", "SummaryWriter", "create_group",
          "create_array", "open_zarr", "to_csv", "to_parquet", "write_table", "extractall"}  # fmt: skip
READS = {"read_bytes", "read_text", "load_file", "safe_open", "fromfile", "memmap", "open_group", "ZipFile"}
OF_MODULE = {
    "os": {"open", "remove", "rename", "replace", "link", "symlink", "truncate", "removedirs", "renames", "mkfifo",
           "mknod", "chown", "utime", "unlink", "rmdir", "mkdir", "makedirs", "chmod", "fdopen"},
    "shutil": {"rmtree", "copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "chown", "copymode",
               "copystat", "unpack_archive", "make_archive"},
    "tempfile": {"TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkstemp"},
    "io": {"open", "FileIO"},
    "np": {"save", "savez", "savez_compressed", "savetxt", "load", "loadtxt", "genfromtxt"},
    "torch": {"save", "load"},
    "json": {"load"},
    "av": {"open"},
}  # fmt: skip

EXCEPTIONS = {
    ("stages/reporting/drawing.py", "savefig"): "into a buffer",
    ("pipeline/cache/store.py", "create_group"): "zarr writes by path: into a folder that was made just now",
    ("pipeline/cache/store.py", "create_array"): "as create_group",
    (
        "pipeline/cache/write/grow.py",
        "open_group",
    ): "zarr writes by path: into folders in which expect_plain_tree saw no link",
    (
        "pipeline/cache/remote.py",
        "open_group",
    ): "zarr reads small arrays, after expect_readable has looked at each file",
    ("pipeline/cache/remote.py", "read_bytes"): "of an object behind a URL; its length was asked",
    (
        "pipeline/training/journal.py",
        "SummaryWriter",
    ): "makes files itself: in a folder without a link, by a fresh name",
    ("pipeline/training/journal.py", "os.fdopen"): "a descriptor of open_growing",
    ("stages/videos/check.py", "os.fdopen"): "a descriptor of open_growing",
    ("pipeline/training/run.py", "torch.load"): "of bytes that the door has read",
    ("pipeline/video/guard.py", "tempfile.TemporaryFile"): "as stages/planning/measure.py",
    ("pipeline/training/weights.py", "load_file"): "a file that a person named, seen to be regular",
    ("stages/planning/measure.py", "tempfile.TemporaryFile"): "has no name that anybody could have laid out a link for",
    ("pipeline/clip/tiny.py", "read_bytes"): "of a file of the package",
    ("pipeline/datasets/names.py", "read_text"): "of a file of the package",
    ("pipeline/datasets/paths.py", "read_bytes"): "label lists of a data set, seen to be regular",
    ("pipeline/video/guard.py", "read_bytes"): "of /proc",
    ("pipeline/training/journal.py", "read_text"): "of /proc",
    ("pipeline/video/identity.py", "open"): "a video, seen to be regular in the line before",
    ("pipeline/video/wholeness.py", "open"): "a video; video/container.py has seen that it is regular",
    ("pipeline/video/container.py", "av.open"): "as video/wholeness.py",
    ("pipeline/video/pictures.py", "open"): "pictures of a frame folder, each seen to be regular",
}
"""(file, what it calls): why that is no way round the doors."""


def through_door(tree: ast.Module) -> set[ast.Call]:
    """Calls inside `with whole_file(…) as name` that are handed that very name: a library writes where it is told."""
    found = set()
    for block in ast.walk(tree):
        if not isinstance(block, ast.With):
            continue
        names = {
            item.optional_vars.id
            for item in block.items
            if isinstance(item.context_expr, ast.Call) and isinstance(item.optional_vars, ast.Name)
            and called(item.context_expr) in ("whole_file", "whole_path", "opened", "expect_unpacked")
        }  # fmt: skip
        for call in (node for node in ast.walk(block) if isinstance(node, ast.Call)):
            given = {part.id for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
            if names & given:
                found.add(call)
    return found


def called(call: ast.Call) -> str:
    """ "torch.save" for a module we know, else the last name."""
    if isinstance(call.func, ast.Attribute):
        value = call.func.value
        known = isinstance(value, ast.Name) and value.id in OF_MODULE
        return f"{value.id}.{call.func.attr}" if known and isinstance(value, ast.Name) else call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def goes_round(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(what is called, line) of each call that reads or writes a file by itself."""
    excused = through_door(tree)
    own = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vidxfer.")
        for alias in node.names
    }
    methods = {f"{module}.{name}" for module, names in OF_MODULE.items() for name in names}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in excused):
        name = called(call)
        by_name = isinstance(call.func, ast.Name)
        is_open = name == "open" and not (isinstance(call.func, ast.Attribute) and ours(call.func.value))
        # Path.replace has one argument, str.replace two, and dataclasses.replace keywords.
        is_replace = name == "replace" and not by_name and len(call.args) == 1 and not call.keywords
        if name in methods or is_open or is_replace or (name in WRITES | READS and not (by_name and name in own)):
            yield name, call.lineno


def ours(value: ast.expr) -> bool:
    """Whether `.open` is of a class of ours that has such a method."""
    return isinstance(value, ast.Name) and value.id in ("Run", "cls")


def test_nothing_goes_round_the_doors() -> None:
    found = {(name, what): line for name, tree in TREES.items() for what, line in goes_round(tree)}
    assert {
        f"{name}:{line} calls {what}" for (name, what), line in found.items() if (name, what) not in EXCEPTIONS
    } == set()
    assert set(EXCEPTIONS) - set(found) == set(), "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "line",
    [
        "open('x', 'w')", "path.open('a')", "path.open(mode)", "path.write_text('')", "path.touch()",
        "os.open('x', 1)",
        "np.savez(path, a=a)", "torch.save(a, path)", "save_file(a, path)", "shutil.rmtree(path)", "path.replace(x)",
        "shutil.copyfile(a, b)", "path.rename(other)", "os.replace(a, b)", "path.symlink_to(b)", "path.unlink()",
        "path.mkdir()", "SummaryWriter('x')", "figure.savefig('x')", "path.read_bytes()", "torch.load(path)",
        "json.load(file)", "np.load(path)", "load_file(path)", "tempfile.mkdtemp()", "av.open(path, 'w')",
    ],
)  # fmt: skip
def test_each_of_these_would_be_seen(line: str) -> None:
    assert len(list(goes_round(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    ["with whole_file(path) as file:\n    torch.save(state, file)", "text.replace('a', 'b')", "replace(spec, views=1)",
     "Run.open(path)", "names.remove(x)", "array.copy()", "with whole_file(p) as file:\n    file.write(save(w))"],
)  # fmt: skip
def test_none_of_these_is_meant(line: str) -> None:
    assert list(goes_round(ast.parse(line))) == []
