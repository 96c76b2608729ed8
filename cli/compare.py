"""`vidxfer compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import know_heads
from vidxfer.cli.stage_two import parse_caches


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or of what `evaluate` scored alone.")],
    head: o.HeadsOption = None,
    cache: o.CachesOption = None,
    labels_as: o.LabelsAsOption = None,
    split: Annotated[str, typer.Option("--split", help="Scored split; others than val by `evaluate`.")] = "val",
    against: Annotated[
        Path | None, typer.Option("--against", help="A run to compare the others with, video by video.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also what others published, in its own block.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Top-1 against training cost as FILE.png or FILE.svg.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown on standard output.")] = False,
    json: o.JsonOption = False,
) -> None:
    """Compare finished runs: scores with intervals, what each head costs, and whether it sees the order of frames.

    All runs must have been scored on the videos, labels and classes of the cache. Otherwise the command ends with exit
    code 2 and names the field that differs. Settings in which runs differ (codec, layers, CLIP, …) are columns.

    Example: vidxfer compare runs/probe runs/dist-ssv2-b16 --cache ./zarr
    """
    from vidxfer.cli import compared, show
    from vidxfer.pipeline.errors import UsageError
    from vidxfer.stages.comparing.points import points, words_of
    from vidxfer.stages.comparing.tables import blocks
    from vidxfer.stages.learning import compare as stage
    from vidxfer.stages.learning.learned import learned
    from vidxfer.stages.plots import expect_plot_file, plot_points

    if json and markdown:
        raise UsageError("--json and --markdown both fill standard output: give one of them")
    if plot is not None:
        expect_plot_file(plot)
    caches = parse_caches(cache, labels_as)
    know_heads(head)
    report = stage.compare(
        tuple(runs),
        caches[0],
        more_caches=caches[1:],
        labels_as=labels_as,
        split=split,
        against=against,
        published=published,
    )
    shown = show.Shown()
    for row in report.runs:
        if row.not_compared:
            shown.line(f"{row.run}: {' and '.join(row.not_compared)} are not recorded, so not compared")
    for note in report.notes:
        shown.line(note)
    if plot is not None:
        plot_points(points(report), words_of(report), plot)
        shown.line(f"plot: {plot}")
    if json:
        show.print_json(report)
        return
    for block in blocks(report, " + ".join(map(str, caches))):
        if markdown:
            show.say(f"**{block.title}**", "")
            compared.markdown(block.columns, block.rows)
            show.say("", *(line for told in block.below for line in (told, "")))
        else:
            show.folded(block.title, block.columns, block.rows)
            show.say(*block.below)
    show.say(*learned(report))
