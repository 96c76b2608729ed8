"""`vidxfer data …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make and look at data sets.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `toy` a command of its own while it is the only one."""


@app.command("toy")
def toy(
    folder: Annotated[Path, typer.Argument(help="Folder to make; gets ssv2/ (or k400/) and clip/.")],
    layout: Annotated[str, typer.Option(help="ssv2: VP9 and json labels; k400: h264 and csv lists.")] = "ssv2",
    train_videos: Annotated[int, typer.Option(min=8, help="Training videos.")] = 640,
    val_videos: Annotated[int, typer.Option(min=8, help="Validation videos.")] = 160,
    seed: Annotated[int, typer.Option(help="Of videos and of the tiny CLIP.")] = 0,
) -> None:
    """Make a small labelled video set in Something-Something V2's or Kinetics' layout, and a tiny random CLIP.

    The classes come in time-reversed pairs: whatever ignores the order of frames cannot pass half within a pair.

    Example: vidxfer data toy ./demo
    """
    from vidxfer.cli import show
    from vidxfer.stages.toy import ToyRequest, make_toy

    made = make_toy(
        ToyRequest(folder=folder, layout=layout, train_videos=train_videos, val_videos=val_videos, seed=seed),
        show.Shown(),
    )
    print(f"videos: {made.data} ({made.written} made, {made.reused} kept)\nCLIP:   {made.clip}")
