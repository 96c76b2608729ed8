"""The training loop of one process.

    loader ─▶ ClipBatch ─▶ head ─▶ loss ─▶ AdamW ─▶ average         every step: learning rate from the schedule
                             │
    metrics.jsonl ◀── log ───┴─── every few epochs: score the validation split ──▶ checkpoint

The host hands over step k + 1 before it reads the loss of step k (training/late.py), so the device never waits for it.

A run goes on where its last checkpoint stands. Order, mixing and what is random inside the head follow from (seed,
epoch, step, process) alone, so an interrupted run has the curve of an unbroken one. A signal ends it likewise.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads.delivered import expect_logits
from vidxfer.pipeline.precision import Where
from vidxfer.pipeline.training.average import Average
from vidxfer.pipeline.training.build import build_head, head_randomness
from vidxfer.pipeline.training.compiled import compile_head, compiled_for
from vidxfer.pipeline.training.journal import Journal
from vidxfer.pipeline.training.metrics import RunningMean, Score
from vidxfer.pipeline.training.optimise import build_optimiser, learning_rate_at, refreshed, soft_cross_entropy
from vidxfer.pipeline.training.order import epoch_order, rank_batches, steps_per_epoch
from vidxfer.pipeline.training.pieces import lines_of_step, micro_batches
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.pipeline.training.scoring import Scored
from vidxfer.pipeline.training.watch import Watch
from vidxfer.stages.learning.evaluate import score_split
from vidxfer.stages.learning.sources import Source, origins
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import TrainReport, TrainRequest
from vidxfer.stages.signals import stop_on_signal


class Trainer:
    """The state of one process's training."""

    def __init__(
        self,
        request: TrainRequest,
        run: Run,
        sources: dict[str, Source],
        rows: tuple[list[int], int],
        fabric: Fabric,
        where: Where,
        shown: Progress,
        stack: ExitStack,
    ) -> None:
        self.request, self.run, self.sources = request, run, sources
        self.rows, self.views = rows
        source = sources["train"]
        self.fabric, self.shown, self.stack, self.recipe = fabric, shown, stack, request.recipe
        self.text = None if source.split.text is None else torch.from_numpy(source.split.text)
        self.where = where
        head = build_head(self.recipe, source.offer(self.recipe))
        self.needs = head.needs
        optimiser = build_optimiser(head, self.recipe, where.device)
        self.place = run.progress()
        if self.place.global_step or self.place.finished:
            run.load_weights(head)
        elif request.init_from is not None:
            Run.open(request.init_from).load_weights(head)
        self.bare = head
        self.head, self.optimiser = fabric.setup(head, optimiser)
        self.average = Average(head, self.recipe.ema) if self.recipe.ema else None
        if self.place.global_step and not self.place.finished:
            run.load_optimiser(self.optimiser)
            if self.average is not None:
                run.load_unaveraged(self.average)
        if self.recipe.compile:
            compile_head(head)
        self.loader = stack.enter_context(
            source.loader(
                self.needs,
                decode_threads=request.decode_threads,
                read_threads=request.read_threads,
                device=fabric.device,
            )
        )
        for line in [*lines_of_step(head, self.recipe, fabric.world_size), *origins(sources, self.needs)]:
            shown.line(line)
        self.assemble = source.assembler(
            self.needs,
            fabric.device,
            smoothing=self.recipe.label_smoothing,
            mixing=self.recipe.mixing,
            seed=self.recipe.seed,
            precision=where.precision,
        )
        self.journal = stack.enter_context(Journal(run.path, after_step=self.place.global_step)) if self.leads else None
        self.stop = stack.enter_context(stop_on_signal())
        self.stopping = False
        self.watch = Watch(fabric.world_size, self.journal, self.stop.is_asked, self.recipe.batch_clips)
        self.scored: Scored | None = None  # of the last validation
        self.saved_at = time.monotonic()
        self.named: set[str] = set()  # refused videos that were told of

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
            self.watch.loss = float((self.run.result() or {}).get("loss", 0.0))
            return self._report(self._validate(note=False), [])
        if self.place.global_step:
            self.shown.line(f"going on at epoch {self.place.epoch + 1}, step {self.place.step + 1} of {steps}")
        while self.place.epoch < self.recipe.epochs and not self.stopping:
            first, before = self.place.step, self.watch.train_seconds
            self._epoch(self.place.epoch, first, steps)
            if self.stopping and self.place.step:
                break
            if first == 0:
                whole.append(self.watch.train_seconds - before)
            done = self.place.epoch
            if done % self.recipe.evaluate_every_epochs == 0 or done == self.recipe.epochs:
                score = self._validate()
            self.place = replace(self.place, finished=done == self.recipe.epochs)
            self._save()
            self.stopping = self.stopping or self.watch.any_asked(self.fabric.device)
        if self.stopping and not self.place.finished:
            self._save()
            who = self.stop.asked or "a signal to another process"
            self.shown.line(f"stopped by {who} with a checkpoint; the same command goes on from here")
        return self._report(score, whole)

    def _epoch(self, epoch: int, first: int, steps: int) -> None:
        order = epoch_order(self.rows, self.views, seed=self.recipe.seed, epoch=epoch)
        order = self.sources["train"].clips_of_epoch(order, epoch)
        self.loader.epoch = (self.recipe.seed, epoch)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        plan = rank_batches(order, self.recipe.batch_clips, first_step=first, rank=rank, world=world)
        with self.shown.bar(f"epoch {epoch + 1}/{self.recipe.epochs}", steps, "steps", first) as bar:
            waited, began = RunningMean(), time.monotonic()
            batches = self.loader.batches(plan)
            for step in range(first, steps):
                waiting_since = time.monotonic()
                raw = next(batches)
                waited.add(time.monotonic() - waiting_since)
                rate_of = refreshed(step, self.recipe.optimiser.refresh_steps)
                loss = self._step(raw, epoch + rate_of / steps)
                end = step + 1 == steps
                done = self.place.global_step + 1
                self.place = RunPlace(epoch=epoch + end, step=0 if end else step + 1, global_step=done)
                line = None
                if (step + 1) % self.request.log_every_steps == 0 or end:
                    rate = self.optimiser.param_groups[0]["lr"]
                    line = self.watch.line(epoch + 1, rate, waited, time.monotonic() - began, self.where.device)
                    began = time.monotonic()
                self.watch.put(loss, step=done, ids=raw.ids, line=line)
                bar.advance(1, f"loss {self.watch.loss:.3f}, {self.watch.wait_share:.0%} waiting for data")
                if self._agree_to_stop():
                    break
                if not end and time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds:
                    self._save()
            batches.close()
            self.watch.read_all()
        for name in sorted(self.loader.refused.keys() - self.named):
            self.shown.line(f"refused: {name}: {self.loader.refused[name]}; left out of its batch")
            self.named.add(name)

    def _step(self, raw: Any, epoch: float) -> Tensor:
        rate = learning_rate_at(epoch, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if not raw.rows:
            raise RunError(
                "not one video of a whole batch could be read: "
                + "; ".join(f"{name}: {why}" for name, why in list(self.loader.refused.items())[:3])
            )
        try:
            return self._stepped(raw)
        except torch.OutOfMemoryError as error:
            clips = self.recipe.batch_clips
            raise RunError(
                f"{self.where.device} has not the memory for a step of batch_clips={clips} over "
                f"{self.fabric.world_size} devices ({error}). Lower it, as in --set batch_clips={max(1, clips // 2)}, "
                "cut it into micro-batches (--micro-batch), into another folder (--run), or use more devices "
                "(--devices)."
            ) from error

    def _stepped(self, raw: Any) -> Tensor:
        batch = self.assemble(raw, step=self.place.global_step)
        assert batch.targets is not None
        pieces = list(micro_batches(batch, self.recipe.micro_batch))
        drawn = head_randomness(self.recipe.seed, self.place.global_step, self.fabric.global_rank, self.where.device)
        losses = []
        with drawn, self._compiled(len(raw.rows)):
            for number, piece in enumerate(pieces, start=1):
                with self.fabric.no_backward_sync(self.head, enabled=number < len(pieces)):
                    losses.append(self._backward(piece, len(piece.ids) / len(batch.ids)))
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _backward(self, batch: Any, share: float) -> Tensor:
        """Add the gradients of one micro-batch, which is `share` of the batch; returns its part of the loss."""
        with self.where.autocast():
            logits = self.head(batch)
        expect_logits(logits, *batch.targets.shape)
        loss = soft_cross_entropy(logits, batch.targets)
        loss = loss if share == 1.0 else loss * share
        self.fabric.backward(loss)
        return loss.detach()

    def _compiled(self, clips: int) -> AbstractContextManager[object]:
        of_device = self.recipe.batch_clips // self.fabric.world_size
        return compiled_for(clips, min(of_device, len(self.rows))) if self.recipe.compile else nullcontext()

    def _agree_to_stop(self) -> bool:
        """Whether to leave the loop after this step, which all processes do after the same one."""
        self.stopping = self.watch.stops_behind(self.place.global_step)
        return self.stopping

    def _validate(self, *, note: bool = True) -> Score | None:
        """Score the validation split on the leading process, and note it; None where the cache has none."""
        if "val" not in self.sources:
            return None
        score = None
        if self.leads:
            source = self.sources["val"]
            with self._averaged():
                self.scored, score = score_split(
                    self.bare,
                    source,
                    self.needs,
                    self.where,
                    batch_clips=self.recipe.batch_clips,
                    threads=(self.request.decode_threads, self.request.read_threads),
                    shown=self.shown,
                    fill=self.recipe.compile,
                )
            if self.journal is not None and note:
                self.journal.add(
                    self.place.global_step, epoch=self.place.epoch, val_top1=score.top1, val_top5=score.top5
                )
            self.shown.line(f"epoch {self.place.epoch}: loss {self.watch.loss:.3f}, validation {score}")
        self.fabric.barrier()
        return score

    def _save(self) -> None:
        # No barrier: clocks decide when a checkpoint is due, and those of two processes differ.
        if self.leads:
            self.watch.read(leave=0)
            with self._averaged():
                own = None if self.average is None else self.average.weights()
                self.run.save(self.bare, self.optimiser, self.text, self.place, own)
        self.saved_at = time.monotonic()

    def _averaged(self) -> AbstractContextManager[object]:
        """The head has the averaged weights inside, if the run keeps an average."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _report(self, score: Score | None, whole: list[float]) -> TrainReport:
        return TrainReport(
            run=self.run.path,
            finished=self.place.finished,
            global_step=self.place.global_step,
            loss=self.watch.loss,
            score=score,
            epoch_seconds=sorted(whole)[len(whole) // 2] if whole else None,
            data_wait_share=self.watch.wait_share,
        )
