"""Several caches as one source: `--cache zarr/k400 --cache zarr/k600 --cache zarr/k700 --labels-as k710`.

    caches of equal settings ─▶ labels by class name ─▶ recordings that occur twice left out ─▶ Union ─▶ UnionSource
                                                         train: those that lie in any val too

Consequence: Kinetics-710 is trained on what Kinetics-400, -600 and -700 were extracted to, and nothing is extracted
again. CLIP is loaded only where a class of the label set is in none of the caches, to embed its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of
from vidxfer.pipeline.cache.read.union import Union, unite
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.datasets.k710 import map_labels, names_of
from vidxfer.pipeline.datasets.survey import recording_of_id
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.dense import Origin
from vidxfer.pipeline.training.united import UnitedAssembler, UnitedLoader
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.learning.frozen import offer_from
from vidxfer.stages.learning.sources import CachedSource, Source, cached_source
from vidxfer.stages.progress import Progress
from vidxfer.stages.remembered import remembered_clip, tower_of_caches


@dataclass(frozen=True, kw_only=True)
class UnionSource(Source):
    """A source made of several caches; `label_maps`: of each, its class -> class of the union."""

    union: Union
    members: tuple[CachedSource, ...]
    label_maps: tuple[tuple[int, ...], ...]

    @property
    def cache_names(self) -> tuple[str, ...]:
        """See `Source.cache_names`."""
        return self.union.names

    def stored_rows(self) -> list[int]:
        """Rows that can be read in the cache they lie in."""
        rows_of_members = [self.union.rows_of(place, member.stored_rows()) for place, member in enumerate(self.members)]
        return [row for member_rows in rows_of_members for row in member_rows]

    def row_ids(self) -> tuple[str, ...]:
        """Number of the cache, from 1 in the order they were given, and the id there: folders may be renamed."""
        places = map(self.union.place_of, range(len(self.split.video_ids)))
        return tuple(f"{member + 1}/{self.union.members[member].video_ids[row]}" for member, row in places)

    def pending(self) -> int:
        """Number of videos that are not extracted yet, over all caches."""
        return sum(member.pending() for member in self.members)

    def reasons(self) -> dict[str, str]:
        """Id -> reason of every video that was refused at extraction."""
        named = zip(self.union.names, self.members, strict=True)
        return {f"{name}/{id_}": why for name, member in named for id_, why in member.reasons().items()}

    def offer(self, recipe: Recipe, layers: tuple[int, ...] | None = None) -> Offer:
        """See `Source.offer`; all members have the same CLIP."""
        return offer_from(self.split, recipe, layers=layers, beside=self.members[0].split)

    def origin(self, needs: Needs) -> Origin | None:
        """Where dense frames come from in the first cache that says so; each cache reads its own."""
        origins = [member.origin(needs) for member in self.members]
        return next((origin for origin in origins if origin is not None), None)

    def assembler(self, needs: Needs, device: torch.device, **settings: Any) -> UnitedAssembler:
        """See `Source.assembler`."""
        return UnitedAssembler(self.union, needs, device, **settings)

    def loader(
        self, needs: Needs, *, decode_threads: int, read_threads: int, device: torch.device | None = None
    ) -> AheadLoader:
        """A loader over all caches; each has its own threads."""
        loaders = [
            member.loader(needs, decode_threads=decode_threads, read_threads=read_threads, device=device)
            for member in self.members
        ]
        return UnitedLoader(self.union, loaders, self.label_maps)


def source_of(
    caches: Sequence[Path],
    split: str,
    *,
    labels_as: str | None,
    root: Path | None = None,
    frames_from: str = "auto",
    shown: Progress | None = None,
) -> Source:
    """A split of one cache, or of several under one set of labels.

    Raises:
        UsageError: classes that the label set lacks. CacheMismatch: caches of different settings.
        CacheError: a cache has no such split.
    """
    if labels_as is None:
        return cached_source(caches[0], split, root, frames_from)
    there = [cache for cache in caches if split in splits(cache)] or list(caches[:1])
    members = [cached_source(cache, split, root, frames_from) for cache in there]
    member_splits = [member.split for member in members]
    all_names = [open_split(cache, splits(cache)[0]).class_names for cache in caches if splits(cache)]
    class_names = names_of(labels_as, all_names)
    label_maps = tuple(
        map_labels(part.class_names, class_names, labels_as=labels_as, where=part.path) for part in member_splits
    )
    names = member_names(there)
    keep, left_out = rows_to_keep(member_splits, held_out=held_out(caches) if split == "train" else set())
    if shown is not None:
        for name, count in zip(names, left_out, strict=True):
            if any(count.values()):
                why = ", ".join(f"{number:,} {text}" for text, number in count.items())
                shown.line(f"{split}: {name}: left out: {why}")
    union = unite(
        member_splits,
        names,
        keep=keep,
        label_maps=label_maps,
        class_names=class_names,
        text=text_of(class_names, member_splits),
        flip_pairs=flip_pairs(class_names),
        labels_as=labels_as,
    )
    return UnionSource(
        split=union.split,
        union=union,
        members=tuple(members),
        label_maps=label_maps,
    )


def member_names(caches: Sequence[Path]) -> list[str]:
    """The folders' names, numbered where two are the same."""
    names = [cache.absolute().name for cache in caches]
    counted = Counter(names)
    return [name if counted[name] == 1 else f"{name}-{place}" for place, name in enumerate(names, start=1)]


