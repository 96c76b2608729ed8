"""Score a trained head on a split: every stored view, summed per video, with the coverage named.

cache + run ─▶ head ─▶ softmax per view ─▶ sum per video ─▶ top-1/5 (n scored / n listed) + predictions.jsonl
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.cache.read.agree import facts_of, facts_of_run, other_text
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.load import choose_device
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.pipeline.heads.base import Head, Needs
from vidxfer.pipeline.heads.zero_shot import FusedWithClip, ZeroShotClip
from vidxfer.pipeline.precision import Where, head_precision
from vidxfer.pipeline.training.build import (
    build_head,
    expect_readable,
    facts_of_head,
)
from vidxfer.pipeline.training.metrics import Score, ranked, score
from vidxfer.pipeline.training.owned import expect_run_or_nothing, owned
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.scoring import Scored, score_rows
from vidxfer.pipeline.writing import write_text
from vidxfer.stages.learning.sources import Source
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.paths import WithPaths
from vidxfer.stages.progress import Progress, Silent


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(WithPaths):
    """What to score.

    Attributes:
        run: folder of the trained run; None: CLIP alone, without any training.
        cache: folder.
        split: to score.
        root: of the videos, if they have moved.
        fuse_clip: share of CLIP's own logits, 0 to 1.
        more_caches, labels_as: as in training: several caches under one set of classes.
        device, precision, decode_threads, read_threads, frames_from: as in training.
        batch_clips: clips per forward.
    """

    run: Path | None
    cache: Path
    split: str = "val"
    root: Path | None = None
    fuse_clip: float = 0.0
    device: str = "auto"
    precision: str = "auto"
    decode_threads: int = 2
    read_threads: int = 2
    batch_clips: int = 32
    frames_from: str = "auto"
    more_caches: tuple[Path, ...] = ()
    labels_as: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateReport:
    """The score, the file of per-video predictions, stored views per video; of several caches the score of each."""

    score: Score
    predictions: Path
    views: int
    per_cache: dict[str, Score] = field(default_factory=dict)


def evaluate(request: EvaluateRequest, progress: Progress | None = None) -> EvaluateReport:
    """Score one split and write `predictions.<split>.jsonl` into the run folder.

    Raises:
        RunError: no trained run there. CacheMismatch: the cache is not of the kind the run was trained on.
        CacheIncomplete: not one video of the split is stored. CacheBusy: the run is being trained, or scored.
    """
    shown = progress or Silent()
    folder = request.run or Path("runs") / "zero-shot"
    if request.run is not None:  # no lock is left in what is no run
        expect_run_or_nothing(request.run)
        Run.open(request.run)
    with owned(folder):
        return _evaluate(request, folder, shown)


def _evaluate(request: EvaluateRequest, folder: Path, shown: Progress) -> EvaluateReport:
    source = source_of(
        (request.cache, *request.more_caches),
        request.split,
        labels_as=request.labels_as,
        root=request.root,
        frames_from=request.frames_from,
        shown=shown,
    )
    split = source.split
    where = compute_on(request.device, request.precision)
    if (line := where.line(request.precision)) is not None:
        shown.line(line)
    head = head_to_score(request, source, shown).to(where.device)
    if (origin := source.origin(head.needs)) is not None:
        shown.line(str(origin))
    scored, result = score_split(
        head,
        source,
        head.needs,
        where,
        batch_clips=request.batch_clips,
        threads=(request.decode_threads, request.read_threads),
        shown=shown,
    )
    file = folder / f"predictions.{request.split}.jsonl"
    write_text(file, predictions(split, scored))
    return EvaluateReport(
        score=result, predictions=file, views=split.spec.stored_views, per_cache=per_cache(source, scored, result)
    )


def per_cache(source: Source, scored: Scored, result: Score) -> dict[str, Score]:
    """The score of the videos of each cache, where the source is made of several."""
    scores = {}
    for name in source.cache_names:
        places = [place for place, id_ in enumerate(scored.ids) if id_.startswith(f"{name}/")]
        missing = {id_: why for id_, why in result.missing.items() if id_.startswith(f"{name}/")}
        scores[name] = score(scored.probabilities[places], scored.labels[places], missing)
    return scores


def head_to_score(request: EvaluateRequest, source: Source, shown: Progress) -> Head:
    """The trained head over the source's own class names, CLIP alone, or both fused.

    The class names need not be those of the training: a text-cosine head scores any label set. What differs from the
    training and may is told.
    """
    split = source.split
    if request.run is None:
        return zero_shot(split)
    run = Run.open(request.run)
    for line in expect_fits_run(run, split):
        shown.line(f"evaluate: {line}")
    # The layers are those of the training: a head takes by default all that a cache has, and this one may have more.
    layers = CacheSpec.from_dict(run.made_from["spec"]).layers
    offer = source.offer(run.recipe, layers)
    offer = replace(offer, logit_scale=float(run.made_from["logit_scale"]), logit_bias=run.made_from.get("logit_bias"))
    head = build_head(run.recipe, offer)
    run.load_weights(head)
    return FusedWithClip(head, zero_shot(split), request.fuse_clip) if request.fuse_clip else head


def zero_shot(split: Split) -> ZeroShotClip:
    """CLIP's own answer over a split's class names.

    Raises:
        UsageError: the tower has no text.
    """
    if split.text is None:
        raise UsageError(
            f"{split.path}: {split.spec.clip_model} has no text, so it has no answer of its own (--zero-shot, "
            "--fuse-clip). Train a classifier on its embeddings, which takes seconds: vidxfer train --recipe probe "
            f"--cache {split.path.parent}; or extract with a tower that has text (--model ViT-B-16-quickgelu)"
        )
    return ZeroShotClip(
        torch.from_numpy(split.text), float(split.informs["logit_scale"]), split.informs.get("logit_bias")
    )


def compute_on(device: str, precision: str) -> Where:
    """Resolve device and precision of a head, as `choose_device` and `head_precision` do."""
    chosen = choose_device(device)
    return Where(device=chosen, precision=head_precision(precision, chosen))


def expect_fits_run(run: Run, split: Split) -> list[str]:
    """Check that a split holds what the run was trained on; returns what differs and may, in words.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    trained = CacheSpec.from_dict(run.made_from["spec"])
    asked = {**facts_of_run(run.made_from), **facts_of_head(run.recipe, trained)}
    told = expect_readable("cache with run", split.path, facts_of(split), split.spec, run.recipe, asked)
    text = run.text() if asked["templates"] is None and run.recipe.head.any_classes else None
    if text is not None and split.text is not None:  # a run of 0.1.0: it keeps the embeddings alone
        differs = other_text(run.made_from["class_names"], text.numpy(), split.class_names, split.text)
        told += [differs] if differs else []
    return told


