"""Runs as one page that a person can read: scores, curves, classes, confusion, calibration, videos, cost, origin.

runs, cache ─▶ compare ─▶ Answers ─┬▶ classes, calibration, hardest ─┐
                                   └▶ film strips ───────────────────┴▶ templates/report.html ─▶ FILE, plots in FOLDER
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.disk import expect_writable_folder
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.training.own_heads import place_of
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.validation import validation_of
from vidxfer.stages.comparing.points import points, words_of
from vidxfer.stages.comparing.rows import Comparison, RunRow
from vidxfer.stages.comparing.seeds import flat
from vidxfer.stages.comparing.tables import blocks
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.sources import Source
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.reporting.answers import Answers, answers_of
from vidxfer.stages.reporting.calibration import calibration
from vidxfer.stages.reporting.classes import MATRIX_CLASSES, class_rows, matrix, most_confused
from vidxfer.stages.reporting.curves import curves_of
from vidxfer.stages.reporting.drawing import Plotter
from vidxfer.stages.reporting.hardest import Chosen, chosen
from vidxfer.stages.reporting.page import expect_page_file, render, table_rows, write_page
from vidxfer.stages.reporting.strips import Strips, opened_strips

HARD = (
    "Wrong, and the runs were sure of it. Sorted by the share of the label minus that of the best other class, "
    "mean over the runs."
)
LUCKY = "Right in every run, and only just: the label is hardly ahead of the best other class."


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What to show.

    Attributes:
        runs: folders; the first one is the one that the others are compared with.
        cache: folder.
        out: the page.
        plots: folder for the plots as files; None: they are in the page alone.
        split: that was scored.
        root: of the videos, if they have moved.
        frames_from, more_caches, labels_as: as in training.
    """

    runs: tuple[Path, ...]
    cache: Path
    out: Path
    plots: Path | None = None
    split: str = "val"
    root: Path | None = None
    frames_from: str = "auto"
    more_caches: tuple[Path, ...] = ()
    labels_as: str | None = None


@dataclass(frozen=True, kw_only=True)
class PageMade:
    """The page, its bytes, how many videos it shows, how many of them without frames, and the names of the plots."""

    out: Path
    bytes: int
    videos: int
    without_frames: int
    plots: tuple[str, ...] = ()


def report(request: ReportRequest, progress: Progress | None = None) -> PageMade:
    """Write the page; nothing is scored again.

    Raises:
        UsageError: no page can be written there, or a run was scored on other videos.
        RunError: a folder is no finished run, or was not scored on the split. CacheError: no such split.
    """
    shown = progress or Silent()
    if len({run.resolve() for run in request.runs}) < len(request.runs):
        raise UsageError("report: the same run is named twice")
    expect_page_file("--out", request.out)
    if request.plots is not None:
        expect_writable_folder("--plots", request.plots)
    plotter = Plotter(request.plots)
    caches = (request.cache, *request.more_caches)
    comparison = compare(
        request.runs, request.cache, more_caches=request.more_caches, labels_as=request.labels_as, split=request.split,
        against=request.runs[0],
    )  # fmt: skip
    source = source_of(
        caches, request.split, labels_as=request.labels_as, root=request.root, frames_from=request.frames_from
    )
    answers = answers_of(request.runs, request.split, validation_of(source.split))
    names = source.split.class_names
    hard, lucky = chosen(answers)
    with opened_strips(source) as strips, shown.bar("film strips", len(hard) + len(lucky), "videos") as bar:
        videos = [
            [_video(chosen, answers, comparison, source, strips, bar.advance) for chosen in kind]
            for kind in (hard, lucky)
        ]
    plots = _plots(plotter, comparison, answers, names)
    rows = class_rows(answers, names)
    page = render(
        "report.html",
        title=f"vidxfer: {', '.join(row.name for row in comparison.runs[:3])}{' …' * (len(comparison.runs) > 3)}",
        version=version("vidxfer"),
        comparison=comparison,
        listed=len(answers.ids),
        caches=" + ".join(map(str, caches)),
        blocks=_blocks(comparison, caches),
        runs=[_run(row, place, answers) for place, row in enumerate(comparison.runs)],
        plots=plots,
        classes=rows,
        tests=len(rows) * (answers.runs - 1),
        confused=most_confused(answers, names),
        shown_videos=[("The hardest", HARD, videos[0]), ("The luckiest", LUCKY, videos[1])],
        passports=[passport for cache in caches for passport in _passports(cache, request.split)],
        command=_command(request, comparison),
        numbers=_numbers(comparison, answers),
    )
    made = [plot.name for group in plots.values() if group for plot in (group if isinstance(group, list) else [group])]
    return PageMade(
        out=request.out,
        bytes=write_page(request.out, page),
        videos=len(hard) + len(lucky),
        without_frames=sum(video["strip"].why is not None for kind in videos for video in kind),
        plots=tuple(made) if request.plots is not None else (),
    )


