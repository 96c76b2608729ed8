"""The toy world: a small labelled video set and a tiny trained CLIP, for the demo and for benchmarks without data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.clip.tiny import copy_toy_clip
from vidxfer.pipeline.datasets.toy import ToyDesign
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.progress import Progress, Silent

TRAIN_PER_VAL = 4
"""Of five videos, four are for training."""


@dataclass(frozen=True, kw_only=True)
class ToyRequest:
    """Where to make it, how much of it, and what it looks like.

    Attributes:
        folder: gets a folder named after the layout, and clip/.
        layout: "ssv2", "k400" or "folder".
        videos: of both splits together; a fifth is for validation.
        seed: of the drawing.
        appearances, difficulty, side_px, barcode: see `ToyDesign`.
    """

    folder: Path
    layout: str = "ssv2"
    videos: int = 1600
    appearances: int = 4
    difficulty: str = "medium"
    side_px: int = 64
    barcode: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ToyReport:
    """Folders to be given as --root and --model, the number of classes, and how many videos were made and kept."""

    data: Path
    clip: Path
    classes: int
    written: int
    reused: int


def make_toy(request: ToyRequest, progress: Progress | None = None) -> ToyReport:
    """Make both; what is there already from the same settings is kept.

    Raises:
        UsageError: no such layout, difficulty or size.
        DatasetError: the folder holds a toy world of other settings, or something else.
    """
    shown = progress or Silent()
    val_videos = request.videos // (TRAIN_PER_VAL + 1)
    try:
        design = ToyDesign(
            appearances=request.appearances,
            difficulty=request.difficulty,
            side_px=request.side_px,
            barcode=request.barcode,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    with shown.bar("toy videos", request.videos, "videos") as bar:
        seen = 0

        def advance(done: int, _: int) -> None:
            nonlocal seen
            bar.advance(done - seen)
            seen = done

        world = write_toy(
            request.folder / request.layout,
            layout=request.layout,
            train_videos=request.videos - val_videos,
            val_videos=val_videos,
            seed=request.seed,
            design=design,
            progress=advance,
        )
    clip = copy_toy_clip(request.folder / "clip")
    return ToyReport(
        data=world.root, clip=clip, classes=len(design.class_names), written=world.written, reused=world.reused
    )
