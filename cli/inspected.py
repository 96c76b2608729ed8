"""How an inspected data set looks: a table of splits, bars of classes, then what a person must know.

split  videos  files  labelled  per class (min / median / max)  not on disk  fingerprint
class  train ▇▇▇▇▇▇▇▇ 168   val ▇▇▇ 24
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidxfer.stages.videos.inspect import Inspection

ENDS = 5
"""Classes shown of either end, where not all are."""
BAR = 24
"""Widest bar, in letters."""


def show_inspection(report: Inspection, *, all_classes: bool) -> None:
    """Print it."""
    from vidxfer.cli import show

    made_of = "".join(f", {count} of {name}" for name, count in report.factors.items())
    show.table(
        f"{report.kind} in {report.root}: {report.classes} classes{made_of}",
        ["split", "videos", "files", "labelled", "min / median / max", "not on disk", "fingerprint"],
        [
            [counts.split, f"{counts.videos:,}", f"{counts.files:,}", f"{counts.labelled:,}",
             f"{counts.smallest:,} / {counts.median:,g} / {counts.largest:,}", f"{counts.missing.count:,}",
             counts.fingerprint]
            for counts in report.splits
        ],
    )  # fmt: skip
    show_classes(report, all_classes=all_classes)
    for counts in report.splits:
        for note in counts.notes:
            show.say(f"{counts.split}: {note}")
    for split, why in report.absent.items():
        show.say(f"{split}: could not be read: {why.splitlines()[0]}")
    show.say(f"on disk and listed nowhere: {report.left_over}")
    for repeat in report.repeats:
        show.say(
            f"{repeat.videos_here:,} videos of {repeat.here} share {repeat.what} with {repeat.there}: {repeat.shared}"
        )
    if not report.repeats:
        show.say("no id and no recording is in two splits")
    for left, right in report.flip_pairs:
        show.say(f"mirror: {left} <-> {right}")
    if not report.flip_pairs:
        show.say("mirror: no two classes differ in left and right alone; a mirrored clip keeps its class")


def show_classes(report: Inspection, *, all_classes: bool) -> None:
    """Bars of rows per class, in the order of the first split."""
    from vidxfer.cli import show

    first = report.splits[0]
    names = list(first.per_class)
    if not all_classes and len(names) > 2 * ENDS + 1:
        names = [*names[:ENDS], *names[-ENDS:]]
    largest = max([1, *(count for counts in report.splits for count in counts.per_class.values())])
    rows = [[name, *(bar(counts.per_class.get(name, 0), largest) for counts in report.splits)] for name in names]
    if len(names) < len(first.per_class):
        left = len(first.per_class) - len(names)
        rows.insert(ENDS, [f"… {left} more, --all-classes shows them", *("" for _ in report.splits)])
    show.table("", ["class", *(counts.split for counts in report.splits)], rows)


def bar(count: int, largest: int) -> str:
    """A bar as long as the count's share of the largest one, and the count."""
    return f"{'▇' * round(BAR * count / largest)} {count:,}"
