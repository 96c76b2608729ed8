"""Batches: what a head declares is fetched, nothing else; what was cached equals what CLIP says now."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.draw import draw_view
from vidxfer.pipeline.errors import CacheError, UsageError, VideoError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.training import dense as pixels
from vidxfer.pipeline.training.ahead import AHEAD, AheadLoader
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.training.online import OnlineLoader
from vidxfer.pipeline.training.recipes import named
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import CachedSource, OnlineSource
from vidxfer.stages.remembered import dense_videos

CPU = torch.device("cpu")
ALL = Needs(layers=(0, 1, 2), embedding=True, pixels="dense")


def loader_of(split: Split, needs: Needs, *, online: bool) -> AheadLoader:
    """The cached loader, or the online one drawing the very views that the cache stores."""
    if online:
        videos = dense_videos(split, None)
        return OnlineLoader(split, needs, [videos[name] for name in split.video_ids], partial(draw_view, split.spec))
    return ClipLoader(split, needs, dense_videos(split, None) if needs.pixels != "none" else None)


def offer(split: Split, name: str) -> Offer:
    """What a split delivers to a head of the named recipe."""
    text, scale = torch.from_numpy(split.text), float(split.informs["logit_scale"])
    return offer_of(split.spec, named(name), classes=len(split.class_names), text=text, logit_scale=scale)


def batches_of(cache: Path, needs: Needs, plan: list[list[tuple[int, int]]], **options: Any) -> list[Any]:
    """ClipBatches of the training split, in order."""
    split = open_split(cache, "train")
    assemble = Assembler(split, needs, CPU, **options)
    find_videos = partial(dense_videos, split, None)
    tower = options.get("tower")
    source = (
        CachedSource(split=split, find_videos=find_videos)
        if tower is None
        else OnlineSource(split=split, find_videos=find_videos, tower=tower)
    )
    with source.loader(needs, decode_threads=2, read_threads=2) as loader:
        return [assemble(raw) for raw in loader.batches(plan)]


def test_a_mirrored_view_carries_the_label_of_the_mirrored_class(toy: Any) -> None:
    split = open_split(toy.int8, "train")
    rows = Rows(split)
    plan = [[(row, view) for row in range(24)] for view in (0, 1)]
    swapped = 0
    for view, batch in enumerate(batches_of(toy.int8, Needs(embedding=True), plan)):
        for row, label in enumerate(batch.labels.tolist()):
            stored = int(split.labels[row])
            expected = split.flip_pairs.get(stored, stored) if rows.view(row, view).flip else stored
            assert label == expected
            swapped += label != stored
    assert swapped >= 3, "no view of a left-right class was mirrored"


def test_a_probe_opens_no_video_and_reads_no_token(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("not declared in needs")

    monkeypatch.setattr(pixels, "open_video", never)
    monkeypatch.setattr(CacheReader, "read", never)
    (batch,) = batches_of(toy.int8, Needs(embedding=True), [[(0, 0), (3, 1)]])
    assert (batch.tokens, batch.dense) == (None, None)
    assert batch.embedding.shape == (2, 4, 32)


def test_pixels_alone_read_neither_tokens_nor_embeddings(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("not declared in needs")

    monkeypatch.setattr(CacheReader, "read", never)
    monkeypatch.setattr(CacheReader, "embedding", never)
    (batch,) = batches_of(toy.int8, Needs(pixels="dense"), [[(0, 0), (3, 1)]])
    assert (batch.tokens, batch.embedding) == (None, None)
    assert batch.dense.shape == (2, 8, 3, 32, 32)


def test_layers_come_in_the_order_in_which_they_are_declared(toy: Any) -> None:
    (forward,) = batches_of(toy.float16, Needs(layers=(0, 2)), [[(1, 0)]])
    (backward,) = batches_of(toy.float16, Needs(layers=(2, 0)), [[(1, 0)]])
    assert torch.equal(forward.tokens, backward.tokens.flip(1))
    assert not torch.equal(forward.tokens, backward.tokens)


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_reused_buffers_never_change_a_batch_that_is_still_in_use(toy: Any, codec: str) -> None:
    cache = getattr(toy, codec)
    plan = [[(row, row % 2), ((row + 5) % 24, 0), ((row + 9) % 24, 1)][: 3 - row % 2] for row in range(3 * AHEAD + 5)]
    split, needs = open_split(cache, "train"), Needs(layers=(0, 1, 2))
    with ClipLoader(split, needs, None) as loader, CacheReader(split) as reader:
        for clips, raw in zip(plan, loader.batches(plan), strict=True):
            threads_had_time = loader._ahead.submit(lambda: None)
            threads_had_time.result()  # everything submitted so far is done: later batches are in their buffers
            alone = reader.read([row for row, _ in clips], [view for _, view in clips])
            assert torch.equal(raw.codes.codes, alone.codes)
            assert raw.ids == tuple(split.video_ids[row] for row, _ in clips)


def test_a_loader_that_is_left_early_ends_its_threads(toy: Any) -> None:
    import threading

    split = open_split(toy.int8, "train")
    before = threading.active_count()
    with ClipLoader(split, ALL, dense_videos(split, None)) as loader:
        running = loader.batches([[(row, 0)] for row in range(24)])
        next(running)
        running.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("codec", "share_of_logit", "probability"),
    # Measured, on a head at its initialisation: 1.4e-4 and 4e-4, then 3.6e-3 and 9e-3; the bounds leave a factor of 3.
    [("float16", 5e-4, 1.2e-3), ("int8", 1.1e-2, 3e-2)],
)
def test_a_cached_and_an_online_step_of_dist_give_the_same_logits(
    toy: Any, codec: str, share_of_logit: float, probability: float
) -> None:
    """Logits are cosines times CLIP's scale of 100, so a bound on them is relative to the largest one."""
    cache = getattr(toy, codec)
    split = open_split(cache, "train")
    head = build_head(named("dist-toy"), offer(split, "dist-toy")).eval()
    plan = [[(row, row % 2) for row in range(first, first + 8)] for first in (0, 8, 16)]
    cached = batches_of(cache, head.needs, plan)
    online = batches_of(cache, head.needs, plan, tower=load_tower(str(toy.clip)))
    logits, shares = [0.0], [0.0]
    for a, b in zip(cached, online, strict=True):
        assert torch.equal(a.dense, b.dense)
        with torch.inference_mode():
            ours, theirs = head(a), head(b)
        logits.append(float((ours - theirs).abs().max()))
        shares.append(float((ours.softmax(-1) - theirs.softmax(-1)).abs().max()))
        assert logits[-1] < share_of_logit * float(theirs.abs().max())
        assert float(theirs.std()) > 0.1, "logits that are all alike prove nothing"
    print(f"{codec}: logits differ by at most {max(logits):.1e}, probabilities by {max(shares):.1e}")
    assert 0 < max(shares) < probability


