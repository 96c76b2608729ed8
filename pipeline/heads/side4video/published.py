"""The results that Side4Video's authors published, one row per released configuration that fits CLIP's towers.

Source: docs/spec/tds_clip_side4video.md §7, which cites the README of the release. The README prints no top-5 and no
result for ViT-L/14. Its largest models use another tower (EVA). Nothing was run with vidxfer on these data.
"""

from __future__ import annotations

from typing import Any

from vidxfer.pipeline.heads.recipe import B16, Published

DATA: dict[str, Any] = {
    "SSv1": {"train_videos": 86_017, "val_videos": 11_522, "classes": 174, "test_views": (2, 3)},
    "SSv2": {"train_videos": 168_913, "val_videos": 24_777, "classes": 174, "test_views": (2, 3)},
    "K400": {"train_videos": 240_258, "val_videos": 19_881, "classes": 400, "test_views": (4, 3)},
}
"""Sizes of the data sets, and temporal views and crops that both releases test with."""

SIDE_VIEWS = {
    "SSv1": "2 temporal views x 3 crops (Side4Video, TDS-CLIP)",
    "SSv2": "2 temporal views x 3 crops (Side4Video, TDS-CLIP)",
    "K400": "4 temporal views x 3 crops (Side4Video, TDS-CLIP)",
}

PUBLISHED = tuple(
    Published(
        recipe=f"side4video-{data.lower()}-b16-8f",
        data=data,
        clip=B16,
        sparse_frames=8,
        alpha=1,
        top1=top1,
        top5=None,
        views=SIDE_VIEWS[data],
        **DATA[data],
    )
    for data, top1 in (("SSv1", 59.4), ("SSv2", 70.6), ("K400", 83.6))
)
