"""Stage two: train a temporal head on cached tokens and dense frames; CLIP is not loaded.

    cache ─▶ loader ─▶ ClipBatch ─▶ head ─▶ loss ─▶ AdamW          every step: learning rate from the schedule
                                      │
             metrics.jsonl ◀── log ───┴─── every few epochs: score the validation split ──▶ checkpoint

A run goes on where its last checkpoint stands: the order of clips is a function of (seed, epoch, step), nothing else is
random, so the curve of an interrupted run is the curve of an unbroken one. SIGTERM and Ctrl-C end it with a checkpoint.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from vidxfer.pipeline.cache.layout import PENDING
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.pipeline.training.build import build_head, expect_same_kind, head_inputs
from vidxfer.pipeline.training.journal import Journal
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.training.metrics import RunningMean, Score
from vidxfer.pipeline.training.optimise import build_optimiser, learning_rate_at, soft_cross_entropy
from vidxfer.pipeline.training.order import epoch_order, rank_batches, steps_per_epoch
from vidxfer.pipeline.training.recipes import Recipe
from vidxfer.pipeline.training.run import Progress as Place
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.evaluate import Where, dense_videos, score_of, score_split
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.settings import library_versions


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train, on which cache, and where to keep it.

    Attributes:
        recipe: resolved. cache: folder. run: folder. root: of the videos, if they have moved since extraction.
        device: "auto", "cpu", "cuda". devices: how many; 0: all there are (one on a CPU).
        precision: "auto" (bf16 autocast where the device has it), "fp32" or "bf16".
        decode_threads, read_threads: of the loader. log_every_steps: steps per line of metrics.jsonl.
        allow_incomplete: train although the extraction has not finished.
    """

    recipe: Recipe
    cache: Path
    run: Path
    root: Path | None = None
    device: str = "auto"
    devices: int = 0
    precision: str = "auto"
    decode_threads: int = 2
    read_threads: int = 2
    log_every_steps: int = 1
    allow_incomplete: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a run stands.

    Attributes:
        run: its folder. finished: all epochs are done. global_step: steps done. loss: mean of the last logged steps.
        score: of the validation split after the last epoch, if there is one.
        epoch_seconds: median over the epochs this process did whole, evaluation not counted; None if none was whole.
        data_wait_share: share of the training time spent waiting for data.
    """

    run: Path
    finished: bool
    global_step: int
    loss: float
    score: Score | None
    epoch_seconds: float | None
    data_wait_share: float


def train(request: TrainRequest, progress: Progress | None = None, *, tower: ClipTower | None = None) -> TrainReport:
    """Train to the end of the recipe, or to a signal.

    Args:
        tower: online path: CLIP computes the tokens from the same views in every step instead of the cache.

    Raises:
        CacheError, UsageError, RunError: the cache, the request or the run folder cannot be used so.
        VideoError: a video that was stored cannot be read any more.
    """
    shown = progress or Silent()
    split = open_split(request.cache, "train")
    rows = trainable_rows(split, request, shown)
    fabric = make_fabric(request)
    if request.recipe.batch_clips % fabric.world_size:
        raise UsageError(f"batch_clips={request.recipe.batch_clips} does not divide over {fabric.world_size} devices")
    run = Run.start(request.run, request.recipe, made_from(split, fabric, online=tower is not None))
    with ExitStack() as stack:
        trainer = _Trainer(request, run, split, rows, fabric, shown, tower, stack)
        return trainer.run_epochs()


def trainable_rows(split: Split, request: TrainRequest, shown: Progress) -> list[int]:
    """Stored, labelled rows.

    Raises:
        CacheIncomplete: the extraction has not finished, or nothing usable is stored.
    """
    known = Rows(split)
    pending = int((known.state == PENDING).sum())
    if pending and not request.allow_incomplete:
        raise CacheIncomplete(
            f"{split.path}: {pending} of {len(split.video_ids)} videos are not extracted yet. Finish with the same "
            "`vidxfer extract` command (it goes on where it ended), or train on what is there with --allow-incomplete."
        )
    stored = known.stored_rows().tolist()
    rows = [row for row in stored if split.labels[row] >= 0]
    if len(stored) < len(split.video_ids) - pending:
        shown.line(f"train: {len(split.video_ids) - pending - len(stored)} videos were refused at extraction; left out")
    if len(rows) < len(stored):
        shown.line(f"train: {len(stored) - len(rows)} stored videos have no label; left out")
    if not rows:
        raise CacheIncomplete(f"{split.path}: not one stored video has a label; there is nothing to train on")
    return rows


def make_fabric(request: TrainRequest) -> Fabric:
    """Device, precision and launch by Lightning Fabric; several devices train with DDP."""
    cuda = torch.cuda.is_available() and request.device in ("auto", "cuda")
    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {request.device} was asked for, but torch sees no CUDA device here")
    devices = request.devices or (torch.cuda.device_count() if cuda else 1)
    bf16 = request.precision == "bf16" or (request.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    if request.precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {request.precision!r} is none of auto, fp32, bf16")
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        # The last integration-to-temporal net of DiST has no influence on the output, as published.
        strategy=DDPStrategy(find_unused_parameters=True) if devices > 1 else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def made_from(split: Split, fabric: Fabric, *, online: bool) -> dict[str, Any]:
    """What `run.json` remembers."""
    return {
        "cache": str(split.path.parent),
        "cache_fingerprint": split.spec.fingerprint,
        "spec": split.spec.to_dict(),
        "class_names": list(split.class_names),
        "logit_scale": split.informs["logit_scale"],
        "clip": split.informs["clip"],
        "data": split.informs["data"],
        "online": online,
        "world": fabric.world_size,
        "device": str(fabric.device),
        "precision": str(fabric._precision.precision),
        "code": code_version(),
        **{"versions": library_versions()},
    }


def code_version() -> str:
    """The commit of the source tree with "+changes" if it was edited, or "installed" outside a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return "installed"
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown (git does not answer)"
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


