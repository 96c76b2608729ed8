"""A run's weights in the layout of a release.

run folder ─▶ head, and CLIP where the layout has it and its tower is at hand ─▶ FILE.pyth {"model_state": {…}}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.heads import RELEASES
from vidxfer.pipeline.training.build import head_of_weights, offer_of
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.weights import expect_free, write_checkpoint
from vidxfer.stages.learning.convert import release_of
from vidxfer.stages.remembered import remembered_clip


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to write.

    Attributes:
        run: folder of the trained run.
        out: file to write.
        kind: of the released layout.
        with_clip: also write CLIP's weights, as the release does.
    """

    run: Path
    out: Path
    kind: str = "dist"
    with_clip: bool = True


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        out: the file.
        head_keys, clip_keys: in it.
        note: why CLIP is not in it; None: it is.
        settings: what the released code must be told to load it.
    """

    out: Path
    head_keys: int
    clip_keys: int
    note: str | None
    settings: dict[str, Any]


def export_weights(request: ExportRequest) -> ExportReport:
    """Write a run's head in the layout of the release.

    Raises:
        UsageError: a layout that is not known, or a run of another head. RunError: no trained run there.
        WeightsError: the file is there already.
    """
    release = release_of(request.kind)
    expect_free(request.out)
    run = Run.open(request.run)
    if run.recipe.head.kind != request.kind:
        raise UsageError(
            f"{request.run} holds a head of kind {run.recipe.head.kind!r}, and --as is {request.kind!r}. "
            f"Released layouts: {', '.join(RELEASES)}. Give the layout of the run's own head."
        )
    spec = CacheSpec.from_dict(run.made_from["spec"])
    offer = offer_of(
        spec,
        run.recipe,
        classes=len(run.made_from["class_names"]),
        text=run.text(),
        logit_scale=float(run.made_from["logit_scale"]),
        logit_bias=run.made_from.get("logit_bias"),
    )
    head = head_of_weights(run.recipe, offer)
    run.load_weights(head)
    clip: dict[str, Tensor] = {}
    note: str | None = f"{release.title}'s files hold none"
    if release.holds_clip:
        clip, note = _clip_of(run, spec) if request.with_clip else ({}, "left out, as asked")
    written = release.write(head, clip)
    write_checkpoint(request.out, written, release.under)
    return ExportReport(
        out=request.out,
        head_keys=len(head.state_dict()),
        clip_keys=len(written) - len(head.state_dict()),
        note=note,
        settings=release.told(run.recipe.head, offer),
    )


def _clip_of(run: Run, spec: CacheSpec) -> tuple[dict[str, Tensor], str | None]:
    """CLIP's weights under open_clip's names, or none and why."""
    known = run.made_from["clip"]
    try:
        tower = remembered_clip(known, spec.clip_precision, device="cpu").load()
    except ClipError as error:
        return {}, str(error).splitlines()[0]
    if tower.info.weights_sha256 != spec.clip_weights_sha256:
        return {}, f"{known['model']} has other weights now than when the cache was made"
    return tower.state(), None
