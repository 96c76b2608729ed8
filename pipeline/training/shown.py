"""Which frames of a view are decoded to pixels: the head's, and on the online path CLIP's too.

pixels     frames, out of a view's dense frames                which of them CLIP sees
none       -                       (online: the sparse ones)   all
sparse     the sparse ones                                     all
dense      all                                                 each alpha-th
window     source frames around each sparse one                the middle of each window
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.video.sampling import window_indices


def with_clip(needs: Needs) -> Needs:
    """The needs of a head and CLIP together: the sparse frames are decoded even if the head sees no pixels."""
    return replace(needs, pixels="sparse") if needs.pixels == "none" else needs


def shown(indices: tuple[int, ...], needs: Needs, alpha: int, frame_count: int) -> tuple[int, ...]:
    """Indices of the frames to decode.

    Args:
        indices: dense frames of the view, as indices into the video.
        needs: needs of the head, or `with_clip` of them.
        alpha: dense frames per sparse one.
        frame_count: frames of the video.
    """
    if needs.pixels == "window":
        return window_indices(indices[::alpha], needs.window_frames, frame_count, needs.window_ends)
    return {"none": (), "sparse": indices[::alpha], "dense": indices}[needs.pixels]


def of_clip(pixels: Tensor, needs: Needs, alpha: int) -> Tensor:
    """The frames that CLIP sees, out of [clip frame rgb height width] decoded for `with_clip(needs)`."""
    first, step = {"dense": (0, alpha), "window": (needs.window_frames // 2, needs.window_frames)}.get(
        needs.pixels, (0, 1)
    )
    return pixels[:, first::step]
