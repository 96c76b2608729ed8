"""`vidxfer.CachedClips` under torch's own DataLoader: shuffled, in workers that are forked or spawned, pickled."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import vidxfer


def test_an_item_is_what_the_split_says_of_that_view(toy: Any) -> None:
    clips = vidxfer.CachedClips(toy.int8, layers=(2, 0), embedding=True)
    assert len(clips) == 48
    assert clips.clips[:3] == [(0, 0), (0, 1), (1, 0)]
    with vidxfer.open_cache(toy.int8) as split:
        item = clips[9]
        assert {name: item[name] for name in ("id", "row", "view", "label")} == {
            "id": split.ids[4],
            "row": 4,
            "view": 1,
            "label": int(split.labels[4]),
        }
        assert torch.equal(item["tokens"], split.tokens(4, 1, layers=(2, 0)))
        assert torch.equal(item["embedding"], split.embedding(4, 1))
        assert clips.class_names == split.class_names
        (last,) = vidxfer.CachedClips(toy.int8, view=1, layers=()).clips[-1:]
        assert last == (23, 1)
    assert set(vidxfer.CachedClips(toy.int8, layers=())[0]) == {"id", "row", "view", "label"}
    assert vidxfer.CachedClips(toy.int8)[0]["tokens"].shape == (3, 4, 17, 64)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])  # one: each imports torch anew
def test_workers_give_every_view_once_and_shuffled(toy: Any, start: str, workers: int) -> None:
    clips = vidxfer.CachedClips(toy.int8, "val", layers=(1,))
    here = {clips.clips[place]: clips[place]["tokens"] for place in range(len(clips))}  # open here, when workers begin
    loader: Any = DataLoader(
        clips, batch_size=5, shuffle=True, num_workers=workers, multiprocessing_context=start,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    seen = []
    for batch in loader:
        pairs = list(zip(batch["row"].tolist(), batch["view"].tolist(), strict=True))
        for pair, tokens in zip(pairs, batch["tokens"], strict=True):
            assert torch.equal(tokens, here[pair])
        seen += pairs
    assert sorted(seen) == sorted(here)
    assert seen != sorted(seen)
    assert torch.equal(clips[3]["tokens"], here[clips.clips[3]]), "this process still reads"


def test_it_is_pickled_without_its_files_and_closed_twice(toy: Any) -> None:
    clips = vidxfer.CachedClips(str(toy.float16), layers=(0,))
    first = clips[7]
    other = pickle.loads(pickle.dumps(clips))
    assert torch.equal(other[7]["tokens"], first["tokens"])
    for _ in range(2):
        clips.close()
    assert torch.equal(clips[7]["tokens"], first["tokens"])


def test_what_is_not_there_is_said_when_it_is_made(toy: Any) -> None:
    with pytest.raises(vidxfer.CacheError, match=r"layers \[3\] are not in the cache"):
        vidxfer.CachedClips(toy.int8, layers=(0, 3))
    with pytest.raises(vidxfer.UsageError, match=r"view=2: .* has views 0 to 1"):
        vidxfer.CachedClips(toy.int8, view=2)
    with pytest.raises(vidxfer.UsageError, match="has no split 'test'"):
        vidxfer.CachedClips(toy.int8, "test")
    with pytest.raises(IndexError):
        vidxfer.CachedClips(toy.int8)[48]
