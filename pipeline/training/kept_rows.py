"""The rows a run is trained on, kept in its folder: what it goes on with, whatever the cache holds by then.

rows.json            ids of the videos, in the order that every epoch permutes
run.json  "rows"     how many, of how many stored views, and the sha256 of the ids

all of them still there ─▶ exactly those, in that order; newer ones are counted and left out
some are gone           ─▶ RunError: the order of an unbroken run cannot be had any more
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidxfer.pipeline.errors import PathError, RunError
from vidxfer.pipeline.reading import read_json

MOST_NAMED = 5
"""Missing videos that are named one by one."""


MOST_ROWS_BYTES = 1 << 30
"""Of rows.json: ten million ids of a hundred characters."""


@dataclass(frozen=True, kw_only=True)
class KeptRows:
    """Ids of the videos of one epoch, in order, and how many stored views each draws from."""

    ids: tuple[str, ...]
    views: int

    def facts(self) -> dict[str, Any]:
        """What `run.json` holds of them."""
        return {
            "videos": len(self.ids),
            "views": self.views,
            "sha256": hashlib.sha256(self.text().encode()).hexdigest(),
        }

    def text(self) -> str:
        """What `rows.json` holds: plain ASCII, whatever an id consists of."""
        return json.dumps(self.ids, indent=0)


def read_rows(folder: Path, facts: dict[str, Any]) -> KeptRows:
    """The rows of the run in `folder`, checked against what its run.json says of them.

    Raises:
        RunError: rows.json is missing, or does not hold those ids.
    """
    file = folder / "rows.json"
    try:
        ids = read_json(file, most=MOST_ROWS_BYTES)
        kept = KeptRows(ids=tuple(map(str, ids)), views=int(facts["views"]))
    except (OSError, PathError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is missing or damaged ({error}). {_other(folder)}") from error
    if kept.facts() != facts:
        raise RunError(
            f"{file} does not hold the videos this run began with: {len(kept.ids)} ids, run.json says "
            f"{facts.get('videos')} with another sha256. {_other(folder)}"
        )
    return kept


def find_rows(
    folder: Path, kept: KeptRows, where: Path, ids: Sequence[str], rows: Sequence[int], views: int
) -> list[int]:
    """The rows in `where` of the videos a run is trained on, in the run's order.

    Args:
        folder: of the run.
        where: what is trained on.
        ids: of all its rows.
        rows: those that can be trained on now.
        views: stored views of each now.

    Raises:
        RunError: some of the videos, or of their views, are not there any more.
    """
    row_of = {ids[row]: row for row in rows}
    missing = [name for name in kept.ids if name not in row_of]
    if missing:
        more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
        raise RunError(
            f"{folder} is trained on {len(kept.ids):,} videos, and {len(missing):,} of them are not there any more, or "
            f"have lost their label, in {where}: {', '.join(missing[:MOST_NAMED])}{more}.\n"
            f"Put them back (the same `vidxfer extract` stores them again). {_other(folder)}"
        )
    if views < kept.views:
        raise RunError(
            f"{folder} draws from {kept.views} stored views of each video, {where} holds {views}. {_other(folder)}"
        )
    return [row_of[name] for name in kept.ids]


def _other(folder: Path) -> str:
    return f"Or begin a new run with what this one has learned: --run OTHER --init-from {folder}"
