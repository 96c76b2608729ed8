"""Every tower that works, with its sizes and what a cache of it takes; every other one, with the reason.

    a word, or none ─▶ names ─▶ describe ─┬▶ TowerRow: parameters, tokens, bytes per view, operations, weights
                                          └▶ Refusal

Nothing is downloaded, and no number of any tower is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vidxfer.pipeline.clip.describe import Described, describe, list_open_clip
from vidxfer.pipeline.clip.listed import count_timm, names_of_towers, weights_of_tower
from vidxfer.pipeline.clip.refusals import Refusal
from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.tower import TowerInfo
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.describe import describe_split
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.settings import CacheChoice


@dataclass(frozen=True, kw_only=True)
class TowerRow:
    """One tower that works.

    Attributes:
        model: as --model takes it.
        sizes: of its image tower.
        bytes_per_view: of a cache with `TowersReport.store`.
        gflop_per_frame: of its forward, two operations per multiply-add.
        has_text: it has a text tower.
        lacks: a package that its text tower needs and that is not installed.
        weights: tag -> licence; None: the libraries do not state it.
    """

    model: str
    sizes: TowerSizes
    bytes_per_view: int
    gflop_per_frame: float
    has_text: bool
    lacks: str | None
    weights: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class TowersReport:
    """What was found.

    Attributes:
        towers: those that work.
        refused: those that do not.
        open_clip: how many configurations open_clip has.
        timm: how many architectures timm has.
        store: what `bytes_per_view` are bytes of: what `extract` keeps unless it is told otherwise.
    """

    towers: tuple[TowerRow, ...]
    refused: tuple[Refusal, ...]
    open_clip: int
    timm: int
    store: CacheChoice = field(default_factory=CacheChoice)


def list_towers(word: str | None = None, progress: Progress | None = None) -> TowersReport:
    """Describe the towers whose name or tag has the word in it; see `names_of_towers`.

    Raises:
        UsageError: there is no such one.
    """
    names = names_of_towers(word)
    if not names:
        near = difflib.get_close_matches(str(word), names_of_towers(), n=3, cutoff=0.4)
        raise UsageError(
            f"no tower of open_clip or timm has {word!r} in its name or in a tag of its weights."
            + f" Near: {', '.join(near)}" * bool(near)
        )
    told: list[Described | Refusal] = []
    with (progress or Silent()).bar("towers", len(names), "towers") as bar:
        for name in names:
            told.append(describe(name))
            bar.advance(1, name)
    return TowersReport(
        towers=tuple(_row(tower) for tower in told if isinstance(tower, Described)),
        refused=tuple(tower for tower in told if isinstance(tower, Refusal)),
        open_clip=len(list_open_clip()),
        timm=count_timm(),
    )


def _row(tower: Described) -> TowerRow:
    info = TowerInfo(
        model=tower.model, weights_sha256="", precision="fp32", pixel_mean=(0.0,) * 3, pixel_std=(1.0,) * 3,
        logit_scale=1.0, has_text=tower.has_text, **vars(tower.sizes),
    )  # fmt: skip
    nothing = Dataset(name="sizes", root=Path(), split="train", videos=(), class_names=())
    return TowerRow(
        model=tower.model,
        sizes=tower.sizes,
        bytes_per_view=describe_split(CacheChoice(), info, nothing).bytes_per_view,
        gflop_per_frame=tower.sizes.flop / 1e9,
        has_text=tower.has_text,
        lacks=tower.lacks,
        weights=weights_of_tower(tower.model),
    )
