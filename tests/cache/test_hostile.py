"""A cache from a stranger: no file of it makes us wait, fill the memory or write outside of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.ledger import Ledger
from vidxfer.pipeline.cache.metadata import expect_described
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.check import damage_of, unreadable_states
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.grow import Addition, grow
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheError, PathError, VidxferError

from ..hostile import in_time

SPARSE_BYTES = 300 << 30


def sparse(path: Path) -> None:
    """300 GB that take no room; its first bytes are what they were."""
    os.truncate(path, SPARSE_BYTES)


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        path.unlink()
        make(path)

    return work


KINDS: dict[str, Callable[[Path], Any]] = {
    "sparse": sparse,
    "empty": lambda path: os.truncate(path, 0),
    "a byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "pipe": replaced(os.mkfifo),
    "endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "loop": replaced(lambda path: path.symlink_to(path)),
    "link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "folder": replaced(Path.mkdir),
    "deep json": lambda path: path.write_bytes(b"[" * 100_000),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def put_back(path: Path, raw: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(raw)


@pytest.fixture(scope="module")
def filled(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Four videos in two shards, with dense frames."""
    folder = tmp_path_factory.mktemp("hostile")
    store = FrameStore(quality=90, subsampling="4:2:0", most_bytes=40)
    split: Split = world.fill(world.make(folder, videos=4, shard_videos=2, frames=store))
    return split


def read_everything(cache: Path) -> None:
    """What `cache info`, `cache verify`, train and evaluate read."""
    summary(cache)
    split = open_split(cache, "train")
    expect_described(split.path)
    unreadable = unreadable_states(split)
    with CacheReader(split, without=unreadable, direct=True) as reader:
        for shard in split.ledger.finished():
            damage_of(reader, shard)
    with CacheReader(split) as reader:
        rows = [int(row) for row in reader.stored_rows()]
        reader.read(rows, [0] * len(rows))
        reader.embedding(rows, [0] * len(rows))
        frames = FrameReader(reader)
        for row in rows:
            reader.views_of(row)
            reader.source_of(row)
            frames.files(row, 0)


def test_a_cache_that_nobody_touched_is_read_whole(filled: Split) -> None:
    read_everything(filled.path.parent)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_file_of_a_cache_hangs_or_fills_the_memory(filled: Split, data: st.DataObject) -> None:
    cache = filled.path.parent
    names = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    path, kind = cache / data.draw(st.sampled_from(names)), data.draw(st.sampled_from(sorted(KINDS)))
    raw = path.read_bytes()
    if kind == "a byte short" and not raw:
        return  # the lock
    KINDS[kind](path)
    try:
        with in_time():
            try:
                read_everything(cache)
                is_read = True
            except VidxferError as error:
                assert str(cache) in str(error)  # noqa: PT017
                is_read = False
    finally:
        put_back(path, raw)
    if kind in ("sparse", "pipe", "endless device", "folder"):
        assert is_read == (path.suffix == ".lock"), f"{path}: {kind}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train/state/c/0", "has {size} bytes, expected 6"),
        ("train/label/c/0", "has {size} bytes, expected 20"),
        ("train/video_id/c/0", "has {size} bytes, expected at most"),
        ("train/zarr.json", "has {size} bytes, expected at most 16777216"),
        ("train/tokens/zarr.json", "has {size} bytes, expected at most 16777216"),
        ("train/tokens/c/0/0/0/0/0/0", "has {size} bytes, expected"),
        ("train.ledger.jsonl", "line 3: more than 67108864 bytes"),
    ],
)
def test_what_is_too_long_is_named_with_what_was_expected(filled: Split, name: str, words: str) -> None:
    path = filled.path.parent / name
    raw = path.read_bytes()
    sparse(path)
    try:
        with in_time(), pytest.raises(CacheCorrupt, match=words.format(size=SPARSE_BYTES)) as caught:
            CacheReader(open_split(filled.path.parent, "train")).read([0], [0])
        assert str(path) in str(caught.value)
    finally:
        put_back(path, raw)


