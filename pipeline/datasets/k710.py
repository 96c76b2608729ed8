"""Kinetics-710: one label set over Kinetics-400, -600 and -700, by class names, so that no cache is made again.

    k400 "abseiling" ──────────▶ "abseiling"          a name that is one of the 710
    k400 "drinking"  ─ renamed ▶ "sipping cup"        17 names that mean a class of another wording
    own  "juggling geese" ─────▶ an error that names it

Consequence: numbers never matter. Over the 400, 600 and 700 official names this gives the same classes as the lists of
numbers that MMAction2 publishes with UniFormerV2 (tested), from which the renamed ones are taken (see NOTICE).
"""

from __future__ import annotations

from collections.abc import Sequence

from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.datasets.paths import nearest
from vidxfer.pipeline.errors import UsageError

RENAMED = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "passing american football (not in game)": "passing American football (not in game)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "throwing ball (not baseball or American football)": "throwing ball",
    "tying tie": "tying necktie",
}
"""Names of the three sets that are none of the 710, and what they are called there."""

UNION = "union"
LABEL_SETS = ("k710", UNION)
"""What several caches may be labelled as: Kinetics-710, or all of their class names, sorted."""


def names_of(labels_as: str, sets: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The class names of a label set over several data sets' class names.

    Raises:
        UsageError: no such label set.
    """
    if labels_as not in LABEL_SETS:
        raise UsageError(
            f"--labels-as {labels_as!r} is none of {', '.join(LABEL_SETS)}{nearest(labels_as, LABEL_SETS)}"
        )
    if labels_as == UNION:
        return tuple(sorted({name for names in sets for name in names}))
    return official_names(labels_as)


def map_labels(class_names: Sequence[str], target: Sequence[str], *, labels_as: str, where: object) -> tuple[int, ...]:
    """For each class its number among `target`.

    Raises:
        UsageError: classes without a partner, by name.
    """
    label_of = {name: label for label, name in enumerate(target)}
    named = [RENAMED.get(name, name) if name not in label_of else name for name in class_names]
    strange = [name for name in named if name not in label_of]
    if strange:
        shown = ", ".join(repr(name) for name in strange[:3]) + (", …" if len(strange) > 3 else "")
        raise UsageError(
            f"{where}: {len(strange)} of its {len(named)} classes are none of {labels_as}: "
            f"{shown}{nearest(strange[0], target)}"
        )
    return tuple(label_of[name] for name in named)
