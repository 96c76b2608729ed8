"""Extraction: what is there is kept, what differs is refused, what is broken is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.views import as_stored
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.draw import draw_view
from vidxfer.pipeline.errors import CacheFull, CacheMismatch, ClipError, DatasetError, UsageError
from vidxfer.pipeline.training.dense import dense_frames
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.extract import extract
from vidxfer.stages.shards.encode import prepare


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the last change of every file: equal only if nothing was written again."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_the_same_settings_twice_rewrite_nothing(toy: Any) -> None:
    before = stamps(toy.int8)
    reports = extract(toy.request(toy.int8))
    assert stamps(toy.int8) == before
    assert [(report.stored, report.resumed) for report in reports] == [(24, 24), (16, 16)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"codec": "float16"}, "codec: cache has 'int8', run needs 'float16'"),
        ({"dense_frames": 16}, "sampling.dense_frames: cache has 8, run needs 16"),
        ({"layers": (0, 2)}, "layers: cache has [0, 1, 2], run needs [0, 2]"),
        ({"stem": True}, "layers: cache has [0, 1, 2], run needs [-1, 0, 1, 2]"),
        ({"train_views": 3}, "views: cache has 2, run needs 3"),
        ({"seed": 1}, "sampling.seed: cache has 0, run needs 1"),
        ({"calibration_videos": 7}, "calibration_videos: cache has 8, run needs 7"),
        ({"limit": 8}, "dataset_fingerprint"),
    ],
)
def test_other_settings_are_refused_and_the_field_is_named(toy: Any, changes: dict[str, Any], field: str) -> None:
    before = stamps(toy.int8)
    with pytest.raises(CacheMismatch) as caught:
        extract(toy.request(toy.int8, splits=("train",), **changes))
    assert field in str(caught.value)
    assert stamps(toy.int8) == before


def test_another_mismatch_in_the_last_split_leaves_the_first_unwritten(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.int8 / "val", tmp_path / "val")
    shutil.copyfile(toy.int8 / "val.ledger.jsonl", tmp_path / "val.ledger.jsonl")
    with pytest.raises(CacheMismatch):
        extract(toy.request(tmp_path, test_views=2))
    assert not (tmp_path / "train").exists()


@pytest.fixture
def damaged(toy: Any, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Six training videos: one cut off, one empty, one that is text; ids -> reason."""
    root = toy.smaller(tmp_path / "damaged")
    first, second, third = sorted((root / toy.videos.name).iterdir())[1:4]
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    second.write_bytes(b"")
    third.write_text("no video at all\n" * 200)
    return root, {first.stem: "decode_failed", second.stem: "empty", third.stem: "not_a_video"}


