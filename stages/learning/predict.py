"""What does this video show? The online path: any file, CLIP in the loop, the trained head, the five best classes.

file ─▶ test views ─▶ frames the head sees ─▶ CLIP taps on the sparse ones ─▶ head ─▶ softmax, summed ─▶ top 5
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of_run, facts_of_tower
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.draw import draw_guarded
from vidxfer.pipeline.errors import UsageError, VideoError
from vidxfer.pipeline.heads.base import Head, Needs
from vidxfer.pipeline.heads.delivered import expect_logits
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import ClipBatch, Video
from vidxfer.pipeline.training.build import build_head, offer_of, offer_with
from vidxfer.pipeline.training.loader import online_features
from vidxfer.pipeline.training.metrics import ranked
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.shown import shown as frames_shown
from vidxfer.pipeline.training.shown import with_clip
from vidxfer.pipeline.video.replay import replay
from vidxfer.stages.learning.evaluate import compute_on
from vidxfer.stages.progress import Progress, Silent, say
from vidxfer.stages.remembered import remembered_clip


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What to look at and with which run.

    Attributes:
        run: folder of the trained run.
        videos: files.
        views: temporal test views per video, summed.
        model, pretrained: CLIP, if it is not where extraction found it.
        device, precision: as elsewhere.
    """

    run: Path
    videos: tuple[Path, ...] = ()
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


class TrainedRun:
    """A trained run that scores batches and video files; CLIP is loaded when it is first needed, and kept.

    Attributes:
        run: the run folder.
        trained: settings of the cache that it was trained on.
        where: device and precision of the head.
        class_names: of its scores, in order.
    """

    def __init__(self, request: PredictRequest, shown: Progress) -> None:
        self._request, self._shown = request, shown
        self.run = Run.open(request.run)
        self.trained = CacheSpec.from_dict(self.run.made_from["spec"])
        self.where = compute_on(request.device, request.precision)
        say(shown, self.where.line(request.precision))
        self.class_names = tuple(self.run.made_from["class_names"])

    @cached_property
    def tower(self) -> Tower:
        """CLIP, as `tower_of` finds it; errors as there."""
        return tower_of(self.run, self.trained, self._request, self._shown)

    @cached_property
    def head(self) -> Head:
        """The trained head on its device, in evaluation mode. CLIP is loaded where the head reads its parameters.

        Raises:
            RunError: no trained weights, or weights that do not fit.
        """
        recipe, made_from = self.run.recipe, self.run.made_from
        offer = offer_of(
            self.trained,
            recipe,
            classes=len(self.class_names),
            text=self.run.text(),
            logit_scale=float(made_from["logit_scale"]),
            logit_bias=made_from.get("logit_bias"),
        )
        needs = recipe.head.needs(offer)
        if needs.frozen or needs.through_clip:
            offer = offer_with(offer, self.tower)
        head = build_head(recipe, offer)
        self.run.load_weights(head)
        return head.to(self.where.device).eval()

    @property
    def recipe(self) -> Recipe:
        """What it was trained with."""
        return self.run.recipe

    @property
    def needs(self) -> Needs:
        """What the head reads per clip."""
        return self.head.needs

    @torch.inference_mode()
    def score(self, batch: ClipBatch) -> torch.Tensor:
        """Probabilities of the classes, float32 [clip class] on the CPU; the columns are those of `class_names`.

        Args:
            batch: what the head reads of every clip, as `OpenSplit.batches` makes it.
        """
        batch = batch.to(self.where.device)
        with self.where.autocast():
            logits = self.head(batch)
        expect_logits(logits, len(batch.ids), len(self.class_names))
        return self.head.probabilities(logits).cpu()

    def predict(self, *videos: Path | str, views: int = 1) -> tuple[Prediction, ...]:
        """What these files show; one that cannot be read gets its reason instead of an answer.

        Args:
            videos: files.
            views: temporal test views per video, summed.

        Raises:
            ClipError: CLIP cannot be loaded. CacheMismatch: it has other weights than the one of the training.
        """
        tower = self.tower  # wanted before the first video is decoded
        dense = (self.needs.sparse_frames or self.trained.sparse_frames) * self.trained.sampling.alpha
        sampling = replace(self.trained.sampling, dense_frames=dense)
        spec = replace(self.trained, sampling=sampling, view_kind="test", views=views, crops=1)
        answers: list[Prediction] = []
        with self._shown.bar("predict", len(videos), "videos") as bar:
            for path in map(Path, videos):
                answers.append(_one(path, spec, tower, self))
                bar.advance(1, path.name)
        return tuple(answers)


