"""`vidxfer plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import choices
from vidxfer.cli import options as o
from vidxfer.cli.choices import DEFAULT_MODEL, parse_splits
from vidxfer.cli.taking import taking
from vidxfer.pipeline.errors import UsageError

if TYPE_CHECKING:
    from vidxfer.stages.planning.costs import Rates
    from vidxfer.stages.planning.plan import PlanReport
    from vidxfer.stages.settings import CacheChoice, DataSource

_PANEL = "Rates: given, they are not measured"
DiskReadOption = Annotated[
    float | None,
    typer.Option("--disk-read-gb-per-second", help="Cold random reads of the disk.", rich_help_panel=_PANEL),
]
DiskWriteOption = Annotated[
    float | None, typer.Option("--disk-write-gb-per-second", help="Durable writes of the disk.", rich_help_panel=_PANEL)
]
ClipRateOption = Annotated[
    float | None, typer.Option("--clip-frames-per-second", help="CLIP's forward, all taps.", rich_help_panel=_PANEL)
]
DecodeRateOption = Annotated[
    float | None,
    typer.Option("--decode-videos-per-second", help="Videos decoded as extraction does.", rich_help_panel=_PANEL),
]
DenseRateOption = Annotated[
    float | None,
    typer.Option("--dense-clips-per-second", help="Views decoded as training does.", rich_help_panel=_PANEL),
]
JpegRateOption = Annotated[
    float | None, typer.Option("--jpeg-frames-per-second", help="JPEG frames decoded.", rich_help_panel=_PANEL)
]
HeadRateOption = Annotated[
    float | None,
    typer.Option("--head-clips-per-second", help="Forward and backward of the head.", rich_help_panel=_PANEL),
]
RatesOption = Annotated[
    Path | None,
    typer.Option(
        "--rates", help="JSON of rates by name, as make gpu writes; options go before.", rich_help_panel=_PANEL
    ),
]


@taking(data=choices.data, store=choices.store)
def plan(
    data: DataSource = None,  # type: ignore[assignment]  # `taking` makes it, and `store`
    cache: o.CacheOption = Path("zarr"),
    split: o.SplitOption = None,
    model: o.ModelOption = DEFAULT_MODEL,
    resize: o.ResizeOption = None,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = "auto",
    store: CacheChoice = None,  # type: ignore[assignment]
    decode_threads: o.ThreadsOption = 2,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Count this recipe's head, and the memory of its training."),
    ] = None,
    head: o.HeadOption = None,
    measure: Annotated[bool, typer.Option(help="Measure disk, device and decoders here, in under 30 s.")] = True,
    disk_read: DiskReadOption = None,
    disk_write: DiskWriteOption = None,
    clip_rate: ClipRateOption = None,
    decode_rate: DecodeRateOption = None,
    dense_rate: DenseRateOption = None,
    jpeg_rate: JpegRateOption = None,
    head_rate: HeadRateOption = None,
    rates: RatesOption = None,
    json: o.JsonOption = False,
) -> None:
    """Compute what a cache would cost: bytes, files, hours, seconds per epoch and the break-even. Writes no cache.

    Example: vidxfer plan --dataset ssv2 --root ./ssv2 --layers 3,7,11
    """
    from vidxfer.cli import show
    from vidxfer.pipeline.training.own_heads import import_head
    from vidxfer.pipeline.training.recipes import recipe as recipe_of
    from vidxfer.stages.planning import plan as stage
    from vidxfer.stages.settings import ClipChoice

    own = None if head is None else import_head(head)
    counted = recipe_of(recipe, head=own) if recipe or own else None
    report = stage.plan(
        stage.PlanRequest(
            data=data,
            clip=ClipChoice(model=model, device=device, precision=precision, resize=resize),
            store=store,
            cache=cache,
            splits=parse_splits(split),
            decode_threads=decode_threads,
            measure=measure,
            rates=given_rates(
                disk_read, disk_write, clip_rate, decode_rate, dense_rate, jpeg_rate, head_rate, file=rates
            ),
            recipe=counted,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(report)
        return
    frames = f"{store.dense_frames // store.alpha} of {store.dense_frames} frames through CLIP"
    show_plan(
        f"Cache {cache}: {store.codec}, {frames}, on {report.device}", None if counted is None else counted.name, report
    )


def given_rates(*values: float | None, file: Path | None = None) -> Rates:
    """Rates in the order of the fields of `Rates`; those that are None are taken from a file of them, if there is one.

    Raises:
        UsageError: one is not above 0, or the file is none of rates.
    """
    from vidxfer.stages.planning.costs import Rates, rates_in

    known = {} if file is None else rates_in(file)
    given = dict(zip(Rates.__dataclass_fields__, values, strict=True))
    try:
        return Rates(**(known | {name: value for name, value in given.items() if value is not None}))
    except ValueError as error:
        raise UsageError(str(error)) from error


def show_plan(title: str, recipe: str | None, report: PlanReport) -> None:
    """Tables of the splits and of the ways to train, the rates behind them, and the advice."""
    from vidxfer.cli import show

    show.table(
        title,
        ["split", "videos", "views", "per view", "total", "files", "inodes", "CLIP TFLOP"],
        [
            [split.split, f"{split.videos:,}", str(split.views), show.size(split.bytes_per_view),
             show.size(split.total_bytes), f"{split.files:,}", f"{split.inodes:,}", f"{split.clip_tflop:,.2f}"]
            for split in report.splits
        ],
    )  # fmt: skip
    for split in report.splits:
        for note in split.notes:
            show.say(f"{split.split}: {note}")
    if report.frozen_bytes:
        show.say(
            f"Beside the splits: {show.size(report.frozen_bytes)} of CLIP's own weights, for heads that read them."
        )
    rates = report.rates
    units = [
        ("disk writes {:.2f} GB/s", rates.disk_write_gb_per_second),
        ("reads {:.2f} GB/s", rates.disk_read_gb_per_second),
        ("CLIP {:,.1f} frames/s", rates.clip_frames_per_second),
        ("decoding {:,.1f} videos/s to extract", rates.decode_videos_per_second),
        ("{:,.1f} clips/s to train", rates.dense_clips_per_second),
        ("JPEG {:,.0f} frames/s", rates.jpeg_frames_per_second),
        ("head {:,.1f} clips/s", rates.head_clips_per_second),
    ]
    if known := [words.format(rate) for words, rate in units if rate is not None]:
        show.say(f"Here: {', '.join(known)}.")
    if report.extract_hours is not None:
        show.say(f"Extraction: about {show.duration(report.extract_hours * 3600)} on this device.")
    if any(epoch.seconds is not None for epoch in report.epochs):
        first = report.splits[0]
        show.table(
            f"One epoch of {first.split} ({first.videos:,} clips)",
            ["tokens and frames", "seconds", "bound by", "not counted"],
            [
                [epoch.way, "-" if epoch.seconds is None else f"{epoch.seconds:,.1f}", epoch.bound_by,
                 ", ".join(name.split("_")[0] for name in epoch.not_counted) or "-"]
                for epoch in report.epochs
            ],
        )  # fmt: skip
    if report.training_bytes is not None:
        show.say(f"Training with {recipe}: about {show.size(report.training_bytes)} of memory for a batch in float32, "
              "over all devices together; about half of it under bf16.")  # fmt: skip
    show.say(report.advice)
