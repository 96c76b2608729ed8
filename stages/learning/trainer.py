"""The training loop of one process.

    loader ─▶ ClipBatch ─▶ head ─▶ loss ─▶ AdamW                    every step: learning rate from the schedule
                             │
    metrics.jsonl ◀── log ───┴─── every few epochs: score the validation split ──▶ checkpoint

A run goes on where its last checkpoint stands. Order, mixing and what is random inside the head follow from (seed,
epoch, step, process) alone, so an interrupted run has the curve of an unbroken one. SIGTERM and Ctrl-C end it likewise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.delivered import expect_logits
from vidxfer.pipeline.precision import Where
from vidxfer.pipeline.training.build import build_head, head_randomness
from vidxfer.pipeline.training.journal import Journal, peak_memory_bytes
from vidxfer.pipeline.training.metrics import RunningMean, Score
from vidxfer.pipeline.training.optimise import build_optimiser, learning_rate_at, refreshed, soft_cross_entropy
from vidxfer.pipeline.training.order import epoch_order, rank_batches, steps_per_epoch
from vidxfer.pipeline.training.run import Run, RunPlace
from vidxfer.pipeline.training.scoring import Scored
from vidxfer.stages.learning.evaluate import score_split
from vidxfer.stages.learning.sources import Source
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
        self.split = split = source.split
        self.fabric, self.shown, self.stack, self.recipe = fabric, shown, stack, request.recipe
        self.text = None if split.text is None else torch.from_numpy(split.text)
        self.where = where
        head = build_head(self.recipe, source.offer(self.recipe))
        self.needs = head.needs
        optimiser = build_optimiser(head, self.recipe)
        self.place = run.progress()
        if self.place.global_step or self.place.finished:
            run.load_weights(head)
        elif request.init_from is not None:
            Run.open(request.init_from).load_weights(head)
        self.bare = head
        self.head, self.optimiser = fabric.setup(head, optimiser)
        if self.place.global_step and not self.place.finished:
            run.load_optimiser(self.optimiser)
        self.loader = stack.enter_context(
            source.loader(
                self.needs,
                decode_threads=request.decode_threads,
                read_threads=request.read_threads,
                device=fabric.device,
            )
        )
        for line in origins(sources, self.needs):
            shown.line(line)
        self.assemble = source.assembler(
            self.needs,
            fabric.device,
            smoothing=self.recipe.label_smoothing,
            mixing=self.recipe.mixing,
            seed=self.recipe.seed,
        )
        self.journal = stack.enter_context(Journal(run.path, after_step=self.place.global_step)) if self.leads else None
        self.stop = stack.enter_context(stop_on_signal())
        self.stopping = False
        self.loss, self.wait_seconds, self.train_seconds = 0.0, 0.0, 0.0
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
            self.loss = float((self.run.result() or {}).get("loss", 0.0))
            return self._report(self._validate(note=False), [])
        if self.place.global_step:
            self.shown.line(f"going on at epoch {self.place.epoch + 1}, step {self.place.step + 1} of {steps}")
        while self.place.epoch < self.recipe.epochs and not self.stopping:
            first, before = self.place.step, self.train_seconds
            self._epoch(self.place.epoch, first, steps)
            if self.stopping and self.place.step:
                break
            if first == 0:
                whole.append(self.train_seconds - before)
            done = self.place.epoch
            if done % self.recipe.evaluate_every_epochs == 0 or done == self.recipe.epochs:
                score = self._validate()
            self.place = replace(self.place, finished=done == self.recipe.epochs)
            self._save()
            self._agree_to_stop()
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
            loss, waited, began = RunningMean(), RunningMean(), time.monotonic()
            batches = self.loader.batches(plan)
            for step in range(first, steps):
                waiting_since = time.monotonic()
                raw = next(batches)
                waited.add(time.monotonic() - waiting_since)
                rate_of = refreshed(step, self.recipe.optimiser.refresh_steps)
                loss.add(self._step(raw, epoch + rate_of / steps))
                end = step + 1 == steps
                done = self.place.global_step + 1
                self.place = RunPlace(epoch=epoch + end, step=0 if end else step + 1, global_step=done)
                if (step + 1) % self.request.log_every_steps == 0 or end:
                    self._log(epoch, loss, waited, time.monotonic() - began)
                    began = time.monotonic()
                bar.advance(1, f"loss {self.loss:.3f}, {self._wait_share():.0%} waiting for data")
                if self._agree_to_stop():
                    break
                if not end and time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds:
                    self._save()
            batches.close()
        for name in sorted(self.loader.refused.keys() - self.named):
            self.shown.line(f"refused: {name}: {self.loader.refused[name]}; left out of its batch")
            self.named.add(name)

    def _step(self, raw: Any, epoch: float) -> float:
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
                "into another folder (--run), or use more devices (--devices)."
            ) from error

    def _stepped(self, raw: Any) -> float:
        batch = self.assemble(raw, step=self.place.global_step)
        assert batch.targets is not None
        drawn = head_randomness(self.recipe.seed, self.place.global_step, self.fabric.global_rank, self.where.device)
        with drawn, self.where.autocast():
            logits = self.head(batch)
        expect_logits(logits, *batch.targets.shape)
        loss: Tensor = soft_cross_entropy(logits, batch.targets)
        if not torch.isfinite(loss):
            raise RunError(
                f"the loss is {float(loss)} at step {self.place.global_step + 1} (videos {', '.join(raw.ids[:3])} …); "
                "lower the rate (--set learning_rate=…) or use --precision fp32. The last checkpoint is kept."
            )
        self.fabric.backward(loss)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.detach())

    def _log(self, epoch: int, loss: RunningMean, waited: RunningMean, seconds: float) -> None:
        wait = waited.take() * (steps := loss.count)
        self.loss = self._mean_of_ranks(loss.take())
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
                peak_memory_bytes=peak_memory_bytes(self.where.device),
            )

    def _mean_of_ranks(self, value: float) -> float:
        """The mean over all processes; each holds an equal part of the batch."""
        if self.fabric.world_size == 1:
            return value
        on_device = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        reduced = self.fabric.all_reduce(on_device, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        return float(reduced)

    def _agree_to_stop(self) -> bool:
        """Whether any process was asked to stop: all must leave the loop after the same step."""
        self.stopping = self._mean_of_ranks(float(self.stop.asked is not None)) > 0
        return self.stopping

    def _wait_share(self) -> float:
        return min(1.0, self.wait_seconds / self.train_seconds) if self.train_seconds else 0.0

    def _validate(self, *, note: bool = True) -> Score | None:
        """Score the validation split on the leading process, and note it; None where the cache has none."""
        if "val" not in self.sources:
            return None
        score = None
        if self.leads:
            source = self.sources["val"]
            self.scored, score = score_split(
                self.bare,
                source,
                self.needs,
                self.where,
                batch_clips=self.recipe.batch_clips,
                threads=(self.request.decode_threads, self.request.read_threads),
                shown=self.shown,
            )
            if self.journal is not None and note:
                self.journal.add(
                    self.place.global_step, epoch=self.place.epoch, val_top1=score.top1, val_top5=score.top5
                )
            self.shown.line(f"epoch {self.place.epoch}: loss {self.loss:.3f}, validation {score}")
        self.fabric.barrier()
        return score

    def _save(self) -> None:
        # No barrier: clocks decide when a checkpoint is due, and those of two processes differ.
        if self.leads:
            self.run.save(self.bare, self.optimiser, self.text, self.place)
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


def origins(sources: Mapping[str, Source], needs: Needs) -> list[str]:
    """Where the head's dense frames come from: one line, and another where validation has them from elsewhere."""
    origin_of = {name: str(origin) for name, source in sources.items() if (origin := source.origin(needs)) is not None}
    lines = [f"validation: {line}" if name == "val" else line for name, line in origin_of.items()]
    return lines[:1] if len(set(origin_of.values())) == 1 else lines
