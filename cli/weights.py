"""`vidxfer import` and `vidxfer export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import know_heads

LayoutOption = Annotated[str, typer.Option("--as", help="Whose layout: dist, side4video, tds or evl.")]


def import_weights(
    file: Annotated[Path, typer.Argument(help="Checkpoint of the released code, or .safetensors with its keys.")],
    kind: LayoutOption = "dist",
    out: Annotated[Path | None, typer.Option("--out", help="File to write: FILE.safetensors.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder to make; needs --cache.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Cache the run will be scored on.")] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="CLIP layers that feed the head, like 3,7,11; default all.")
    ] = None,
    allow_unknown: Annotated[bool, typer.Option(help="Leave out keys that are neither the head's nor CLIP's.")] = False,
    json: o.JsonOption = False,
) -> None:
    """Turn published weights into safetensors, or into a run that evaluate and predict can use.

    Every key is accounted for, and nothing in the file can run. Sizes are read from the shapes.

    Example: vidxfer import dist.pyth --as dist --cache ./zarr --run runs/published
    """
    from vidxfer.cli import show
    from vidxfer.cli.choices import parse_layers
    from vidxfer.stages.learning import convert as stage

    report = stage.import_weights(
        stage.ImportRequest(
            file=file,
            kind=kind,
            out=out,
            cache=cache,
            run=run,
            layers=None if layers is None else parse_layers(layers),
            allow_unknown=allow_unknown,
        )
    )
    if json:
        show.print_json(report)
        return
    named = f" (older names: {report.older})" if report.old_names else ""
    show.say(f"{file}: {report.head_keys} keys of the head{named}; CLIP, not needed: {report.clip_keys} keys")
    for key in report.unknown:
        show.say(f"left out: {key}")
    show.say(f"sizes: {report.words}: recipe {report.recipe}")
    if report.same_clip is not None:
        show.say(
            "CLIP in the file: " + ("the cache's" if report.same_clip else "OTHER weights than the cache was made with")
        )
    if report.out is not None:
        show.say(f"weights: {report.out}")
    if report.run is not None:
        show.say(f"run: {report.run}   next: vidxfer evaluate --run {report.run} --cache {cache}")


def export_weights(
    out: Annotated[Path, typer.Argument(help="File to write, like dist.pyth.")],
    run: o.RunOption,
    head: o.HeadsOption = None,
    kind: LayoutOption = "dist",
    with_clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Also CLIP's weights, as the release has.")
    ] = True,
    json: o.JsonOption = False,
) -> None:
    """Write a run's head as the released code reads it, with CLIP's weights if they can be loaded.

    Example: vidxfer export dist.pyth --run runs/dist-ssv2-b16 --as dist
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import export as stage

    know_heads(head)
    report = stage.export_weights(stage.ExportRequest(run=run, out=out, kind=kind, with_clip=with_clip))
    if json:
        show.print_json(report)
        return
    show.say(f"{report.out}: {report.head_keys} keys of the head, {report.clip_keys} of CLIP")
    if report.note is not None:
        show.say(f"without CLIP: {report.note}")
    show.say("the released code needs: " + ", ".join(f"{name} {value}" for name, value in report.settings.items()))
