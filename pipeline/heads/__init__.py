"""Temporal heads. Each family has one folder or file, and one line in the table below. A new head changes no more."""

from vidxfer.pipeline.heads import attentive, dist, evl, frames, pooler, probe, side4video, tds

FAMILIES = (
    dist.FAMILY,
    probe.FAMILY,
    attentive.FAMILY,
    pooler.FAMILY,
    frames.FAMILY,
    evl.FAMILY,
    side4video.FAMILY,
    tds.FAMILY,
)
"""The table: a new head adds its folder and its name here."""

HEADS = {family.config.kind: family.config for family in FAMILIES}
"""Kind -> class of settings."""

RELEASES = {family.config.kind: family.release for family in FAMILIES if family.release is not None}
"""Kind of the head, which is the word behind --as -> layout of its released checkpoints."""

RECIPES = tuple(recipe for family in FAMILIES for recipe in family.recipes)
PUBLISHED = tuple(row for family in FAMILIES for row in family.published)
