"""`vidxfer cache fidelity` and `vidxfer cache recode`: what a codec loses, and from one codec to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidxfer.cli import options as o

if TYPE_CHECKING:
    from vidxfer.stages.candidates import CodecChoice
    from vidxfer.stages.upkeep.fidelity import FidelityReport

THROUGH = (
    "The tokens of one layer were replaced by decoded ones, and the tower went on: cosines of what it makes of them "
    "behind its last norm, class row | patches, worst 1 % of the patches. A codec's loss is 1 - the smaller mean in "
    "its worst layer."
)
CODECS_ABREAST = 4
MISLEADS = (
    "Plain cosine alone misleads: a few large channels fill it, and all others may be lost at 0.9993. Judge by centred "
    "(channel means taken away), ordinary (without the 8 largest channels) and in std (error in standard deviations of "
    "each channel). `worst` is the worst token of the column before it."
)


def fidelity(
    cache: o.CacheOption = Path("zarr"),
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "train",
    videos: Annotated[int, typer.Option("--videos", min=1, help="Stored videos to measure, evenly spread.")] = 8,
    codec: Annotated[
        list[str] | None, typer.Option("--codec", help="Also try this codec on the same tokens; may be repeated.")
    ] = None,
    truth: Annotated[
        str,
        typer.Option(help="pixels: CLIP runs again. stored: the cache's own tokens, if they are float16; no videos."),
    ] = "pixels",
    through: Annotated[
        bool | None,
        typer.Option(
            help="Let the tower go on from what is left, and compare its end. Default: where CLIP is loaded anyway, "
            "so not with --truth stored."
        ),
    ] = None,
    layers: Annotated[str, typer.Option("--layers", help="Layers to measure: all, or 3,7,11.")] = "all",
    fit_on: Annotated[
        str | None,
        typer.Option(
            "--fit-on", help="Split that tried codecs are fitted on; default: train, whichever split is measured."
        ),
    ] = None,
    calibration_videos: Annotated[
        int, typer.Option("--calibration-videos", min=1, help="Other videos that tried codecs are fitted on.")
    ] = 16,
    root: o.RootOption = None,
    device: o.DeviceOption = "auto",
    batch_frames: o.BatchFramesOption = 128,
    decode_threads: o.ThreadsOption = 2,
    json: o.JsonOption = False,
) -> None:
    """Measure what a codec loses, layer by layer, against tokens that CLIP computes again. Writes nothing.

    What counts is what the tower makes of them: decoded tokens take the place of one layer's, the tower goes on, and
    its ends are compared, class row and patches apart. Of the tokens themselves, plain cosine alone misleads: a few
    large channels fill it. `centred` takes the channel means away, `ordinary` leaves
    the 8 largest channels out, `in std` is the error in standard deviations of each channel.

    Exits with 3 when some of the videos cannot be read any more; each is named with its reason.

    Example: vidxfer cache fidelity --cache ./zarr --through --videos 8 --codec int6 --codec int4
    """
    from vidxfer.cli import show
    from vidxfer.cli.choices import parse_layers
    from vidxfer.stages.upkeep import fidelity as stage

    report = stage.fidelity(
        stage.FidelityRequest(
            cache=cache,
            split=split,
            videos=videos,
            codecs=tuple(codec or ()),
            truth=truth,
            through=truth == "pixels" if through is None else through,
            layers=parse_layers(layers),
            fit_on=fit_on,
            calibration_videos=calibration_videos,
            root=root,
            device=device,
            batch_frames=batch_frames,
            decode_threads=decode_threads,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(report)
    else:
        show_fidelity(report)
    if report.refused:
        raise typer.Exit(3)


def show_fidelity(report: FidelityReport) -> None:
    """The tower's ends first, then one table per codec of the tokens, and what the figures rest on."""
    from vidxfer.cli import show

    show_through(report)
    for codec in report.codecs:
        state = "stored" if codec.stored else "tried, not stored"
        show.table(
            f"{codec.codec} ({state}): {show.size(codec.bytes_per_view)} per view",
            ["layer", "bytes", "cosine", "worst", "centred", "worst", "ordinary", "worst", "rel. error", "in std"],
            [
                [str(layer.layer), show.size(layer.bytes_per_view), f"{layer.cosine:.5f}", f"{layer.cosine_worst:.4f}",
                 f"{layer.centred:.5f}", f"{layer.centred_worst:.4f}", f"{layer.ordinary:.5f}",
                 f"{layer.ordinary_worst:.4f}", f"{layer.relative_error:.4f}", f"{layer.error_in_std:.4f}"]
                for layer in codec.layers
            ],
        )  # fmt: skip
    show.say(MISLEADS)
    source = "CLIP on their pixels" if report.truth == "pixels" else "their float16 tokens in the cache"
    others = "of the same" if report.overlap else "other"
    show.say(
        f"Measured on {len(report.videos)} videos of {report.split}, against {source}. Channel means and what tried "
        f"codecs are fitted on come from {report.fitted_on} {others} videos, of {report.fitted_in}. Bytes are those of "
        "one view."
    )
    if report.overlap:
        show.say("The split has no other videos: figures of tried codecs are too good.")
    for name, reason in report.refused.items():
        show.say(f"refused: {report.split}/{name}: {reason}")


