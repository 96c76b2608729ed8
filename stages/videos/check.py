"""Which videos of a data set would fail, before anything is extracted: every one is read once.

    data set ─▶ videos ─▶ seen before, unchanged? ─── yes ─▶ its line in check.jsonl
                              └── no ─▶ check_work.py ─▶ one more line ─▶ a table per split
                                                                          └─▶ check.failed.tsv: what would fail

Each line is written when its video is done, so a check that was ended goes on with the rest. A file that has changed
since is read again. So is a video that was refused for a cause that may pass: a limit, a crash, an error of the disk.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, cast, get_args

from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import RunError, Stopped, UsageError, VideoReason
from vidxfer.pipeline.reading import lines, opened, parsed
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.container import SQUARE
from vidxfer.pipeline.video.guard import Guard
from vidxfer.pipeline.video.reader import Decoder
from vidxfer.pipeline.writing import make_folder, open_growing, whole_file
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.settings import DataSource
from vidxfer.stages.signals import stop_on_signal
from vidxfer.stages.spread.clusters import connected
from vidxfer.stages.videos.check_work import How, Line, key_of, lines_from, lines_here

MAY_PASS = {
    VideoReason.TOO_SLOW.value,
    VideoReason.OUT_OF_MEMORY.value,
    VideoReason.CRASHED.value,
    VideoReason.UNREADABLE.value,
    VideoReason.MISSING.value,
    VideoReason.UNEXPECTED.value,
}
"""Reasons that another run, or another machine, may not find again."""

MOST_LINE_BYTES = 1 << 20
NEEDED = {"split", "id", "seen", "quick", "asked", "reason"}


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What to check.

    Attributes:
        data: the data set.
        splits: which.
        out: file of one JSON line per video.
        workers: child processes, each reading one video at a time; on a cluster, of each of its workers.
        quick: packets only: damage inside them is not seen.
        decoder: "auto", "decord" or "pyav".
        engine: a dask cluster to read on, where it names a scheduler; else this machine.
    """

    data: DataSource
    splits: tuple[str, ...] = ("train", "val")
    out: Path = Path("check.jsonl")
    workers: int = 2
    quick: bool = False
    decoder: Decoder = "auto"
    engine: EngineChoice = field(default_factory=EngineChoice)

    @property
    def how(self) -> How:
        """What whoever reads a video must know."""
        return How(quick=self.quick, decoder=self.decoder, processes=self.workers)


Reading = Callable[[Sequence[Video]], Iterator[Line]]


@dataclass(frozen=True, kw_only=True)
class SplitCheck:
    """The result of one split.

    Attributes:
        videos: of the split.
        known: of those, lines of an earlier run that still hold.
        failed: id -> reason and detail.
        decoders: path -> videos.
        why: reason for it, off decord -> videos.
        pixel_aspects: of pixels that are not square -> videos; not known of lines of older versions.
        frames: of all readable videos.
        seconds: that reading them took, summed over processes.
        wall_seconds: of this run.
        notes: of the data set.
    """

    split: str
    videos: int
    known: int
    failed: dict[str, str]
    decoders: dict[str, int]
    why: dict[str, int]
    pixel_aspects: dict[str, int]
    frames: int
    seconds: float
    wall_seconds: float
    notes: tuple[str, ...]


def check(request: CheckRequest, progress: Progress | None = None) -> tuple[SplitCheck, ...]:
    """Read every video of the asked splits that no earlier run has read.

    Raises:
        UsageError, DatasetError: the request or the data set cannot be meant.
        RunError: the file of results is not one. Stopped: a signal ended the check; the same command goes on.
    """
    shown = progress or Silent()
    if request.decoder not in get_args(Decoder):
        raise UsageError(f"--decoder {request.decoder!r} is none of {', '.join(get_args(Decoder))}")
    datasets = [request.data.load(split) for split in request.splits]
    known = read_lines(request.out)
    reports, failed = [], []
    with _reading(request, shown) as reading, _appended(request.out) as file:
        for dataset in datasets:
            lines, report = _check_split(request, dataset, known, reading, file, shown)
            reports.append(report)
            failed += [line for line in lines if line["reason"]]
    write_failed(failed_path(request.out), failed)
    return tuple(reports)


@contextmanager
def _reading(request: CheckRequest, shown: Progress) -> Iterator[Reading]:
    if request.engine.name == "inline":
        with Guard(request.workers) as guard:
            yield lambda videos: lines_here(videos, request.how, guard)
    elif request.engine.name == "scheduler":
        with connected(request.engine, "cpu", shown) as cluster:
            yield lambda videos: lines_from(cluster, videos, request.how)
    else:
        raise UsageError("a check runs on this machine, or on a dask cluster given by --scheduler or --scheduler-file")


