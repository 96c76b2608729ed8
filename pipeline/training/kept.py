"""Checks of the JSON files in a run folder when they are read: types and ranges. Errors name file and value.

    run.json        ─▶ made_from_of      result.json    ─▶ result_of      progress.json ─▶ run.py, by its class

A run folder may come from another machine or another version. Every value read later has the right type, or its absence
is an error with a clear message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.typed import Kept, checked

MADE_FROM = {
    "cache": str | None, "cache_fingerprint": str | None, "spec": Mapping[str, Any], "class_names": tuple[str, ...],
    "templates": tuple[str, ...] | None, "logit_scale": float, "logit_bias": float,
    "clip": Mapping[str, str | None], "data": Mapping[str, Any], "online": bool, "world": int,
    "device": str, "precision": str, "code": str, "head": str,
}  # fmt: skip
PRECISION_OF_010 = {"32-true": "fp32", "bf16-mixed": "bf16"}
"""A head's precision as 0.1.0 called it -> its name now."""

RESULT = {
    "score": Mapping[str, Any] | None, "epoch_seconds": float | None, "data_wait_share": float | None,
    "loss": float | None,
}  # fmt: skip
SCORE = {
    "top1": float, "top5": float, "top1_of_listed": float, "scored": int, "listed": int, "factors": Mapping[str, float],
    "missing": Mapping[str, str],
}  # fmt: skip


def made_from_of(file: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `run.json`, checked. Reading a missing name later raises RunError.

    Raises:
        ValueError: a value has another type; the text names it.
    """
    typed = {name: checked(value, MADE_FROM.get(name, Any), name) for name, value in stored.items()}
    if "class_names" in typed:
        typed["class_names"] = list(typed["class_names"])
    if (precision := typed.get("precision")) is not None:
        typed["precision"] = PRECISION_OF_010.get(precision, precision)
    if "clip" in typed:
        typed["clip"] = _complete(file, typed["clip"])
    return _complete(file, typed)


def result_of(file: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `result.json`, checked in the same way.

    Raises:
        ValueError: a value has another type; the text names it.
    """
    typed = {name: checked(value, RESULT.get(name, Any), name) for name, value in stored.items()}
    if typed.get("score") is not None:
        score = {name: checked(value, SCORE.get(name, Any), f"score.{name}") for name, value in typed["score"].items()}
        typed["score"] = _complete(file, score)
    return _complete(file, typed)


def _complete(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    def refuse(name: str) -> RunError:
        return RunError(
            f"{file} lacks {name!r}, which is needed here: it is damaged, or another version of vidxfer wrote it. "
            "Put the original file back, or train into another folder with --run."
        )

    return Kept(typed, refuse)