def _plots(plotter: Plotter, comparison: Comparison, answers: Answers, names: Sequence[str]) -> dict[str, Any]:
    labels = [row.name for row in comparison.runs]
    curves = [(row.name, curves_of(row.run)) for row in comparison.runs]
    training = [
        plotter.lines("loss", "Loss of the training.", [(name, curve.loss) for name, curve in curves], "loss"),
        plotter.lines(
            "top1", "Share of right validation videos at every evaluation.",
            [(name, curve.top1) for name, curve in curves], "top-1",
        ),
        plotter.lines(
            "waiting", "Share of the time that training waited for data.",
            [(name, curve.wait) for name, curve in curves], "share of the time",
        ),
    ]  # fmt: skip
    sure = [calibration(*_sure(answers, run)) for run in range(answers.runs)]
    return {
        "training": [plot for plot in training if plot is not None],
        "reliability": plotter.reliability(
            "calibration", "How often an answer is right, over the share of its class. On the line, a run is as sure "
            "as it is right; below it, too sure. Larger marks stand for more videos.",
            list(zip(labels, sure, strict=True)),
        ),
        "confusion": [
            plotter.confusion(
                f"confusion-{run}" if answers.runs > 1 else "confusion",
                f"{label}: what the videos of each class are taken for.", matrix(answers, run, len(names)), names,
            )
            for run, label in enumerate(labels)
        ] if len(names) <= MATRIX_CLASSES else [],
        "cost": plotter.cost(
            "cost", "Top-1 against what a view costs in training.", points(comparison), words_of(comparison)
        ),
    }  # fmt: skip


def _sure(answers: Answers, run: int) -> tuple[Any, Any]:
    """Share of the best class and whether it is right, of the scored videos."""
    there = answers.scored[run]
    return answers.shares[run, there, 0], answers.right[run, there]


def _video(
    chosen: Chosen, answers: Answers, comparison: Comparison, source: Source, strips: Strips, advance: Any
) -> dict[str, Any]:
    """What the card of a video shows."""
    names, place = source.split.class_names, chosen.place
    label = int(answers.labels[place])
    first = next(run for run in range(answers.runs) if answers.scored[run, place])
    scored = zip(answers.best[:, place].tolist(), answers.shares[:, place].tolist(), strict=True)
    best = [[(names[c], s, c == label) for c, s in zip(b, p, strict=True) if c >= 0] for b, p in scored]
    strip = strips.strip(int(source.split.video_rows[place]))
    advance()
    return {
        "id": answers.ids[place],
        "label": names[label],
        "run": comparison.runs[first].name,
        "strip": strip,
        "best": best[first],
        "others": [
            (row.name, *best[run][0])
            for run, row in enumerate(comparison.runs)
            if run != first and answers.scored[run, place]
        ],
    }


def _run(row: RunRow, place: int, answers: Answers) -> dict[str, Any]:
    """Name, calibration, recipe and origin of one run."""
    run = Run.open(row.run) if row.cost is not None else None
    kept = ("code", "device", "world", "precision", "online", "cache", "cache_fingerprint", "versions", "clip", "data")
    told = {} if run is None else {name: run.made_from.get(name) for name in kept}
    return {
        "name": row.name,
        "calibration": calibration(*_sure(answers, place)),
        "recipe": None if run is None else table_rows(flat(run.recipe.to_dict()).items()),
        "made_from": table_rows([("folder", row.run), *flat(told).items()]),
    }


def _blocks(comparison: Comparison, caches: Sequence[Path]) -> dict[str, Any]:
    shown = blocks(comparison, " + ".join(map(str, caches)))
    scores, costs, settings, pairs = shown
    return {"scores": scores, "costs": costs, "settings": settings, "pairs": pairs if comparison.pairs else None}


def _passports(cache: Path, split: str) -> list[tuple[str, Any, Any]]:
    known: Mapping[str, Any] = summary(cache).get(split, {})
    if not known:
        return []
    passport = known["passport"]
    informs = flat({**passport["videos"], **passport["informs"]})
    return [(known["path"], table_rows(flat(passport["tokens"]).items()), table_rows(informs.items()))]


def _command(request: ReportRequest, comparison: Comparison) -> str:
    """The words that make this page again, from the folder it was made in."""
    words = ["vidxfer", "report", *map(str, request.runs)]
    trained = (Run.open(row.run).recipe.head for row in comparison.runs if row.cost is not None)
    words += [
        word
        for name in dict.fromkeys(place for head in trained for place in place_of(type(head)).values())
        for word in ("--head", name)
    ]
    words += [word for cache in (request.cache, *request.more_caches) for word in ("--cache", str(cache))]
    options = {
        "--labels-as": request.labels_as, "--root": request.root, "--plots": request.plots, "--out": request.out,
        "--split": None if request.split == "val" else request.split,
        "--frames-from": None if request.frames_from == "auto" else request.frames_from,
    }  # fmt: skip
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(words)


def _numbers(comparison: Comparison, answers: Answers) -> dict[str, Any]:
    """The scores of the page, for programs."""
    runs = []
    for place, row in enumerate(comparison.runs):
        sure = calibration(*_sure(answers, place))
        runs.append({
            "name": row.name, "run": str(row.run), "top1": row.top1, "top1_interval": row.top1_interval,
            "top5": row.top5, "scored": row.scored, "listed": row.listed, "ece": None if sure is None else sure.ece,
        })  # fmt: skip
    return {"split": comparison.split, "classes": comparison.classes, "chance": comparison.chance, "runs": runs}
