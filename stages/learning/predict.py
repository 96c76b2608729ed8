"""What does this video show? The online path: any file, CLIP in the loop, the trained head, the five best classes.

file ─▶ test views ─▶ frames the head sees ─▶ CLIP taps on the sparse ones ─▶ head ─▶ softmax, summed ─▶ top 5
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of_run, facts_of_tower
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.draw import draw_guarded
from vidxfer.pipeline.errors import UsageError, VideoError
from vidxfer.pipeline.heads.base import Head, Needs
from vidxfer.pipeline.precision import Where
from vidxfer.pipeline.shapes import ClipBatch, Video
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.loader import online_features
from vidxfer.pipeline.training.metrics import ranked
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.shown import shown as frames_shown
from vidxfer.pipeline.training.shown import with_clip
from vidxfer.pipeline.video.replay import replay
from vidxfer.stages.learning.evaluate import compute_on
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.remembered import remembered_clip


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What to look at and with which run.

    Attributes:
        videos: files.
        run: folder of the trained run.
        views: temporal test views per video, summed.
        model, pretrained: CLIP, if it is not where extraction found it.
        device, precision: as elsewhere.
    """

    videos: tuple[Path, ...]
    run: Path
    views: int = 1
    model: str | None = None
    pretrained: str | None = None
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One video's answer.

    Attributes:
        path: the file.
        top5: (class name, share of probability), best first; empty when it could not be read.
        error: why not, in words; None when it was read.
        decoder: which path decoded it.
    """

    path: Path
    top5: tuple[tuple[str, float], ...]
    error: str | None
    decoder: str | None


def predict(request: PredictRequest, progress: Progress | None = None) -> tuple[Prediction, ...]:
    """Classify video files; one that cannot be read gets its reason instead of an answer.

    Raises:
        RunError: no trained run there. ClipError: the tower cannot be loaded.
        CacheMismatch: the tower has other weights than the one the run was trained with.
    """
    shown = progress or Silent()
    if not request.videos:
        raise UsageError("no video given: vidxfer predict VIDEO... --checkpoint RUN")
    run = Run.open(request.run)
    trained = CacheSpec.from_dict(run.made_from["spec"])
    tower = tower_of(run, trained, request, shown)
    where = compute_on(request.device, request.precision)
    if (line := where.line(request.precision)) is not None:
        shown.line(line)
    names = tuple(run.made_from["class_names"])
    offer = offer_of(
        trained,
        run.recipe,
        classes=len(names),
        text=run.text(),
        logit_scale=float(run.made_from["logit_scale"]),
        logit_bias=run.made_from.get("logit_bias"),
        tower=tower,
    )
    head = build_head(run.recipe, offer)
    run.load_weights(head)
    head = head.to(where.device).eval()
    dense = (head.needs.sparse_frames or trained.sparse_frames) * trained.sampling.alpha
    sampling = replace(trained.sampling, dense_frames=dense)
    spec = replace(trained, sampling=sampling, view_kind="test", views=request.views, crops=1)
    answers = []
    with shown.bar("predict", len(request.videos), "videos") as bar:
        for path in request.videos:
            answers.append(_one(path, spec, tower, head, names, where))
            bar.advance(1, path.name)
    return tuple(answers)


def tower_of(run: Run, trained: CacheSpec, request: PredictRequest, shown: Progress) -> ClipTower:
    """The tower the run was trained with, in the arithmetic of its tokens unless another is asked for.

    Raises:
        CacheMismatch: its weights or its pictures are others; each field with both values.
    """
    tower = remembered_clip(
        run.made_from["clip"],
        trained.clip_precision,
        device=request.device,
        precision=request.precision,
        model=request.model,
        pretrained=request.pretrained,
    ).load()
    for line in expect_agree("run with tower", run.path, facts_of_run(run.made_from), facts_of_tower(tower.info)):
        shown.line(f"predict: {line}")
    return tower


@torch.inference_mode()
def _one(path: Path, spec: CacheSpec, tower: ClipTower, head: Head, names: tuple[str, ...], where: Where) -> Prediction:
    try:
        pixels, decoder = pixel_views(path, spec, head.needs)
    except VideoError as error:
        return Prediction(path=path, top5=(), error=f"{error.reason.value}: {error.detail}", decoder=None)
    pixels = pixels.to(where.device)
    tokens, embedding = online_features(tower, pixels, spec.sampling.alpha, head.needs)
    batch = ClipBatch(
        tokens=tokens,
        embedding=embedding,
        dense=None if head.needs.pixels == "none" else pixels,
        targets=None,
        labels=torch.full((len(pixels),), -1, device=where.device),
        ids=(str(path),) * len(pixels),
    )
    with where.autocast():
        logits = head(batch)
    classes, shares = ranked(logits.float().softmax(dim=-1).sum(dim=0).cpu())
    top5 = tuple((names[c], p) for c, p in zip(classes, shares, strict=True))
    return Prediction(path=path, top5=top5, error=None, decoder=decoder)


def pixel_views(path: Path, spec: CacheSpec, needs: Needs) -> tuple[torch.Tensor, str]:
    """What the head and CLIP see of every test view, float32 [view dense rgb height width], and the decoder's name.

    Decoded in a child process: a stranger's file may hang, crash or fill the memory, and that ends the child alone.

    Raises:
        VideoError: the file cannot be read frame-exactly.
    """
    video = Video(id=ascii(str(path)), path=path.absolute(), label=None, split="test")
    found = draw_guarded(
        video,
        spec,
        dense=needs.pixels == "dense",
        window_frames=needs.window_frames,
        window_ends=needs.window_ends,
    )
    clips = []
    for view in found.views:
        indices = frames_shown(view.indices, with_clip(needs), spec.sampling.alpha, found.frame_count)
        seen = replace(view, indices=indices)
        clips.append(
            replay(found.of(seen), seen, image_px=spec.sampling.image_px, mean=spec.pixel_mean, std=spec.pixel_std)
        )
    return torch.stack(clips), found.decoder
