"""`vidxfer data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o

if TYPE_CHECKING:
    from vidxfer.stages.videos.check import SplitCheck

SHOWN = 20


def check(
    dataset: o.DatasetOption = "auto",
    root: o.RootOption = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    fold: o.FoldOption = None,
    limit: o.LimitOption = None,
    split: o.SplitOption = None,
    out: Annotated[Path, typer.Option(help="One JSON line per video; a second run reads only the others.")] = Path(
        "check.jsonl"
    ),
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes that read videos; on a cluster, per worker.", rich_help_panel="Machine"),
    ] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read packets only; damage inside a packet is not seen.")
    ] = False,
    decoder: o.DecoderOption = "auto",
    scheduler: Annotated[
        str | None,
        typer.Option(help="Read on the dask cluster at this address, tcp://host:8786.", rich_help_panel="Machine"),
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="The file that the scheduler wrote.", rich_help_panel="Machine")
    ] = None,
    json: o.JsonOption = False,
) -> None:
    """Decode every video of a data set once; say which videos would fail, how the others are read, and why.

    A check that was stopped goes on where it stopped. Exits with 3 when a video would fail; all of them are listed in
    a file beside --out that ends in .failed.tsv.

    Example: vidxfer data check --dataset ssv2 --root ./ssv2 --workers 8 --out ssv2.jsonl
    """
    from vidxfer.cli import show
    from vidxfer.cli.choices import data_source, parse_splits
    from vidxfer.stages.engine import EngineChoice
    from vidxfer.stages.videos import check as stage

    reports = stage.check(
        stage.CheckRequest(
            data=data_source(dataset, root, labels, val_fraction, limit, fold),
            splits=parse_splits(split),
            out=out,
            workers=workers,
            quick=quick,
            engine=EngineChoice(scheduler=scheduler, scheduler_file=scheduler_file),
            decoder=decoder,  # type: ignore[arg-type]  # the stage checks it
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
    else:
        show_found(reports)
        show.say(f"lines: {out}   what would fail: {stage.failed_path(out)}")
    if any(report.failed for report in reports):
        raise typer.Exit(3)


def show_found(reports: tuple[SplitCheck, ...]) -> None:
    """The table of splits, why they are not read by decord, and the first that would fail."""
    from vidxfer.cli import show

    show.table(
        "Videos",
        ["split", "videos", "read before", "would fail", "read by", "frames", "reading took", "waiting"],
        [
            [report.split, f"{report.videos:,}", f"{report.known:,}", f"{len(report.failed):,}",
             ", ".join(f"{name} {videos:,}" for name, videos in sorted(report.decoders.items())) or "-",
             f"{report.frames:,}", show.duration(report.seconds), show.duration(report.wall_seconds)]
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        for note in report.notes:
            show.say(f"note: {report.split}: {note}")
        show.say_aspects(report.split, report.pixel_aspects)
        for why, count in sorted(report.why.items(), key=lambda item: -item[1])[:SHOWN]:
            show.say(f"pyav: {report.split}: {count:,} videos: {why}")
        for name, reason in list(report.failed.items())[:SHOWN]:
            show.say(f"would fail: {report.split}/{name}: {reason}")
        if len(report.failed) > SHOWN:
            show.say(f"would fail: {report.split}: and {len(report.failed) - SHOWN:,} more")
