"""Heads of a person's own: a class of settings in a file outside the package, known from then on by its kind.

    "mypkg.myhead:PeakConfig" ─ import_head ─▶ class ─ add_head ─▶ checked ─▶ known beside the heads of `pipeline.heads`

A run folder may come from a stranger. It says of which kind its head is, and nothing is imported because it says so.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from vidxfer.pipeline.errors import RunError, UsageError
from vidxfer.pipeline.heads import HEADS
from vidxfer.pipeline.heads.base import HeadConfig
from vidxfer.pipeline.typed import checked

FORM = "package.module:Class, like mypkg.myhead:PeakConfig"
MOST_SHOWN = 80
"""Characters of what a run folder calls its head."""

_own: dict[str, type[HeadConfig]] = {}


def known_heads() -> dict[str, type[HeadConfig]]:
    """Kind -> class of settings: vidxfer's heads, then those that were added."""
    return {**HEADS, **_own}


def place_of(config: type[HeadConfig]) -> dict[str, str]:
    """What `run.json` says of the class behind a head: what `--head` calls it; nothing of vidxfer's own."""
    return {"head": _called(config)} if _own.get(config.kind) is config else {}


def add_head(config: type[HeadConfig]) -> None:
    """Make a head of your own known in this process: runs of its kind can be opened then.

    Args:
        config: its class of settings. The same class may be added again, also after it was edited in a notebook.

    Raises:
        UsageError: it is no class of settings that a run folder can keep, or its kind is taken; the text says why.
    """
    name = _called(config)
    if problem := _problem_of_class(config) or _problem_of_values(config):
        raise UsageError(f"{name}: {problem}. docs/python.md has an example")
    if config.kind in HEADS and HEADS[config.kind] is not config:
        raise UsageError(f"{name}: kind = {config.kind!r} is a head of vidxfer's: choose another word for it")
    other = _own.get(config.kind, config)
    if _called(other) != name:
        raise UsageError(f"{name} and {_called(other)} both have kind = {config.kind!r}: give one of them another word")
    if config.kind not in HEADS:
        _own[config.kind] = config


def import_head(name: str) -> type[HeadConfig]:
    """Import the class that `--head` names, from the current folder or from what is installed.

    The current folder is searched first, as `python -m` does it. After the import it stays at the end of the path. What
    the module imports later is found there, and a file of the folder hides no library that vidxfer loads later.

    Args:
        name: "package.module:Class".

    Raises:
        UsageError: it is not of that form, or there is no such module, or no such class in it. What the module itself
            raises is left as it is.
    """
    module_name, _, class_name = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not re.fullmatch(r"\w+", class_name):
        raise UsageError(f"--head {name!r} is not {FORM}. A file myhead.py in this folder is the module myhead")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # another one, which the module itself wants
        raise UsageError(
            f"--head {name}: no module {error.name!r} in {here}, and none of that name is installed ({error}). Start "
            f"vidxfer in the folder from which `import {module_name}` works"
        ) from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)
    named = getattr(module, class_name, None)
    if named is None:
        there = [key for key, value in vars(module).items() if _is_settings(value) and value.__module__ == module_name]
        where = getattr(module, "__file__", None) or module_name
        raise UsageError(f"--head {name}: {where} has no {class_name!r}; settings of heads there: {_listed(there)}")
    if not _is_settings(named):
        raise UsageError(f"--head {name}: {class_name} is {_described(named)}, not {_WANTED}")
    config: type[HeadConfig] = named
    return config


def expect_known_head(path: Path, recipe: Mapping[str, Any], made_from: Mapping[str, Any]) -> None:
    """Check that the head of a run folder is known, before its settings are read.

    Args:
        path: the run folder.
        recipe: what `recipe.json` holds.
        made_from: what `run.json` holds.

    Raises:
        RunError: it is of a kind that is neither vidxfer's nor was added.
    """
    head = recipe.get("head")
    kind = head.get("kind") if isinstance(head, Mapping) else None
    if not isinstance(kind, str) or kind in known_heads():
        return  # what is no kind at all is refused where the settings are read
    said = made_from.get("head")
    trained = "" if said is None else f" It was trained with --head {said[:MOST_SHOWN]}."
    added = f" Added here: {_listed([f'{key} ({_called(config)})' for key, config in _own.items()])}." if _own else ""
    raise RunError(
        f"{path}: its head is of kind {kind[:MOST_SHOWN]!r}, which is none of vidxfer's: {', '.join(HEADS)}.{added}"
        f"{trained} A run folder imports nothing by itself. If you have that head's file, and trust it, name it again: "
        "--head package.module:Class (in Python: vidxfer.add_head(Class)). If it was one of vidxfer's heads, "
        "recipe.json is damaged or of another version: put it back, or train into another folder with --run."
    )


_WANTED = "a class of settings: a frozen dataclass that inherits from vidxfer.HeadConfig"


def _is_settings(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, HeadConfig) and value is not HeadConfig


def _problem_of_class(config: type[HeadConfig]) -> str | None:
    if not _is_settings(config):
        return f"this is {_described(config)}, not {_WANTED}"
    if inspect.isabstract(config):
        return f"it lacks {_listed(sorted(config.__abstractmethods__))}"
    if not is_dataclass(config) or not config.__dataclass_params__.frozen:
        return "it needs @dataclass(frozen=True, kw_only=True): the settings of a run never change"
    kind = getattr(config, "kind", None)
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", kind):
        return f'kind is {kind!r}: it needs kind: ClassVar[str] = "peak", one word of small letters, digits, - and _'
    return None


def _problem_of_values(config: type[HeadConfig]) -> str | None:
    """Whether the settings can be had without arguments, and come back from a run folder as they were."""
    try:
        made = config()
    except TypeError as error:
        return f"each setting needs a value to begin with ({error})"
    try:
        settings = {name: value for name, value in made.to_dict().items() if name != "kind"}  # as in recipe.json
        back = checked(json.loads(json.dumps(settings)), config, "head")
    except (TypeError, ValueError, KeyError, NameError, UsageError) as error:
        return f"a run folder cannot keep its settings ({type(error).__name__}: {error}). {_KEPT}"
    return None if back == made else f"its settings come back from a run folder as {back!r}, not {made!r}. {_KEPT}"


_KEPT = "It keeps whole numbers, numbers, texts, true and false, None, and tuples of these, each with its annotation"


def _called(config: Any) -> str:
    return f"{getattr(config, '__module__', '?')}:{getattr(config, '__qualname__', repr(config))}"


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
