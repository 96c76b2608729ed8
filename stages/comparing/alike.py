"""May two scores stand in one table? Only if they are over the same videos, labels and classes.

what a run keeps of its validation ─▶ expect_comparable ─┬▶ nothing
predictions of another split       ─▶ score_of_split    ─┴▶ UsageError: the field and both values
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.agree import differing_fields
from vidxfer.pipeline.errors import UsageError, difference
from vidxfer.pipeline.training.predictions import KeptPrediction, read_predictions

SIDES = ("the run has", "the others have")

_TITLES = {
    "class_names": "class_names",
    "ids": "validation videos",
    "labels": "validation labels",
    "videos": "number of validation videos",
}


def expect_comparable(path: Path, recorded: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    """Check a run against the others in what it records: ids in any order, labels, class names, number of videos.

    Raises:
        UsageError: it was scored on something else; each field is named with both values.
    """
    differing = differing_fields(["class_names"], recorded, reference)
    if "ids" in reference and recorded.get("ids") is None:
        differing |= differing_fields(["videos"], recorded, {"videos": len(reference["ids"])})
    elif "ids" in reference:  # in any order
        shared = set(recorded["ids"]) & set(reference["ids"])
        differing |= differing_fields(["ids"], *(_ids(kept, shared) for kept in (recorded, reference)))
        if not differing:
            differing = differing_fields(["labels"], _labels(recorded), _labels(reference))
    if differing:
        raise _unlike(path, differing)


def predicted(path: Path, split: str, reference: Mapping[str, Any]) -> dict[str, KeptPrediction]:
    """Id -> prediction, as `evaluate` or the end of a training wrote it into a folder.

    Raises:
        RunError: the folder holds no predictions of that split.
        UsageError: they are of other videos, labels or classes than those of the reference.
    """
    if "ids" not in reference:
        raise UsageError(f"the cache has no split {split!r}, so there is nothing to compare scores over")
    names = reference["class_names"]
    known = dict(zip(reference["ids"], reference["labels"], strict=True))
    by_id = {}
    for prediction in read_predictions(path, split):
        if prediction.id not in known:
            raise _unlike(path, {"ids": (prediction.id, "no such video")})
        if (prediction.label, prediction.label_name) != (known[prediction.id], names[known[prediction.id]]):
            said = f"{prediction.id}: {names[known[prediction.id]]} ({known[prediction.id]})"
            raise _unlike(path, {"labels": (f"{prediction.id}: {prediction.label_name} ({prediction.label})", said)})
        by_id[prediction.id] = prediction
    return by_id


def score_of_split(path: Path, split: str, reference: Mapping[str, Any]) -> dict[str, Any]:
    """The score of what was predicted, over the reference's videos and labels; raises as `predicted`."""
    predictions = predicted(path, split, reference).values()
    right = sum(prediction.right for prediction in predictions)
    right5 = sum(prediction.right5 for prediction in predictions)
    scored, listed = len(predictions), len(reference["ids"])
    return {
        "top1": right / scored if scored else 0.0,
        "top5": right5 / scored if scored else 0.0,
        "top1_of_listed": right / max(1, listed),
        "scored": scored,
        "listed": listed,
    }


def _unlike(path: Path, differing: Mapping[str, tuple[object, object]]) -> UsageError:
    return UsageError("\n".join([
        f"{path} cannot stand in this table. A table holds scores over the same videos, labels and classes:",
        *(f"  {difference(_TITLES[name], *pair, SIDES)}" for name, pair in differing.items()),
        "Name the cache that its scores are over (--cache), or compare it with runs of its own kind.",
    ]))  # fmt: skip


def _ids(known: Mapping[str, Any], shared: set[str]) -> dict[str, Any]:
    """The ids, those that the other side lacks first."""
    return {"ids": sorted(known["ids"], key=lambda id_: (id_ in shared, id_))}


def _labels(known: Mapping[str, Any]) -> dict[str, Any]:
    """The labels in the order of ids, as texts that name their video."""
    names = known["class_names"]
    labelled = sorted(zip(known["ids"], known["labels"], strict=True))
    return {"labels": [f"{id_}: {names[label] if label >= 0 else 'no label'}" for id_, label in labelled]}
