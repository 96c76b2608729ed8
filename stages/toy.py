"""The toy world: a small labelled video set and a tiny CLIP, for the demo, the tests and benchmarks without data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.stages.progress import Progress, Silent

SIDE_PX = 48
CLIP_SIZES = {"image_px": 32, "patch_px": 8, "channels": 256, "blocks": 4, "embed": 64}
"""Small enough for two CPU cores in minutes, and CLIP still costs several times what the head costs."""


@dataclass(frozen=True, kw_only=True)
class ToyRequest:
    """Where to make it, in which layout ("ssv2" or "k400"), how many videos, and the seed of all of it."""

    folder: Path
    layout: str = "ssv2"
    train_videos: int = 640
    val_videos: int = 160
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ToyReport:
    """Folders to be given as --root and --model, and how many videos were made and kept."""

    data: Path
    clip: Path
    written: int
    reused: int


def make_toy(request: ToyRequest, progress: Progress | None = None) -> ToyReport:
    """Make both; what is there already from the same settings is kept.

    Raises:
        UsageError: no such layout.
        DatasetError: the folder holds a toy world of other settings, or something else.
    """
    shown = progress or Silent()
    total = request.train_videos + request.val_videos
    with shown.bar("toy videos", total, "videos") as bar:
        seen = 0

        def advance(done: int, _: int) -> None:
            nonlocal seen
            bar.advance(done - seen)
            seen = done

        world = write_toy(
            request.folder / request.layout,
            layout=request.layout,
            train_videos=request.train_videos,
            val_videos=request.val_videos,
            seed=request.seed,
            side_px=SIDE_PX,
            progress=advance,
        )
    clip = write_tiny_clip(request.folder / "clip", seed=request.seed, **CLIP_SIZES)
    return ToyReport(data=world.root, clip=clip, written=world.written, reused=world.reused)
