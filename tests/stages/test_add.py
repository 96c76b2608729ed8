"""`vidxfer cache add`: what is added equals what one extraction of everything would have stored."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.settings import DataSource
from vidxfer.stages.upkeep.add import AddRequest, add


@pytest.fixture(scope="module")
def few(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 cache of 7 of the toy world's training videos, in shards of 5; read-only."""
    folder = tmp_path_factory.mktemp("few")
    root = toy.smaller(folder / "ssv2", 7)
    extract(toy.request(folder / "zarr", root=root, codec="float16", batch_frames=1))
    return folder / "zarr"


@pytest.fixture
def cache(few: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "zarr"))


def everything(toy: Any, cache: Path, **changes: Any) -> AddRequest:
    data = DataSource(kind="ssv2", root=toy.root)
    return AddRequest(**{"data": data, "cache": cache, "splits": ("train",), "batch_frames": 1, **changes})


def test_added_videos_are_stored_as_one_extraction_would_have(toy: Any, cache: Path, tmp_path: Path) -> None:
    (report,) = add(everything(toy, cache))
    assert (report.added, report.known, report.stored, report.failed, report.new_classes) == (17, 7, 24, {}, ())
    extract(toy.request(tmp_path / "once", codec="float16", batch_frames=1, splits=("train",)))
    with CacheReader(open_split(cache, "train")) as ours, CacheReader(open_split(tmp_path / "once", "train")) as theirs:
        place = {name: row for row, name in enumerate(ours.video_ids) if name}
        assert len(place) == 24
        for row, name in enumerate(theirs.video_ids):
            for view in (0, 1):
                mine, wanted = ours.read([place[name]], [view]), theirs.read([row], [view])
                assert torch.equal(mine.codes, wanted.codes), name
                assert ours.view(place[name], view) == theirs.view(row, view)
            assert ours.split.labels[place[name]] == theirs.split.labels[row]
    assert report.fingerprint == open_split(cache, "train").spec.fingerprint
    again = add(everything(toy, cache))[0]
    assert (again.added, again.known, again.stored) == (0, 24, 24)


def test_a_grown_cache_is_verified_listed_trained_on_and_finds_its_videos(
    toy: Any, few: Path, cache: Path, invoke: Any, tmp_path: Path
) -> None:
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", toy.root, "--split", "train"]
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    assert invoke("cache", "verify", "--cache", cache).exit_code == 0
    shown = invoke("cache", "info", "--cache", cache, "--json")
    found = json.loads(shown.stdout)["train"]
    assert (found["videos"], found["stored"], found["pending"]) == (24, 24, 0)
    assert len(found["passport"]["informs"]["extents"]) == 2
    videos = cached_source(cache, "train", None).find_videos()
    assert len(videos) == 24
    assert len({video.path.parent for video in videos.values()}) == 2
    moved = Path(shutil.copytree(few.parent / "ssv2", tmp_path / "moved"))
    found_again = cached_source(cache, "train", moved).find_videos().values()
    assert [len([1 for video in found_again if root in video.path.parents]) for root in (moved, toy.root)] == [7, 17]
    sets = [word for setting in toy.settings() for word in ("--set", setting)]
    trained = invoke("train", "--cache", cache, "--recipe", "dist-toy", "--run", tmp_path / "run", "--device", "cpu",
                     "--set", "epochs=1", "--set", "warmup_epochs=0", *sets[4:])  # fmt: skip
    assert trained.exit_code == 0, trained.stderr


def write_csv(folder: Path, videos: list[Path], label: str) -> Path:
    folder.mkdir(parents=True)
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "id"])
        for number, video in enumerate(videos):
            (folder / video.name).write_bytes(video.read_bytes())
            rows.writerow([video.name, label, f"mine {number}"])
    return folder


def test_classes_are_matched_by_name_and_new_ones_come_last(toy: Any, cache: Path, tmp_path: Path) -> None:
    videos = sorted(toy.videos.glob("*.webm"))[:2]
    before = open_split(cache, "train")
    root = write_csv(tmp_path / "more", videos, "waving a hand")
    (report,) = add(everything(toy, cache, data=DataSource(kind="csv", root=root)))
    assert (report.added, report.new_classes) == (2, ("waving a hand",))
    split = open_split(cache, "train")
    assert split.class_names == (*before.class_names, "waving a hand")
    assert split.labels[-2:].tolist() == [len(before.class_names)] * 2
    assert split.text[-1].any()
    assert (split.text[:-1] == before.text).all()
    assert split.spec.dataset == "ssv2+csv"


def test_other_settings_are_refused_with_each_field_and_nothing_is_written(
    toy: Any, cache: Path, invoke: Any, content: Any
) -> None:
    before = content(cache)
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", toy.root, "--split", "train"]
    result = invoke(*words, "--codec", "int8", "--dense-frames", 16, "--seed", 0, "--precision", "bf16")
    assert result.exit_code == 1
    for text in ("codec: cache has 'float16', run needs 'int8'", "sampling.dense_frames: cache has 8, run needs 16",
                 "clip_precision: cache has 'fp32', run needs 'bf16'"):  # fmt: skip
        assert text in result.stderr
    assert "seed" not in result.stderr
    with pytest.raises(CacheMismatch, match="views: cache has 2, run needs 1"):
        add(everything(toy, cache, views=1))
    assert content(cache) == before


def test_another_clip_or_another_label_is_refused(toy: Any, cache: Path, tmp_path: Path) -> None:
    from vidxfer.pipeline.clip.tiny import write_tiny_clip

    other = write_tiny_clip(tmp_path / "clip", image_px=32, channels=128, blocks=3, embed=32)
    with pytest.raises(CacheMismatch, match="clip_weights_sha256") as caught:
        add(everything(toy, cache, model=str(other)))
    assert caught.value.fields["channels"] == (64, 128)
    labels = toy.root / "labels"
    root = tmp_path / "ssv2"
    root.mkdir()
    (root / toy.videos.name).symlink_to(toy.videos)
    (root / "labels").mkdir()
    entries = json.loads((labels / "train.json").read_text())
    entries[0]["template"], entries[0]["label"] = entries[1]["template"], entries[1]["label"]
    for name in ("labels.json", "validation.json"):
        (root / "labels" / name).write_text((labels / name).read_text())
    (root / "labels" / "train.json").write_text(json.dumps(entries))
    with pytest.raises(CacheMismatch, match=f"label of {entries[0]['id']}"):
        add(everything(toy, cache, data=DataSource(kind="ssv2", root=root)))


@pytest.mark.slow
def test_an_addition_that_was_killed_goes_on(toy: Any, cache: Path, started: Any) -> None:
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", toy.root, "--split", "train"]
    process = started(*words)
    ledger = cache / "train.ledger.jsonl"
    lines, end = ledger.read_bytes().count(b"\n"), time.monotonic() + 60
    while ledger.read_bytes().count(b"\n") == lines and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (report,) = add(everything(toy, cache))
    assert (report.added, report.known, report.stored) == (0, 24, 24)
