"""`vidxfer extract`, and what its options share with `vidxfer plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.engine import SLURM
from vidxfer.cli.engine import engine as engine_options
from vidxfer.cli.taking import taking
from vidxfer.pipeline.errors import UsageError

if TYPE_CHECKING:
    from vidxfer.stages.engine_choice import EngineChoice
    from vidxfer.stages.extract import SplitReport
    from vidxfer.stages.settings import DataSource

DEFAULT_MODEL = "ViT-B-16-quickgelu"


@taking(engine=engine_options)
def extract(
    dataset: o.DatasetOption = "ssv2",
    root: o.RootOption = None,
    cache: o.CacheOption = Path("zarr"),
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    limit: o.LimitOption = None,
    fold: o.FoldOption = None,
    split: o.SplitOption = None,
    model: o.ModelOption = DEFAULT_MODEL,
    pretrained: o.PretrainedOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    dense_frames: o.DenseFramesOption = 16,
    alpha: o.AlphaOption = 2,
    bank_frames: o.BankFramesOption = None,
    layers: o.LayersOption = "all",
    stem: o.StemOption = False,
    views: o.ViewsOption = 1,
    test_views: o.TestViewsOption = 1,
    test_crops: o.TestCropsOption = 1,
    seed: o.SeedOption = 0,
    codec: o.CodecOption = "int8",
    calibration_videos: o.CalibrationOption = 64,
    shard_videos: o.ShardVideosOption = None,
    with_frames: o.WithFramesOption = False,
    frame_quality: o.FrameQualityOption = 90,
    frame_subsampling: o.FrameSubsamplingOption = "4:4:4",
    batch_frames: o.BatchFramesOption = 128,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt with {} for the class name; several are averaged.", rich_help_panel="CLIP"),
    ] = None,
    decode_threads: o.ThreadsOption = 2,
    decoder: Annotated[str, typer.Option(help="auto, decord or pyav.", rich_help_panel="Machine")] = "auto",
    decode_in: Annotated[
        str,
        typer.Option(help="processes (one that hangs or crashes is named) or threads.", rich_help_panel="Machine"),
    ] = "processes",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try refused videos again; the others keep their bytes.")
    ] = False,
    engine: EngineChoice = None,  # type: ignore[assignment]  # `taking` makes it
    slurm_dry_run: Annotated[
        bool, typer.Option("--slurm-dry-run", help="Only print the job script.", rich_help_panel=SLURM)
    ] = False,
    json: o.JsonOption = False,
) -> None:
    """Run CLIP once over a few frames of every video and keep the tokens. Goes on where an earlier run ended.

    Exits with 3 when some videos were refused, or some shards could not be finished; each is named with its reason.

    Example: vidxfer extract --dataset ssv2 --root ./ssv2 --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages import extract as stage
    from vidxfer.stages.settings import CacheChoice, ClipChoice

    if slurm_dry_run:
        print(stage.slurm_script(engine), end="")
        return
    reports = stage.extract(
        stage.ExtractRequest(
            data=data_source(dataset, root, labels, val_fraction, limit, fold),
            clip=ClipChoice(model=model, pretrained=pretrained, device=device, precision=precision),
            store=CacheChoice(
                dense_frames=dense_frames,
                alpha=alpha,
                bank_frames=bank_frames,
                layers=parse_layers(layers),
                stem=stem,
                train_views=views,
                test_views=test_views,
                test_crops=test_crops,
                codec=codec,
                seed=seed,
                calibration_videos=calibration_videos,
                shard_videos=shard_videos,
                with_frames=with_frames,
                frame_quality=frame_quality,
                frame_subsampling=frame_subsampling,
                templates=parse_templates(template),
            ),
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

    show.table(
        f"Cache {cache}",
        ["split", "videos", "stored", "refused", "bytes", "seconds", "decoded by"],
        [
            [one.split, f"{one.videos:,}", f"{one.stored:,}", f"{len(one.failed):,}", show.size(one.bytes_on_disk),
             f"{one.seconds:.1f}", ", ".join(f"{name} {count:,}" for name, count in sorted(one.decoders.items()))]
            for one in reports
        ],
    )  # fmt: skip
    for one in reports:
        for name, reason in one.failed.items():
            print(f"refused: {one.split}/{name}: {reason}")
        for shard, reason in one.left.items():
            print(f"left: {one.split}, shard {shard}: {reason}. It is still pending: run the same command again.")
    if any(one.failed for one in reports):
        print("After mending refused videos, the same command with --retry-failed tries them again.")


def data_source(
    kind: str, root: Path | None, labels: Path | None, val_fraction: float, limit: int | None, fold: int | None = None
) -> DataSource:
    """The data set a person named."""
    from vidxfer.stages.settings import DataSource

    return DataSource(kind=kind, root=root, labels=labels, val_fraction=val_fraction, limit=limit, fold=fold)


def parse_layers(text: str) -> tuple[int, ...] | None:
    """ "all" -> None, "3,7,11" -> (3, 7, 11).

    Raises:
        UsageError: neither.
    """
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--layers {text!r} is neither all nor numbers like 3,7,11") from error


def parse_templates(templates: list[str] | None) -> tuple[str, ...]:
    """The bare name unless templates are given.

    Raises:
        UsageError: a template without exactly one {}.
    """
    wrong = [template for template in templates or () if template.count("{}") != 1 or template.count("{") != 1]
    if wrong:
        raise UsageError(f"--template {wrong[0]!r} needs one {{}} where the class name goes, as in 'a video of {{}}'")
    return tuple(templates) if templates else ("{}",)


def parse_splits(splits: list[str] | None) -> tuple[str, ...]:
    """Both splits unless some are named."""
    return tuple(dict.fromkeys(splits)) if splits else ("train", "val")
