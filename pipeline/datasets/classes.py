"""The classes of a list: from what its rows say to names with a number each, the same for every split.

    labels are names                      ──▶  sorted; spellings that look the same are one class
    numbers, and names in a column beside ──▶  the names, sorted; one number with two names is refused
    numbers, and a file classes.txt       ──▶  the line with that number, counted from 0
    numbers alone                         ──▶  '0' to the highest, with a note

Consequence: what is equal to the eye is equal here (accents in one form, no marks without width, blanks as one), and
what differs only in case is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vidxfer.pipeline.datasets.columns import Row
from vidxfer.pipeline.datasets.lists import CLASS_FILES
from vidxfer.pipeline.datasets.names import by_look, looks_like, one_spelling
from vidxfer.pipeline.datasets.paths import clean_text, nearest, read_text
from vidxfer.pipeline.errors import DatasetError

MOST_CLASSES = 100_000
"""A number above this is an id in the wrong column, not a label."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Class names and how a row finds its own.

    Attributes:
        names: position = label.
        numbered: the rows' labels are numbers and mean positions.
        name_of: class number as a row writes it -> name, from rows that have both.
        notes: what a person should know.
    """

    names: tuple[str, ...]
    numbered: bool = False
    name_of: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return by_look(self.names)

    def label(self, row: Row) -> int | None:
        """Position of the row's class; None where it carries no label.

        Raises:
            DatasetError: the row names no class.
        """
        written = row.label or self.name_of.get(row.number or "") or row.number
        if written is None:
            return None
        name = clean_text(written)
        if (label := self._number_of.get(looks_like(name))) is not None:
            return label
        if self.numbered and _number(written) < len(self.names):
            return _number(written)
        raise DatasetError(
            f"{row.where}: label {name!r} is none of the {len(self.names)} classes{nearest(name, self.names)}"
        )


def classes_of(rows: Sequence[Row], folder: Path) -> Classes:
    """The classes of all rows of all lists; `folder` may hold a file of class names.

    Raises:
        DatasetError: a label that cannot be meant; names file and line.
    """
    labelled = [row for row in rows if row.label is not None or row.number is not None]
    notes = [] if len(labelled) == len(rows) else [f"{len(rows) - len(labelled)} rows carry no label"]
    name_of = _names_of_numbers(labelled)
    written = [row.label or name_of.get(row.number or "") or row.number or "" for row in labelled]
    numbered = all(re.fullmatch(r"[0-9]{1,9}(\.0)?", label) for label in written)
    file = next((path for name in CLASS_FILES if (path := folder / name).is_file()), None)
    if file is not None:
        names = _class_file(file)
        _check_numbers(file, names, labelled)
        return Classes(names=names, numbered=numbered, name_of=name_of, notes=tuple(notes))
    several = next((row for row in labelled if re.fullmatch(r"\d+(; *\d+)+", row.label or "")), None)
    if several is not None:
        raise DatasetError(f"{several.where}: {several.label!r} are several labels; one label per video is read")
    if not labelled or not numbered:
        spelling, spelled = one_spelling(map(clean_text, written))
        return Classes(names=tuple(sorted(set(spelling.values()))), name_of=name_of, notes=(*notes, *spelled))
    highest, place = max((_number(label), place) for place, label in enumerate(written))
    if highest >= MOST_CLASSES:
        raise DatasetError(f"{labelled[place].where}: label {written[place]!r}; numbers must be below {MOST_CLASSES}")
    notes.append(
        f"labels are numbers and there is no {CLASS_FILES[0]}: classes are called "
        f"'0' to '{highest}', which means nothing to a text encoder"
    )
    if min(map(_number, written)) == 1:
        notes.append("the smallest label is 1: class '0' has no videos")
    return Classes(names=tuple(str(number) for number in range(highest + 1)), numbered=True, notes=tuple(notes))


def _names_of_numbers(rows: Sequence[Row]) -> dict[str, str]:
    """The name beside each class number; both ways there is one only."""
    by_number: dict[str, Row] = {}
    by_name: dict[str, Row] = {}
    for row in rows:
        if row.label is None or row.number is None:
            continue
        known = by_number.setdefault(str(_number(row.number)), row)
        if looks_like(known.label or "") != looks_like(row.label):
            raise DatasetError(
                f"{row.where}: class number {row.number} is {clean_text(row.label)!r} here and "
                f"{clean_text(known.label or '')!r} at {known.where}; a number has one name"
            )
        known = by_name.setdefault(looks_like(row.label), row)
        if _number(known.number or "") != _number(row.number):
            raise DatasetError(
                f"{row.where}: {clean_text(row.label)!r} has the class number {row.number} here and {known.number} at "
                f"{known.where}; a name has one number"
            )
    names = {number: row.label or "" for number, row in by_number.items()}
    return {
        row.number: names[str(_number(row.number))] for row in rows if row.number and str(_number(row.number)) in names
    }


def _class_file(file: Path) -> tuple[str, ...]:
    """One name per line, in the order of their numbers."""
    names = tuple(clean_text(line.strip()) for line in read_text(file).splitlines() if looks_like(line))
    looks = by_look(names)
    again = next((number for number, name in enumerate(names) if looks[looks_like(name)] != number), None)
    if again is not None:
        raise DatasetError(f"{file}: class {names[again]!r} stands there twice, or two names look the same")
    return names


def _check_numbers(file: Path, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """The number beside a name must be its line in the file of class names, where the file has both."""
    looks = by_look(names)
    for row in rows:
        if row.label is None or row.number is None or (place := looks.get(looks_like(clean_text(row.label)))) is None:
            continue
        if place != _number(row.number):
            raise DatasetError(
                f"{row.where}: {clean_text(row.label)!r} has the class number {row.number}, but in {file.name} its "
                f"line, counted from 0, is {place}"
            )


def _number(text: str) -> int:
    return int(float(text or 0))
