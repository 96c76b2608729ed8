"""A cache as a map-style data set of torch: one item per stored view, read in the process that asks for it.

CachedClips("zarr") ─ pickled, forked ─▶ worker ─▶ its own OpenSplit ─▶ {"tokens", "label", …} ─▶ torch's DataLoader
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.library.opened import OpenSplit, open_cache


class CachedClips(Dataset[dict[str, Any]]):
    """Stored views of a split, for `torch.utils.data.DataLoader` with shuffling, samplers and workers of its own.

    An item is a dictionary that the default `collate_fn` takes: `id` and the numbers `row`, `view` and `label` (-1: the
    video has none), and as far as they are asked for `tokens`, float32 [layer frame token channel], and `embedding`,
    float32 [frame embed]. The files are opened in the process that reads, so the object may be pickled and forked.

    Args:
        cache: its folder.
        split: "train", "val" or "test".
        layers: numbers of CLIP blocks, in the order wanted; None: all that are stored; (): no tokens.
        embedding: whether items hold CLIP's image embeddings.
        view: only this stored view of each video; None: every stored view, in the order of the rows.

    Raises:
        CacheError: no cache there, or a layer is not stored. UsageError: no such split or view.

    Attributes:
        class_names: of the labels.
        clips: (row, view) of each item.
    """

    def __init__(
        self,
        cache: Path | str,
        split: str = "train",
        *,
        layers: Sequence[int] | None = None,
        embedding: bool = False,
        view: int | None = None,
    ) -> None:
        self._cache, self._split = Path(cache), split
        self._embedding = embedding
        self._open: tuple[int, OpenSplit] | None = None
        with open_cache(self._cache, split) as opened:
            if view is not None and not 0 <= view < opened.views:
                raise UsageError(f"view={view}: {self._cache} has views 0 to {opened.views - 1} of each video")
            self._layers = opened.expect_layers(layers)
            self.class_names = opened.class_names
            views = range(opened.views) if view is None else (view,)
            self.clips = [(int(row), number) for row in opened.rows for number in views]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row, view = self.clips[place]
        opened = self._opened()
        item: dict[str, Any] = {"id": opened.ids[row], "row": row, "view": view, "label": int(opened.labels[row])}
        if self._layers:
            item["tokens"] = opened.tokens(row, view, self._layers)
        if self._embedding:
            item["embedding"] = opened.embedding(row, view)
        return item

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files, which are of this process."""
        return {**self.__dict__, "_open": None}

    def close(self) -> None:
        """End the reading threads of this process; the next item opens the files again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _opened(self) -> OpenSplit:
        """The split, opened by this process: a forked one has no reading threads."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), open_cache(self._cache, self._split))
        return self._open[1]
