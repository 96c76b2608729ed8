"""EVL (ECCV 2022), and multi-layer attentive pooling: settings, decoder in two forms, recipes, released checkpoints."""

from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.evl.published import PUBLISHED
from vidxfer.pipeline.heads.evl.recipes import RECIPES
from vidxfer.pipeline.heads.evl.release import EvlRelease
from vidxfer.pipeline.heads.family import Family

FAMILY = Family(config=EvlConfig, recipes=RECIPES, published=PUBLISHED, release=EvlRelease())