class _Trainer:
    """The state of one process's training."""

    def __init__(
        self,
        request: TrainRequest,
        run: Run,
        split: Split,
        rows: list[int],
        fabric: Fabric,
        shown: Progress,
        tower: ClipTower | None,
        stack: ExitStack,
    ) -> None:
        self.request, self.run, self.split, self.rows = request, run, split, rows
        self.fabric, self.shown, self.stack, self.recipe = fabric, shown, stack, request.recipe
        self.text = torch.from_numpy(split.text)
        bf16 = "bf16" in str(fabric._precision.precision)
        self.where = Where(device=fabric.device, autocast=torch.bfloat16 if bf16 else None)
        inputs = head_inputs(split.spec, len(split.class_names))
        head = build_head(self.recipe, inputs, self.text, float(split.informs["logit_scale"]))
        self.needs = head.needs
        optimiser = build_optimiser(head, self.recipe)
        self.place = run.progress()
        if self.place.global_step:
            run.load_weights(head)
        self.bare = head
        self.head, self.optimiser = fabric.setup(head, optimiser)
        if self.place.global_step:
            run.load_optimiser(self.optimiser)
        online = tower is not None
        videos = dense_videos(split, request.root) if self.needs.dense_multiple or online else None
        self.loader = stack.enter_context(
            ClipLoader(
                split,
                self.needs,
                videos,
                decode_threads=request.decode_threads,
                read_threads=request.read_threads,
                online=online,
            )
        )
        self.assemble = Assembler(split, self.needs, fabric.device, smoothing=self.recipe.label_smoothing, tower=tower)
        self.journal = stack.enter_context(Journal(run.path, after_step=self.place.global_step)) if self.leads else None
        self.stop = stack.enter_context(_stop_on_signal())
        self.loss, self.wait_seconds, self.train_seconds = 0.0, 0.0, 0.0
        self.saved_at = time.monotonic()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and lines."""
        return bool(self.fabric.is_global_zero)

    def run_epochs(self) -> TrainReport:
        """Every epoch that is left."""
        score, whole = None, []
        steps = steps_per_epoch(len(self.rows), self.recipe.batch_clips)
        if self.place.finished:
            self.shown.line(f"{self.run.path} is finished: all {self.recipe.epochs} epochs are done")
            return self._report(self._validate(), [])
        if self.place.global_step:
            self.shown.line(f"going on at epoch {self.place.epoch + 1}, step {self.place.step + 1} of {steps}")
        while self.place.epoch < self.recipe.epochs and not self.stop.asked:
            first = self.place.step
            before = self.train_seconds
            self._epoch(self.place.epoch, first, steps)
            if self.stop.asked and self.place.step:
                break
            if first == 0:
                whole.append(self.train_seconds - before)
            done = self.place.epoch
            if done % self.recipe.evaluate_every_epochs == 0 or done == self.recipe.epochs:
                score = self._validate()
            self.place = replace(self.place, finished=done == self.recipe.epochs)
            self._save()
        if self.stop.asked and not self.place.finished:
            self._save()
            self.shown.line(f"stopped by {self.stop.asked} with a checkpoint; the same command goes on from here")
        return self._report(score, whole)

    def _epoch(self, epoch: int, first: int, steps: int) -> None:
        order = epoch_order(self.rows, self.split.spec.stored_views, seed=self.recipe.seed, epoch=epoch)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        plan = rank_batches(order, self.recipe.batch_clips, first_step=first, rank=rank, world=world)
        title = f"epoch {epoch + 1}/{self.recipe.epochs}"
        with self.shown.bar(title, steps, "steps", first) as bar:
            loss, waited, began = RunningMean(), RunningMean(), time.monotonic()
            batches = self.loader.batches(plan)
            for step in range(first, steps):
                asked = time.monotonic()
                raw = next(batches)
                waited.add(time.monotonic() - asked)
                loss.add(self._step(raw, epoch + step / steps))
                end = step + 1 == steps
                self.place = Place(
                    epoch=epoch + end, step=0 if end else step + 1, global_step=self.place.global_step + 1
                )
                if (step + 1) % self.request.log_every_steps == 0 or end:
                    self._log(epoch, loss, waited, time.monotonic() - began)
                    began = time.monotonic()
                bar.advance(1, f"loss {self.loss:.3f}, {self._wait_share():.0%} waiting for data")
                if self.stop.asked:
                    break
                if not end and time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds:
                    self._save()
            batches.close()

    def _step(self, raw: Any, epoch: float) -> float:
        rate = learning_rate_at(epoch, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = self.assemble(raw)
        assert batch.targets is not None
        loss: Tensor = soft_cross_entropy(self.head(batch), batch.targets)
        if not torch.isfinite(loss):
            raise UsageError(
                f"the loss is {float(loss)} at step {self.place.global_step + 1} (videos {', '.join(raw.ids[:3])} …); "
                "lower the rate (--set learning_rate=…) or use --precision fp32. The last checkpoint is kept."
            )
        self.fabric.backward(loss)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.detach())

    def _log(self, epoch: int, loss: RunningMean, waited: RunningMean, seconds: float) -> None:
        steps = loss.count
        wait = waited.take() * steps
        self.loss = loss.take()
        self.wait_seconds += wait
        self.train_seconds += seconds
        if self.journal is not None:
            self.journal.add(
                self.place.global_step,
                epoch=epoch + 1,
                loss=self.loss,
                learning_rate=self.optimiser.param_groups[0]["lr"],
                data_wait_share=round(min(1.0, wait / seconds), 4) if seconds else 0.0,
                clips_per_second=round(steps * self.recipe.batch_clips / seconds, 3) if seconds else 0.0,
            )

    def _wait_share(self) -> float:
        return min(1.0, self.wait_seconds / self.train_seconds) if self.train_seconds else 0.0

    def _validate(self) -> Score | None:
        """Score the validation split on the leading process; None where the cache has none."""
        if "val" not in splits(self.request.cache):
            return None
        score = None
        if self.leads:
            split = open_split(self.request.cache, "val")
            expect_same_kind(split.path, split.spec, self.split.spec)
            scored = score_split(
                self.bare,
                split,
                self.needs,
                self.where,
                videos=dense_videos(split, self.request.root) if self.needs.dense_multiple else None,
                batch_clips=self.recipe.batch_clips,
                threads=(self.request.decode_threads, self.request.read_threads),
                shown=self.shown,
            )
            score = score_of(split, scored)
            if self.journal is not None:
                self.journal.add(
                    self.place.global_step, epoch=self.place.epoch, val_top1=score.top1, val_top5=score.top5
                )
            self.shown.line(f"epoch {self.place.epoch}: loss {self.loss:.3f}, validation {score}")
        self.fabric.barrier()
        return score

    def _save(self) -> None:
        if self.leads:
            self.run.save(self.bare, self.optimiser, self.text, self.place)
        self.fabric.barrier()
        self.saved_at = time.monotonic()

    def _report(self, score: Score | None, whole: list[float]) -> TrainReport:
        return TrainReport(
            run=self.run.path,
            finished=self.place.finished,
            global_step=self.place.global_step,
            loss=self.loss,
            score=score,
            epoch_seconds=sorted(whole)[len(whole) // 2] if whole else None,
            data_wait_share=self._wait_share(),
        )


class _Stop:
    asked: str | None = None


@contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """SIGTERM and SIGINT ask for a stop after the current step; a second one ends at once, as usual."""
    stop = _Stop()
    before = {}

    def ask(number: int, _: object) -> None:
        stop.asked = signal.Signals(number).name
        signal.signal(number, before[number])

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        try:
            signal.signal(number, ask)
        except ValueError:  # not the main thread: whoever runs us there handles signals
            break
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is ask:
                signal.signal(number, handler)
