"""`vidxfer compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.stage_two import parse_caches


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    cache: o.CachesOption = None,
    labels_as: o.LabelsAsOption = None,
    split: Annotated[str, typer.Option("--split", help="Scored split; others than val by `evaluate`.")] = "val",
    json: o.JsonOption = False,
) -> None:
    """Finished runs side by side: accuracy beside chance, seconds per epoch, and the bytes of the cache they read.

    Only runs that were scored on the same videos, labels and classes as the cache has: another one ends it with exit
    code 2 and the field that differs. Settings in which the runs differ (codec, layers, CLIP, prompts …) get a column.

    Example: vidxfer compare runs/probe runs/dist-ssv2-b16 --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import compare as stage
    from vidxfer.stages.learning.learned import learned

    caches = parse_caches(cache, labels_as)
    report = stage.compare(tuple(runs), caches[0], more_caches=caches[1:], labels_as=labels_as, split=split)
    for one in report.runs:
        if one.not_compared:
            show.Shown().line(f"{one.run}: {' and '.join(one.not_compared)} are not recorded, so not compared")
    if json:
        show.print_json(report)
        return
    factors, missing = report.factor_chance, any(one.scored != one.listed for one in report.runs)
    chance = [f"{report.chance:.1%}", *(f"{share:.1%}" for share in factors.values())]
    rows = [["chance", *chance, *["-"] * (4 + missing + len(report.differing))]]
    for one in report.runs:
        rows.append([
            one.name,
            percent(one.top1),
            *(percent(one.factors.get(name)) for name in factors),
            "-" if one.scored is None else f"{one.scored}/{one.listed}",
            *[percent(one.top1_of_listed)] * missing,
            one.tokens,
            *(one.settings[name] for name in report.differing),
            "-" if one.epoch_seconds is None else show.duration(one.epoch_seconds),
            str(one.run),
        ])  # fmt: skip
    named = " + ".join(map(str, caches))
    title = f"{report.classes} classes; cache {named}: {show.size(report.cache_bytes)} for {report.views:,} views"
    counted = ["scored", *["of listed"] * missing]
    show.table(
        title, ["", f"{split} top-1", *factors, *counted, "tokens from", *report.differing, "epoch", "run"], rows
    )
    show.say(*learned(report))


def percent(share: float | None) -> str:
    """A share of one as a table shows it."""
    return "-" if share is None else f"{share:.1%}"
