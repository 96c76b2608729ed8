"""A cache with more frames than a head uses: each epoch draws other frames, so temporal jitter costs no CLIP forward.

    cached sparse frames   0  1 | 2  3 | 4  5 | 6  7        M = 8 of the stored view, groups of M / t
    drawn for this epoch      1   2        5    6            t = 4, one of each group
    dense frames           the drawn ones at α·i, and between them frames drawn anew from the video

CLIP encodes each frame alone, so a cached frame's tokens do not depend on the other frames. Validation takes the first
frame of each group, and the stored dense frames at even distances. Nothing is random there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.sampling import view_rng


@dataclass(frozen=True, kw_only=True)
class BankDraw:
    """The frames of a stored view that one clip shows.

    Attributes:
        places: positions on the cache's frame axis, one per sparse frame of the head.
        indices: dense frame indices into the video; indices[alpha * i] is the cached frame at places[i].
    """

    places: tuple[int, ...]
    indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The arithmetic of drawing t of M cached frames.

    Attributes:
        stored: sparse frames per stored view (M).
        used: sparse frames that the head sees (t).
        alpha: dense frames per sparse frame.

    Raises:
        UsageError: t does not divide M.
    """

    stored: int
    used: int
    alpha: int

    def __post_init__(self) -> None:
        if self.used < 1 or self.stored % self.used:
            raise UsageError(
                f"the cache holds {self.stored} sparse frames per view, and the head reads {self.used}. The first must "
                "be a multiple of the second. Set --set sparse_frames=…, or extract with another --dense-frames."
            )

    @property
    def group(self) -> int:
        """Cached frames per frame of the head."""
        return self.stored // self.used

    def fixed(self, view: View) -> BankDraw:
        """The first of each group, and the stored dense frames at even distances."""
        return BankDraw(places=tuple(range(0, self.stored, self.group)), indices=view.indices[:: self.group])

    def draw(self, view: View, video_id: str, seed: int, epoch: int) -> BankDraw:
        """Draw one frame of each group, and dense frames from the video between a drawn frame and the next, sorted.

        After the last drawn frame, dense frames are drawn up to the last dense frame of the stored view.
        """
        rng = view_rng(seed, video_id, -1 - epoch)  # negative: never the draw of a stored view
        offsets = (rng.random(self.used) * self.group).astype(int)
        places = [int(group * self.group + offset) for group, offset in enumerate(offsets)]
        anchors = [view.indices[place * self.alpha] for place in places]
        ends = [*anchors[1:], view.indices[-1]]
        indices: list[int] = []
        for anchor, end in zip(anchors, ends, strict=True):
            between = anchor + np.floor(np.sort(rng.random(self.alpha - 1)) * (end - anchor + 1)).astype(int)
            indices += [anchor, *(int(min(index, end)) for index in between)]
        return BankDraw(places=tuple(places), indices=tuple(indices))
