"""DiST's recipes: one per published configuration (docs/spec/dist.md §5–6), four for any frames and CLIP, and the toy's.

Two of the four read a part of the blocks, the last one among them: every second, or every third, which is four of 12.

No recipe switches on the published mixing of pixels, because training from a cache cannot do it.
"""

from __future__ import annotations

from dataclasses import replace

from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.dist.published import PUBLISHED
from vidxfer.pipeline.heads.recipe import Mixing, Optimiser, Recipe

SSV2, K400 = DistConfig(pooling_layers=2), DistConfig(pooling_layers=4)
AS_PUBLISHED = Mixing(kind="published")

RECIPES = (
    *(
        Recipe(
            name=row.recipe,
            head=SSV2 if row.data == "SSv2" else K400,
            clip=row.clip,
            dense_frames=row.dense_frames,
            sparse_frames=row.sparse_frames,
            mixing=AS_PUBLISHED,
        )
        for row in PUBLISHED
    ),
    Recipe(name="dist-ssv2-b16", head=SSV2, mixing=AS_PUBLISHED),
    Recipe(name="dist-k400-b16", head=K400, mixing=AS_PUBLISHED),
    Recipe(name="dist-every-second", head=replace(SSV2, every=2), mixing=AS_PUBLISHED),
    Recipe(name="dist-every-third", head=replace(SSV2, every=3), mixing=AS_PUBLISHED),
    Recipe(
        name="dist-toy",
        head=DistConfig(integration_channels=64, temporal_channels=32, pooling_layers=1),
        optimiser=Optimiser(warmup_from=1e-4),
        epochs=16,
        warmup_epochs=1,
        batch_clips=16,
        learning_rate=2e-3,
        evaluate_every_epochs=4,
        checkpoint_seconds=30.0,
    ),
)
