"""A family of heads, as the table in `pipeline.heads` lists it, and the layout of released checkpoints.

state of a file ─ Release.read ─▶ Released: settings, weights, CLIP's keys, everything that does not fit
head + CLIP ───── Release.write ─▶ the layout of the release
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from vidxfer.pipeline.heads.base import Head, HeadConfig, Offer
from vidxfer.pipeline.heads.recipe import Published, Recipe


@dataclass(frozen=True, kw_only=True)
class Released:
    """What a file of released weights holds.

    Attributes:
        config: settings of the head, its CLIP layers left open; None: the file holds no such head, see `problems`.
        weights: under the head's own names.
        clip: of the frozen CLIP, under open_clip's names.
        unknown: full keys that are neither.
        problems: everything that does not fit, one line each.
        layers: how many CLIP layers feed the head.
        clip_blocks: of the CLIP in the same file; None: it holds none.
        offer: sizes of what a cache for these weights delivers; 0: the file does not say, and any will do.
        sizes: all that the shapes tell, for a report.
        words: the same in one line.
        old_names: what an older generation called the branch, where the keys are of that one; else empty.
        last_blocks: the last blocks of CLIP feed the head unless others are named; False: the file must say which.
    """

    config: HeadConfig | None
    weights: Mapping[str, Tensor]
    clip: Mapping[str, Tensor]
    unknown: tuple[str, ...]
    problems: tuple[str, ...]
    layers: int
    clip_blocks: int | None
    offer: Offer
    sizes: Any
    words: str
    old_names: str = ""
    last_blocks: bool = False


class Release(Protocol):
    """The layout of somebody's released checkpoints; nothing is opened here.

    Attributes:
        title: what the head is called in words.
        under: key of a file of the release below which the tensors lie.
        holds_clip: CLIP's weights are in such a file too.
    """

    title: str
    under: str
    holds_clip: bool

    def read(self, state: Mapping[str, Tensor]) -> Released:
        """Say of every key what it is."""

    def fed_by(self, config: HeadConfig, layers: tuple[int, ...]) -> HeadConfig:
        """The same settings with the CLIP layers that feed the head."""

    def write(self, head: Head, clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The keys of the release: float32 on the CPU, each with memory of its own."""

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """What the released code must be told to load such a head: its setting -> value."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything about one kind of head that others ask for.

    Attributes:
        config: class of its settings.
        recipes: that train it.
        published: results of others, of some of the recipes.
        release: layout of released checkpoints; None: there are none.
    """

    config: type[HeadConfig]
    recipes: tuple[Recipe, ...]
    published: tuple[Published, ...] = ()
    release: Release | None = None
