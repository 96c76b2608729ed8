"""Dense frames in the cache, from extraction to training: the same clips, the same pixels up to JPEG's error."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.order import epoch_order, rank_batches
from vidxfer.pipeline.video.jpeg import decode_frames, encode_frames
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.replay import cut_out
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import cached_source, origins
from vidxfer.stages.remembered import dense_videos

CPU = torch.device("cpu")
NEEDS = Needs(pixels="dense")
PIXEL = 1 / 255 / 0.26130258
"""One step of a pixel, in units of the normalised clip (the smallest std)."""


@pytest.fixture(scope="module")
def framed(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Caches with dense frames, by quality; read-only."""
    made = {}
    for quality in (100, 90):
        made[quality] = tmp_path_factory.mktemp("framed") / str(quality)
        extract(toy.request(made[quality], with_frames=True, frame_quality=quality))
    return made


class Lines:
    """A `Progress` that keeps its lines."""

    def __init__(self) -> None:
        from vidxfer.stages.progress import Silent

        self.lines: list[str] = []
        self.bar = Silent().bar

    def line(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


def clips_of(cache: Path, split: str, plan: list[list[tuple[int, int]]], frames_from: str) -> list[Any]:
    """The `ClipBatch`es of a plan."""
    source = cached_source(cache, split, None, frames_from)
    assemble = Assembler(source.split, NEEDS, CPU)
    with source.loader(NEEDS, decode_threads=2, read_threads=1) as loader:
        return [assemble(raw) for raw in loader.batches(plan)]


def test_keeping_frames_changes_no_other_file(toy: Any, framed: dict[int, Path], content: Any) -> None:
    plain, kept = content(toy.int8), content(framed[90])
    extra = {name for name in kept if name not in plain}
    assert {name.split("/")[1] for name in extra} == {"frames", "frame_bytes"}
    for name, value in plain.items():
        if name.endswith(".ledger.jsonl"):
            for ours, theirs in zip(kept[name], value, strict=True):
                assert ours.pop("bytes") > theirs.pop("bytes")
                assert ours["crc32c"].pop("frames")
                assert ours["crc32c"].pop("frame_bytes")
                assert ours == theirs
        elif not name.endswith("zarr.json") or name.count("/") > 1:
            assert kept[name] == value, name
    assert open_split(framed[90], "train").spec.fingerprint == open_split(toy.int8, "train").spec.fingerprint


@pytest.mark.parametrize(("quality", "most", "mean"), [(100, 5.0, 0.8), (90, 60.0, 3.0)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_an_epoch_from_the_cache_is_the_epoch_from_the_videos(
    framed: dict[int, Path], split: str, quality: int, most: float, mean: float
) -> None:
    opened = open_split(framed[quality], split)
    order = epoch_order(range(len(opened.video_ids)), opened.spec.stored_views, seed=3, epoch=1)
    plan = rank_batches(order, 8)
    cached = clips_of(framed[quality], split, plan, "cache")
    decoded = clips_of(framed[quality], split, plan, "videos")
    flags = [Rows(opened).view(*clip) for batch in plan for clip in batch]
    assert split == "val" or (any(view.flip for view in flags) and any(view.grey for view in flags))
    for ours, theirs in zip(cached, decoded, strict=True):
        assert ours.ids == theirs.ids
        assert ours.labels.tolist() == theirs.labels.tolist()
        wrong = (ours.dense - theirs.dense).abs() / PIXEL
        assert wrong.max() <= most
        assert wrong.mean() <= mean
        shifted = (ours.dense[..., 1:] - theirs.dense[..., :-1]).abs() / PIXEL
        assert shifted.mean() > 2 * wrong.mean(), "a shift by one pixel would go unnoticed"


def test_training_and_scoring_need_no_video_when_the_cache_keeps_frames(toy: Any, tmp_path: Path, invoke: Any) -> None:
    data = toy.smaller(tmp_path / "data", count=12)
    cache = tmp_path / "zarr"
    extract(toy.request(cache, root=data, with_frames=True))
    words = ["--cache", cache, "--recipe", "dist-toy", "--device", "cpu"]
    settings = [part for setting in toy.settings() for part in ("--set", setting)]
    asked = invoke("train", *words, "--run", tmp_path / "videos", *settings, "--frames-from", "videos")
    assert asked.exit_code == 0, asked.stderr
    assert "dense frames: from the videos (as asked)" in asked.stderr
    shutil.rmtree(data)
    done = invoke("train", *words, "--run", tmp_path / "run", *settings, "--json")
    assert done.exit_code == 0, done.stderr
    assert "dense frames: from the cache (JPEG, quality 90)" in done.stderr
    assert json.loads(done.stdout)["finished"] is True
    scored = invoke("evaluate", "--run", tmp_path / "run", "--cache", cache)
    assert scored.exit_code == 0, scored.stderr
    assert "dense frames: from the cache (JPEG, quality 90)" in scored.stderr
    gone = invoke("evaluate", "--run", tmp_path / "run", "--cache", cache, "--frames-from", "videos")
    assert gone.exit_code == 2


def test_a_cache_without_frames_trains_from_videos_and_says_so(toy: Any, tmp_path: Path, invoke: Any) -> None:
    words = ["train", "--cache", toy.int8, "--recipe", "dist-toy", "--device", "cpu", "--run", tmp_path / "run"]
    settings = [part for setting in toy.settings() for part in ("--set", setting)]
    refused = invoke(*words, *settings, "--frames-from", "cache")
    assert refused.exit_code == 2
    assert "the cache keeps none; extract --with-frames stores them. Use --frames-from videos." in refused.stderr
    assert "--frames-from 'disk' is none of auto, cache, videos" in invoke(*words, "--frames-from", "disk").stderr
    done = invoke(*words, *settings)
    assert "dense frames: from the videos (the cache keeps none; extract --with-frames stores them)" in done.stderr


def test_the_online_path_takes_no_frames_from_a_cache(framed: dict[int, Path], tmp_path: Path, invoke: Any) -> None:
    words = ["train", "--cache", framed[90], "--recipe", "dist-toy", "--run", tmp_path / "run", "--online"]
    refused = invoke(*words, "--frames-from", "cache")
    assert refused.exit_code == 2
    assert "--frames-from is for training from a cache" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_validation_frames_from_elsewhere_are_said(toy: Any, framed: dict[int, Path]) -> None:
    sources = {"train": cached_source(framed[90], "train", None), "val": cached_source(toy.int8, "val", None)}
    assert origins(sources, NEEDS) == [
        "dense frames: from the cache (JPEG, quality 90)",
        "validation: dense frames: from the videos (the cache keeps none; extract --with-frames stores them)",
    ]
    both = {name: cached_source(framed[90], name, None) for name in ("train", "val")}
    assert origins(both, NEEDS) == ["dense frames: from the cache (JPEG, quality 90)"]
    assert origins(both, Needs(embedding=True)) == []


def test_a_device_decodes_the_whole_batch_at_once(framed: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """nvjpeg is stood in for by libjpeg: what is looked at is that every frame lands in its own clip."""
    plan = [[(row, row % 2) for row in (5, 0, 9, 2)]]
    (expected,) = clips_of(framed[90], "train", plan, "cache")
    calls: list[int] = []

    def decode(files: Sequence[Any], device: torch.device) -> torch.Tensor:
        calls.append(len(files))
        assert device.type == "cuda"
        return decode_frames(files, CPU)

    monkeypatch.setattr("vidxfer.pipeline.training.dense.decode_frames", decode)
    source = cached_source(framed[90], "train", None)
    with source.loader(NEEDS, decode_threads=2, read_threads=1, device=torch.device("cuda")) as loader:
        (found,) = [source.assembler(NEEDS, CPU)(raw) for raw in loader.batches(plan)]
    assert calls == [4 * 8]
    assert torch.equal(found.dense, expected.dense)


@pytest.mark.gpu
def test_nvjpeg_decodes_to_what_libjpeg_says() -> None:
    if not torch.cuda.is_available():
        if os.environ.get("VIDXFER_EXPECT_GPU") == "1":
            pytest.fail("VIDXFER_EXPECT_GPU=1, and there is no CUDA device")
        pytest.skip("no CUDA device")
    down, across = np.mgrid[0:224, 0:224]
    picture = np.stack([down, across, (down + across) // 2], axis=-1).astype(np.uint8)[None]
    files, _ = encode_frames(picture, quality=90, subsampling="4:4:4", most_bytes=1 << 20)
    raw = [np.frombuffer(file, dtype=np.uint8) for file in files]
    wrong = (decode_frames(raw, torch.device("cuda")).cpu().int() - decode_frames(raw, CPU).int()).abs()
    assert wrong.max() <= 4
    assert wrong.float().mean() <= 1


def test_a_bank_trains_from_videos_and_is_scored_from_the_cache(toy: Any, tmp_path: Path) -> None:
    cache = tmp_path / "zarr"
    extract(toy.request(cache, with_frames=True, bank_frames=8, train_views=1, limit=6))
    half = replace(NEEDS, sparse_frames=4)
    train = cached_source(cache, "train", None)
    assert str(train.origin(half)) == (
        "dense frames: from the videos (each epoch draws its own 4 of 8 cached frames, and dense frames between them)"
    )
    assert str(train.origin(NEEDS)) == "dense frames: from the cache (JPEG, quality 90)"
    assert train.origin(Needs(embedding=True)) is None
    with pytest.raises(UsageError, match="each epoch draws its own 4 of 8"):
        cached_source(cache, "train", None, "cache").origin(half)


def test_fewer_frames_than_are_stored_come_from_the_cache_at_even_distances(toy: Any, framed: dict[int, Path]) -> None:
    half = Needs(pixels="dense", sparse_frames=2)
    found = {}
    for frames_from in ("cache", "videos"):
        source = cached_source(framed[100], "val", None, frames_from)
        with source.loader(half, decode_threads=1, read_threads=1) as loader:
            found[frames_from] = [Assembler(source.split, half, CPU)(raw) for raw in loader.batches([[(0, 0), (1, 0)]])]
    (ours,), (theirs,) = found["cache"], found["videos"]
    assert ours.dense.shape == (2, 4, 3, 32, 32)
    assert (ours.dense - theirs.dense).abs().max() / PIXEL <= 5


def test_a_cache_goes_on_as_it_was_begun(toy: Any, framed: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"made without dense frames.*Continue without --with-frames.*\(--cache\)"):
        extract(toy.request(toy.int8, with_frames=True))
    with pytest.raises(CacheMismatch, match=r"frames.quality: .*90.*75"):
        extract(toy.request(framed[90], with_frames=True, frame_quality=75))
    with pytest.raises(CacheMismatch, match=r"frames.subsampling: .*4:4:4.*4:2:0"):
        extract(toy.request(framed[90], with_frames=True, frame_subsampling="4:2:0"))
    with pytest.raises(UsageError, match="--frame-quality, --frame-subsampling: subsampling='4:1:1' must be one of"):
        extract(toy.request(tmp_path / "new", with_frames=True, frame_subsampling="4:1:1"))
    cache = tmp_path / "zarr"
    shutil.copytree(framed[90], cache)
    ledger = cache / "train.ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))
    shown = Lines()
    train, _ = extract(toy.request(cache), shown)  # not asked for again: the cache remembers
    assert (train.stored, train.resumed) == (24, 10)
    before, after = open_split(framed[90], "train"), open_split(cache, "train")
    for shard in range(after.shard_count):
        key = after.layout.owned["frames"].key(shard)
        assert (after.path / key).read_bytes() == (before.path / key).read_bytes()


def test_a_lowered_frame_is_counted(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any) -> None:
    monkeypatch.setattr("vidxfer.pipeline.cache.frames.HEADER_BYTES", -3 * 32 * 32 + 1100)
    extract(toy.request(tmp_path, with_frames=True, frame_quality=95, limit=4))
    split = open_split(tmp_path, "train")
    assert split.frames is not None
    assert split.frames.most_bytes == 1100
    lowered = split.ledger.finished()[0].notes["frames lowered"]
    assert set(lowered) <= {f"quality {quality}" for quality in range(5, 95, 10)}
    assert f"lower for {sum(lowered.values())} videos, to fit" in " ".join(
        invoke("cache", "info", "--cache", tmp_path).stdout.split()
    )
    assert invoke("cache", "verify", "--cache", tmp_path).exit_code == 0


def test_plain_zarr_and_pillow_read_frames_as_the_format_says(framed: dict[int, Path]) -> None:
    text = (Path(__file__).parents[2] / "docs/cache-format.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(
        r"```python\n(.*?)```", text.partition("## Dense frames")[2].partition("\n## ")[0], re.DOTALL
    )
    said: dict[str, Any] = {}
    exec(snippet.replace('"zarr/train"', repr(str(framed[100] / "train"))), said)
    shown = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in said["files"]])
    split = open_split(framed[100], "train")
    video, view = dense_videos(split, None)[split.video_ids[7]], Rows(split).view(7, 0)
    with open_video(video.path) as source:
        pixels = source.read(view.indices).pixels
    assert np.abs(shown.astype(int) - cut_out(pixels, view, image_px=32).numpy()).max() <= 5


def test_plan_counts_the_frames(toy: Any, tmp_path: Path, invoke: Any) -> None:
    words = ["plan", "--dataset", "ssv2", "--root", toy.root, "--model", toy.clip, "--cache", tmp_path, "--no-measure"]
    plain = json.loads(invoke(*words, "--json").stdout)["splits"][0]
    kept = json.loads(invoke(*words, "--with-frames", "--json").stdout)["splits"][0]
    more = kept["bytes_per_view"] - plain["bytes_per_view"]
    assert 16 * 623 < more < 16 * 3 * 32 * 32
    assert kept["total_bytes"] - plain["total_bytes"] == pytest.approx(24 * more, rel=0.05)
    assert kept["files"] > plain["files"]
