"""Side4Video: settings, network in two forms, recipes, published results, released checkpoints."""

from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig
from vidxfer.pipeline.heads.side4video.published import PUBLISHED
from vidxfer.pipeline.heads.side4video.recipes import RECIPES
from vidxfer.pipeline.heads.side4video.release import Side4VideoRelease

FAMILY = Family(config=Side4VideoConfig, recipes=RECIPES, published=PUBLISHED, release=Side4VideoRelease())