def _check_split(
    request: CheckRequest,
    dataset: Dataset,
    known: dict[tuple[str, str], Line],
    reading: Reading,
    file: TextIO,
    shown: Progress,
) -> tuple[list[Line], SplitCheck]:
    began = time.monotonic()
    line_of: dict[str, Line] = {}
    for video in dataset.videos:
        line = known.get((dataset.split, video.id))
        if line is not None and still_holds(line, video, request):
            line_of[video.id] = line
    old = len(line_of)
    rest = [video for video in dataset.videos if video.id not in line_of]
    failed = sum(bool(line["reason"]) for line in line_of.values())
    with shown.bar(f"check {dataset.split}", len(dataset), "videos", old) as bar, stop_on_signal() as stop:
        for line in reading(rest):
            line_of[line["id"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            failed += bool(line["reason"])
            bar.advance(1, f"{failed} would fail" if failed else None)
            if stop.asked:
                raise Stopped(
                    f"ended by {stop.asked} after {len(line_of)} of {len(dataset)} videos of {dataset.split}; "
                    f"the same command goes on from {request.out}"
                )
    lines = [line_of[video.id] for video in dataset.videos]
    return lines, _summary(dataset, lines, old, time.monotonic() - began)


def still_holds(line: Line, video: Video, request: CheckRequest) -> bool:
    """Whether an old line answers this request: the same file, read at least as far, and no passing cause."""
    if line["reason"] in MAY_PASS or (line["quick"] and not request.quick):
        return False
    now = key_of(video, request.how)
    return all(line[name] == now[name] for name in ("seen", "asked"))


def _summary(dataset: Dataset, lines: list[Line], known: int, wall_seconds: float) -> SplitCheck:
    good = [line for line in lines if not line["reason"]]
    return SplitCheck(
        split=dataset.split,
        videos=len(lines),
        known=known,
        failed={line["id"]: f"{line['reason']}: {line['detail']}" for line in lines if line["reason"]},
        decoders=dict(Counter(line["decoder"] for line in good)),
        why=dict(Counter(line["why"] for line in good if line["decoder"] != "decord")),
        pixel_aspects=dict(Counter(aspect for line in good if (aspect := line.get("pixel_aspect", SQUARE)) != SQUARE)),
        frames=sum(line["frame_count"] for line in good),
        seconds=sum(line["seconds"] for line in good),
        wall_seconds=wall_seconds,
        notes=dataset.notes,
    )


def read_lines(path: Path) -> dict[tuple[str, str], Line]:
    """(split, id) -> its last line; a torn last line, as a crash leaves it, is cut off.

    Raises:
        RunError: the file is something else.
    """
    line_of: dict[tuple[str, str], Line] = {}
    whole_bytes = 0
    try:
        with opened(path, error=RunError) as file:
            for number, text in enumerate(lines(file, path, most=MOST_LINE_BYTES, error=RunError), start=1):
                if not text.endswith(b"\n"):
                    break
                whole_bytes += len(text)
                line = _line_of(path, number, text)
                line_of[line["split"], line["id"]] = line
            torn = os.fstat(file.fileno()).st_size > whole_bytes
    except FileNotFoundError:
        return line_of
    if torn:
        fd = open_growing(path)
        os.ftruncate(fd, whole_bytes)
        os.close(fd)
    return line_of


def _line_of(path: Path, number: int, text: bytes) -> Line:
    try:
        line = parsed(text)
        if missing := NEEDED - set(line):
            raise KeyError(*missing)
        hash((line["split"], line["id"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}, line {number}: not a line of `vidxfer data check` ({type(error).__name__}). Give another "
            "file with --out, or remove this one: the check then begins anew."
        ) from error
    return cast(Line, line)


def _appended(path: Path) -> TextIO:
    make_folder(path.parent)
    return os.fdopen(open_growing(path), "a", encoding="utf-8")


def failed_path(out: Path) -> Path:
    """Where the videos that would fail are listed: check.failed.tsv for check.jsonl."""
    return out.with_suffix(".failed.tsv")


def write_failed(path: Path, lines: list[Line]) -> None:
    """One row per video that would fail: split, id, reason, detail, path; the header alone when none would."""
    rows = [("split", "id", "reason", "detail", "path")]
    rows += [tuple(str(line[name]) for name in rows[0]) for line in lines]  # type: ignore[misc]
    text = "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
