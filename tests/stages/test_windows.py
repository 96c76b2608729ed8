"""Windows of source frames in a cache: what a head sees of them is what it would see of the videos."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import CacheMismatch, DatasetError, UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.loader import Assembler, ClipLoader
from vidxfer.pipeline.video.jpeg import decode_frames, encode_frames
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.replay import cut_out
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.predict import pixel_views
from vidxfer.stages.learning.sources import OnlineSource, cached_source, dense_videos
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.recode import RecodeRequest, recode

PIXEL = 1 / 255 / 0.26130258
"""One step of a pixel, in units of the normalised clip (the smallest std)."""

WINDOW = Needs(pixels="window", window_frames=5)
PLAN = [[(row, row % 2) for row in (5, 0, 3, 2)]]


@pytest.fixture(scope="module")
def data(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two validation videos of the toy world."""
    return Path(toy.smaller(tmp_path_factory.mktemp("data") / "ssv2"))


@pytest.fixture(scope="module")
def windowed(toy: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with windows of 5 at quality 100; read-only."""
    cache = tmp_path_factory.mktemp("windowed") / "zarr"
    extract(toy.request(cache, root=data, with_frames=True, frame_quality=100, window=5))
    return Path(cache)


def shown(cache: Path, needs: Needs, frames_from: str, device: str = "cpu") -> Any:
    """The one `ClipBatch` of the plan."""
    source = cached_source(cache, "train", None, frames_from)
    with source.loader(needs, decode_threads=2, read_threads=1, device=torch.device(device)) as loader:
        (raw,) = loader.batches(PLAN)
    return Assembler(source.split, needs, torch.device("cpu"))(raw)


@pytest.mark.parametrize(
    "needs",
    [WINDOW, replace(WINDOW, window_frames=3), replace(WINDOW, window_frames=1), Needs(pixels="dense"),
     Needs(pixels="sparse"), replace(WINDOW, sparse_frames=2)],
    ids=["5", "3", "1", "dense", "sparse", "two of four"],
)  # fmt: skip
def test_one_cache_serves_every_head_as_the_videos_do(windowed: Path, needs: Needs) -> None:
    rows = Rows(open_split(windowed, "train"))
    assert any(rows.view(*clip).flip for clip in PLAN[0])
    ours, theirs = (shown(windowed, needs, place) for place in ("cache", "videos"))
    assert ours.dense.shape == theirs.dense.shape == (4, needs.pixel_frames(4, 2), 3, 32, 32)
    wrong = (ours.dense - theirs.dense).abs() / PIXEL
    assert wrong.max() <= 5
    assert wrong.mean() <= 0.8


def test_the_middle_of_a_window_is_the_frame_that_clip_saw(windowed: Path) -> None:
    """Bit for bit: the crop, the flip and the grey of all frames of a view are one."""
    wide, sparse = shown(windowed, WINDOW, "cache").dense, shown(windowed, Needs(pixels="sparse"), "cache").dense
    assert torch.equal(wide[:, 2::5], sparse)
    narrow = shown(windowed, replace(WINDOW, window_frames=3), "cache").dense
    assert torch.equal(wide.unflatten(1, (4, 5))[:, :, 1:4].flatten(1, 2), narrow)


def test_every_kept_jpeg_is_that_of_its_frame_of_the_video(windowed: Path) -> None:
    split = open_split(windowed, "train")
    rows, videos = Rows(split), dense_videos(split, None)
    reader, spare = FrameReader(rows), []
    for row in range(len(split.video_ids)):
        view, kept = rows.view(row, 1), reader.kept(row, 1)
        assert kept[:8] == view.indices
        with open_video(videos[split.video_ids[row]].path) as video:
            pixels = video.read(kept).pixels
        cut = cut_out(pixels, replace(view, indices=kept), image_px=32).numpy()
        files, _ = encode_frames(cut, quality=100, subsampling="4:4:4", most_bytes=1 << 20)
        assert [bytes(file) for file in reader.files(row, 1)] == files
        spare.append(24 - len(kept))
        assert rows.frame_lengths(row, 1)[len(kept) :].tolist() == [0] * spare[-1]
    assert max(spare) > 0, "windows that overlap keep each frame once"


def test_a_device_decodes_each_distinct_frame_of_the_batch_once(windowed: Path, monkeypatch: Any) -> None:
    """nvjpeg is stood in for by libjpeg."""
    expected = shown(windowed, WINDOW, "cache").dense
    calls: list[int] = []

    def decode(files: Sequence[Any], device: torch.device) -> torch.Tensor:
        calls.append(len(files))
        return decode_frames(files, torch.device("cpu"))

    monkeypatch.setattr("vidxfer.pipeline.training.dense.decode_frames", decode)
    assert torch.equal(shown(windowed, WINDOW, "cache", device="cuda").dense, expected)
    assert len(calls) == 1
    assert calls[0] < 4 * 4 * 5


def test_a_bank_reads_the_windows_of_the_frames_it_draws(windowed: Path) -> None:
    """Half of CLIP's frames, drawn anew in each epoch: their windows are in the cache, whichever they are."""
    needs, seen = replace(WINDOW, sparse_frames=2), {}
    for place in ("cache", "videos"):
        source = cached_source(windowed, "train", None, place)
        with source.loader(needs, decode_threads=2, read_threads=1) as loader:
            for epoch in (0, 1):
                loader.epoch = (3, epoch)
                (raw,) = loader.batches(PLAN)
                seen[place, epoch] = Assembler(source.split, needs, torch.device("cpu"))(raw).dense
    for epoch in (0, 1):
        assert (seen["cache", epoch] - seen["videos", epoch]).abs().max() / PIXEL <= 5
    assert not torch.equal(seen["cache", 0], seen["cache", 1])


def test_a_cache_without_the_windows_names_the_option_that_stores_them(
    toy: Any, data: Path, windowed: Path, tmp_path: Path
) -> None:
    framed = tmp_path / "framed"
    extract(toy.request(framed, root=data, with_frames=True, splits=("train",)))
    wrapped = replace(WINDOW, window_ends="wrap")
    cases = [
        (toy.int8, WINDOW, r"the cache keeps none; extract --with-frames --window 5 stores them"),
        (framed, WINDOW, r"it keeps no windows; the head sees 5 source frames around each of CLIP's, clamp at the "
                         r"ends; extract --with-frames --window 5 stores them"),
        (windowed, replace(WINDOW, window_frames=7), r"it keeps windows of 5 frames.*--with-frames --window 7 stores"),
        (windowed, wrapped, r"windows of 5 frames, clamp at.*wrap at.*--with-frames --window 5 --window-ends wrap"),
    ]  # fmt: skip
    for cache, needs, words in cases:
        asked = cached_source(cache, "train", None, "cache")
        with pytest.raises(UsageError, match=f"--frames-from cache: .*{words}.*Use --frames-from videos"):
            asked.origin(needs)
        source = cached_source(cache, "train", tmp_path / "nowhere")
        with pytest.raises(
            (DatasetError, UsageError), match=f"(?s)nowhere.*windows of . frames: from the videos.*{words}"
        ):
            source.loader(needs, decode_threads=1, read_threads=1)
        with pytest.raises(UsageError, match=rf"{words}.*--root"):
            ClipLoader(open_split(cache, "train"), needs, None)
    assert str(cached_source(windowed, "train", None).origin(WINDOW)) == (
        "windows of 5 frames: from the cache (JPEG, quality 100, windows of 5)"
    )
    assert cached_source(framed, "train", None, "cache").origin(replace(WINDOW, window_frames=1)) is not None


def test_wrapped_windows_are_those_of_the_release_in_cache_videos_and_online(
    toy: Any, data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "wrapped"
    asked = {"with_frames": True, "frame_quality": 100, "window": 5, "window_ends": "wrap", "splits": ("train",)}
    extract(toy.request(cache, root=data, **asked))
    wrap = replace(WINDOW, window_ends="wrap")
    for needs in (wrap, WINDOW):  # a wrapped store holds the clamped windows too
        ours, theirs = (shown(cache, needs, place).dense for place in ("cache", "videos"))
        assert (ours - theirs).abs().max() / PIXEL <= 5
    assert not torch.equal(shown(cache, wrap, "cache").dense, shown(cache, WINDOW, "cache").dense)
    split = open_split(cache, "train")
    online = OnlineSource(split=split, find_videos=lambda: dense_videos(split, None), tower=load_tower(str(toy.clip)))
    with online.loader(wrap, decode_threads=1, read_threads=1) as loader:
        (raw,) = loader.batches(PLAN)
    torch.testing.assert_close(raw.dense, shown(cache, wrap, "videos").dense)
    video, three = online.find_videos()[split.video_ids[5]].path, replace(split.spec, view_kind="test", views=3)
    one, other = (pixel_views(video, three, needs)[0] for needs in (wrap, WINDOW))  # the first begins at a third
    assert not torch.equal(one, other)
    assert torch.equal(one[:, 2::5], other[:, 2::5])
    with pytest.raises(CacheMismatch, match=r"frames\.window_ends: .*wrap.*clamp"):
        extract(toy.request(cache, root=data, **{**asked, "window_ends": "clamp"}))


def test_upkeep_keeps_the_windows(windowed: Path, tmp_path: Path, invoke: Any) -> None:
    prune(PruneRequest(source=windowed, target=tmp_path / "pruned", layers=(2,), views=1))
    recode(RecodeRequest(source=windowed, target=tmp_path / "recoded", codec="int4"))
    whole = open_split(windowed, "train")
    for name, views in (("pruned", 1), ("recoded", 2)):
        split = open_split(tmp_path / name, "train")
        assert split.frames == whole.frames
        for row in range(len(split.video_ids)):
            for view in range(views):
                ours, theirs = (FrameReader(Rows(one)).files(row, view) for one in (split, whole))
                assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert invoke("cache", "verify", "--cache", tmp_path / name).exit_code == 0
    said = " ".join(invoke("cache", "info", "--cache", windowed).stdout.split())
    assert "JPEG, quality 100, 4:4:4; windows of 5, clamp at the ends" in said
    file = next((tmp_path / "pruned" / "train" / "frames" / "c").rglob("0"))
    while file.is_dir():
        file = next(file.iterdir())
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    found = invoke("cache", "verify", "--cache", tmp_path / "pruned")
    assert found.exit_code == 1
    assert "frames/c/" in found.stdout + found.stderr


def test_plan_bills_the_windows_and_both_commands_refuse_what_cannot_be_meant(
    toy: Any, tmp_path: Path, invoke: Any
) -> None:
    words = ["plan", "--dataset", "ssv2", "--root", toy.root, "--model", toy.clip, "--cache", tmp_path, "--no-measure"]
    kept, wide = (
        json.loads(invoke(*words, "--with-frames", *more, "--json").stdout)["splits"][0]
        for more in ([], ["--window", 5])
    )
    more = wide["bytes_per_view"] - kept["bytes_per_view"]
    assert 32 * 623 < more < 32 * 3 * 32 * 32, "16 dense frames, alpha 2: 8 windows, each of 4 frames beside CLIP's"
    assert wide["total_bytes"] - kept["total_bytes"] == pytest.approx(24 * more, rel=0.05)
    for given, said in (
        (["--window", 5], "--window 5 keeps source frames beside the dense ones: add --with-frames"),
        (["--with-frames", "--window-ends", "wrap"], "--window-ends wrap is about the ends of windows: add --window 5"),
        (["--with-frames", "--window", 4], "--window, --window-ends: window=4 must be 0 or an odd number from 3 on"),
        (["--with-frames", "--window", 5, "--window-ends", "mirror"], "must be one of clamp, wrap"),
    ):
        refused = invoke(*words, *given)
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())


def test_the_format_says_which_frames_are_kept(windowed: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/cache-format.md").read_text(encoding="utf-8")
    section = text.partition("## Windows")[2].partition("\n## ")[0]
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    split = open_split(windowed, "train")
    for row in range(len(split.video_ids)):
        said: dict[str, Any] = {"group": zarr.open_group(split.path, mode="r"), "alpha": 2}
        exec(snippet.replace("[7, 0]", f"[{row}, 0]").replace("[7]", f"[{row}]"), said)
        assert tuple(said["kept"]) == FrameReader(Rows(split)).kept(row, 0)


@pytest.mark.slow
def test_an_extraction_with_windows_killed_and_resumed_is_an_undisturbed_one(
    toy: Any, data: Path, windowed: Path, tmp_path: Path, started: Any, content: Any
) -> None:
    shards = {"shard_videos": 1, "with_frames": True, "frame_quality": 100, "window": 5}
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    extract(toy.request(calm, root=data, **shards))
    words = ["extract", "--root", data, "--model", toy.clip, "--dense-frames", 8, "--views", 2, "--shard-videos", 1,
             "--calibration-videos", 8, "--batch-frames", 32, "--decode-threads", 1, "--with-frames",
             "--frame-quality", 100, "--window", 5, "--cache", rough]  # fmt: skip
    process, ledger = started(*words), rough / "train.ledger.jsonl"
    while process.poll() is None and not (ledger.is_file() and ledger.read_text()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()
    before = len(ledger.read_text().splitlines())
    assert 0 < before < 6, "killed in the middle"
    train, _ = extract(toy.request(rough, root=data, **shards))
    assert train.stored == 6
    assert before <= train.resumed < 6, "a sealed shard is taken over too"
    ours, theirs = content(rough), content(calm)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    shutil.rmtree(rough)
