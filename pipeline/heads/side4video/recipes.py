"""Side4Video's recipes: its released settings on CLIP's towers, the same for any frames and tower, and the toy's.

Source: docs/spec/tds_clip_side4video.md §5. The release mixes no clips, and neither do these recipes.
docs/deviations.md lists the part of the released augmentation that a cache cannot replay.
"""

from __future__ import annotations

from typing import Any

from vidxfer.pipeline.heads.recipe import B16, L14, ClipShape, Optimiser, Recipe
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig

RELEASED = Optimiser(decay="all", schedule="cosine-after-warmup", warmup_from=0.0, refresh_steps=10)
"""The learning rate begins at 0 and is set every tenth step. The first nine steps of a run change no weight."""

SIDE_CHANNELS = {B16.model: 320, L14.model: 512}
EPOCHS = {("SSv1", B16.model): 40}
"""Epochs of the data sets for which they are not 30."""


ANY_TOWER: dict[str, Any] = {
    "optimiser": RELEASED,
    "epochs": 30,
    "warmup_epochs": 4.0,
    "batch_clips": 256,
    "learning_rate": 1e-3,
    "weight_decay": 0.15,
    "label_smoothing": 0.1,
}
"""What the released settings of both methods have in common whatever the tower; the rate is that of B/16."""


def settings(data: str, clip: ClipShape) -> dict[str, Any]:
    """The settings that both released methods share on one tower, as fields of a recipe."""
    return {
        **ANY_TOWER,
        "clip": clip,
        "dense_frames": 8,
        "sparse_frames": 8,
        "epochs": EPOCHS.get((data, clip.model), 30),
        "learning_rate": 1e-3 if clip is B16 else 1e-4,
    }


def named(method: str, data: str, clip: ClipShape) -> str:
    """The name of a recipe: "tds-ssv2-b16-8f"."""
    return f"{method}-{data.lower()}-{'b16' if clip is B16 else 'l14'}-8f"


TOY: dict[str, Any] = {
    "optimiser": Optimiser(schedule="cosine-after-warmup", warmup_from=1e-4),
    "epochs": 12,
    "warmup_epochs": 1.0,
    "batch_clips": 16,
    "learning_rate": 2e-3,
    "evaluate_every_epochs": 4,
    "checkpoint_seconds": 30.0,
}

CONFIGURATIONS = tuple((data, clip) for data in ("SSv1", "SSv2", "K400") for clip in (B16, L14))

RECIPES = (
    *(
        Recipe(
            name=named("side4video", data, clip),
            head=Side4VideoConfig(side_channels=SIDE_CHANNELS[clip.model]),
            **settings(data, clip),
        )
        for data, clip in CONFIGURATIONS
    ),
    Recipe(name="side4video", head=Side4VideoConfig(side_channels=None), **ANY_TOWER),
    Recipe(name="side4video-toy", head=Side4VideoConfig(side_channels=64), **TOY),
)