def test_broken_videos_are_rows_with_a_reason_and_the_others_are_stored(
    toy: Any, damaged: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, reasons = damaged
    train, val = extract(toy.request(tmp_path / "cache", root=root))
    assert (train.videos, train.stored, len(train.failed)) == (6, 3, 3)
    assert {name: text.split(":")[0] for name, text in train.failed.items()} == reasons
    assert (val.stored, val.failed) == (2, {})
    rows = Rows(open_split(tmp_path / "cache", "train"))
    assert [rows.video_ids[row] for row in rows.stored_rows()] == [
        name for name in rows.video_ids if name not in reasons
    ]
    written = [json.loads(line) for line in (tmp_path / "cache" / "train.ledger.jsonl").read_text().splitlines()]
    assert {one["id"]: one["reason"] for line in written for one in line["failed"]} == reasons


def test_broken_videos_give_exit_code_3_and_are_printed(
    toy: Any, damaged: tuple[Path, dict[str, str]], tmp_path: Path, invoke: Any
) -> None:
    root, reasons = damaged
    words = ["extract", "--root", root, "--cache", tmp_path / "cache", "--model", toy.clip, "--dense-frames", 8]
    for _ in range(2):  # asked again, it says the same without doing it again
        result = invoke(*words)
        assert result.exit_code == 3
        for name, reason in reasons.items():
            assert f"refused: train/{name}: {reason}" in result.stdout


def test_what_stayed_good_beside_a_broken_video_has_the_same_bytes(
    toy: Any, damaged: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, _ = damaged
    extract(toy.request(tmp_path / "with", root=root, codec="float16", splits=("train",)))
    with (
        CacheReader(open_split(tmp_path / "with", "train")) as ours,
        CacheReader(open_split(toy.float16, "train")) as theirs,
    ):
        for row in ours.stored_rows().tolist():
            torch.testing.assert_close(
                ours.read([row], [1]).codes.float(), theirs.read([row], [1]).codes.float(), rtol=2e-3, atol=2e-3
            )
            assert ours.views_of(row) == theirs.views_of(row)


def test_a_listed_video_that_is_not_on_disk_is_a_row_with_the_reason_missing(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "data")
    gone = sorted((root / toy.videos.name).iterdir())[2]
    gone.unlink()
    (report,) = extract(toy.request(tmp_path / "cache", root=root, splits=("train",)))
    assert report.failed.keys() == {gone.stem}
    assert report.failed[gone.stem].startswith("missing")
    assert any(gone.stem in note for note in report.notes)


def test_a_link_that_leaves_the_root_is_never_followed(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "data")
    inside = min((root / toy.videos.name).iterdir())
    inside.rename(tmp_path / "elsewhere.webm")
    inside.symlink_to(tmp_path / "elsewhere.webm")
    with pytest.raises(DatasetError, match=inside.stem):
        extract(toy.request(tmp_path / "cache", root=root, splits=("train",)))


def test_float16_tokens_are_the_towers_taps_of_the_replayed_views(toy: Any) -> None:
    split = open_split(toy.float16, "train")
    tower = load_tower(str(toy.clip))
    videos = {video.id: video for video in toy.request(toy.float16).data.load("train").videos}
    largest = 0.0
    with CacheReader(split) as reader:
        for row in (0, 7, 23):
            for number, view in enumerate(reader.views_of(row)):
                video = videos[split.video_ids[row]]
                dense = dense_frames(video, view, split.spec, reader.source_of(row)[0])
                taps = tower.taps(dense[:: split.spec.sampling.alpha], split.spec.layers)
                stored = reader.read([row], [number]).codes[0].float()
                # float16 keeps 11 bits: half a unit in the last place is 2^-11 of the value.
                torch.testing.assert_close(stored, taps.tokens, rtol=2**-11, atol=1e-6)
                embedding = torch.from_numpy(reader.embedding([row], [number])[0])
                torch.testing.assert_close(embedding, taps.embedding, rtol=2**-11, atol=1e-6)
                largest = max(largest, float((stored - taps.tokens).abs().max()))
    assert largest > 0, "compared with itself?"


@pytest.mark.parametrize("split_name", ["train", "val"])
def test_a_stored_view_replays_what_clip_saw_bit_for_bit(toy: Any, split_name: str) -> None:
    split = open_split(toy.int8, split_name)
    rows = Rows(split)
    flipped = grey = 0
    for video in toy.request(toy.int8).data.load(split_name).videos:
        row = split.video_ids.index(video.id)
        seen = prepare(video, split.spec)
        assert list(seen.views) == rows.views_of(row)
        for view, sparse in zip(rows.views_of(row), seen.pixels, strict=True):
            dense = dense_frames(video, view, split.spec, seen.frame_count)
            assert torch.equal(dense[:: split.spec.sampling.alpha], sparse)
            flipped, grey = flipped + view.flip, grey + view.grey
    if split_name == "train":
        assert flipped > 5, "no mirrored view was tried"
        assert grey > 2, "no grey view was tried"


def test_labels_change_sides_with_the_pixels(toy: Any) -> None:
    split = open_split(toy.int8, "train")
    names = split.class_names
    swapped = {names[a]: names[b] for a, b in split.flip_pairs.items()}
    assert split.flip_pairs == flip_pairs(names)
    assert swapped["Moving right with a red triangle"] == "Moving left with a red triangle"
    assert "Moving a red triangle up" not in swapped


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_decode_threads_change_no_byte_of_the_cache(toy: Any, tmp_path: Path, content: Any, codec: str) -> None:
    extract(toy.request(tmp_path, codec=codec, decode_threads=5))
    assert content(tmp_path) == content(getattr(toy, codec))


@pytest.mark.parametrize("batch_frames", [1, 40, 10_000])
def test_the_size_of_clips_batches_changes_codes_by_rounding_at_most(
    toy: Any, tmp_path: Path, batch_frames: int
) -> None:
    """Not a byte on the machines tried; another CPU may sum a larger batch in another order."""
    extract(toy.request(tmp_path, batch_frames=batch_frames, splits=("train",)))
    with CacheReader(open_split(tmp_path, "train")) as a, CacheReader(open_split(toy.int8, "train")) as b:
        rows = list(range(24))
        ours, theirs = (one.read(rows, [0] * 24).codes.int() for one in (a, b))
        assert [a.views_of(row) for row in rows] == [b.views_of(row) for row in rows]
    assert int((ours - theirs).abs().max()) <= 1
    assert float((ours != theirs).float().mean()) < 1e-3


def test_missing_data_says_how_to_name_it(toy: Any, tmp_path: Path, invoke: Any) -> None:
    result = invoke("extract", "--cache", tmp_path / "cache", "--model", toy.clip)
    assert result.exit_code == 2
    assert "--root" in result.stderr
    assert "VIDXFER_DATA" in result.stderr
    result = invoke("extract", "--cache", tmp_path / "cache", VIDXFER_DATA=str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert str(tmp_path / "nowhere") in result.stderr
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_said_before_anything_is_written(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(CacheFull) as caught:
        extract(toy.request(tmp_path / "cache"))
    for word in ("GB free", "--layers", "--codec int8", "--cache", "vidxfer plan"):
        assert word in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_finished_cache_needs_no_room(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(toy.int8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert [report.stored for report in extract(toy.request(toy.int8))] == [24, 16]


def test_layers_the_tower_does_not_have_are_a_usage_error(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="blocks 0 to 2"):
        extract(toy.request(tmp_path / "cache", layers=(1, 7)))
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_weights_is_no_model(toy: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    request = toy.request(tmp_path / "cache")
    with pytest.raises(ClipError, match=r"open_clip_config\.json"):
        extract(replace(request, clip=replace(request.clip, model=str(tmp_path))))


def test_three_crops_and_two_views_are_stored_as_six(toy: Any, tmp_path: Path) -> None:
    (report,) = extract(toy.request(tmp_path, splits=("val",), test_views=2, test_crops=3, limit=4))
    split = open_split(tmp_path, "val")
    assert (report.stored, split.spec.stored_views) == (4, 6)
    rows = Rows(split)
    for row in range(4):
        views = rows.views_of(row)
        assert len({view.crop for view in views}) == 3
        assert len({view.indices for view in views}) == 2


def test_int8_tokens_are_near_the_float16_ones(toy: Any) -> None:
    from vidxfer.pipeline.cache.codec import Dequantiser

    eight, sixteen = open_split(toy.int8, "val"), open_split(toy.float16, "val")
    decode = Dequantiser(eight.spec, torch.from_numpy(eight.channel_mean), torch.from_numpy(eight.channel_std))
    with CacheReader(eight) as a, CacheReader(sixteen) as b:
        rows = a.stored_rows().tolist()
        codes = a.read(rows, [0] * len(rows))
        ours, exact = decode(codes.codes, codes.scale), b.read(rows, [0] * len(rows)).codes.float()
    error = (ours - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.01
    assert np.isfinite(eight.channel_std).all()


def test_what_clip_is_shown_is_what_the_cache_gives_back(toy: Any) -> None:
    """A box between pixels is rounded to float32 before CLIP sees it, not only when it is stored."""
    spec = open_split(toy.int8, "val").spec
    views = [draw_view(spec, f"video {number}", 0, 40, 37, 53 + number) for number in range(20)]
    assert views == [as_stored(view) for view in views]
    assert any(side != round(side) for view in views for side in view.crop), "no box lay between pixels"
