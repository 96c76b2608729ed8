"""TDS-CLIP's recipes: the released settings, the same for any tower, and the toy's. Only the network is its own."""

from __future__ import annotations

from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.heads.side4video.recipes import ANY_TOWER, CONFIGURATIONS, SIDE_CHANNELS, TOY, named, settings
from vidxfer.pipeline.heads.tds.head import TdsConfig

RECIPES = (
    *(
        Recipe(
            name=named("tds", data, clip),
            head=TdsConfig(side_channels=SIDE_CHANNELS[clip.model]),
            **settings(data, clip),
        )
        for data, clip in CONFIGURATIONS
    ),
    Recipe(name="tds", head=TdsConfig(side_channels=None), **ANY_TOWER),
    Recipe(name="tds-toy", head=TdsConfig(side_channels=64), **TOY),
)
