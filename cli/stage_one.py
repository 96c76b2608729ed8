"""`vidxfer extract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import choices
from vidxfer.cli import options as o
from vidxfer.cli.choices import DEFAULT_MODEL, parse_splits
from vidxfer.cli.engine import SLURM
from vidxfer.cli.engine import engine as engine_options
from vidxfer.cli.taking import taking

if TYPE_CHECKING:
    from vidxfer.stages.engine import EngineChoice
    from vidxfer.stages.extract import SplitReport
    from vidxfer.stages.settings import CacheChoice, DataSource


@taking(data=choices.data, store=choices.store, engine=engine_options)
def extract(
    data: DataSource = None,  # type: ignore[assignment]  # `taking` makes it, and the two others
    cache: o.CacheOption = Path("zarr"),
    split: o.SplitOption = None,
    model: o.ModelOption = DEFAULT_MODEL,
    pretrained: o.PretrainedOption = None,
    resize: o.ResizeOption = None,
    activation: o.ActivationOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    store: CacheChoice = None,  # type: ignore[assignment]
    batch_frames: o.BatchFramesOption = 128,
    decode_threads: o.ThreadsOption = 2,
    decoder: o.DecoderOption = "auto",
    decode_in: Annotated[
        str,
        typer.Option(
            help="processes (a video that hangs or crashes is ended and named) or threads.",
            rich_help_panel="Machine",
        ),
    ] = "processes",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try refused videos again; the others keep their bytes.")
    ] = False,
    engine: EngineChoice = None,  # type: ignore[assignment]
    slurm_dry_run: Annotated[
        bool, typer.Option("--slurm-dry-run", help="Only print the job script.", rich_help_panel=SLURM)
    ] = False,
    json: o.JsonOption = False,
) -> None:
    """Run CLIP once over a few frames of every video and keep the tokens. Goes on where an earlier run stopped.

    Exits with 3 when some videos were refused, or some shards could not be finished; each is named with its reason.

    Example: vidxfer extract --dataset ssv2 --root ./ssv2 --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages import extract as stage
    from vidxfer.stages.settings import ClipChoice

    if slurm_dry_run:
        show.say(*stage.slurm_script(engine).splitlines())
        return
    reports = stage.extract(
        stage.ExtractRequest(
            data=data,
            clip=ClipChoice(
                model=model,
                pretrained=pretrained,
                device=device,
                precision=precision,
                resize=resize,
                activation=activation,
            ),
            store=store,
            cache=cache,
            engine=engine,
            retry_failed=retry_failed,
            splits=parse_splits(split),
            batch_frames=batch_frames,
            decode_threads=decode_threads,
            decoder=decoder,
            decode_in=decode_in,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
    else:
        show_reports(cache, reports)
    if any(report.failed or report.left for report in reports):
        raise typer.Exit(3)


def show_reports(cache: Path, reports: tuple[SplitReport, ...]) -> None:
    """The table of an extraction, then every refused video with its reason."""
    from vidxfer.cli import show
    from vidxfer.cli.codecs import show_choice

    show_choice(next((report.codec_choice for report in reports if report.codec_choice), None))
    show.table(
        f"Cache {cache}",
        ["split", "videos", "stored", "refused", "bytes", "seconds", "decoded by"],
        [
            [report.split, f"{report.videos:,}", f"{report.stored:,}", f"{len(report.failed):,}",
             show.size(report.bytes_on_disk), f"{report.seconds:.1f}",
             ", ".join(f"{name} {count:,}" for name, count in sorted(report.decoders.items()))]
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        show.say_aspects(report.split, report.pixel_aspects)
        for name, reason in report.failed.items():
            show.say(f"refused: {report.split}/{name}: {reason}")
        for shard, reason in report.left.items():
            show.say(f"left: {report.split}, shard {shard}: {reason}. It is still pending: run the same command again.")
    if any(report.failed for report in reports):
        show.say("After mending refused videos, the same command with --retry-failed tries them again.")
