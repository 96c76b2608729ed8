"""Lists that are no lines of cells: parquet, JSON and JSON Lines, as columns of text with the place each row stands at.

    [{"path": "a.mp4", "label": "walk"}, …]                  also one object per line (.jsonl)
    {"a.mp4": "walk", "b.mp4": "run"}                        video -> label
    {"classes": ["run", "walk"], "labels": {"a": 1}}         FiftyOne: videos are data/a.*

Consequence: what reads a header of a csv reads these too: one set of names for columns, one set of errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.datasets.paths import clean_text, read_text
from vidxfer.pipeline.errors import DatasetError, UsageError

RECORD_FILES = (".parquet", ".jsonl", ".json")
_FORMS = (
    '[{"path": "a.mp4", "label": "walk"}, …], {"a.mp4": "walk", …}, or {"classes": ["walk", …], "labels": {"a": 0, …}}'
)

Record = tuple[str, dict[str, str]]
"""Place, and text by column."""


def read_records(file: Path) -> Iterator[Record]:
    """Every row of a file with one of the endings above.

    Raises:
        DatasetError: the file or a row is of no form above. UsageError: parquet without pyarrow.
    """
    if file.suffix.lower() == ".parquet":
        yield from _parquet(file)
    elif file.suffix.lower() == ".jsonl":
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if line.strip():
                yield f"{file}:{number}", _record(f"{file}:{number}", _parsed(f"{file}:{number}", line))
    else:
        yield from _json(file)


def is_fiftyone(table: Any) -> bool:
    """Whether a JSON value is FiftyOne's labels.json: an object `labels` beside, at most, a list `classes`."""
    return isinstance(table, dict) and isinstance(table.get("labels"), dict) and set(table) <= {"classes", "labels"}


def parsed_json(file: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DatasetError: it is not JSON.
    """
    return _parsed(str(file), read_text(file))


def _json(file: Path) -> Iterator[Record]:
    table = parsed_json(file)
    if is_fiftyone(table):
        yield from _fiftyone(file, table)
    elif isinstance(table, list) and table:
        for number, entry in enumerate(table, start=1):
            yield f"{file}: entry {number}", _record(f"{file}: entry {number}", entry)
    elif isinstance(table, dict) and table and all(isinstance(value, str | int) for value in table.values()):
        for path, label in table.items():
            yield f"{file}: {clean_text(path)!r}", {"path": path, "label": str(label)}
    else:
        raise DatasetError(f"{file}: expected {_FORMS}")


def _fiftyone(file: Path, table: Mapping[str, Any]) -> Iterator[Record]:
    classes = table.get("classes")
    for stem, target in table["labels"].items():
        where = f"{file}: {clean_text(stem)!r}"
        if classes is not None and target is not None:
            if not isinstance(target, int) or not 0 <= target < len(classes):
                raise DatasetError(f"{where}: {target!r} is no number of the {len(classes)} classes")
            target = classes[target]
        yield where, {"path": f"data/{stem}", "label": _text(where, "label", target)}


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON: {error}") from error


def _record(where: str, entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or not entry:
        raise DatasetError(f"{where}: expected an object such as {_FORMS.partition(', …')[0][1:]}")
    return {str(name): _text(where, name, value) for name, value in entry.items()}


def _text(where: str, name: str, value: Any) -> str:
    """A value as a csv would write it; null is empty."""
    if isinstance(value, list | dict):
        raise DatasetError(f"{where}: {name} is {clean_text(repr(value))[:60]}; one value is read, not several")
    return "" if value is None or value != value else str(value).strip()


def _parquet(file: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow import parquet as reader
    except ImportError as error:
        raise UsageError(f"{file}: reading parquet needs pyarrow: pip install 'vidxfer[parquet]'") from error
    try:
        table = reader.read_table(file)
        flat = [name for name in table.column_names if not hasattr(table.schema.field(name).type, "num_fields")
                or not table.schema.field(name).type.num_fields]  # fmt: skip
        columns = table.select(flat).to_pydict()
    except (ArrowInvalid, OSError) as error:
        raise DatasetError(f"{file}: cannot be read as parquet: {error}") from error
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        where = f"{file}: row {number}"
        yield where, {name: _text(where, name, value) for name, value in zip(columns, values, strict=True)}
