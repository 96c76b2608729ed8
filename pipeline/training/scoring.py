"""Scores of videos over all their stored views: probabilities per view, summed per video (docs/spec/dist.md §3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads.delivered import expect_logits
from vidxfer.pipeline.precision import Where
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.pieces import filled


@dataclass(frozen=True, kw_only=True)
class Scored:
    """View probabilities, summed per video.

    Attributes:
        rows: rows of the split, in order.
        ids: ids of their videos.
        labels: int64 [video].
        probabilities: [video class].
    """

    rows: tuple[int, ...]
    ids: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor


def softmax(logits: Tensor) -> Tensor:
    """Of the classes, float32."""
    return logits.float().softmax(dim=-1)


@torch.inference_mode()
def score_rows(
    head: nn.Module,
    loader: AheadLoader,
    assemble: Assembler,
    rows: Sequence[int],
    *,
    batch_clips: int,
    advance: Callable[[int], None] = lambda clips: None,
    where: Where | None = None,
    probabilities: Callable[[Tensor], Tensor] = softmax,
    fill: bool = False,
) -> Scored:
    """Run a head over every stored view of `rows`.

    Args:
        head: in any mode; its mode is restored.
        loader: loads the split.
        assemble: makes batches on the device.
        rows: rows of the split.
        batch_clips: clips per forward pass.
        advance: called with the number of clips done.
        where: device and precision of the forward pass; None: float32.
        probabilities: turns logits [clip class] into probabilities; see `Head.probabilities`.
        fill: every batch has `batch_clips` clips: copies of its last clip stand behind it, and are not scored.

    Raises:
        RunError: a probability is no number (NaN), which would be counted as some class.
    """
    split = loader.split
    views = split.spec.stored_views
    clips = [(row, view) for row in rows for view in range(views)]
    plan = [clips[start : start + batch_clips] for start in range(0, len(clips), batch_clips)]
    summed = torch.zeros(len(rows), len(split.class_names))
    place = {row: position for position, row in enumerate(rows)}
    was_training = head.training
    head.eval()
    for raw in loader.batches(plan):
        if raw.rows:
            batch = assemble(raw)
            batch = filled(batch, batch_clips) if fill else batch
            with nullcontext() if where is None else where.autocast():
                logits = head(batch)
            expect_logits(logits, batch_clips if fill else len(raw.rows), summed.shape[1])
            logits = logits[: len(raw.rows)]
            positions = torch.tensor([place[row] for row in raw.rows])
            summed.index_add_(0, positions, probabilities(logits).cpu())
        advance(len(raw.rows))
    head.train(was_training)
    seen = [position for position, row in enumerate(rows) if split.video_ids[row] not in loader.refused]
    scored = [rows[position] for position in seen]
    if bad := [row for row, numbers in zip(rows, summed.isfinite().all(dim=1).tolist(), strict=True) if not numbers]:
        raise RunError(
            f"the head gave NaN for {len(bad)} of {len(rows)} videos of {split.path}, such as "
            f"{split.video_ids[bad[0]]!r}: no score can be made of that. Try --precision fp32; if it is the same, the "
            "weights are broken: train again with a lower learning rate."
        )
    return Scored(
        rows=tuple(scored),
        ids=tuple(split.video_ids[row] for row in scored),
        labels=torch.tensor([int(split.labels[row]) for row in scored], dtype=torch.int64),
        probabilities=summed[seen],
    )
