"""DiST (ICCV 2023): settings, network in two forms, recipes, published results, released checkpoints."""

from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.dist.published import PUBLISHED
from vidxfer.pipeline.heads.dist.recipes import RECIPES
from vidxfer.pipeline.heads.dist.release import DistRelease
from vidxfer.pipeline.heads.family import Family

FAMILY = Family(config=DistConfig, recipes=RECIPES, published=PUBLISHED, release=DistRelease())