def load_run(
    path: Path | str, *, device: str = "auto", precision: str = "auto", progress: Progress | None = None
) -> TrainedRun:
    """Open a trained run. A head of your own is added first (`add_head`): a run folder imports nothing.

    Args:
        path: folder of the run.
        device, precision: of head and CLIP, as in training.
        progress: is told what differs and may.

    Raises:
        RunError: no trained run there, or its head is not known.
    """
    return TrainedRun(PredictRequest(run=Path(path), device=device, precision=precision), progress or Silent())


def predict(request: PredictRequest, progress: Progress | None = None) -> tuple[Prediction, ...]:
    """Classify video files; one that cannot be read gets its reason instead of an answer.

    Raises:
        RunError: no trained run there. ClipError: the tower cannot be loaded.
        CacheMismatch: the tower has other weights than the one the run was trained with.
    """
    shown = progress or Silent()
    if not request.videos:
        raise UsageError("no video given: vidxfer predict VIDEO... --checkpoint RUN")
    return TrainedRun(request, shown).predict(*request.videos, views=request.views)


def tower_of(run: Run, trained: CacheSpec, request: PredictRequest, shown: Progress) -> Tower:
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
def _one(path: Path, spec: CacheSpec, tower: Tower, loaded: TrainedRun) -> Prediction:
    try:
        pixels, decoder = pixel_views(path, spec, loaded.needs)
    except VideoError as error:
        return Prediction(path=path, top5=(), error=f"{error.reason.value}: {error.detail}", decoder=None)
    pixels = pixels.to(loaded.where.device)
    tokens, embedding = online_features(tower, pixels, spec.sampling.alpha, loaded.needs)
    batch = ClipBatch(
        tokens=tokens,
        embedding=embedding,
        dense=None if loaded.needs.pixels == "none" else pixels,
        targets=None,
        labels=torch.full((len(pixels),), -1, device=loaded.where.device),
        ids=(str(path),) * len(pixels),
    )
    classes, shares = ranked(loaded.score(batch).sum(dim=0))
    top5 = tuple((loaded.class_names[c], p) for c, p in zip(classes, shares, strict=True))
    return Prediction(path=path, top5=top5, error=None, decoder=decoder)


def pixel_views(path: Path, spec: CacheSpec, needs: Needs) -> tuple[torch.Tensor, str]:
    """What the head and CLIP see of every test view, float32 [view dense rgb height width], and the decoder's name.

    Decoded in a child process: a stranger's file may hang, crash or fill the memory, and that ends the child alone.

    Raises:
        VideoError: the file cannot be read frame-exactly.
    """
    video = Video(id=ascii(str(path)), path=path.absolute(), label=None, split="test")
    drawn = draw_guarded(
        video,
        spec,
        dense=needs.pixels == "dense",
        window_frames=needs.window_frames,
        window_ends=needs.window_ends,
    )
    clips = []
    for view in drawn.views:
        indices = frames_shown(view.indices, with_clip(needs), spec.sampling.alpha, drawn.frame_count)
        seen = replace(view, indices=indices)
        clips.append(replay(drawn.of(seen), seen, **spec.picture))
    return torch.stack(clips), drawn.decoder
