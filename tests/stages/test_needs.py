"""Needs are obeyed: no frame is decoded and no CLIP is run for a head that does not ask; cached, online, in predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.loader import online_features
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.video.reader import VideoSource, open_video
from vidxfer.pipeline.video.replay import replay
from vidxfer.stages.learning.predict import pixel_views
from vidxfer.stages.learning.sources import CachedSource, OnlineSource, Source
from vidxfer.stages.planning.plan import bytes_read, needs_of
from vidxfer.stages.remembered import dense_videos

NEEDS = {
    "none": Needs(embedding=True),
    "sparse": Needs(embedding=True, pixels="sparse"),
    "dense": Needs(embedding=True, pixels="dense"),
    "window": Needs(embedding=True, pixels="window", window_frames=3),
}
PLAN = [[(0, 0), (5, 1), (3, 0)]]
Pick = Callable[[tuple[int, ...], int], Sequence[int]]
"""(dense indices of a view, frames of the video) -> frames to be shown; the toy's alpha is 2."""

PICKS: dict[str, Pick] = {
    "sparse": lambda dense, _: dense[::2],
    "dense": lambda dense, _: dense,
    "window": lambda dense, count: [
        min(max(frame, 0), count - 1) for middle in dense[::2] for frame in (middle - 1, middle, middle + 1)
    ],
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many different frames every read asked for, in this process."""
    counts: list[int] = []
    real = VideoSource.read

    def read(self: VideoSource, indices: Sequence[int]) -> Any:
        counts.append(len(indices))
        return real(self, indices)

    monkeypatch.setattr(VideoSource, "read", read)
    return counts


def source_of(toy: Any, tower: Any = None) -> Source:
    split = open_split(toy.float16, "train")
    find_videos = partial(dense_videos, split, None)
    if tower is None:
        return CachedSource(split=split, find_videos=find_videos)
    return OnlineSource(split=split, find_videos=find_videos, tower=tower)


def batch_of(source: Source, needs: Needs) -> Any:
    with source.loader(needs, decode_threads=1, read_threads=1) as loader:
        (raw,) = list(loader.batches(PLAN))
    return source.assembler(needs, torch.device("cpu"))(raw)


def replayed(source: Source, pick: Pick) -> torch.Tensor:
    """The picked frames of the planned views, straight from the videos: [clip frame rgb height width]."""
    spec, rows, videos = source.split.spec, Rows(source.split), dense_videos(source.split, None)
    clips = []
    for row, number in PLAN[0]:
        view = rows.view(row, number)
        with open_video(videos[source.split.video_ids[row]].path) as video:
            wanted = tuple(pick(view.indices, video.frame_count))
            frames = video.read(wanted)
        shown = replace(view, indices=wanted)
        pixels = (frames.pixels, shown)
        clips.append(replay(*pixels, image_px=spec.sampling.image_px, mean=spec.pixel_mean, std=spec.pixel_std))
    return torch.stack(clips)


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
@pytest.mark.parametrize("pixels", ["sparse", "dense", "window"])
def test_a_head_is_shown_the_frames_it_asks_for(toy: Any, pixels: str, online: bool) -> None:
    source = source_of(toy, load_tower(str(toy.clip)) if online else None)
    batch = batch_of(source, NEEDS[pixels])
    torch.testing.assert_close(batch.dense, replayed(source, PICKS[pixels]))
    torch.testing.assert_close(batch.embedding, batch_of(source_of(toy), NEEDS["none"]).embedding, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "online", "frames"),
    [("none", False, None), ("none", True, 4), ("sparse", True, 4), ("dense", True, 8), ("window", True, 12),
     ("sparse", False, 4), ("dense", False, 8)],
)  # fmt: skip
def test_no_frame_is_decoded_that_nobody_looks_at(
    toy: Any, decoded: list[int], pixels: str, online: bool, frames: int | None
) -> None:
    """A view of the toy has 8 dense frames, 4 of them CLIP's; a cached head without pixels opens no video."""
    batch = batch_of(source_of(toy, load_tower(str(toy.clip)) if online else None), NEEDS[pixels])
    assert decoded == ([] if frames is None else [frames] * 3)
    assert (batch.dense is None) == (pixels == "none")


def test_clip_itself_is_on_offer_online_alone(toy: Any) -> None:
    tower, recipe = load_tower(str(toy.clip)), named("probe")
    assert source_of(toy, tower).offer(recipe).tower is tower
    assert source_of(toy).offer(recipe).tower is None


def test_clip_does_not_run_for_a_head_that_reads_pixels_alone() -> None:
    class Tower:
        def taps(self, *_: Any) -> None:
            raise AssertionError("nobody asked")

    assert online_features(Tower(), torch.zeros(1, 4, 3, 8, 8), 2, Needs(pixels="dense")) == (None, None)


@pytest.mark.parametrize(("pixels", "frames"), [("none", 4), ("sparse", 4), ("dense", 8), ("window", 12)])
def test_predict_decodes_what_the_head_and_clip_see(toy: Any, pixels: str, frames: int) -> None:
    spec = replace(open_split(toy.float16, "val").spec, views=2)
    found, _ = pixel_views(min(toy.videos.iterdir()), spec, NEEDS[pixels])
    assert found.shape == (2, frames, 3, 32, 32)
    if pixels == "window":
        sparse, _ = pixel_views(min(toy.videos.iterdir()), spec, NEEDS["sparse"])
        torch.testing.assert_close(found[:, 1::3], sparse)


def test_the_bill_of_a_recipe_counts_what_its_head_reads(toy: Any) -> None:
    """float16: 17 tokens of 64 channels in 4 frames are 8704 bytes a layer; 4 embeddings of 32 are 256 bytes."""
    spec = open_split(toy.float16, "train").spec
    recipes = {"probe": 256, "attentive-probe": 8704, "dist-toy": 3 * 8704}
    assert {name: bytes_read(spec, needs_of(spec, named(name), 8)) for name in recipes} == recipes
    assert bytes_read(spec, needs_of(spec, None, 8)) == 3 * 8704 + 256
    half = needs_of(open_split(toy.int8, "train").spec, named("attentive-probe"), 8)
    assert bytes_read(open_split(toy.int8, "train").spec, half) == 8704 // 2 + 4 * 17 * 2