def test_what_a_float16_cache_changes_is_the_rounding_of_tokens_and_nothing_else(toy: Any) -> None:
    needs, plan = Needs(layers=(0, 1, 2), pixels="dense"), [[(row, row % 2) for row in range(24)]]
    (cached,) = batches_of(toy.float16, needs, plan)
    (online,) = batches_of(toy.float16, needs, plan, tower=load_tower(str(toy.clip)))
    torch.testing.assert_close(cached.tokens, online.tokens.half().float(), rtol=2**-10, atol=1e-5)
    assert float((cached.tokens != online.tokens.half().float()).float().mean()) < 1e-3


@pytest.mark.parametrize("name", ["dist-toy", "probe", "attentive-probe"])
def test_online_batches_have_the_parts_and_shapes_of_cached_ones(toy: Any, name: str) -> None:
    split = open_split(toy.float16, "train")
    needs = build_head(named(name), offer(split, name)).needs
    tower = load_tower(str(toy.clip))
    (online,) = batches_of(toy.float16, needs, [[(2, 1), (5, 0)]], smoothing=0.1, tower=tower)
    (cached,) = batches_of(toy.float16, needs, [[(2, 1), (5, 0)]], smoothing=0.1)
    for part in ("tokens", "embedding"):
        a, b = getattr(online, part), getattr(cached, part)
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-3)
    assert torch.equal(online.labels, cached.labels)
    assert torch.equal(online.targets, cached.targets)


