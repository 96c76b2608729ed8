"""`vidxfer towers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o

if TYPE_CHECKING:
    from vidxfer.stages.planning.towers import TowerRow, TowersReport

_MOST_NAMED = 40
"""Names of towers that do not work, in one line; --json has all."""


def towers(
    word: Annotated[
        str | None, typer.Argument(help="Part of a name or of a tag of its weights: dinov3, PE-Core, laion2b.")
    ] = None,
    json: o.JsonOption = False,
) -> None:
    """Every image tower that --model takes: its size, what a view of it takes on disk, and the licence of its weights.

    Without WORD: all configurations of open_clip, and the well-known ones of timm. Those that do not work stand below,
    each with its reason. Nothing is downloaded.

    Example: vidxfer towers dinov3
    """
    from vidxfer.cli import show
    from vidxfer.stages.planning.towers import list_towers

    report = list_towers(word, show.Shown())
    if json:
        show.print_json(report)
        return
    if report.towers:
        store = report.store
        frames = store.dense_frames // store.alpha
        show.table(
            f"Towers: per view {frames} frames, all blocks, {store.codec}; GFLOP per frame, 2 per multiply-add",
            ["tower", "parameters", "tokens", "pixels", "per view", "GFLOP", "text", "licence"],
            [row_of(row) for row in report.towers],
            [max(len(row.model) for row in report.towers), *[None] * 7],  # a name is copied: never broken
        )
    show.say(*counts_of(report), *refusals_of(report))


def row_of(row: TowerRow) -> list[str]:
    """The cells of one tower."""
    from vidxfer.cli import show

    sizes = row.sizes
    stated = dict.fromkeys(licence or "?" for licence in row.weights.values())
    return [
        row.model, f"{sizes.parameters / 1e6:,.1f} M", f"{sizes.tokens:,}", str(sizes.image_px),
        show.size(row.bytes_per_view), f"{row.gflop_per_frame:,.1f}",
        ("yes" if row.has_text else "no") + "*" * bool(row.lacks),
        ", ".join(licence.removesuffix("-license") for licence in sorted(stated, reverse=True)) or "no weights",
    ]  # fmt: skip


def counts_of(report: TowersReport) -> list[str]:
    """How many of each library work, and what the table's words mean."""
    lines = []
    for library, is_timm, known, what in (
        ("open_clip", False, report.open_clip, "configurations"),
        ("timm", True, report.timm, "architectures"),
    ):
        works, refused = (
            sum(tower.model.startswith("timm:") == is_timm for tower in group)
            for group in (report.towers, report.refused)
        )
        if looked := works + refused:
            asked = f"all {known:,}" if looked == known else f"{looked:,} of {known:,}"
            lines.append(f"{library}: {works:,} work, {refused:,} do not; looked at were {asked} {what}.")
    lacking = sorted({row.lacks for row in report.towers if row.lacks})
    lines += [f"*: their text needs {name}, which is not here: `pip install {name}`." for name in lacking]
    if any(None in row.weights.values() for row in report.towers):
        lines.append(
            "?: neither library states the licence of these weights, or of some of them. Look at their source."
        )
    return lines


def refusals_of(report: TowersReport) -> list[str]:
    """One line for each reason, with the towers that have it."""
    groups: dict[str, list[str]] = {}
    for refusal in report.refused:
        groups.setdefault(refusal.group, []).append(refusal.model)
    lines = []
    for group, models in sorted(groups.items(), key=lambda item: -len(item[1])):
        first = next(refusal for refusal in report.refused if refusal.group == group)
        more = f" and {len(models) - _MOST_NAMED:,} more (--json)" * (len(models) > _MOST_NAMED)
        lines.append(
            f"not: {group}, {len(models):,}: {', '.join(models[:_MOST_NAMED])}{more}. As of {first.model}: "
            f"{first.reason.partition(': ')[2]}. Nearest that works: {first.nearest}"
        )
    return lines
