"""Which frames of a view are shown as pixels: to the head as its needs say, and on the online path to CLIP too.

pixels     frames, of the dense ones of a view                 CLIP's among them
none       -                       (online: CLIP's alone)      all
sparse     those CLIP sees                                     all
dense      every one                                           each alpha-th
window     source frames around each of CLIP's                 the middle of each window
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.video.sampling import window_indices


def with_clip(needs: Needs) -> Needs:
    """What must be decoded where CLIP looks too: its frames, also for a head that sees none."""
    return replace(needs, pixels="sparse") if needs.pixels == "none" else needs


def shown(indices: tuple[int, ...], needs: Needs, alpha: int, frame_count: int) -> tuple[int, ...]:
    """Frames to be shown.

    Args:
        indices: dense frames of the view, into the video.
        needs: of the head, or `with_clip` of them.
        alpha: dense frames per sparse one.
        frame_count: of the video.
    """
    if needs.pixels == "window":
        return window_indices(indices[::alpha], needs.window_frames, frame_count, needs.window_ends)
    return {"none": (), "sparse": indices[::alpha], "dense": indices}[needs.pixels]


def of_clip(pixels: Tensor, needs: Needs, alpha: int) -> Tensor:
    """The frames CLIP sees among [clip frame rgb height width] that were shown for `with_clip(needs)`."""
    first, step = {"dense": (0, alpha), "window": (needs.window_frames // 2, needs.window_frames)}.get(
        needs.pixels, (0, 1)
    )
    return pixels[:, first::step]
