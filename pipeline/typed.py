"""Values that were read from JSON, checked against the type they are to have: strict, once, at one place.

    checked({"alpha": 2}, Sampling, "spec.sampling")        a frozen dataclass: every field, by its annotation
    checked([3, 7], tuple[int, ...], "layers")              ──▶ (3, 7)
    checked(True, int, "shard_videos")   ──▶ ValueError: shard_videos is True, expected a whole number

JSON has lists for tuples, and whole numbers for floats that are whole. Python's JSON also has NaN and Infinity: none of
our files does.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MOST_WHOLE = 2**63 - 1
NAMES = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}


class Kept(dict[str, Any]):
    """A table of which some names must be there.

    Args:
        values: the table.
        refuse: makes the error for a name that is missing.
    """

    def __init__(self, values: Mapping[str, Any], refuse: Any) -> None:
        super().__init__(values)
        self._refuse = refuse

    def __missing__(self, name: str) -> Any:
        raise self._refuse(name)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def checked(value: Any, kind: Any, name: str, *, most: int = MOST_WHOLE) -> Any:
    """The value as the type, lists as tuples.

    Args:
        value: as JSON gave it.
        kind: int, float, str, bool, Literal, None, unions, tuple, Mapping, a dataclass, or Any.
        name: for the error.
        most: no whole number in it may be larger.

    Raises:
        ValueError: says which value is not of the type, what it is, and what was expected.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any or (is_dataclass(value) and isinstance(kind, type) and isinstance(value, kind)):
        return value  # what is of the type already was checked when it was made
    if is_dataclass(kind):
        return _instance(value, kind, name, most)
    if origin in (Union, types.UnionType):
        return _one_of(value, parts, name, most)
    if origin is Literal:
        _expect(value in parts and isinstance(value, str), value, " or ".join(map(repr, parts)), name)
        return value
    if origin is tuple:
        _expect(isinstance(value, list | tuple), value, "a list", name)
        endless = len(parts) == 2 and parts[1] is Ellipsis
        _expect(endless or len(value) == len(parts), value, f"a list of {len(parts)}", name)
        inner = parts[:1] * len(value) if endless else parts
        both = enumerate(zip(value, inner, strict=True))
        return tuple(checked(item, part, f"{name}[{index}]", most=most) for index, (item, part) in both)
    if origin is not None or kind is Mapping:  # Mapping[str, …]
        _expect(isinstance(value, Mapping), value, "a table", name)
        inner_kind = parts[1] if parts else Any
        return {str(key): checked(item, inner_kind, f"{name}.{key}", most=most) for key, item in value.items()}
    return _plain(value, kind, name, most)


def _plain(value: Any, kind: Any, name: str, most: int) -> Any:
    if kind is type(None):
        _expect(value is None, value, "null", name)
    elif kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(is_number and abs(value) <= 1e300 and math.isfinite(value), value, NAMES[float], name)
        return float(value)
    else:
        _expect(type(value) is kind, value, NAMES[kind], name)
        if kind is int:
            _expect(abs(value) <= most, value, f"{NAMES[int]} of at most {most}", name)
    return value


def _instance(value: Any, kind: Any, name: str, most: int) -> Any:
    _expect(isinstance(value, Mapping), value, "a table", name)
    hints, known = _hints(kind), {field.name: field for field in fields(kind)}
    needed = {key for key, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    missing, unknown = sorted(needed - set(value)), sorted(map(str, set(value) - set(known)))
    if missing or unknown:
        said = f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown)[:200] or 'none'}"
        raise ValueError(f"{name} has not the fields of a {kind.__name__}: {said}")
    return kind(**{key: checked(item, hints[key], f"{name}.{key}", most=most) for key, item in value.items()})


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _one_of(value: Any, kinds: tuple[Any, ...], name: str, most: int) -> Any:
    said = []
    for kind in kinds:
        try:
            return checked(value, kind, name, most=most)
        except ValueError as error:
            said.append(str(error))
    raise ValueError(said[0])


def _expect(holds: bool, value: Any, expected: str, name: str) -> None:
    if not holds:
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
        raise ValueError(f"{name} is {shown}, expected {expected}")