def held_out(caches: Sequence[Path]) -> set[str]:
    """Recordings of the validation splits of all caches."""
    val_splits = [open_split(cache, "val") for cache in caches if "val" in splits(cache)]
    return {name for split in val_splits for name in recordings(split)}


def recordings(split: Split) -> list[str]:
    """What each row was cut from, in the order of the rows."""
    return [recording_of_id(split.spec.dataset, id_) for id_ in split.video_ids]


def rows_to_keep(member_splits: Sequence[Split], *, held_out: set[str]) -> tuple[list[list[int]], list[Counter[str]]]:
    """Rows of each split that count, and how many were left out why: the first cache that has a recording keeps it."""
    keep, left_out = [], []
    earlier: set[str] = set()
    for split in member_splits:
        names = recordings(split)
        rows, why = [], Counter[str]()
        for row in split.video_rows.tolist():
            if names[row] in held_out:
                why["recordings of a val split"] += 1
            elif names[row] in earlier:
                why["recordings of an earlier cache"] += 1
            else:
                rows.append(row)
        earlier |= {names[row] for row in rows}
        keep.append(rows)
        left_out.append(why)
    return keep, left_out


def text_of(class_names: Sequence[str], member_splits: Sequence[Split]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Embeddings [class embed] of class names: those of the caches, and CLIP's where none has the name.

    None: the caches have none, since their tower has no text.

    Raises:
        CacheMismatch: the caches were made with other settings or other templates.
    """
    first = member_splits[0]
    for other in member_splits[1:]:  # before CLIP embeds what none of them has
        expect_agree("cache with cache", other.path, facts_of(other), facts_of(first))
    if first.text is None:
        return None
    known: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    for split in reversed(member_splits):  # the first split that has a name gives its embedding
        known |= {} if split.text is None else dict(zip(split.class_names, split.text, strict=True))
    missing = [name for name in class_names if name not in known]
    if missing:
        clip = remembered_clip(first.informs["clip"], first.spec.clip_precision, device="cpu")
        tower = tower_of_caches(member_splits, clip)
        templates = tuple(first.informs.get("templates", ("{}",)))
        known |= dict(zip(missing, tower.encode_text(missing, templates).numpy(), strict=True))
    return np.stack([known[name] for name in class_names]).astype(np.float32)
