"""What the attribute of a split's group says, value by value: of the types and ranges that it can have.

zarr.json ─▶ attributes["vidxfer"] ─▶ described_by ─▶ Said
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.metadata import ATTRIBUTE, COPY_AGAIN
from vidxfer.pipeline.cache.split import Extent
from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.shapes import FrozenFile
from vidxfer.pipeline.typed import Kept, checked


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the group's attribute says beside the spec and the seal; the fields are those of `Split`."""

    cache_id: str
    class_names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    shard_videos: int
    informs: Mapping[str, Any]
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extents: tuple[Extent, ...] = ()
    identities: bool = False
    frozen: FrozenFile | None = None
    more_views: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shard_videos >= 1:
            raise ValueError(f"shard_videos is {self.shard_videos}, expected at least 1")
        classes, labels = len(self.class_names), [label for pair in self.flip_pairs for label in pair]
        if labels and not 0 <= min(labels) <= max(labels) < classes:
            raise ValueError(f"flip_pairs names a label that is none of 0…{classes - 1}")
        first_rows = [extent.first_row for extent in self.extents]
        ends = [extent.end for extent in self.extents]
        if any(end <= first for first, end in zip(first_rows, ends, strict=True)) or first_rows != sorted(first_rows):
            raise ValueError(f"extents begin at {first_rows[:5]} and end at {ends[:5]}, which does not ascend")
        if any(view < 1 for view in self.more_views) or list(self.more_views) != sorted(set(self.more_views)):
            raise ValueError(f"more_views is {self.more_views[:5]}, expected ascending numbers of views")


INFORMS = {"logit_scale": float, "logit_bias": float, "clip": Mapping[str, str | None], "data": Mapping[str, Any],
           "created": str, "templates": tuple[str, ...]}  # fmt: skip
"""Types of what informs and is read again."""


def described_by(path: Path, stored: Mapping[str, Any]) -> Said:
    """The attribute's values, checked.

    Raises:
        ValueError: one is missing or of another type or range. CacheError: later, for what `informs` does not have.
    """
    known = {field.name for field in fields(Said)}
    said: Said = checked(
        {name: value for name, value in stored.items() if name in known}, Said, ATTRIBUTE, most=1 << 40
    )
    informs = {name: checked(value, INFORMS.get(name, Any), f"informs.{name}") for name, value in said.informs.items()}

    def refuse(name: str) -> CacheError:
        return CacheError(f"{path}/zarr.json does not say {name!r} (informs), which is needed here. {COPY_AGAIN}")

    if "clip" in informs:
        informs["clip"] = Kept(informs["clip"], refuse)
    return replace(said, informs=Kept(informs, refuse))
