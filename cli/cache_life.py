"""`vidxfer cache add`, `parity`, `prune` and `export`: what happens to a cache after it was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import data_source, parse_layers

if TYPE_CHECKING:
    from vidxfer.stages.add import AddReport

SplitsOption = Annotated[list[str] | None, typer.Option("--split", help="train or val; all by default.")]
_SAME = "Must be the cache's"


def add(
    cache: o.CacheOption = Path("zarr"),
    dataset: o.DatasetOption = "csv",
    root: o.RootOption = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    limit: o.LimitOption = None,
    split: SplitsOption = None,
    model: Annotated[str | None, typer.Option("--model", help="CLIP, where it has moved.")] = None,
    pretrained: Annotated[str | None, typer.Option("--pretrained", help="Its weights, where they have moved.")] = None,
    device: o.DeviceOption = "auto",
    precision: Annotated[str | None, typer.Option("--precision", help=_SAME, rich_help_panel=_SAME)] = None,
    dense_frames: Annotated[int | None, typer.Option("--dense-frames", help=_SAME, rich_help_panel=_SAME)] = None,
    alpha: Annotated[int | None, typer.Option("--alpha", help=_SAME, rich_help_panel=_SAME)] = None,
    layers: Annotated[str | None, typer.Option("--layers", help=_SAME, rich_help_panel=_SAME)] = None,
    views: Annotated[int | None, typer.Option("--views", help=_SAME, rich_help_panel=_SAME)] = None,
    codec: Annotated[str | None, typer.Option("--codec", help=_SAME, rich_help_panel=_SAME)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help=_SAME, rich_help_panel=_SAME)] = None,
    batch_frames: o.BatchFramesOption = 128,
    decode_threads: o.ThreadsOption = 2,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes on this machine; as extract.")] = None,
    json: o.JsonOption = False,
) -> None:
    """Add the videos of a data set that a cache does not have yet, with the cache's own settings and CLIP.

    Finished shards are not touched. Settings need not be given; those that are must be the cache's. Goes on where it
    was stopped. Exits with 3 when some videos were refused; each is named with its reason.

    Example: vidxfer cache add --cache ./zarr --dataset csv --root ./more --split train
    """
    from vidxfer.cli import show
    from vidxfer.stages import add as stage
    from vidxfer.stages.engine_choice import EngineChoice

    numbers = None if layers is None else parse_layers(layers)
    asked = {
        "sampling.dense_frames": dense_frames, "sampling.alpha": alpha, "sampling.seed": seed, "views": views,
        "codec": codec, "clip_precision": precision, "layers": None if numbers is None else list(numbers),
    }  # fmt: skip
    reports = stage.add(
        stage.AddRequest(
            data=data_source(dataset, root, labels, val_fraction, limit),
            cache=cache,
            splits=tuple(split) if split else None,
            asked={name: value for name, value in asked.items() if value is not None},
            model=model,
            pretrained=pretrained,
            device=device,
            batch_frames=batch_frames,
            decode_threads=decode_threads,
            engine=EngineChoice(workers=workers),
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
    else:
        show_added(cache, reports)
    if any(report.failed for report in reports):
        raise typer.Exit(3)


def show_added(cache: Path, reports: tuple[AddReport, ...]) -> None:
    """The table of an addition, new classes, and every refused video."""
    from vidxfer.cli import show

    show.table(
        f"Cache {cache}",
        ["split", "added", "known before", "new classes", "stored in all", "refused now", "fingerprint"],
        [
            [one.split, f"{one.added:,}", f"{one.known:,}", f"{len(one.new_classes):,}", f"{one.stored:,}",
             f"{len(one.failed):,}", one.fingerprint]
            for one in reports
        ],
    )  # fmt: skip
    for one in reports:
        if one.new_classes:
            print(f"{one.split}: new classes: {', '.join(one.new_classes)}")
        if one.pending:
            print(f"{one.split}: {one.pending} shards of another data set are pending: add that one to go on")
        for name, reason in one.failed.items():
            print(f"refused: {one.split}/{name}: {reason}")
