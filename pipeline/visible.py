"""What a person is shown, on a terminal or a page: text from strangers as visible characters, numbers with their units.

class names, ids, paths ─▶ spelled ─▶ a line that shows what it holds   (cli/show.py, stages/reporting/page.py)

A terminal or a page would obey some characters; those are spelled out, as \\x1b or \\u202e.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

_INVISIBLE = frozenset(
    chr(code)
    for first, last in ((0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
                        (0x3164, 0x3164), (0xFE00, 0xFE0D), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
)  # fmt: skip
"""Characters that Unicode counts among letters and marks, and that show nothing."""


def harmless(text: object, most: int | None = None) -> str:
    """Any text as one line of visible characters: what is none is spelled out, as \\x1b, \\n or \\u202e.

    Args:
        text: whatever is to be shown.
        most: characters; a longer text is shortened and ends in "…".
    """
    whole = str(text)
    part = whole if most is None else whole[: most + 1]
    shown = spelled(part, lambda character: character.encode("unicode_escape").decode())
    return shown if most is None or len(shown) <= most else shown[: most - 1] + "…"


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """The text with every character that is not visible replaced by what `spell` makes of it."""
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    return "".join(character if _is_visible(character) else spell(character) for character in text)


def _is_visible(character: str) -> bool:
    return character not in _INVISIBLE and (character.isprintable() or unicodedata.category(character) == "Zs")


def size(number: float) -> str:
    """Bytes with a unit, three digits: 29.1 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5 or unit == "TB":
            return f"{number:.3g} {unit}" if unit != "B" else f"{number:.0f} B"
        number /= 1000
    raise AssertionError


def count(number: int) -> str:
    """A large number in three digits: 89.3 k, 26.1 M."""
    for unit, of in (("", 1), (" k", 10**3), (" M", 10**6)):
        if number < 999.5 * of:
            return f"{number / of:.3g}{unit}"
    return f"{number / 1e9:.3g} G"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4.2 s, 3 min 5 s, 7 h 12 min."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
