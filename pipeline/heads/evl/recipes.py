"""EVL's recipes: one per published configuration (docs/spec/evl.md §7), two for any frames and CLIP, and the toy's.

The release counts steps of 256 clips, not passes over the data: 50,000 steps are 53 passes over K400, and 30,000 steps
are 45 passes over SSv2. The learning rate is full from the first step. Weight decay acts on every parameter.
"""

from __future__ import annotations

from dataclasses import replace

from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.evl.published import PUBLISHED
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe

AS_RELEASED = Recipe(
    name="evl",
    head=EvlConfig(),
    optimiser=Optimiser(decay="all"),
    epochs=53,
    warmup_epochs=0.0,
    batch_clips=256,
    learning_rate=4e-4,
    weight_decay=0.05,
    label_smoothing=0.0,
)


RECIPES = (
    *(
        replace(
            AS_RELEASED,
            name=row.recipe,
            epochs=53 if row.data == "K400" else 45,
            clip=row.clip,
            head=EvlConfig(blocks=4 if row.data == "K400" else 0, clip_heads=row.clip.width // 64),
            sparse_frames=row.sparse_frames,
        )
        for row in PUBLISHED
    ),
    AS_RELEASED,
    replace(AS_RELEASED, name="mlap", head=EvlConfig(convolution=False, position=False, cross_frame=False)),
    Recipe(
        name="evl-toy",
        head=EvlConfig(dropout=0.2),
        optimiser=Optimiser(warmup_from=1e-5, decay="all"),
        epochs=12,
        warmup_epochs=1,
        batch_clips=16,
        learning_rate=1e-3,
        weight_decay=0.05,
        label_smoothing=0.0,
        evaluate_every_epochs=4,
        checkpoint_seconds=30.0,
    ),
)
