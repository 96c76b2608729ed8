"""The rows that a run is trained on, stored in its folder. A resumed run uses the same rows, even if the cache grew.

rows.json            ids of the videos, in the order that every epoch permutes
run.json  "rows"     number of ids, number of stored views, and the sha256 of the ids

all videos are there    ─▶ exactly these rows, in this order; newer videos are counted and left out
some videos are gone    ─▶ RunError: the order of an uninterrupted run cannot be repeated
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
"""Number of missing videos that an error names."""


MOST_ROWS_BYTES = 1 << 30
"""Largest rows.json: ten million ids of a hundred characters."""


@dataclass(frozen=True, kw_only=True)
class KeptRows:
    """Ids of the videos of one epoch, in order, and the number of stored views per video."""

    ids: tuple[str, ...]
    views: int

    def facts(self) -> dict[str, Any]:
        """The entry `rows` of `run.json`."""
        return {
            "videos": len(self.ids),
            "views": self.views,
            "sha256": hashlib.sha256(self.text().encode()).hexdigest(),
        }

    def text(self) -> str:
        """The text of `rows.json`. It is plain ASCII for any id."""
        return json.dumps(self.ids, indent=0)


def read_rows(folder: Path, facts: dict[str, Any]) -> KeptRows:
    """The rows of the run in `folder`, checked against its run.json.

    Raises:
        RunError: rows.json is missing, or holds other ids.
    """
    file = folder / "rows.json"
    try:
        ids = read_json(file, most=MOST_ROWS_BYTES)
        kept = KeptRows(ids=tuple(map(str, ids)), views=int(facts["views"]))
    except (OSError, PathError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is missing or damaged ({error}). {_other(folder)}") from error
    if kept.facts() != facts:
        raise RunError(
            f"{file} does not hold the videos that this run began with: found {len(kept.ids)} ids, run.json has "
            f"{facts.get('videos')} with another sha256. {_other(folder)}"
        )
    return kept


def find_rows(
    folder: Path, kept: KeptRows, where: Path, ids: Sequence[str], rows: Sequence[int], views: int
) -> list[int]:
    """The rows in `where` of the videos a run is trained on, in the run's order.

    Args:
        folder: folder of the run.
        kept: the rows that the run was begun with.
        where: the cache that is trained on.
        ids: ids of all its rows.
        rows: rows that can be trained on now.
        views: stored views of each row now.

    Raises:
        RunError: some of the videos, or some of their views, do not exist any more.
    """
    row_of = {ids[row]: row for row in rows}
    missing = [name for name in kept.ids if name not in row_of]
    if missing:
        more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
        raise RunError(
            f"{folder} is trained on {len(kept.ids):,} videos, and {where} does not hold {len(missing):,} of them any "
            f"more, or not with a label: {', '.join(missing[:MOST_NAMED])}{more}.\n"
            f"Run the same `vidxfer extract` again, which stores them again. {_other(folder)}"
        )
    if views < kept.views:
        raise RunError(
            f"{folder} draws from {kept.views} stored views of each video, and {where} holds {views}. {_other(folder)}"
        )
    return [row_of[name] for name in kept.ids]


def _other(folder: Path) -> str:
    return f"Or begin a new run with the weights of this one: --run OTHER --init-from {folder}"
