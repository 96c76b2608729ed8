"""Batches: cached tokens and the dense frames of the same views, ready one batch ahead.

    plan [(row, view), …] per step
        ├─ cache reader ─▶ codes, scales (reused buffers)        ┐
        ├─ decode threads ─▶ dense frames (training/dense.py)    ├─▶ RawBatch ─ assemble on the device ─▶ ClipBatch
        └─ labels, swapped where the stored view was mirrored    ┘

One thread keeps up to `AHEAD` batches under way, inside the trainer's process: no worker processes, no copies. A
head's `needs` decide what is fetched; what it does not name is not read. A video that cannot be read any more stops the
run with its name: nothing is replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.batch import Codes
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.grid import expect_pool, grid_of, pooled
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Mixing
from vidxfer.pipeline.precision import AUTOCAST
from vidxfer.pipeline.shapes import ClipBatch, Video, View
from vidxfer.pipeline.training.ahead import AHEAD, AheadLoader, Plan, RawBatch
from vidxfer.pipeline.training.bank import Bank, BankDraw
from vidxfer.pipeline.training.dense import CachedFrames, Clip, VideoFrames, why_not
from vidxfer.pipeline.training.mixing import (
    Mix,
    draw_mix,
    expect_mixable,
    mix_batch,
    mix_pixels,
    mix_targets,
)
from vidxfer.pipeline.training.optimise import soft_targets
from vidxfer.pipeline.training.same import FROM_CACHE, PUT_BACK
from vidxfer.pipeline.training.shown import of_clip
from vidxfer.pipeline.training.upload import Upload
from vidxfer.pipeline.video.replay import CutFrames, finish


class ClipLoader(AheadLoader):
    """Loads what a head needs from one split of a cache; a context manager that ends its threads.

    Args:
        split: the opened split.
        needs: the head's declaration.
        videos: id -> video, where dense frames are needed; None: they come from the cache.
        may_differ: the bytes of the videos may be others than when the cache was made.
        device: where cached dense frames are decoded.
        decode_threads: clips decoded at the same time.
        read_threads: of the cache reader (see `open_reader`).

    Raises:
        UsageError: pixels are needed and neither given nor in the cache, or the number of frames does not fit.
    """

    def __init__(
        self,
        split: Split,
        needs: Needs,
        videos: dict[str, Video] | None,
        *,
        may_differ: bool = False,
        device: torch.device | None = None,
        decode_threads: int = 2,
        read_threads: int = 2,
    ) -> None:
        super().__init__(split, decode_threads=decode_threads)
        self.needs = needs
        self.reader = open_reader(split, layers=needs.layers, threads=read_threads)
        lacking = None if needs.pixels == "none" else why_not(split, needs)
        if videos is None and lacking is not None:
            raise UsageError(
                f"this head sees frames that the cache does not keep ({lacking}): give the folder of the videos "
                "with --root"
            )
        spec = split.spec
        used = needs.sparse_frames or spec.sparse_frames
        self.bank = Bank(stored=spec.sparse_frames, used=used, alpha=spec.sampling.alpha)
        self._buffers: deque[Codes] = deque()
        self._dense: CachedFrames | VideoFrames | None = None
        if needs.pixels != "none" and videos is None:
            self._dense = CachedFrames(self.reader, needs, self.bank, device or torch.device("cpu"))
        elif needs.pixels != "none" and videos is not None:
            way_on = PUT_BACK
            if lacking is None:
                way_on += " " + FROM_CACHE
            self._dense = VideoFrames(self.reader, needs, videos, may_differ=may_differ, way_on=way_on)

    def __exit__(self, *what: object) -> None:
        super().__exit__(*what)
        self.reader.close()

    def prepare(self, plan: Plan) -> None:
        """Make the buffers that tokens are read into."""
        if self.needs.layers:
            largest = max((len(clips) for clips in plan), default=0)
            if self._buffers and len(self._buffers[0].codes) >= largest:
                return  # one ring for all epochs: pinning memory takes longer than filling it
            read_frames = self.bank.stored if self.split.spec.form.joins_frames else self.bank.used
            new_buffer = partial(self.reader.buffer, largest, self.needs.layers, read_frames)
            self._buffers = deque(new_buffer() for _ in range(AHEAD + 1))

    def load(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        """See `AheadLoader.load`."""
        rows = [row for row, _ in clips]
        views = [view for _, view in clips]
        stored = [self.reader.view(row, view) for row, view in clips]
        drawn = [self._drawn(row, view) for row, view in zip(rows, stored, strict=True)]
        pixels = None
        if self._dense is not None:
            shown = [
                Clip(row=row, number=number, view=replace(view, indices=draw.indices), places=draw.places)
                for (row, number), view, draw in zip(clips, stored, drawn, strict=True)
            ]
            pixels = self._dense.begin(shown, self._decode)
        codes = kept = None
        places = [draw.places for draw in drawn]
        if self.needs.layers:
            drawing, joined = self.bank.group > 1, self.split.spec.form.joins_frames
            read_frames = places if drawing and not joined else None
            codes = self.reader.read(rows, views, self.needs.layers, frames=read_frames, out=self._buffers[0])
            kept = torch.tensor(places) if drawing and joined else None
            self._buffers.rotate(-1)
        embedding = None
        if self.needs.embedding:
            whole = self.reader.embedding(rows, views)
            embedding = torch.from_numpy(np.stack([clip[list(own)] for clip, own in zip(whole, places, strict=True)]))
        return RawBatch(
            codes=codes,
            embedding=embedding,
            dense=None if pixels is None else pixels(),
            labels=torch.tensor([self.label_of(row, view.flip) for row, view in zip(rows, stored, strict=True)]),
            rows=tuple(rows),
            ids=tuple(self.split.video_ids[row] for row in rows),
            kept=kept,
        )

    def _drawn(self, row: int, view: View) -> BankDraw:
        """What the head sees of a stored view: this epoch's draw, or the fixed one."""
        if self.epoch is None or self.bank.group == 1:
            return self.bank.fixed(view)
        return self.bank.draw(view, self.split.video_ids[row], *self.epoch)


