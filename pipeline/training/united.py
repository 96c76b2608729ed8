"""Batches from several caches: each clip is read from its own cache, and decoded with that cache's codec.

    plan [(union row, view), …] ─▶ per member [(its row, view), …] ─▶ its ClipLoader ─▶ its RawBatch ─┐
    ClipBatch, clips in the plan's order ◀─ one after the other, then put in order ◀─ its Assembler ◀─┘

Consequence: batches mix the sources like one data set, and the members may have different codecs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from vidxfer.pipeline.cache.read.union import Union
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.ahead import AheadLoader, Plan, RawBatch
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.upload import pinned


@dataclass(frozen=True, kw_only=True)
class UnitedBatch(RawBatch):
    """The parts of each member, and for each clip of the batch its index in the concatenated parts."""

    parts: tuple[tuple[int, RawBatch], ...]
    order: tuple[int, ...]

    def pinned(self) -> Self:
        """See `RawBatch`."""
        return replace(super().pinned(), parts=tuple((member, part.pinned()) for member, part in self.parts))


class UnitedLoader(AheadLoader):
    """Loads from every member of a union.

    Args:
        union: the union that the rows of a plan belong to.
        loaders: loaders of its members; they end with this one.
        label_maps: per member, class -> class of the union.
    """

    def __init__(self, union: Union, loaders: Sequence[AheadLoader], label_maps: Sequence[Sequence[int]]) -> None:
        super().__init__(union.split, decode_threads=1)
        self.union, self.loaders, self.label_maps = union, tuple(loaders), tuple(label_maps)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for loader in self.loaders:
            loader.__exit__(*error)

    def prepare(self, plan: Plan) -> None:
        """Every member prepares its own clips of the plan."""
        parted = [self._parted(clips) for clips in plan]
        for member, loader in enumerate(self.loaders):
            loader.prepare([[clip for _, clip in clips.get(member, [])] for clips in parted])

    def _parted(self, clips: Sequence[tuple[int, int]]) -> dict[int, list[tuple[int, tuple[int, int]]]]:
        """Member -> (place in the batch, (its row, view)) of each of its clips."""
        parts: dict[int, list[tuple[int, tuple[int, int]]]] = {}
        for place, (row, view) in enumerate(clips):
            member, own = self.union.place_of(row)
            parts.setdefault(member, []).append((place, (own, view)))
        return dict(sorted(parts.items()))

    def load(self, clips: Sequence[tuple[int, int]]) -> RawBatch:
        """Load every member's clips of one batch, with labels of the union."""
        parts, places, labels = [], [], []
        for member, placed in self._parted(clips).items():
            loader = self.loaders[member]
            loader.epoch = self.epoch
            raw = loader.load([clip for _, clip in placed])
            parts.append((member, raw))
            places += [place for place, _ in placed]
            labels += [self.label_maps[member][label] if label >= 0 else -1 for label in raw.labels.tolist()]
        order = sorted(range(len(places)), key=places.__getitem__)
        return UnitedBatch(
            codes=None,
            embedding=None,
            dense=None,
            labels=torch.tensor([labels[place] for place in order]),
            rows=tuple(row for row, _ in clips),
            ids=tuple(self.split.video_ids[row] for row, _ in clips),
            parts=tuple(parts),
            order=tuple(order),
        )


class UnitedAssembler(Assembler):
    """Assembles every part with its own cache's codec, and puts the clips in the batch's order. Arguments as above."""

    def __init__(self, union: Union, needs: Needs, device: torch.device, **settings: Any) -> None:
        super().__init__(union.split, needs, device, **settings)
        precision = settings.get("precision", "fp32")
        self.members = [Assembler(split, needs, device, precision=precision) for split in union.members]

    def pixels(self, raw: RawBatch) -> Tensor | None:
        """See `Assembler.pixels`."""
        return self._joined(raw, [self.members[member].pixels(part) for member, part in _parts(raw)])

    def features(self, raw: RawBatch, dense: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """See `Assembler.features`."""
        features = [self.members[member].features(part, None) for member, part in _parts(raw)]
        tokens, embeddings = zip(*features, strict=True)
        return self._joined(raw, list(tokens)), self._joined(raw, list(embeddings))

    def _joined(self, raw: RawBatch, parts: list[Tensor | None]) -> Tensor | None:
        """The parts in the order of the batch; None: the head needs none."""
        delivered = [part for part in parts if part is not None]
        if not delivered:
            return None
        assert isinstance(raw, UnitedBatch)
        return torch.cat(delivered).index_select(0, self.upload(pinned(torch.tensor(raw.order))))


def _parts(raw: RawBatch) -> tuple[tuple[int, RawBatch], ...]:
    assert isinstance(raw, UnitedBatch), "a united assembler is given what a united loader made"
    return raw.parts