def score_split(
    head: Head,
    source: Source,
    needs: Needs,
    where: Where,
    *,
    batch_clips: int,
    threads: tuple[int, int],
    shown: Progress,
    fill: bool = False,
) -> tuple[Scored, Score]:
    """Scores of every readable, labelled video of a split; `threads` are those for decoding and for reading.

    `fill` gives all batches one size, for a head that is compiled.

    Raises:
        CacheIncomplete: there is none.
    """
    split = source.split
    rows = [row for row in source.stored_rows() if split.labels[row] >= 0]
    if not rows:
        raise CacheIncomplete(f"{split.path}: not one stored video has a label; there is nothing to score")
    with (
        source.loader(needs, decode_threads=threads[0], read_threads=threads[1], device=where.device) as loader,
        shown.bar(f"score {split.spec.split}", len(rows) * split.spec.stored_views, "clips") as bar,
    ):
        assemble = source.assembler(needs, where.device, precision=where.precision)
        scored = score_rows(
            head, loader, assemble, rows, batch_clips=batch_clips, advance=bar.advance, where=where,
            probabilities=head.probabilities, fill=fill,
        )  # fmt: skip
        return scored, score_of(source, scored, loader.refused)


def score_of(source: Source, scored: Scored, refused: dict[str, str]) -> Score:
    """Accuracy with the reason of every listed video that has no score."""
    split = source.split
    reasons = refused | source.reasons()
    known, done = set(source.stored_rows()), set(scored.rows)
    missing = {
        split.video_ids[row]: reasons.get(split.video_ids[row], "no label" if row in known else "not extracted")
        for row in split.video_rows.tolist()
        if row not in done
    }
    return score(scored.probabilities, scored.labels, missing, split.factors)


def predictions(split: Split, scored: Scored) -> str:
    """One JSON line per scored video: id, label, the five best classes with their share of probability."""
    lines = []
    for name, label, row in zip(scored.ids, scored.labels.tolist(), scored.probabilities, strict=True):
        classes, shares = ranked(row)
        entry: dict[str, Any] = {
            "id": name,
            "label": label,
            "label_name": split.class_names[label],
            "right": classes[0] == label,
            "top5": [[split.class_names[c], round(p, 6)] for c, p in zip(classes, shares, strict=True)],
            "top5_labels": classes,
        }
        lines.append(json.dumps(entry, ensure_ascii=False))
    return "\n".join(lines) + "\n"