@pytest.fixture
def own(toy: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A small data set and its cache, to be damaged: (videos, cache)."""
    root = toy.smaller(tmp_path / "data")
    extract(toy.request(tmp_path / "cache", root=root, splits=("train",)))
    return root / toy.videos.name, tmp_path / "cache"


def test_a_video_with_other_frames_than_at_extraction_is_named(own: tuple[Path, Path]) -> None:
    videos, cache = own
    files = sorted(videos.iterdir())
    split = open_split(cache, "train")
    counts = {name: Rows(split).source_of(row)[0] for row, name in enumerate(split.video_ids)}
    changed = files[0]
    other = next(file for file in files[1:6] if counts.get(file.stem, counts[changed.stem]) != counts[changed.stem])
    shutil.copyfile(other, changed)
    row = split.video_ids.index(changed.stem)
    with pytest.raises(CacheError, match="not the same file") as caught:
        batches_of(cache, ALL, [[(row, 0)]])
    assert changed.stem in str(caught.value)
    assert f"had {counts[changed.stem]} frames" in str(caught.value)


def test_a_video_that_broke_since_extraction_stops_the_run_with_its_name(own: tuple[Path, Path]) -> None:
    videos, cache = own
    broken = sorted(videos.iterdir())[0]
    broken.write_bytes(b"")
    row = open_split(cache, "train").video_ids.index(broken.stem)
    with pytest.raises(VideoError, match=broken.name):
        batches_of(cache, ALL, [[(row, 0)]])


def test_a_head_with_pixels_but_no_videos_is_told_about_root(toy: Any) -> None:
    with pytest.raises(UsageError, match="--root"):
        ClipLoader(open_split(toy.int8, "train"), ALL, None)


def test_a_root_with_other_videos_is_refused_with_both_fingerprints(toy: Any, tmp_path: Path) -> None:
    split = open_split(toy.int8, "train")
    with pytest.raises(UsageError, match=split.spec.dataset_fingerprint):
        dense_videos(split, toy.smaller(tmp_path / "other"))


def test_videos_that_moved_are_found_under_root(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.root, tmp_path / "moved")
    split = open_split(toy.int8, "train")
    found = dense_videos(split, tmp_path / "moved")
    assert {path.path.is_relative_to(tmp_path / "moved") for path in found.values()} == {True}


def test_a_bank_gives_each_epoch_other_cached_frames_with_their_very_pixels(toy: Any) -> None:
    split, tower = open_split(toy.float16, "train"), load_tower(str(toy.clip))
    needs = Needs(layers=(0, 2), embedding=True, sparse_frames=split.spec.sparse_frames // 2, pixels="dense")
    assemble, plan = Assembler(split, needs, CPU), [[(row, row % 2) for row in range(6)]]
    frames = []
    with ClipLoader(split, needs, dense_videos(split, None)) as loader:
        for epoch in (None, (0, 1), (0, 2)):
            loader.epoch = epoch
            (raw,) = list(loader.batches(plan))
            batch = assemble(raw)
            assert batch.dense is not None
            assert batch.dense.shape[1] == split.spec.sparse_frames
            seen = tower.taps(batch.dense[:, ::2].flatten(0, 1), (0, 2))
            tokens = seen.tokens.unflatten(1, (6, -1)).transpose(0, 1)
            torch.testing.assert_close(batch.tokens, tokens, rtol=2**-9, atol=2e-3)
            torch.testing.assert_close(batch.embedding.flatten(0, 1), seen.embedding, rtol=2**-9, atol=2e-3)
            frames.append(raw.codes.codes.clone())
        memory = {buffer.codes.data_ptr() for buffer in loader._buffers}
        list(loader.batches(plan))
        assert {buffer.codes.data_ptr() for buffer in loader._buffers} == memory, "one ring for all epochs"
        first_of_each = [list(range(0, split.spec.sparse_frames, 2))] * 6
        expected = loader.reader.read(*zip(*plan[0], strict=True), needs.layers, frames=first_of_each)
    assert torch.equal(frames[0], expected.codes)
    assert not torch.equal(frames[1], frames[2])


def test_a_bank_whose_frames_are_decoded_together_gives_the_head_those_it_drew(toy: Any, tmp_path: Path) -> None:
    """klt1 codes four frames as one block: all are read and decoded, and then the draws of the epoch are taken."""
    from vidxfer.pipeline.cache.codec import Dequantiser
    from vidxfer.stages.upkeep.recode import RecodeRequest, recode

    recode(RecodeRequest(source=toy.float16, target=tmp_path / "klt1", codec="klt1", splits=("train",)))
    split = open_split(tmp_path / "klt1", "train")
    needs = Needs(layers=(2, 0), sparse_frames=2)
    plan, drawn = [[(row, row % 2) for row in range(6)]], []
    with ClipLoader(split, needs, None) as loader:
        for epoch in (None, (0, 1), (0, 2)):
            loader.epoch = epoch
            (raw,) = list(loader.batches(plan))
            batch = Assembler(split, needs, CPU)(raw)
            read = loader.reader.read(*zip(*plan[0], strict=True), needs.layers)
            whole = Dequantiser.of(split, layers=needs.layers)(read.codes, read.scale)
            views = [loader.reader.view(row, view) for row, view in plan[0]]
            places = [loader._drawn(row, view).places for (row, _), view in zip(plan[0], views, strict=True)]
            expected = torch.stack([clip[:, list(kept)] for clip, kept in zip(whole, places, strict=True)])
            assert torch.equal(batch.tokens, expected)
            drawn.append(places)
    assert drawn[0] == [(0, 2)] * 6
    assert drawn[1] != drawn[2]
