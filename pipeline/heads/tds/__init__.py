"""TDS-CLIP: what it adds to Side4Video in two forms, recipes, published results, released checkpoints."""

from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.heads.tds.published import PUBLISHED
from vidxfer.pipeline.heads.tds.recipes import RECIPES
from vidxfer.pipeline.heads.tds.release import TdsRelease

FAMILY = Family(config=TdsConfig, recipes=RECIPES, published=PUBLISHED, release=TdsRelease())
