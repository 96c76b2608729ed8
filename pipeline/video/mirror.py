"""Which labels change places when a clip is mirrored: read from the class names, not from a list of numbers.

Pulling something from left to right  ◀──▶  Pulling something from right to left
Turning left                                 (no "Turning right" among the classes: the label stays)
0, 1, 2 …                                     (names that say nothing: whether a label stays is not known)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SIDE = re.compile(r"(?<![^\W_])(left|right)(?![^\W_])", re.IGNORECASE)
"""left and right as whole words; an underscore separates words, as in class names taken from folders."""


def flip_pairs(class_names: Sequence[str]) -> dict[int, int]:
    """Map the index of each class whose mirror image is another class to that class's index, both ways.

    The words left and right are exchanged, their case kept, and the result looked up. A class without such a partner
    is not in the map: its label stays when it is mirrored.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = {}
    for number, name in enumerate(class_names):
        partner = numbers.get(SIDE.sub(_other_side, name))
        if partner is not None and class_names[partner] != name:
            pairs[number] = partner
    return pairs


def say_sides(class_names: Sequence[str]) -> bool:
    """Whether left and right could be read from the class names: one of them has a letter, so they are not numbers."""
    return any(letter.isalpha() for name in class_names for letter in name)


def _other_side(match: re.Match[str]) -> str:
    word = match.group()
    other = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
