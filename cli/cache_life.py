"""`vidxfer cache add`, `parity`, `prune` and `export`: what happens to a cache after it was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import data_source, parse_layers
from vidxfer.cli.engine import engine as engine_options
from vidxfer.cli.taking import taking

if TYPE_CHECKING:
    from vidxfer.stages.engine import EngineChoice
    from vidxfer.stages.upkeep.add import AddReport
    from vidxfer.stages.upkeep.parity import SplitParity

SplitsOption = Annotated[list[str] | None, typer.Option("--split", help="train or val; all by default.")]
_SAME = "Must be equal to the cache's"


@taking(engine=engine_options)
def add(
    cache: o.CacheOption = Path("zarr"),
    dataset: o.DatasetOption = "csv",
    root: o.RootOption = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    limit: o.LimitOption = None,
    fold: o.FoldOption = None,
    split: SplitsOption = None,
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, help="Training views per video, afterwards; default: as many as now."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="CLIP, if it has moved.")] = None,
    pretrained: Annotated[str | None, typer.Option("--pretrained", help="Its weights, if they have moved.")] = None,
    device: o.DeviceOption = "auto",
    precision: Annotated[str | None, typer.Option("--precision", help=_SAME, rich_help_panel=_SAME)] = None,
    dense_frames: Annotated[int | None, typer.Option("--dense-frames", help=_SAME, rich_help_panel=_SAME)] = None,
    alpha: Annotated[int | None, typer.Option("--alpha", help=_SAME, rich_help_panel=_SAME)] = None,
    layers: Annotated[str | None, typer.Option("--layers", help=_SAME, rich_help_panel=_SAME)] = None,
    codec: Annotated[str | None, typer.Option("--codec", help=_SAME, rich_help_panel=_SAME)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help=_SAME, rich_help_panel=_SAME)] = None,
    batch_frames: o.BatchFramesOption = 128,
    decode_threads: o.ThreadsOption = 2,
    engine: EngineChoice = None,  # type: ignore[assignment]  # `taking` makes it
    json: o.JsonOption = False,
) -> None:
    """Add the videos of a data set that a cache does not have yet, and training views up to --views of every video.

    The cache's own settings and CLIP are used; finished shards are not touched. You need not give settings; a setting
    that you give must be equal to the cache's. Goes on where it was stopped. New views count when all of them are
    stored. Exits with 3 if videos were refused, or shards could not be finished; each is named with its reason.

    Example: vidxfer cache add --cache ./zarr --dataset ssv2 --root ./ssv2 --views 4
    """
    from vidxfer.cli import show
    from vidxfer.stages.upkeep import add as stage

    numbers = None if layers is None else parse_layers(layers)
    asked = {
        "sampling.dense_frames": dense_frames, "sampling.alpha": alpha, "sampling.seed": seed,
        "codec": codec, "clip_precision": precision, "layers": None if numbers is None else list(numbers),
    }  # fmt: skip
    reports = stage.add(
        stage.AddRequest(
            data=data_source(dataset, root, labels, val_fraction, limit, fold),
            cache=cache,
            splits=tuple(split) if split else None,
            views=views,
            asked={name: value for name, value in asked.items() if value is not None},
            model=model,
            pretrained=pretrained,
            device=device,
            batch_frames=batch_frames,
            decode_threads=decode_threads,
            engine=engine,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
    else:
        show_added(cache, reports)
    if any(report.failed or report.left for report in reports):
        raise typer.Exit(3)


def show_added(cache: Path, reports: tuple[AddReport, ...]) -> None:
    """The table of an addition, new classes, and every refused video."""
    from vidxfer.cli import show

    show.table(
        f"Cache {cache}",
        ["split", "added", "known before", "new classes", "views", "stored in all", "refused now", "fingerprint"],
        [
            [report.split, f"{report.added:,}", f"{report.known:,}", f"{len(report.new_classes):,}",
             str(report.views) + (f" (+{report.views_added})" if report.views_added else ""), f"{report.stored:,}",
             f"{len(report.failed):,}", report.fingerprint]
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        if report.new_classes:
            show.say(f"{report.split}: new classes: {', '.join(report.new_classes)}")
        if report.views_pending:
            total = report.views + report.views_pending
            show.say(
                f"{report.split}: views up to {total} do not count yet: `vidxfer cache add --views {total}` goes on"
            )
        for where, reason in report.left.items():
            show.say(f"left: {where}: {reason}. It is still pending: run the same command again.")
        if report.pending:
            show.say(f"{report.split}: {report.pending} shards of another data set are pending: add that one to go on")
        for name, reason in report.failed.items():
            show.say(f"refused: {report.split}/{name}: {reason}")


def parity(
    cache: o.CacheOption = Path("zarr"),
    split: SplitsOption = None,
    videos: Annotated[int, typer.Option("--videos", min=1, help="Per split, evenly spread.")] = 8,
    root: o.RootOption = None,
    model: Annotated[str | None, typer.Option("--model", help="CLIP, if it has moved.")] = None,
    pretrained: Annotated[str | None, typer.Option("--pretrained", help="Its weights, if they have moved.")] = None,
    device: o.DeviceOption = "auto",
    json: o.JsonOption = False,
) -> None:
    """Compute a few videos again from their pixels and compare the tokens with the stored ones, layer by layer.

    Exits with 1 when a token differs by more than its codec and CLIP's arithmetic explain. The worst token of each
    layer is named. Exits with 3 when a video cannot be read any more.

    Example: vidxfer cache parity --cache ./zarr --videos 16
    """
    from vidxfer.cli import show
    from vidxfer.stages.upkeep import parity as stage

    parities = stage.parity(
        stage.ParityRequest(
            cache=cache, splits=tuple(split) if split else None, videos=videos, root=root, model=model,
            pretrained=pretrained, device=device,
        ),
        show.Shown(),
    )  # fmt: skip
    if json:
        show.print_json(parities)
    else:
        for split_parity in parities:
            show_parity(cache, split_parity)
    if not all(split_parity.holds for split_parity in parities):
        raise typer.Exit(1)
    if any(split_parity.unreadable for split_parity in parities):
        raise typer.Exit(3)


def show_parity(cache: Path, parity: SplitParity) -> None:
    """The table of one split, and what is beyond its limit."""
    from vidxfer.cli import show

    show.table(
        f"{cache}/{parity.split}: {parity.videos:,} videos of {parity.tokens:,} tokens per layer, computed again",
        ["layer", "largest error", "of a token, relative", "codec alone", "beyond"],
        [
            [
                str(layer.layer),
                f"{layer.largest_error:.3g}",
                f"{layer.error:.2e}",
                f"{layer.codec_error:.2e}",
                f"{layer.beyond:,}",
            ]
            for layer in parity.layers
        ],
    )
    for layer in parity.layers:
        if layer.beyond:
            show.say(f"differs: {parity.split} layer {layer.layer}: {layer.beyond:,} tokens; the worst: {layer.worst}")
    for name, reason in parity.unreadable.items():
        show.say(f"cannot be read: {parity.split}/{name}: {reason}")
    if parity.holds:
        show.say(f"{parity.split}: what is stored is what CLIP says of these videos, within the codec's error.")


def prune(
    to: Annotated[Path, typer.Option("--to", help="Folder of the smaller cache.")],
    cache: o.CacheOption = Path("zarr"),
    layers: o.LayersOption = "all",
    views: Annotated[int | None, typer.Option("--views", min=1, help="Keep the first training views.")] = None,
    split: SplitsOption = None,
    json: o.JsonOption = False,
) -> None:
    """Copy a cache without some of its layers or training views; the rest is kept as it is. Goes on where it stopped.

    Example: vidxfer cache prune --cache ./zarr --to ./small --layers 3,7,11
    """
    from vidxfer.cli import show
    from vidxfer.stages.upkeep import prune as stage

    reports = stage.prune(
        stage.PruneRequest(
            source=cache, target=to, layers=parse_layers(layers), views=views, splits=tuple(split) if split else None
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
        return
    show.table(
        f"Cache {to}",
        ["split", "layers", "views", "videos", "before", "after"],
        [
            [report.split, ", ".join(map(str, report.layers)), str(report.views), f"{report.stored:,}",
             show.size(report.bytes_before), show.size(report.bytes_after)]
            for report in reports
        ],
    )  # fmt: skip


def export(
    to: Annotated[Path, typer.Option("--to", help="FILE.npz or FILE.safetensors.")],
    cache: o.CacheOption = Path("zarr"),
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "train",
    video: Annotated[list[str] | None, typer.Option("--video", help="Id of a video; several are allowed.")] = None,
    first: Annotated[int, typer.Option("--first", min=1, help="How many videos, if no ids are given.")] = 4,
    view: Annotated[list[int] | None, typer.Option("--view", help="Number of a view; all by default.")] = None,
    layers: o.LayersOption = "all",
    json: o.JsonOption = False,
) -> None:
    """Write chosen videos as float32 arrays: tokens, embeddings, frames, boxes, labels.

    Example: vidxfer cache export --cache ./zarr --video 78687 --layers 3,7,11 --to clip.npz
    """
    from vidxfer.cli import show
    from vidxfer.stages.upkeep import samples as stage

    report = stage.write_chosen(
        stage.SamplesRequest(
            cache=cache, to=to, split=split, ids=tuple(video or ()), first=first, views=tuple(view) if view else None,
            layers=parse_layers(layers),
        )
    )  # fmt: skip
    if json:
        show.print_json(report)
        return
    rows = [[name, " x ".join(map(str, shape))] for name, shape in report.arrays.items()]
    show.facts(f"{report.file}: {report.clips:,} clips, {show.size(report.bytes)}", rows)
