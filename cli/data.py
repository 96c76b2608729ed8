"""`vidxfer data …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidxfer.cli import check
from vidxfer.cli import options as o
from vidxfer.pipeline.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Make and look at data sets.", rich_markup_mode=None)

app.command("check")(check.check)


@app.command("toy")
def toy(
    folder: Annotated[Path, typer.Argument(help="Folder to make; gets ssv2/ (or k400/, folder/) and clip/.")],
    layout: Annotated[
        str, typer.Option(help="ssv2: VP9 and json labels; k400: h264 and csv lists; folder: h264 in class folders.")
    ] = "ssv2",
    videos: Annotated[int, typer.Option(min=10, help="Videos in all; a fifth is for validation.")] = 1600,
    difficulty: Annotated[str, typer.Option(help="easy, medium or hard: clutter, contrast, grain, speed.")] = "medium",
    appearances: Annotated[int, typer.Option(min=1, help="Coloured shapes; each makes 8 classes, one per motion.")] = 4,
    side_px: Annotated[int, typer.Option(min=32, help="Height of the frames; the width is 4/3 of it.")] = 64,
    barcode: Annotated[
        bool,
        typer.Option("--barcode", help="Write each frame's number into its pixels. They tell the order."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing.")] = 0,
) -> None:
    """Make a labelled video set in the layout of a real one, and a tiny CLIP that knows its shapes.

    A class is an appearance and a motion. Motions come in time-reversed pairs. A head that ignores the order of frames
    can only guess between the two of a pair.

    Example: vidxfer data toy ./demo
    """
    from vidxfer.cli import show
    from vidxfer.stages.videos.toy import ToyRequest, make_toy

    request = ToyRequest(
        folder=folder,
        layout=layout,
        videos=videos,
        difficulty=difficulty,
        appearances=appearances,
        side_px=side_px,
        barcode=barcode,
        seed=seed,
    )
    made = make_toy(request, show.Shown())
    show.say(
        f"videos: {made.data} ({made.classes} classes; {made.written} made, {made.reused} kept)",
        f"CLIP:   {made.clip}",
    )


@app.command("inspect")
def inspect(
    dataset: o.DatasetOption = "auto",
    root: o.RootOption = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    fold: o.FoldOption = None,
    against: Annotated[
        str | None, typer.Option(help="Layout of a second set; recordings that both have are counted.")
    ] = None,
    against_root: Annotated[Path | None, typer.Option(help="Folder of the second set.")] = None,
    all_classes: Annotated[bool, typer.Option(help="Every class, not the largest and smallest.")] = False,
    json: o.JsonOption = False,
) -> None:
    """Count a data set per split and class. Say what is missing, left over or in two splits; show its fingerprint.

    No video is opened. With --against, the recordings that another set shares with this one are counted: much of
    Kinetics-400's val lies in Kinetics-700's train.

    Example: vidxfer data inspect --dataset auto --root ./ssv2
    """
    from vidxfer.cli import show
    from vidxfer.cli.inspected import show_inspection
    from vidxfer.stages.settings import DataSource
    from vidxfer.stages.videos import inspect as stage

    if (against is None) != (against_root is None):
        raise UsageError("--against and --against-root belong together: the layout and the folder of the second set")
    report = stage.inspect(
        stage.InspectRequest(
            data=DataSource(kind=dataset, root=root, labels=labels, val_fraction=val_fraction, fold=fold),
            against=None if against is None else DataSource(kind=against, root=against_root),
        )
    )
    if json:
        show.print_json(report)
    else:
        show_inspection(report, all_classes=all_classes)
