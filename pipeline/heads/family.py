"""A family of heads, as the table in `pipeline.heads` lists it, and the protocol of a released checkpoint layout.

state of a file ─ Release.read ─▶ Released: settings, weights, CLIP's keys, and a list of what does not fit
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
        config: settings of the head, without its CLIP layers; None: the file holds no such head, see `problems`.
        weights: tensors of the head, under its own names.
        clip: tensors of the frozen CLIP, under open_clip's names.
        unknown: full keys that belong to neither.
        problems: what does not fit, one line each.
        layers: number of CLIP layers that feed the head.
        clip_blocks: blocks of the CLIP in the same file; None: the file holds no CLIP.
        offer: sizes of a cache for these weights; 0: the file does not give the size, and any size fits.
        sizes: all sizes that follow from the shapes, for a report.
        words: the same sizes in one line.
        old_names: the older name of the branch, if the keys use it; else empty.
        last_blocks: True: the last blocks of CLIP feed the head unless layers are named; False: they must be named.
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
    """The layout of the checkpoints that a paper's authors released. No file is opened here.

    Attributes:
        title: name of the head for people.
        under: key in the released file that holds the tensors.
        holds_clip: whether such a file also holds CLIP's weights.
    """

    title: str
    under: str
    holds_clip: bool

    def read(self, state: Mapping[str, Tensor]) -> Released:
        """Sort the keys of a file, and derive settings and sizes from them."""

    def fed_by(self, config: HeadConfig, layers: tuple[int, ...]) -> HeadConfig:
        """The same settings with the CLIP layers that feed the head."""

    def write(self, head: Head, clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under the keys of the release. Tensors are float32 on the CPU, and share no memory."""

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """The settings that the released code needs to load such a head: name of its setting -> value."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything that other modules read about one kind of head.

    Attributes:
        config: class of the head's settings.
        recipes: recipes that train the head.
        published: results that others published for some of the recipes.
        release: layout of released checkpoints; None: there are none.
    """

    config: type[HeadConfig]
    recipes: tuple[Recipe, ...]
    published: tuple[Published, ...] = ()
    release: Release | None = None
