"""A run folder for training: begun, or taken up where it stands, by one process, on the videos it began with.

folder ─ a run, or nothing? ─▶ owned ─▶ recipe and cache as before? ─▶ rows: kept ones, all there? ─▶ a step to go on at
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning_fabric import Fabric

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of_run, other_text
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import RunError, VidxferError
from vidxfer.pipeline.training.build import facts_of_head
from vidxfer.pipeline.training.kept_rows import KeptRows, find_rows
from vidxfer.pipeline.training.order import steps_per_epoch
from vidxfer.pipeline.training.owned import expect_run_or_nothing, owned
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.stages.learning.sources import Source
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import TrainRequest


def ids_of(source: Source, rows: Sequence[int]) -> tuple[str, ...]:
    """What a run remembers some rows by."""
    ids = source.row_ids()
    return tuple(ids[row] for row in rows)


def owned_run(
    request: TrainRequest, remembered: dict[str, Any], rows: KeptRows, fabric: Fabric, stack: ExitStack
) -> Run | None:
    """The run folder, begun or taken up by the leading process, which owns it as long as `stack` is open.

    Returns:
        The run; None in the other processes, where the leading one was refused and says why.

    Raises:
        CacheBusy: another process is writing this run. UsageError: the folder holds something else than a run.
        RunError: it holds a run of another recipe or cache.
    """
    refused: VidxferError | None = None
    run = None
    if fabric.is_global_zero:
        try:
            expect_run_or_nothing(request.run)
            stack.enter_context(owned(request.run))
            run = Run.start(request.run, request.recipe, remembered, rows)
        except VidxferError as error:
            refused = error
    nobody = fabric.broadcast(refused is not None)  # the others wait here for the folder
    if refused is not None:
        raise refused
    if run is None and not nobody:
        run = Run.start(request.run, request.recipe, remembered)
    return run


def rows_of_run(run: Run, source: Source, rows: list[int], fabric: Fabric, shown: Progress) -> tuple[list[int], int]:
    """The rows that a run is trained on, in its order, and the number of stored views it draws from.

    Raises:
        RunError: some of them are not there any more.
    """
    views = source.split.spec.stored_views
    place = run.progress()
    if place.finished:
        return rows, views
    kept = run.rows()
    if kept is not None:
        same = find_rows(run.path, kept, source.split.path, source.row_ids(), rows, views)
        if newer := len(rows) - len(same):
            shown.line(f"train: {newer:,} videos this run did not begin with are left out; a new run would take them")
        rows, views = same, kept.views
    expect_place(run, place, len(rows))
    if kept is None:
        if place.global_step:
            shown.line(
                f"{run.path} keeps no list of its videos, for an older vidxfer began it: whether they are the "
                f"{len(rows):,} that are stored now cannot be checked. From now on the list is kept"
            )
        fabric.barrier()  # all have seen that there is none
        if fabric.is_global_zero:
            run.remember(KeptRows(ids=ids_of(source, rows), views=views))
    return rows, views


def expect_place(run: Run, place: RunPlace, videos: int) -> None:
    """Check that the step at which a run goes on exists in its epoch.

    Raises:
        RunError: it does not: the run was trained on more videos, or its progress.json was changed.
    """
    steps = steps_per_epoch(videos, run.recipe.batch_clips)
    if not (0 <= place.step < steps and 0 <= place.epoch < run.recipe.epochs):
        raise RunError(
            f"{run.path} goes on at epoch {place.epoch + 1}, step {place.step + 1}, but {videos:,} videos make "
            f"{steps:,} steps in each of {run.recipe.epochs} epochs: it was trained on other videos, or its "
            "progress.json was changed. Begin a new run with what this one has learned: --run OTHER --init-from "
            f"{run.path}"
        )


def beginning(request: TrainRequest, remembered: dict[str, Any], shown: Progress) -> dict[str, Any]:
    """What a run that begins with another's weights remembers of it; nothing where it begins with none.

    Raises:
        RunError: no run there. CacheMismatch: its head, its CLIP or what it reads is another; each field is named.
    """
    if request.init_from is None:
        return {}
    path, recipe = request.init_from, request.recipe
    other = Run.open(path)
    theirs, ours = (
        {**facts_of_run(made), **facts_of_head(head_recipe, CacheSpec.from_dict(made["spec"]))}
        for head_recipe, made in ((other.recipe, other.made_from), (recipe, remembered))
    )
    may = ("class_names",) * recipe.head.any_classes + ("sampling.dense_frames",) * (not recipe.head.fixed_frames)
    for line in expect_agree("beginning with run", path, theirs, ours, may=may):
        shown.line(f"train: --init-from: {line}")
    step = other.progress().global_step
    return {"init_from": {"run": str(path.absolute()), "recipe": other.recipe.name, "global_step": step}}


def expect_text(run: Run, split: Split) -> None:
    """Check that a run is gone on with over the prompts it began with, where it keeps their embeddings alone (0.1.0).

    Raises:
        RunError: other prompts.
    """
    if "templates" in run.made_from or not run.progress().global_step:
        return
    if (text := run.text()) is None or split.text is None:
        return
    differs = other_text(run.made_from["class_names"], text.numpy(), split.class_names, split.text)
    if differs is not None:
        raise RunError(f"{run.path} holds a run with other settings:\n  {differs}\nChoose another folder with --run.")