def changed(file: Path, change: Callable[[Any], Any]) -> bytes:
    raw = file.read_bytes()
    stored = json.loads(raw)
    change(stored)
    file.write_text(json.dumps(stored))
    return raw


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored.update(shape=[1 << 40], chunk_grid=grid(1 << 40)),
        lambda stored: stored.update(shape=[1 << 28], chunk_grid=grid(1)),
        lambda stored: stored.update(chunk_grid=grid(0)),
        lambda stored: stored.update(shape=[-1]),
        lambda stored: stored.update(data_type="object"),
        lambda stored: stored["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}}),
        lambda stored: stored.update(chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}}),
    ],
)
def test_a_description_cannot_make_zarr_read_or_unpack_any_number_of_bytes(filled: Split, change: Any) -> None:
    file = filled.path / "label/zarr.json"
    raw = changed(file, change)
    try:
        with in_time(), pytest.raises(CacheCorrupt, match=r"label/zarr\.json: not that of a small array"):
            open_split(filled.path.parent, "train")
    finally:
        file.write_bytes(raw)


def grid(*sides: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(sides)}}


def test_what_a_group_says_of_its_arrays_in_passing_is_not_believed(filled: Split) -> None:
    """zarr would take an array's description from here, and look at no zarr.json of the array's own."""
    other = json.loads((filled.path / "text/zarr.json").read_text())
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {"label": other}}
    raw = changed(filled.path / "zarr.json", lambda stored: stored.update(consolidated_metadata=consolidated))
    try:
        assert open_split(filled.path.parent, "train").labels.shape == (4,)
    finally:
        (filled.path / "zarr.json").write_bytes(raw)


def test_a_ledger_is_not_kept_in_memory_and_has_a_most_number_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidxfer.pipeline.cache.ledger.LINES_AT_LEAST", 10)
    line = json.dumps({"cache_id": "another", "shard": 0}) + "\n"
    path = tmp_path / "train.ledger.jsonl"
    path.write_text(line * 1010)
    assert Ledger(path, "me", 1).finished() == {}
    path.write_text(line * 1011)
    with pytest.raises(CacheCorrupt, match="more than 1010 lines, for 1 shards"):
        Ledger(path, "me", 1).finished()


# What is written ------------------------------------------------------------------------------------------------------


def outside(folder: Path) -> Path:
    """A folder that is none of the cache's business, with what a link of a stranger could point to."""
    inside = folder / "outside/c/0/0/0/0/0"
    inside.mkdir(parents=True)
    (folder / "outside/precious").write_text("precious")
    (folder / "outside/x.part").write_text("a part of somebody else")
    (folder / "outside/zarr.json").write_text("{}")
    (inside / "0").write_text("precious")
    return folder / "outside"


