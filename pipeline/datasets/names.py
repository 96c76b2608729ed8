"""The official class names of well-known sets, for copies that come without them.

    names/k400.txt          one name per line, in the order of the official numbers ──▶ ("abseiling", "air drumming", …)
    numbers in a list       ──▶ names, where the set is known (--dataset k400 --labels kinetics_val.txt)

Consequence: a text encoder always gets words. Names are compared as names, never as numbers of another code base. The
lists are copies from MMAction2 (see NOTICE).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from vidxfer.pipeline.errors import UsageError

_FOLDER = Path(__file__).parent / "names"
_FILE_OF = {"ssv1": "something", "ssv2": "something"}

COUNTS = {
    "ssv1": 174,
    "ssv2": 174,
    "k400": 400,
    "k600": 600,
    "k700": 700,
    "k710": 710,
    "ucf101": 101,
    "hmdb51": 51,
    "diving48": 48,
}
"""Sets whose names are known here, and how many classes each has."""


@cache
def official_names(kind: str) -> tuple[str, ...]:
    """The class names of a set, by number; as its authors spell them.

    Raises:
        UsageError: no such list here.
    """
    if kind not in COUNTS:
        raise UsageError(f"no official class names of {kind!r} here. Known: {', '.join(COUNTS)}.")
    text = (_FOLDER / f"{_FILE_OF.get(kind, kind)}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def looks_like(name: str) -> str:
    """What a name looks like: accents composed, marks without width left out, blanks of any kind as one."""
    shown = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(shown.split())


def one_spelling(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Each name -> the spelling that stands for all that look like it, and notes.

    A look with one spelling keeps it, byte for byte; of several the composed form stands for all.
    """
    written: dict[str, set[str]] = {}
    for name in names:
        written.setdefault(looks_like(name), set()).add(name)
    spelling = {name: look if len(group) > 1 else name for look, group in written.items() for name in group}
    notes = [
        f"{len(group)} spellings look like {look!r} and are one class (accents or blanks are written in several ways)"
        for look, group in sorted(written.items())
        if len(group) > 1
    ]
    folded: dict[str, list[str]] = {}
    for look in sorted(written):
        folded.setdefault(unicodedata.normalize("NFKC", look).casefold(), []).append(look)
    notes += [
        f"classes {' and '.join(map(repr, twins))} differ only in case or in the width of letters, and are "
        f"{len(twins)} classes"
        for twins in folded.values()
        if len(twins) > 1
    ]
    return spelling, notes


def by_look(names: Iterable[str]) -> dict[str, int]:
    """The number of each name, under what the name looks like; of equal looks the first."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        numbers.setdefault(looks_like(name), number)
    return numbers


def spoken(name: str) -> str:
    """A class name as words: "ApplyEyeMakeup" -> "Apply Eye Makeup", "brush_hair" -> "brush hair"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip()
