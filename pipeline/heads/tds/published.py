"""The results that TDS-CLIP's authors published, one row per configuration whose settings are released.

Source: docs/spec/tds_clip_side4video.md §7. Top-1 is from the README of the release, if it prints it. Top-5 and the
other rows are from the tables of the paper. The paper also has rows with 16 and 32 frames, without released settings.
Nothing was run with vidxfer on these data.
"""

from __future__ import annotations

from vidxfer.pipeline.heads.recipe import B16, L14, Published
from vidxfer.pipeline.heads.side4video.published import DATA, SIDE_VIEWS
from vidxfer.pipeline.heads.side4video.recipes import named

_PAPER = "the README does not list it: number of the paper, no weights are released"

PUBLISHED = tuple(
    Published(
        recipe=named("tds", data, clip),
        data=data,
        clip=clip,
        sparse_frames=8,
        alpha=1,
        top1=top1,
        top5=top5,
        views=SIDE_VIEWS[data],
        note=note,
        **DATA[data],
    )
    for data, clip, top1, top5, note in (
        ("SSv1", B16, 60.1, 85.4, ""),
        ("SSv1", L14, 63.0, 87.8, _PAPER),
        ("SSv2", B16, 71.8, 93.0, ""),
        ("SSv2", L14, 73.4, 93.8, ""),
        ("K400", B16, 83.9, 96.1, ""),
        ("K400", L14, 86.7, 97.5, _PAPER),
    )
)
