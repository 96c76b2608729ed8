"""predictions.SPLIT.jsonl: the predictions of a run, or of CLIP alone, for every scored video.

`vidxfer train` and `vidxfer evaluate` write it, one line per video:

{"id": …, "label": 3, "label_name": …, "right": true, "top5": [[name, share], …], "top5_labels": [3, 0, …]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.reading import lines, opened, parsed

MOST_LINE_BYTES = 1 << 20
"""Largest line: the id of a video and the names of six classes."""

MOST_BEST = 5
"""Classes that are kept of a video."""


@dataclass(frozen=True, kw_only=True)
class KeptPrediction:
    """One video: label, name of the label, and whether the best class, or one of the best five, is the label.

    Attributes:
        best: numbers of the five best classes, the best one first; of all classes where there are fewer than five.
        shares: probability of each of them, 0 to 1.
    """

    id: str
    label: int
    label_name: str
    right: bool
    right5: bool
    best: tuple[int, ...]
    shares: tuple[float, ...]


def predictions_file(folder: Path, split: str) -> Path:
    """Where they lie."""
    return folder / f"predictions.{split}.jsonl"


def read_predictions(folder: Path, split: str) -> Iterator[KeptPrediction]:
    """Every line.

    Raises:
        RunError: there is no such file, or a line was not written by an evaluation.
    """
    file = predictions_file(folder, split)
    if not file.is_file():
        raise RunError(f"{file} is missing. Score the run: vidxfer evaluate --run {folder} --split {split}")
    with opened(file, error=RunError) as stream:
        for number, line in enumerate(lines(stream, file, most=MOST_LINE_BYTES, error=RunError), start=1):
            try:
                entry = parsed(line)
                label = int(entry["label"])
                best, shares = _best(entry)
                yield KeptPrediction(
                    id=str(entry["id"]),
                    label=label,
                    label_name=str(entry["label_name"]),
                    right=bool(entry["right"]),
                    right5=label in best,
                    best=best,
                    shares=shares,
                )
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{file}:{number}: no line of an evaluation. Score again: vidxfer evaluate") from error


def _best(entry: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Numbers and shares of the best classes, checked.

    Raises:
        ValueError, KeyError, TypeError: they are none.
    """
    best = tuple(int(label) for label in entry["top5_labels"])
    shares = tuple(float(share) for _, share in entry["top5"])
    if not 1 <= len(best) == len(shares) <= MOST_BEST or min(best) < 0:
        raise ValueError(f"{len(best)} classes and {len(shares)} shares")
    if not all(0 <= share <= 1.000001 for share in shares):  # no NaN either
        raise ValueError(f"a share lies in 0..1: {shares}")
    return best, shares
