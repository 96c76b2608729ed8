"""The results that DiST's authors published, one row per configuration. Each row has its own recipe (recipes.py).

Source: docs/spec/dist.md §6–7 and the table in the README of the release. Nothing was run with
vidxfer on these data.
"""

from __future__ import annotations

from vidxfer.pipeline.heads.recipe import B16, L14, ClipShape, Published

VIEWS = "the README of the release does not state the views; its test settings are 3 temporal views x 1 crop"
ALPHA = 2
"""Dense frames per sparse frame, in all released configurations."""


def _row(
    data: str, clip: ClipShape, sparse_frames: int, top1: float, top5: float, name: str = "", note: str = ""
) -> Published:
    letters, train, val = {"SSv2": ("ssv2", 168_913, 24_777), "K400": ("k400", 240_258, 19_881)}[data]
    tower = "b16" if clip is B16 else "l14"
    return Published(
        recipe=f"dist-{letters}-{tower}-{sparse_frames}f{name}",
        data=data,
        clip=clip,
        sparse_frames=sparse_frames,
        alpha=ALPHA,
        top1=top1,
        top5=top5,
        train_videos=train,
        val_videos=val,
        views=VIEWS,
        note=note,
    )


_L14 = "the released settings name a missing file and a stem patch of 16 px; 14 px is meant"
_K710 = "trained on Kinetics-710 first; neither those settings nor that stage are released: sizes as without it"

PUBLISHED = (
    _row("SSv2", B16, 8, 68.7, 91.1),
    _row("SSv2", B16, 16, 70.2, 92.0),
    _row("SSv2", B16, 32, 70.9, 92.1),
    _row("SSv2", L14, 32, 73.1, 93.2, note=_L14),
    _row("K400", B16, 8, 83.6, 96.3),
    _row("K400", B16, 16, 84.4, 96.7),
    _row("K400", B16, 32, 85.0, 97.0),
    _row("K400", L14, 32, 88.0, 97.9, note=_L14),
    _row("K400", L14, 32, 89.6, 98.4, name="-k710", note=_K710),
)
