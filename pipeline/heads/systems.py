"""Results that others published with frozen and trained CLIPs, as data. They are shown apart from our own results.

    families' own rows (`Published`) ─┐
    the other rows of the survey ─────┴─▶ figures()    system, data, CLIP, frames, top-1, source, caveat

Source: docs/spec/systems.md §1, and §2 for the caveats. A value that is missing there is None. Each number is written
once: a configuration that a family publishes (heads/*/published.py) has no row here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vidxfer.pipeline.heads import FAMILIES

TABLES = "tables of the DiST and TDS-CLIP papers"
README = "README of its release"
VIDEOGLUE = "VideoGLUE, arXiv 2307.03166v3"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published result.

    Attributes:
        system: name of the method.
        cached: whether a cache of a frozen CLIP can feed it: "yes", "no", "partly", or "its head".
        data: "SSv2" or "K400"; None: no result is known.
        clip: "B/16" or "L/14"; None: no CLIP, or not known.
        frames: number of frames that CLIP sees.
        top1: percent.
        top5: percent.
        trainable_millions: millions of trainable parameters, counted on the official modules.
        views: crops x clips.
        source: where the result is printed.
        caveat: what else must be known.
    """

    system: str
    cached: str
    data: str | None = None
    clip: str | None = None
    frames: int | None = None
    top1: float | None = None
    top5: float | None = None
    trainable_millions: float | None = None
    views: str | None = None
    source: str | None = None
    caveat: str | None = None


def figures() -> tuple[Figure, ...]:
    """Every published result in this file and in the families: those of our families first, then by system."""
    return (*_of_families(), *OTHERS)


def _of_families() -> Iterator[Figure]:
    for family in FAMILIES:
        for row in family.published:
            system = family.release.title if family.release is not None else family.config.kind
            yield Figure(
                system=system,
                cached="yes",
                data=row.data,
                clip=_tower(row.clip.model),
                frames=row.sparse_frames,
                top1=row.top1,
                top5=row.top5,
                source=README,
                views=None,
                caveat="; ".join(filter(None, (row.views, row.note, CAVEATS.get(system)))),
            )


def _tower(model: str) -> str:
    """ "ViT-B-16-quickgelu" -> "B/16"."""
    return model.removeprefix("ViT-").removesuffix("-quickgelu").replace("-", "/")


def _system(
    system: str, cached: str, *results: tuple[str, str | None, int | None, float],
    trains: tuple[float, float] | None = None, source: str = TABLES, caveat: str | None = None,
    views: str | None = None,
) -> tuple[Figure, ...]:  # fmt: skip
    """Rows of one system; `results`: data, CLIP, frames, top-1; `trains`: millions at B/16 and L/14."""
    if not results:
        return (Figure(system=system, cached=cached, source=None, caveat=caveat),)
    sizes = {} if trains is None else dict(zip(("B/16", "L/14"), trains, strict=True))
    return tuple(
        Figure(
            system=system, cached=cached, data=data, clip=clip, frames=frames, top1=top1, source=source, caveat=caveat,
            views=views, trainable_millions=sizes.get((clip or "").partition("@")[0]),
        )
        for data, clip, frames, top1 in results
    )  # fmt: skip


CAVEATS = {
    "EVL": "its 444 GFLOPs are of 3 views; its README's own runs differ by 0.1 to 0.4 from the paper",
}
"""System -> what the survey says of all rows that its family publishes."""

OTHERS = (
    *_system("DiST", "yes", ("SSv2", "L/14", 16, 72.5), trains=(19.0, 32.5)),
    *_system("TDS-CLIP", "yes", ("SSv2", "B/16", 16, 72.1), ("K400", "B/16", 32, 84.5), trains=(24.2, 106.4)),
    *_system("Side4Video", "yes", ("SSv2", "B/16", 16, 71.5), ("K400", "B/16", 32, 84.2), trains=(21.1, 102.0)),
    *_system("UniFormerV2, frozen", "yes", ("K400", "L/14@336", 8, 86.7), trains=(28.8, 50.9), source=README,
             caveat="a configuration of its release, not in the papers"),
    *_system("UniFormerV2", "no", ("SSv2", "L/14", 16, 72.1)),
    *_system("UniFormerV2", "no", ("K400", "B/16", 8, 85.6), caveat="CLIP and K710 before; with CLIP alone 84.4"),
    *_system("ST-Adapter", "partly", ("SSv2", "L/14", 16, 71.9), ("K400", "B/16", 8, 82.0), ("K400", "B/16", 32, 82.7)),
    *_system("AIM", "no", ("SSv2", "L/14", 16, 69.4), ("K400", "B/16", 8, 83.9), ("K400", "B/16", 32, 84.7)),
    *_system("DUALPATH", "no", ("SSv2", "L/14", 16, 70.2), ("K400", "B/16", 32, 85.4)),
    *_system("M2-CLIP", "no", ("SSv2", "B/16", 32, 69.1), ("K400", "B/16", 32, 84.1)),
    *_system("X-CLIP", "no", ("K400", "B/16", 16, 84.7), caveat="287 GFLOPs per view by its README, not 600"),
    *_system("ActionCLIP", "its head", ("K400", "B/16", 32, 83.8), caveat="CLIP is trained too"),
    *_system("BIKE", "its head", ("K400", "L/14", 16, 88.1), caveat="CLIP's image tower is trained too"),
    *_system("ILA", "no", ("SSv2", "L/14", 8, 67.8), caveat="others print it as 16 frames; 70.2 with 16 is at 336 px"),
    *_system("S-ViT", "no", ("SSv2", "B/16", 32, 69.3)),
    *_system("S-ViT", "no", ("K400", "B/16", 16, 84.7), caveat="equal to X-CLIP's row digit for digit; not verified"),
    *_system("ViViT", "no", ("SSv2", None, None, 65.9), ("K400", None, None, 81.7)),
    *_system("Video Swin", "no", ("SSv2", None, None, 69.6), ("K400", None, None, 83.1)),
    *_system("MViT", "no", ("SSv2", None, None, 68.7), ("K400", None, None, 82.9)),
    *_system("CLIP zero-shot", "yes"),
    *_system("linear probe", "yes"),
    *_system("attentive probe, depth 1", "yes", ("SSv2", "B", None, 41.0), ("K400", "B", None, 75.2),
             source=VIDEOGLUE, caveat="VideoGLUE's pooler"),
    *_system("MLAP, depth 4", "yes", ("SSv2", "B", None, 50.1), ("K400", "B", None, 77.1), source=VIDEOGLUE,
             caveat="VideoGLUE's own has about 9.7 M parameters"),
    *_system("attentive probe, depth 4 (V-JEPA 2)", "yes"),
)  # fmt: skip

VIEWS_DIFFER = "Views differ from row to row (3 x 1, 3 x 2, 3 x 4, 1 x 3): compare within one harness alone."
