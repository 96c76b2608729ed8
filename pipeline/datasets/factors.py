"""What classes are made of, from a file beside the data: a class "open door" is the verb "open" and the noun "door".

    <root>/class_factors.json     {"verb": {"open door": "open", …}, "noun": {"open door": "door", …}}
                                   factor   class name   value        every class, under every factor

Any layout may have the file; the toy world writes one. Consequence: scores come per factor too, beside those of the
classes; labels, ids and fingerprints stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.datasets.paths import clean_text, read_text
from vidxfer.pipeline.errors import DatasetError

FACTORS_FILE = "class_factors.json"
_SHOWN = 3


def by_class(factors: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Factors with one value per label as the file has them: by class name, as layouts order classes differently."""
    return {name: dict(zip(class_names, values, strict=True)) for name, values in factors.items()}


def with_factors(dataset: Dataset) -> Dataset:
    """The data set with the factors of the file in its root; as it is where it has factors, or there is no file.

    Raises:
        DatasetError: the file is not of that form, or does not name every class.
    """
    path = dataset.root / FACTORS_FILE
    if dataset.factors or not path.is_file():
        return dataset
    values = _read(path)
    return replace(dataset, factors={name: _in_order(path, name, of, dataset) for name, of in values.items()})


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        stored: Any = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    fits = isinstance(stored, dict) and all(
        isinstance(of, dict) and all(isinstance(value, str) for value in of.values()) for of in stored.values()
    )
    if not fits:
        raise DatasetError(
            f'{path}: expected {{"factor": {{"class name": "value", …}}, …}}. Mend it, or delete it to do without.'
        )
    return {name: {clean_text(cls): value for cls, value in of.items()} for name, of in stored.items()}


def _in_order(path: Path, factor: str, of_class: dict[str, str], dataset: Dataset) -> tuple[str, ...]:
    missing = [name for name in dataset.class_names if name not in of_class]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DatasetError(
            f"{path}: the factor {factor!r} has no value for {', '.join(map(repr, missing[:_SHOWN]))}{more}, "
            f"{len(missing)} of {len(dataset.class_names)} classes. Add them, or delete the file to do without factors."
        )
    return tuple(of_class[name] for name in dataset.class_names)