class Assembler:
    """Turns raw batches into `ClipBatch`es on the device: dequantised tokens, patches averaged, soft targets.

    Args:
        split: the cache's split.
        needs: the head's.
        device: where the head lives.
        smoothing: label smoothing of the targets; None: no targets (evaluation).
        tower: online path: CLIP computes the tokens from the pixels instead of the cache.
        mixing, seed: how clips of a batch are mixed, and the seed of the draws.
        precision: of the head; see `Dequantiser.product`.

    Raises:
        UsageError: pixels are to be mixed before CLIP, and CLIP is not there; or patches are to be averaged over
            squares that the cache cannot give.
    """

    def __init__(
        self,
        split: Split,
        needs: Needs,
        device: torch.device,
        *,
        smoothing: float | None = None,
        tower: Any = None,
        mixing: Mixing | None = None,
        seed: int = 0,
        precision: str = "fp32",
    ) -> None:
        spec = split.spec
        self.needs = replace(needs, pool=needs.pool or spec.pool)
        if self.needs.pool != spec.pool:
            expect_pool(self.needs.pool, grid_of(spec.tower_tokens), stored=spec.pool)
        self.split, self.device, self.smoothing, self.tower = split, device, smoothing, tower
        self.mixing, self.seed = mixing or Mixing(), seed
        expect_mixable(self.mixing, online=tower is not None)
        self.upload = Upload(device)
        cached = bool(needs.layers) and tower is None
        product = AUTOCAST[precision]
        self.dequantise = Dequantiser.of(split, layers=needs.layers, product=product).to(device) if cached else None

    def __call__(self, raw: RawBatch, *, step: int | None = None) -> ClipBatch:
        """One batch on the device; labels below 0 (unlabelled) give no targets.

        Args:
            raw: as the loader delivers it.
            step: optimiser steps done, from which mixing is drawn; None: no mixing.
        """
        mix = None if step is None else self._draw(step)
        dense = self.pixels(raw)
        before_clip = mix is not None and self.mixing.kind == "pixels"
        if before_clip and mix is not None and dense is not None:
            dense = mix_pixels(dense, mix)
        tokens, embedding = self.features(raw, dense)
        labels = self.upload(raw.labels)
        targets = None
        if self.smoothing is not None:
            targets = soft_targets(labels, len(self.split.class_names), self.smoothing)
            targets = mix_targets(targets, mix) if before_clip and mix is not None else targets
        batch = ClipBatch(
            tokens=tokens,
            embedding=embedding,
            dense=None if self.needs.pixels == "none" else dense,  # online, CLIP's frames were decoded all the same
            targets=targets,
            labels=labels,
            ids=raw.ids,
        )
        return batch if mix is None or before_clip else mix_batch(batch, mix)

    def pixels(self, raw: RawBatch) -> Tensor | None:
        """The decoded frames on the device, float32 [clip dense rgb height width]; None where there are none."""
        dense = raw.dense
        if isinstance(dense, CutFrames):
            dense = replace(dense, pixels=self.upload(dense.pixels))
            return finish(dense, mean=self.split.spec.pixel_mean, std=self.split.spec.pixel_std, device=self.device)
        return None if dense is None else self.upload(dense)

    def _draw(self, step: int) -> Mix | None:
        spec, image_px = self.split.spec, self.split.spec.sampling.image_px
        patch_px = image_px // grid_of(spec.tower_tokens)[0] * self.needs.pool
        return draw_mix(self.mixing, image_px=image_px, patch_px=patch_px, seed=self.seed, step=step)

    def features(self, raw: RawBatch, dense: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Tokens [clip layer frame token channel] and embedding [clip frame embed], each None if not needed."""
        if self.tower is not None:
            assert dense is not None, "the online path computes tokens from pixels"
            return online_features(self.tower, dense, self.split.spec.sampling.alpha, self.needs)
        embedding = None if raw.embedding is None else self.upload(raw.embedding)
        if raw.codes is None or self.dequantise is None:
            return None, embedding
        scale = None if raw.codes.scale is None else self.upload(raw.codes.scale)
        tokens = self.dequantise(self.upload(raw.codes.codes), scale)
        if raw.kept is not None:
            kept = self.upload(raw.kept)
            tokens = tokens[torch.arange(len(kept), device=self.device)[:, None], :, kept].transpose(1, 2)
        return pooled(tokens, self.needs.pool // self.split.spec.pool), embedding


def online_features(tower: Any, pixels: Tensor, alpha: int, needs: Needs) -> tuple[Tensor | None, Tensor | None]:
    """What the head would get of a cache, computed now, of pixels [clip frame rgb height width] for `with_clip(needs)`.

    Returns:
        float32 tokens [clip layer frame token channel] and embedding [clip frame embed], each None if not needed.
    """
    if not needs.layers and not needs.embedding:
        return None, None
    clips = len(pixels)
    taps = tower.taps(of_clip(pixels, needs, alpha).flatten(0, 1), needs.layers)
    # Copied out of inference mode, and as float32, as a cache delivers them: the tower may compute in half precision.
    as_cached = partial(torch.Tensor.to, dtype=torch.float32, copy=True)
    as_clips = "layer (clip frame) token channel -> clip layer frame token channel"
    tokens = as_cached(rearrange(pooled(taps.tokens, needs.pool or 1), as_clips, clip=clips)) if needs.layers else None
    embedding = as_cached(taps.embedding.unflatten(0, (clips, -1))) if needs.embedding else None
    return tokens, embedding
