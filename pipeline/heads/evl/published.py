"""The published results of EVL, one row per configuration. Each row has its own recipe (recipes.py).

Source: docs/spec/evl.md §7–8. Nothing was run with vidxfer on these data.
"""

from __future__ import annotations

from vidxfer.pipeline.heads.recipe import B16, L14, ClipShape, Published

VIDEOS = {"SSv2": (168_913, 24_777), "K400": (240_258, 19_881)}
THREE_IN_TIME = "EVL's scripts: 3 temporal views x 1 crop"
THREE_CROPS = "EVL's scripts, and its author for SSv2: 1 temporal view x 3 crops"


def _row(data: str, clip: ClipShape, sparse_frames: int, top1: float, top5: float | None, note: str = "") -> Published:
    train, val = VIDEOS[data]
    return Published(
        recipe=f"evl-{data.lower()}-{'b16' if clip is B16 else 'l14'}-{sparse_frames}f",
        data=data,
        clip=clip,
        sparse_frames=sparse_frames,
        alpha=1,
        top1=top1,
        top5=top5,
        train_videos=train,
        val_videos=val,
        classes={"SSv2": 174, "K400": 400}[data],
        test_views=(3, 1) if data == "K400" and sparse_frames == 8 else (1, 3),
        views=THREE_IN_TIME if data == "K400" and sparse_frames == 8 else THREE_CROPS,
        note=note,
    )


_SSV2 = "EVL on SSv2 is not in the release: settings as its author told them, and its test sampling crashes there"

PUBLISHED = (
    _row("K400", B16, 8, 82.8, 95.8, note="run again by its authors; their paper has 82.9"),
    _row("K400", B16, 16, 83.7, 96.2),
    _row("K400", B16, 32, 84.3, 96.6),
    _row("K400", L14, 8, 86.3, 97.2),
    _row("K400", L14, 16, 86.9, 97.4),
    _row("K400", L14, 32, 87.7, 97.6, note="run again by its authors; their paper has 87.3"),
    _row("SSv2", B16, 8, 61.1, None, note=_SSV2),
    _row("SSv2", L14, 8, 65.1, None, note=f"{_SSV2}; every block is tapped, which its printed operations tell"),
)
