"""Views as the cache keeps them: numbers in small arrays, one row per video.

    View ──▶ view_arrays ──▶ frame_index, crop, resize_first, flip, grey ──▶ stored_view ──▶ the same View

A box comes back as float32. Consequence: CLIP is shown a view after that rounding (`as_stored`), so that it can be seen
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.shapes import View


def view_arrays(views: Sequence[View]) -> dict[str, AnyArray]:
    """The stored form of one video's views: frame_index [view dense], crop [view box], the others [view]."""
    return {
        "frame_index": np.array([view.indices for view in views], dtype=np.int32),
        "crop": np.array([view.crop for view in views], dtype=np.float32),
        "resize_first": np.array([view.resize_first for view in views], dtype=bool),
        "flip": np.array([view.flip for view in views], dtype=bool),
        "grey": np.array([view.grey for view in views], dtype=bool),
    }


def stored_view(arrays: Mapping[str, AnyArray], *place: int) -> View:
    """The view that stands at `place` (row, view) of the stored arrays."""
    top, left, height, width = (float(side) for side in arrays["crop"][place])
    return View(
        indices=tuple(int(index) for index in arrays["frame_index"][place]),
        crop=(top, left, height, width),
        resize_first=bool(arrays["resize_first"][place]),
        flip=bool(arrays["flip"][place]),
        grey=bool(arrays["grey"][place]),
    )


def as_stored(view: View) -> View:
    """The view with its box rounded to float32, as the cache will give it back.

    Extraction shows CLIP *this* view, so that what is replayed later is what was seen.
    """
    return stored_view(view_arrays([view]), 0)