def content(folder: Path) -> dict[str, str]:
    """Every file, and every folder, of which a writer may have made one."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else "folder" for path in folder.rglob("*")
    }


def one_more(split: Split) -> Addition:
    """A video to be added."""
    return Addition(
        video_ids=("new",), labels=[0], class_names=split.class_names, text=np.zeros((0, 4)), flip_pairs={}, factors={},
        dataset="toy", dataset_fingerprint="x", data={},
    )  # fmt: skip


FILES = ["train.lock", "train.ledger.jsonl", "train/state/c/0", "train/state/c/1.part", "train/state/c/x.part",
         "train/tokens/c/1/0/0/0/0/0.part", "train/label/c/1", "train/label/zarr.json", "train/zarr.json",
         "train/zarr.json.part"]  # fmt: skip
FOLDERS = [".train.0-1.part", ".train.0.commit", ".train.x.part", "train/tokens", "train/tokens/c", "train/tokens/c/0",
           "train/label", "train/label/c", "train/state/c/x.part"]  # fmt: skip
LAID_OUT = [
    *((name, kind) for name in FILES for kind in ("link", "hard link")),
    *((name, "link to folder") for name in FOLDERS),
    *((name, "pipe") for name in (*FILES[:4], ".train.0-1.part", ".train.0.commit")),
]


@pytest.mark.parametrize(("name", "kind"), LAID_OUT)
def test_nothing_outside_is_written_whatever_is_laid_out_inside(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    split = world.fill(world.make(tmp_path / "cache", videos=4, shard_videos=2))
    elsewhere = outside(tmp_path)
    before = content(elsewhere)
    path = tmp_path / "cache" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    made = {
        "link": lambda: path.symlink_to(elsewhere / "precious"),
        "link to folder": lambda: path.symlink_to(elsewhere),
        "hard link": lambda: os.link(elsewhere / "precious", path),
        "pipe": lambda: os.mkfifo(path),
    }
    made[kind]()
    with in_time():
        try:
            with SplitWriter(open_split(tmp_path / "cache", "train")) as writer:
                for shard in (0, 1):
                    writer.drop(shard, "damaged")
                grown_split = grow(writer, one_more(split))
            world.fill(grown_split)
        except VidxferError as error:
            assert str(tmp_path / "cache") in str(error)  # noqa: PT017
    assert content(elsewhere) == before
    assert (elsewhere / "precious").stat().st_nlink <= 2


@pytest.mark.parametrize("name", ["label", "label/c", "video_id/c"])
def test_videos_are_not_added_through_a_link(world: Any, tmp_path: Path, name: str) -> None:
    """What is behind the link is what must be there: it is read, and nothing comes to it."""
    split = world.make(tmp_path / "cache", videos=4, shard_videos=2)
    (split.path / name).rename(tmp_path / "outside")
    (split.path / name).symlink_to(tmp_path / "outside")
    before = world.files_of(tmp_path / "outside")
    with SplitWriter(open_split(tmp_path / "cache", "train")) as writer:  # noqa: SIM117
        with pytest.raises(PathError, match=f"{name}.* is a link"):
            grow(writer, one_more(split))
    assert world.files_of(tmp_path / "outside") == before


def test_files_of_others_are_not_moved_in_through_a_prepared_folder(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path / "cache", videos=4, shard_videos=2))
    elsewhere, commit = outside(tmp_path), tmp_path / "cache/.train.0.commit"
    before = content(elsewhere)
    commit.mkdir()
    (commit / "shard.json").write_text(Ledger.line_of(split.ledger.finished()[0], split.cache_id))
    (commit / "tokens").symlink_to(elsewhere)
    split.ledger.drop(0, "damaged")
    with pytest.raises(PathError, match="tokens is a link to"), SplitWriter(split):
        pass
    assert content(elsewhere) == before


def test_a_whole_split_may_be_a_link_and_a_part_of_its_views_may_not(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path / "cache", videos=4, shard_videos=2)
    assert split.led_elsewhere is None
    split.path.rename(tmp_path / "disk2")
    split.path.symlink_to(tmp_path / "disk2")
    here = open_split(tmp_path / "cache", "train")
    assert "is read and written at" in str(here.led_elsewhere)
    world.fill(here)
    with CacheReader(here) as reader:
        assert reader.stored_rows().tolist() == [0, 1, 2, 3]
    part = world.make(tmp_path / "other", videos=4, shard_videos=2, first_view=2)
    (tmp_path / "cache/train.views").symlink_to(part.path.parent)
    (part.path.parent / "2").symlink_to(part.path)
    before = sorted(part.path.parent.iterdir())
    object.__setattr__(part, "path", tmp_path / "cache/train.views/2")
    with pytest.raises(PathError, match=r"train\.views is a link to"), SplitWriter(part):
        pass
    assert sorted(part.path.resolve().parent.iterdir()) == before


def test_a_lock_that_is_no_file_says_so_at_once(world: Any, tmp_path: Path) -> None:
    split = world.make(tmp_path, videos=2)
    split.lock_path.unlink()
    os.mkfifo(split.lock_path)
    with (
        in_time(),
        pytest.raises(PathError, match=r"train\.lock is a pipe, expected a regular file"),
        SplitWriter(split),
    ):
        pass
    with pytest.raises(CacheError, match="is not there"):
        open_split(tmp_path / "nothing", "train")
