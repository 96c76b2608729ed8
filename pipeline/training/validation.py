"""The validation data of a run, stored in its folder. Runs are compared only if their validation data are the same.

validation split ─▶ validation.json    ids, labels and class names, in the order of the rows
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.agree import differing_fields
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import PathError, RunError, difference
from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.training.kept_rows import MOST_ROWS_BYTES
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.writing import write_text

FILE = "validation.json"
FIELDS = {"class_names": tuple[str, ...], "ids": tuple[str, ...], "labels": tuple[int, ...]}


def validation_of(split: Split) -> dict[str, Any]:
    """Ids, labels and class names of a scored split, without the gaps between added videos."""
    rows = split.video_rows.tolist()
    return {
        "ids": [split.video_ids[row] for row in rows],
        "labels": [int(split.labels[row]) for row in rows],
        "class_names": list(split.class_names),
    }


def keep_validation(run: Run, split: Split) -> list[str]:
    """Store the present validation data of a run. Returns lines that describe what changed since the last call."""
    current, before = validation_of(split), validation_kept(run.path)
    write_text(run.path / FILE, json.dumps(current))
    if before is None:
        return []
    changed = differing_fields(tuple(FIELDS), before, current)
    sides = ("earlier scores of this run are over", "later ones over")
    return [difference(f"validation {name}", *_short(*pair), sides) for name, pair in changed.items()]


def validation_kept(run: Path) -> dict[str, Any] | None:
    """What `keep_validation` stored; None for runs of 0.1.0 and runs without a validation split.

    Raises:
        RunError: the file is damaged.
    """
    file = run / FILE
    if not file.exists() and not file.is_symlink():
        return None
    try:
        stored = checked(read_json(file, most=MOST_ROWS_BYTES), Mapping, "validation")
        facts = {name: checked(stored.get(name), kind, name) for name, kind in FIELDS.items()}
        if len(facts["ids"]) != len(facts["labels"]):
            raise ValueError(f"{len(facts['ids'])} ids and {len(facts['labels'])} labels")
        if any(not -1 <= label < len(facts["class_names"]) for label in facts["labels"]):
            raise ValueError(f"a label is none of {len(facts['class_names'])} classes")
    except (OSError, PathError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error}. `vidxfer train` of that run writes it anew.") from error
    return facts


def _short(first: Any, second: Any) -> tuple[object, object]:
    """Two lists of labels in short: the first difference, or their lengths. Other values are unchanged."""
    lists = isinstance(first, list | tuple) and isinstance(second, list | tuple)
    if not lists or all(isinstance(item, str) for item in first):
        return first, second
    place = next((index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if place is None:
        return len(first), len(second)
    return f"{first[place]} at video {place}", f"{second[place]} there"
