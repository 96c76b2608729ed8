"""The words every command shares, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CacheOption = Annotated[Path, typer.Option("--cache", help="Folder of the cache.", rich_help_panel="Where")]
CachesOption = Annotated[
    list[Path] | None,
    typer.Option("--cache", help="Folder of the cache.", rich_help_panel="Where"),
]
LabelsAsOption = Annotated[
    str | None,
    typer.Option(
        "--labels-as",
        help="Classes of several caches: k710 (over k400, k600, k700), or union (all their names).",
        rich_help_panel="Where",
    ),
]
RunOption = Annotated[Path, typer.Option("--run", help="Folder of the run.", rich_help_panel="Where")]
HeadOption = Annotated[
    str | None,
    typer.Option("--head", help="Head of your own: package.module:Class, looked for from this folder."),
]
HeadsOption = Annotated[
    list[str] | None,
    typer.Option("--head", help="Head of your own that a run has: package.module:Class. May be repeated."),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", envvar="VIDXFER_DATA", help="Folder of the data set.", rich_help_panel="Where"),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="ssv2, ssv1, jester, k400, k600, k700, ucf101, hmdb51, epic100, diving48, folder, csv; "
        "auto: by the files below --root.",
        rich_help_panel="Data",
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="Labels, if they are not where the layout has them.", rich_help_panel="Data"),
]
ValFractionOption = Annotated[
    float,
    typer.Option("--val-fraction", help="Share for validation, if the data set has no splits.", rich_help_panel="Data"),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most this many videos per split.", rich_help_panel="Data")
]
FoldOption = Annotated[
    int | None,
    typer.Option("--fold", min=1, max=3, help="1, 2 or 3 of ucf101 and hmdb51; default 1.", rich_help_panel="Data"),
]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="train or val; both by default.", rich_help_panel="Data")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="Tower: a name of open_clip, timm:NAME, hf-hub:REPOSITORY, or a folder with config and weights.",
        rich_help_panel="CLIP",
    ),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option("--pretrained", help="Tag or weights file; default: openai, or timm's own.", rich_help_panel="CLIP"),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        "--resize",
        help="bilinear, bicubic, each also with -antialias (then -squash or -shortest); default: the tower's own.",
        rich_help_panel="CLIP",
    ),
]
ActivationOption = Annotated[
    str | None,
    typer.Option(
        "--activation", help="gelu or quickgelu, where a weights file does not say it.", rich_help_panel="CLIP"
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …", rich_help_panel="Machine")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16, fp16.", rich_help_panel="Machine")]
ThreadsOption = Annotated[
    int, typer.Option("--decode-threads", min=1, help="Videos decoded at once.", rich_help_panel="Machine")
]
MicroBatchOption = Annotated[
    int | None,
    typer.Option("--micro-batch", min=0, help="Clips per forward and backward; gradients are added. 0: the batch."),
]
EmaOption = Annotated[
    float | None,
    typer.Option(
        "--ema", help="Score and keep a moving average of the weights; the share a step keeps, as 0.999. 0: none."
    ),
]
CompileOption = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Train the head through torch.compile.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]

DenseFramesOption = Annotated[
    int, typer.Option("--dense-frames", min=1, help="Dense frames per view.", rich_help_panel="Views")
]
AlphaOption = Annotated[
    int, typer.Option("--alpha", min=1, help="Dense frames per frame that CLIP sees.", rich_help_panel="Views")
]
BankFramesOption = Annotated[
    int | None,
    typer.Option(
        "--bank-frames",
        min=1,
        help="Frames CLIP sees per training view. If a head uses fewer, each epoch draws some of them.",
        rich_help_panel="Views",
    ),
]
ViewsOption = Annotated[
    int, typer.Option("--views", min=1, help="Random views per training video.", rich_help_panel="Views")
]
TestViewsOption = Annotated[
    int, typer.Option("--test-views", min=1, help="Temporal views per validation video.", rich_help_panel="Views")
]
TestCropsOption = Annotated[
    int, typer.Option("--test-crops", help="Spatial crops per validation view: 1 or 3.", rich_help_panel="Views")
]
DecoderOption = Annotated[
    str,
    typer.Option("--decoder", help="auto, pyav or decord; see docs/frames.md.", rich_help_panel="Machine"),
]
SamplingOption = Annotated[
    str,
    typer.Option(
        "--sampling",
        help="Which frames: segment (DiST); tds-ss, tds-k400, tds-dense (Side4Video, TDS-CLIP); evl-ss, evl-k400.",
        rich_help_panel="Views",
    ),
]
SquarePixelsOption = Annotated[
    bool,
    typer.Option("--square-pixels", help="Resize pictures whose pixels are not square.", rich_help_panel="Views"),
]
FlipsOption = Annotated[
    bool | None,
    typer.Option(
        "--flips/--no-flips",
        help="Mirror half of the training views; default: unless classes are numbers.",
        rich_help_panel="Views",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the random views.", rich_help_panel="Views")]
LayersOption = Annotated[
    str, typer.Option("--layers", help="CLIP blocks to keep: all, or 3,7,11.", rich_help_panel="Storage")
]
StemOption = Annotated[
    bool, typer.Option("--stem", help="Also keep what goes into block 0.", rich_help_panel="Storage")
]
CodecOption = Annotated[
    str,
    typer.Option(
        "--codec",
        help="How a value is stored: float16 (exact), int8 (half of that), klt8 … klt1, klt0.5 (so many bits, "
        "shared out where they count: klt4 loses little, klt1 is 14 times smaller); or int6, int4, pq (1 bit; pq4: 2, "
        "pq2: 4), alone or behind rotate+ or pcaK+, which turn each layer and keep all or K directions: pca64+int8. "
        "auto: measured on your videos, the smallest that loses at most --loss.",
        rich_help_panel="Storage",
    ),
]
PoolOption = Annotated[
    int,
    typer.Option(
        "--pool",
        min=1,
        help="Keep means of N x N patches: N² times fewer bytes, and heads cheaper by about as much. N "
        "divides the grid: 2, 7 or 14 of 14 x 14.",
        rich_help_panel="Storage",
    ),
]
LossOption = Annotated[
    float | None,
    typer.Option(
        "--loss",
        help="Most that --codec auto may lose, 1 - cosine at the tower's end, in every layer; default: 0.01.",
        rich_help_panel="Storage",
    ),
]
CalibrationOption = Annotated[
    int,
    typer.Option(
        "--calibration-videos",
        min=1,
        help="Videos that the codec is fitted on.",
        rich_help_panel="Storage",
    ),
]
ShardVideosOption = Annotated[
    int | None,
    typer.Option("--shard-videos", min=1, help="Videos per shard; default about 1 GB.", rich_help_panel="Storage"),
]
WithFramesOption = Annotated[
    bool,
    typer.Option(
        "--with-frames", help="Also keep dense frames, as JPEG: training opens no video.", rich_help_panel="Storage"
    ),
]
FrameQualityOption = Annotated[
    int, typer.Option("--frame-quality", min=1, max=100, help="Quality of those JPEGs.", rich_help_panel="Storage")
]
FrameSubsamplingOption = Annotated[
    str,
    typer.Option(
        "--frame-subsampling", help="Their colour resolution: 4:4:4, 4:2:2, 4:2:0.", rich_help_panel="Storage"
    ),
]
WindowOption = Annotated[
    int,
    typer.Option(
        "--window",
        min=0,
        help="With --with-frames: also keep this many source frames around each frame that CLIP sees: 3, 5 or 7; "
        "TDS-CLIP uses 5. Each distinct frame is kept once. At 224 px and quality 90 a frame takes about 17 kB: 8 "
        "windows of 5 add at most 32 frames, 0.53 MB a view.",
        rich_help_panel="Storage",
    ),
]
WindowEndsOption = Annotated[
    str,
    typer.Option(
        "--window-ends",
        help="What a window has beyond the ends of a video: clamp repeats the first or last frame; wrap takes the last "
        "frames in front of the first one, as TDS-CLIP's release does.",
        rich_help_panel="Storage",
    ),
]
FramesFromOption = Annotated[
    str,
    typer.Option(
        "--frames-from",
        help="Where dense frames come from: auto (the cache if it keeps them), cache, videos, or changed-videos (the "
        "files have other bytes than at extraction, and the same pictures).",
        rich_help_panel="Where",
    ),
]
BatchFramesOption = Annotated[
    int, typer.Option("--batch-frames", min=1, help="Frames CLIP sees at once.", rich_help_panel="Machine")
]
