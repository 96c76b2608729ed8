"""Something-Something V2 as it is downloaded, in both generations of its label files.

    labels.json      {"Holding something next to something": "42", …}                  the values are strings
    train.json       [{"id": "78687", "template": "Holding [something] next to [something]", …}, …]
    <id>.webm        label = labels[template without the brackets]

Consequence: names and ids are data. Names hold commas ("Lifting something up completely, then letting it drop down"),
templates may begin with a bracket, and ids stay strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vidxfer.pipeline.datasets.base import Dataset, absent_note
from vidxfer.pipeline.datasets.disk import first_shelf, folders_in, videos_below
from vidxfer.pipeline.datasets.listed import load_listed
from vidxfer.pipeline.datasets.paths import Fence, clean_text, list_folder, nearest, read_text
from vidxfer.pipeline.errors import DatasetError
from vidxfer.pipeline.shapes import Video

LAYOUT = """\
  <root>/
  ├── labels/                         or annotations/, or the root itself
  │   ├── labels.json                 or something-something-v2-labels.json
  │   ├── train.json                  or something-something-v2-train.json
  │   └── validation.json             or something-something-v2-validation.json
  └── 20bn-something-something-v2/    or videos/
      ├── 1.webm                      or 1.mp4
      └── …
Something-Something V2 is downloaded from Qualcomm's developer site (one labels zip, 20 video archives); join and unpack
the archives with: cat 20bn-something-something-v2-?? | tar -xzf -"""

VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", "videos_mp4", ".")
LABEL_FOLDERS = ("labels", "annotations", ".")
PREFIXES = ("", "something-something-v2-")
EXTENSIONS = (".webm", ".mp4")
_FILE_OF_SPLIT = {"train": "train", "val": "validation", "test": "test"}


def load(root: Path, split: str, *, labels: Path | None = None) -> Dataset:
    """One split; `labels` is the folder of the .json files not below the root, or another toolkit's list.

    Raises:
        DatasetError: a file is missing or is not what the layout says; or none of the listed videos is on disk.
    """
    if labels is not None and labels.is_file() and labels.suffix != ".json":
        return _load_listed(root, split, labels)
    label_file = _find_json(root, labels, "labels")
    split_file = _find_json(root, labels, _FILE_OF_SPLIT[split])
    folder, on_disk = _find_videos(root)
    class_names = _class_names(label_file)
    label_of = {name: label for label, name in enumerate(class_names)}

    answers = _answers(split_file.with_name("test-answers.csv"), label_of) if split == "test" else {}

    fence = Fence(folder)
    videos, absent = [], []
    for where, entry in _entries(split_file):
        id_ = _id_of(where, entry)
        name = next((id_ + extension for extension in EXTENSIONS if id_ + extension in on_disk), None)
        if name is None:
            name = id_ + EXTENSIONS[0]
            absent.append(clean_text(name))
        if name not in on_disk or on_disk[name]:  # a plain file of the video folder needs no further look
            fence.path(name, where=where)
        videos.append(
            Video(
                id=clean_text(id_),
                path=folder / name,
                label=_label_of(where, entry, label_of) if split != "test" else answers.get(id_),
                split=split,
            )
        )
    if not videos:
        raise DatasetError(f"{split_file}: lists no videos")
    notes = absent_note(absent, len(videos), folder)
    return Dataset(name="ssv2", root=root, split=split, videos=tuple(videos), class_names=class_names, notes=notes)


def _load_listed(root: Path, split: str, labels: Path) -> Dataset:
    """By a list `id frames label` or `id.webm label`; the videos may be folders of frames."""
    places = [root / name for name in VIDEO_FOLDERS]

    def read(folder: Path) -> Iterator[Path]:
        yield from videos_below(folder, Fence(folder), 0)
        yield from folders_in(folder)

    shelf = first_shelf(places, read, what="videos or folders of frames", root=root, layout=LAYOUT)

    def find(listed: str, stem: str) -> tuple[str, Path] | None:
        path = shelf.find(stem, listed=listed)
        return None if path is None else (stem, path)

    return load_listed("ssv2", root, split, labels=labels, folder=shelf.folder, find=find)


def _answers(file: Path, label_of: dict[str, int]) -> dict[str, int]:
    """Labels of the test split by id, where the file that has them is there: `1420;Throwing something`."""
    if not file.is_file():
        return {}
    answers = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        id_, _, name = (part.strip() for part in line.partition(";"))
        if line.strip() and clean_text(name) not in label_of:
            raise DatasetError(f"{file}:{number}: {clean_text(name)!r} names no class{nearest(name, label_of)}")
        if line.strip():
            answers[id_] = label_of[clean_text(name)]
    return answers


def _find_json(root: Path, labels: Path | None, stem: str) -> Path:
    if labels is not None:
        folders = [labels if labels.is_dir() else labels.parent]
    else:
        folders = [root / name for name in LABEL_FOLDERS]
    tried = [folder / f"{prefix}{stem}.json" for folder in folders for prefix in PREFIXES]
    for path in tried:
        if path.is_file():
            return path
    listed = "\n".join(f"  {path}" for path in tried)
    raise DatasetError(f"{root}: no label file. Looked for:\n{listed}\nExpected:\n{LAYOUT}")


def _find_videos(root: Path) -> tuple[Path, dict[str, bool]]:
    """The video folder, and for each of its video files whether it is a link. One listing instead of 168,913 lstats."""
    tried = [root if name == "." else root / name for name in VIDEO_FOLDERS]
    for folder in tried:
        if folder.is_dir():
            entries = [entry for entry in list_folder(folder) if entry.name.endswith(EXTENSIONS)]
            is_link = {entry.name: entry.is_symlink() for entry in entries}
            if is_link:
                return folder, is_link
    listed = "\n".join(f"  {folder}" for folder in tried)
    raise DatasetError(f"{root}: no folder with .webm or .mp4 files. Looked in:\n{listed}\nExpected:\n{LAYOUT}")


def _read_json(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: not a label file: nested too deeply") from error


def _class_names(path: Path) -> tuple[str, ...]:
    """Names in the order of their numbers, which must be 0, 1, 2, … without a gap."""
    table = _read_json(path)
    if not isinstance(table, dict) or not table:
        raise DatasetError(f'{path}: expected {{"class name": "number", …}}, found {_shown(table)}')
    numbers: dict[int, str] = {}
    for name, number in table.items():
        if not isinstance(number, str | int) or not str(number).isdecimal():
            raise DatasetError(f'{path}: class {name!r} has the number {_shown(number)}, expected one like "42"')
        if int(number) in numbers:
            raise DatasetError(f"{path}: classes {numbers[int(number)]!r} and {name!r} both have the number {number}")
        numbers[int(number)] = clean_text(name)
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise DatasetError(f"{path}: {len(numbers)} classes, but none has the number {missing}")
    return tuple(numbers[number] for number in range(len(numbers)))


def _entries(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    table = _read_json(path)
    if not isinstance(table, list):
        raise DatasetError(f'{path}: expected [{{"id": …, "template": …}}, …], found {_shown(table)}')
    for number, entry in enumerate(table, start=1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise DatasetError(f'{where}: expected {{"id": …, "template": …}}, found {_shown(entry)}')
        yield where, entry


def _id_of(where: str, entry: dict[str, Any]) -> str:
    id_ = entry.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not str(id_).strip():
        raise DatasetError(f'{where}: expected an "id" like "78687", found {_shown(id_)}')
    return str(id_)


def _label_of(where: str, entry: dict[str, Any], label_of: dict[str, int]) -> int:
    template = entry.get("template")
    if not isinstance(template, str):
        raise DatasetError(
            f'{where}, id {entry["id"]!r}: expected a "template" like "Holding [something] next to [something]", '
            f"found {_shown(template)}"
        )
    name = clean_text(template.replace("[", "").replace("]", ""))
    if name not in label_of:
        raise DatasetError(
            f"{where}, id {entry['id']!r}: template {template!r} names no class of labels.json{nearest(name, label_of)}"
        )
    return label_of[name]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
