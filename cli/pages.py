"""`vidxfer report` and `vidxfer view`: pages to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import know_heads
from vidxfer.cli.stage_two import parse_caches

if TYPE_CHECKING:
    from vidxfer.stages.reporting.report import PageMade


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs; the others stand beside the first.")],
    head: o.HeadsOption = None,
    cache: o.CachesOption = None,
    labels_as: o.LabelsAsOption = None,
    out: Annotated[Path, typer.Option("--out", help="The page.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for every plot as PNG and SVG.")] = None,
    split: Annotated[str, typer.Option("--split", help="Scored split; others than val by `evaluate`.")] = "val",
    root: o.RootOption = None,
    frames_from: o.FramesFromOption = "auto",
    json: o.JsonOption = False,
) -> None:
    """Runs as one page: scores, learning curves, classes, confusion, calibration, hard videos, cost, where it is from.

    The page is one file. It opens from disk, loads nothing, and prints well. Nothing is scored again: what the runs
    said of each video is read from their folders. Videos that cannot be read get a placeholder.

    Example: vidxfer report runs/dist-ssv2-b16 runs/probe --cache ./zarr --out report.html
    """
    from vidxfer.cli import show
    from vidxfer.stages.reporting import report as stage

    caches = parse_caches(cache, labels_as)
    know_heads(head)
    made = stage.report(
        stage.ReportRequest(
            runs=tuple(runs),
            cache=caches[0],
            more_caches=caches[1:],
            labels_as=labels_as,
            out=out,
            plots=plots,
            split=split,
            root=root,
            frames_from=frames_from,
        ),
        show.Shown(),
    )
    _told(made, json)
    if not json and plots is not None:
        show.say(f"plots: {plots}: {', '.join(made.plots)} (.png and .svg)")


def _told(made: PageMade, json: bool) -> None:
    from vidxfer.cli import show

    if json:
        show.print_json(made)
        return
    without = f", {made.without_frames} of them without frames" if made.without_frames else ""
    videos = f"{made.videos} video{'s' if made.videos != 1 else ''} shown"
    show.say(f"{made.out}: {show.size(made.bytes)}, {videos}{without}. Open it in a browser.")


def view(
    cache: o.CacheOption = Path("zarr"),
    out: Annotated[Path, typer.Option("--out", help="The page.")] = Path("view.html"),
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "train",
    videos: Annotated[int, typer.Option("--videos", min=1, max=64, help="How many, drawn at random.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    video: Annotated[list[str] | None, typer.Option("--video", help="Id of a video; may be repeated.")] = None,
    codec: Annotated[
        str | None,
        typer.Option("--codec", help="Also what this codec loses; the cache's own: what is stored beside CLIP again."),
    ] = None,
    root: o.RootOption = None,
    frames_from: o.FramesFromOption = "auto",
    device: o.DeviceOption = "auto",
    json: o.JsonOption = False,
) -> None:
    """A cache as one page: frames, crops, flips and labels of stored views, and what their tokens look like.

    Per layer, patch tokens are shown as colour (the three main directions) and by length, where massive tokens show.
    Frames come from the cache's JPEGs, or from the videos. With --codec, float16 stands beside what the codec leaves.

    Example: vidxfer view --cache ./zarr --out view.html --codec int4
    """
    from vidxfer.cli import show
    from vidxfer.stages.reporting import view as stage

    made = stage.view(
        stage.ViewRequest(
            cache=cache,
            out=out,
            split=split,
            videos=videos,
            seed=seed,
            ids=tuple(video or ()),
            codec=codec,
            root=root,
            frames_from=frames_from,
            device=device,
        ),
        show.Shown(),
    )
    _told(made, json)
