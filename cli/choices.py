"""What plan and extract ask for alike: which videos, and what is stored of them; each option once.

@taking(data=data, store=store)     the two commands cannot drift apart: what one plans, the other makes
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidxfer.cli import options as o
from vidxfer.pipeline.errors import UsageError

if TYPE_CHECKING:
    from vidxfer.stages.settings import DataSource

DEFAULT_MODEL = "ViT-B-16-quickgelu"


def data(
    dataset: o.DatasetOption = "ssv2",
    root: o.RootOption = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    limit: o.LimitOption = None,
    fold: o.FoldOption = None,
) -> Any:
    """A `DataSource`."""
    return data_source(dataset, root, labels, val_fraction, limit, fold)


def store(
    dense_frames: o.DenseFramesOption = 16,
    alpha: o.AlphaOption = 2,
    bank_frames: o.BankFramesOption = None,
    layers: o.LayersOption = "all",
    stem: o.StemOption = False,
    views: o.ViewsOption = 1,
    test_views: o.TestViewsOption = 1,
    test_crops: o.TestCropsOption = 1,
    sampling: o.SamplingOption = "segment",
    square_pixels: o.SquarePixelsOption = False,
    flips: o.FlipsOption = None,
    seed: o.SeedOption = 0,
    codec: o.CodecOption = "int8",
    pool: o.PoolOption = 1,
    loss: o.LossOption = None,
    calibration_videos: o.CalibrationOption = 64,
    shard_videos: o.ShardVideosOption = None,
    with_frames: o.WithFramesOption = False,
    frame_quality: o.FrameQualityOption = 90,
    frame_subsampling: o.FrameSubsamplingOption = "4:4:4",
    window: o.WindowOption = 0,
    window_ends: o.WindowEndsOption = "clamp",
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt with {} for the class name; several are averaged.", rich_help_panel="CLIP"),
    ] = None,
) -> Any:
    """A `CacheChoice`.

    Raises:
        UsageError: an option that would do nothing.
    """
    from vidxfer.stages.settings import CacheChoice

    if not with_frames and (frame_quality, frame_subsampling) != (90, "4:4:4"):
        raise UsageError("--frame-quality and --frame-subsampling are about kept dense frames: add --with-frames")
    if window and not with_frames:
        raise UsageError(f"--window {window} keeps source frames beside the dense ones: add --with-frames")
    if window_ends != "clamp" and not window:
        raise UsageError(f"--window-ends {window_ends} is about the ends of windows: add --window 5")
    return CacheChoice(
        dense_frames=dense_frames,
        alpha=alpha,
        bank_frames=bank_frames,
        layers=parse_layers(layers),
        stem=stem,
        train_views=views,
        test_views=test_views,
        test_crops=test_crops,
        codec=codec,
        pool=pool,
        loss=loss,
        seed=seed,
        square_pixels=square_pixels,
        sampling=sampling,
        flips=flips,
        calibration_videos=calibration_videos,
        shard_videos=shard_videos,
        with_frames=with_frames,
        frame_quality=frame_quality,
        frame_subsampling=frame_subsampling,
        window=window,
        window_ends=window_ends,
        templates=parse_templates(template),
    )


def data_source(
    kind: str, root: Path | None, labels: Path | None, val_fraction: float, limit: int | None, fold: int | None = None
) -> DataSource:
    """The data set a person named."""
    from vidxfer.stages.settings import DataSource

    return DataSource(kind=kind, root=root, labels=labels, val_fraction=val_fraction, limit=limit, fold=fold)


def know_heads(names: list[str] | None) -> None:
    """Heads of a person's own, named with `--head`, for runs that have them.

    Raises:
        UsageError: there is no such class, or it is no head's settings.
    """
    if names:
        from vidxfer.pipeline.training.own_heads import add_head, import_head

        for name in names:
            add_head(import_head(name))


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