def show_through(report: FidelityReport) -> None:
    """What the tower makes of each codec: its loss, then every layer; nothing where that was not measured."""
    from vidxfer.cli import show

    measured = [(codec, codec.through) for codec in report.codecs if codec.through is not None]
    if not measured:
        return
    show.table(
        f"What the tower makes of it: {report.split}",
        ["codec", "bits per value", "per view", "loss", "worst layer", "class row", "patches", "worst 1 %"],
        [
            [f"{codec.codec}{' (stored)' * codec.stored}", f"{codec.bits_per_value:.2f}",
             show.size(codec.bytes_per_view), f"{through.loss:.4f}", str(through.worst_layer),
             *(f"{min(getattr(layer, name) for layer in through.layers):.4f}"
               for name in ("class_row", "patches", "patches_worst"))]
            for codec, through in measured
        ],
    )  # fmt: skip
    for first in range(0, len(measured), CODECS_ABREAST):
        abreast = measured[first : first + CODECS_ABREAST]
        show.table(
            "class row | patches, worst 1 %" * (first == 0),
            ["layer", *(codec.codec for codec, _ in abreast)],
            [
                [str(layers[0].layer),
                 *(f"{end.class_row:.4f}|{end.patches:.4f},{end.patches_worst:.3f}" for end in layers)]
                for layers in zip(*(through.layers for _, through in abreast), strict=True)
            ],
        )  # fmt: skip
    show.say(THROUGH)


def recode(
    source: Annotated[Path, typer.Argument(help="Folder of the finished cache.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the new cache.")],
    codec: Annotated[
        str | None, typer.Option("--codec", help="As for extract; without it codes are copied as they are.")
    ] = None,
    loss: o.LossOption = None,
    layers: o.LayersOption = "all",
    pool: Annotated[
        int | None, typer.Option("--pool", min=1, help="Means of N x N patches, as for extract; default: as stored.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="train or val; all by default.")] = None,
    calibration_videos: o.CalibrationOption = 64,
    device: o.DeviceOption = "auto",
    json: o.JsonOption = False,
) -> None:
    """Store a finished cache with another codec, fewer layers or averaged patches, without CLIP and videos.

    Goes on where it was stopped. Only --codec auto, from a float16 cache, loads CLIP: to let it go on from decoded
    tokens. It reads no videos either.

    What a lossy codec lost stays lost: recode from a float16 cache if you have one. The new cache remembers the codec
    that it was made from.

    Example: vidxfer cache recode ./zarr --to ./zarr-int4 --codec int4
    """
    from vidxfer.cli import show
    from vidxfer.cli.choices import parse_layers
    from vidxfer.stages.upkeep import recode as stage

    reports = stage.recode(
        stage.RecodeRequest(
            source=source,
            target=to,
            codec=codec,
            loss=loss,
            layers=parse_layers(layers),
            pool=pool,
            splits=tuple(split) if split else None,
            calibration_videos=calibration_videos,
            device=device,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
        return
    show_choice(next((report.codec_choice for report in reports if report.codec_choice), None))
    show.table(
        f"Cache {to}",
        ["split", "from", "to", "layers", "videos", "stored before", "bytes before", "bytes now", "seconds"],
        [
            [report.split, stored_as(report.source_codec, report.source_pool), stored_as(report.codec, report.pool),
             ",".join(map(str, report.layers)), f"{report.stored:,}",
             f"{report.resumed:,}", show.size(report.bytes_before), show.size(report.bytes_after),
             f"{report.seconds:.1f}"]
            for report in reports
        ],
    )  # fmt: skip


def stored_as(codec: str, pool: int) -> str:
    """The codec, and over how many patches each is averaged."""
    return codec if pool == 1 else f"{codec}, pool {pool}"


def show_choice(choice: CodecChoice | None) -> None:
    """What each candidate of `--codec auto` lost, the chosen one marked; nothing where the codec was named."""
    from vidxfer.cli import show

    if choice is None:
        return
    show.table(
        f"--codec auto: the smallest that loses at most {choice.loss:g}",
        ["codec", "per view", "loss", "worst layer", "class row", "patches", "worst 1 %"],
        [
            [f"{codec}{' (chosen)' * (codec == choice.codec)}", show.size(candidate.bytes_per_view),
             f"{candidate.loss:.4f}", str(candidate.worst_layer),
             *(f"{min(cosines):.4f}" for cosines in (candidate.class_row, candidate.patches, candidate.patches_worst))]
            for codec, candidate in choice.candidates.items()
        ],
    )  # fmt: skip
    show.say(
        f"Cosines at the tower's end, of the layer where they are smallest. Fitted on {choice.fitted_on} videos of "
        f"{choice.split}, measured on {choice.frames} frames of {choice.measured_on} others.",
        *choice.lines,
    )
