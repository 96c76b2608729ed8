"""The official class names of well-known sets, for copies that come without them.

    names/k400.txt          one name per line, in the order of the official numbers ──▶ ("abseiling", "air drumming", …)
    numbers in a list       ──▶ names, where the set is known (--dataset k400 --labels kinetics_val.txt)

Consequence: a text encoder always gets words. Names are compared as names, never as numbers of another code base. The
lists are copies from MMAction2 (see NOTICE).
"""

from __future__ import annotations

import re
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


def spoken(name: str) -> str:
    """A class name as words: "ApplyEyeMakeup" -> "Apply Eye Makeup", "brush_hair" -> "brush hair"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip()
