"""A cache behind a URL is read through zarr-python and equals the local one; what needs a folder says so."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from obstore.store import LocalStore, MemoryStore
from zarr.storage import ObjectStore

from vidxfer.pipeline.cache import remote as remote_room
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.read.plain import ZarrReader, open_reader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.remote import RemotePath, local_folder, place_of
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split, open_split, splits
from vidxfer.pipeline.cache.write.writer import ShardWriter, SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheError

FAILED = (2,)
STORED = [0, 1, 3, 4, 5, 6]


class Ranges(SimpleHTTPRequestHandler):
    """A web server that answers range requests, as object stores and nginx do, and lists nothing."""

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def list_directory(self, path: Any) -> None:
        """Not here."""
        self.send_error(403)

    def do_GET(self) -> None:
        asked, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        raw = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(raw) - int(last))
        end = min(int(last) + 1, len(raw)) if first and last else len(raw)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(raw)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(raw[start:end])


@pytest.fixture(scope="module", params=["int8", "float16"])
def local(request: pytest.FixtureRequest, world: Any, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Seven videos in shards of three, one of them failed, as an ordinary folder."""
    split: Split = world.fill(
        world.make(tmp_path_factory.mktemp("remote") / "zarr", codec=request.param), failing=FAILED
    )
    return split


def copied_to_memory(cache: Path, name: str) -> str:
    """The cache's files in fsspec's memory; its URL."""
    memory = fsspec.filesystem("memory")
    for path in sorted(p for p in cache.rglob("*") if p.is_file()):
        memory.pipe(f"/{name}/{path.relative_to(cache)}", path.read_bytes())
    return f"memory://{name}"


@pytest.fixture(scope="module", params=["memory", "obstore-local", "obstore-memory", "http"])
def remote(request: pytest.FixtureRequest, local: Split) -> Iterator[str | RemotePath]:
    """The same cache behind something that is no folder."""
    cache = local.path.parent
    if request.param == "memory":
        yield copied_to_memory(cache, f"cache-{local.spec.codec}")
    elif request.param == "obstore-local":
        yield RemotePath(ObjectStore(LocalStore(str(cache)), read_only=True), "local://zarr")
    elif request.param == "obstore-memory":
        store = MemoryStore()
        for path in sorted(p for p in cache.rglob("*") if p.is_file()):
            store.put(str(path.relative_to(cache)), path.read_bytes())
        yield RemotePath(ObjectStore(store, read_only=True), "inside://")
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(cache.parent)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{cache.name}"
        server.shutdown()
        server.server_close()


def test_what_is_read_through_a_url_is_what_lies_in_the_folder(local: Split, remote: str | RemotePath) -> None:
    assert splits(remote) == ["train"]
    split = open_split(remote, "train")
    assert split.video_ids == local.video_ids
    assert split.ledger.finished() == local.ledger.finished()
    rows, views = [6, 0, 5, 3, 3], [1, 0, 0, 1, 0]
    with open_reader(split) as far, open_reader(local) as near:
        assert isinstance(far, ZarrReader)
        assert isinstance(near, CacheReader)
        assert "zarr-python" in far.how
        assert far.stored_rows().tolist() == STORED
        for layers, frames in ((None, None), ([7, -1], None), ([3], [[1]] * 5), ([], None)):
            found, expected = (
                far.read(rows, views, layers, frames=frames),
                near.read(rows, views, layers, frames=frames),
            )
            assert torch.equal(found.codes, expected.codes)
            assert (found.scale is None) == (expected.scale is None)
            if found.scale is not None and expected.scale is not None:
                assert torch.equal(found.scale, expected.scale)
        np.testing.assert_array_equal(far.embedding(rows, views), near.embedding(rows, views))
        assert [far.views_of(row) for row in STORED] == [near.views_of(row) for row in STORED]
    found_summary, expected_summary = summary(remote)["train"], summary(local.path.parent)["train"]
    assert found_summary["bytes_on_disk"] == sum(record.bytes for record in local.ledger.finished().values())
    for changed in ("path", "bytes_on_disk"):
        del found_summary[changed], expected_summary[changed]
    assert found_summary == expected_summary


def test_what_writes_says_that_it_needs_a_folder(world: Any, remote: str | RemotePath) -> None:
    split = open_split(remote, "train")
    what = [
        lambda: SplitWriter(split).__enter__(),
        lambda: ShardWriter(split, 0).__enter__(),
        lambda: split.ledger.drop(0, "why"),
        lambda: CacheReader(split),
        lambda: world.make(remote),
        lambda: list(split.path.rglob("*")),
    ]
    for one in what:
        with pytest.raises(CacheError, match=r"this command needs a local folder.*can only be read.*--cache"):
            one()


def test_a_split_that_is_not_there_is_named_with_its_url() -> None:
    with pytest.raises(CacheError, match=r"no cache at memory://nothing/train: .*zarr\.json is not there"):
        open_split("memory://nothing", "train")
    assert splits("memory://nothing") == []
    with pytest.raises(CacheError, match="no cache at memory://nothing"):
        summary("memory://nothing")


def test_a_store_that_does_not_answer_is_an_error_with_its_address() -> None:
    with pytest.raises(CacheError, match=r"http://127\.0\.0\.1:9/zarr/train/zarr\.json: the store answers with"):
        splits("http://127.0.0.1:9/zarr")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("zarr", Path("zarr")),
        (Path("/data/zarr"), Path("/data/zarr")),
        ("file:///data/zarr", Path("/data/zarr")),
        (Path("file:///data/zarr"), Path("/data/zarr")),
        ("c:/zarr", Path("c:/zarr")),
        ("memory://a/zarr/", "memory://a/zarr"),
        (Path("memory://a/zarr"), "memory://a/zarr"),
        (Path("http://127.0.0.1:9/a/zarr"), "http://127.0.0.1:9/a/zarr"),
        ("s3://bucket/zarr", "s3://bucket/zarr"),
    ],
)
def test_a_url_is_known_from_a_folder_even_after_it_was_a_path(asked: Path | str, found: Path | str) -> None:
    place = place_of(asked)
    assert str(place) == str(found)
    assert isinstance(place, Path) == isinstance(found, Path)


def test_a_folder_that_looks_like_a_url_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory:/zarr").mkdir(parents=True)
    assert place_of("memory:/zarr") == local_folder("memory:/zarr") == Path("memory:/zarr")


def test_a_scheme_nobody_knows_says_what_to_install() -> None:
    with pytest.raises(CacheError, match=r"nosuch://x: cannot be opened.*pip install 'vidxfer\[remote\]'.*--cache"):
        place_of("nosuch://x")


@pytest.fixture
def damaged(local: Split, request: pytest.FixtureRequest) -> Iterator[tuple[TokenReader, Any, str]]:
    """A reader of a copy in memory, the file system to damage it with, and the folder of the split in it."""
    name = f"damaged-{local.spec.codec}"
    split = open_split(copied_to_memory(local.path.parent, name), "train")
    with open_reader(split) as reader:
        yield reader, fsspec.filesystem("memory"), f"/{name}/train/"


def test_a_flipped_bit_behind_a_url_is_found(damaged: tuple[TokenReader, Any, str]) -> None:
    reader, memory, folder = damaged
    array = reader.split.layout.owned["tokens"]
    raw = bytearray(memory.cat(folder + array.key(1)))
    raw[array.offset(array.slot(1, 1, 2)) + 3] ^= 16  # row 4
    memory.pipe(folder + array.key(1), bytes(raw))
    reader.read([4], [0])
    with pytest.raises(CacheCorrupt, match=r"tokens: video vidéo 4, 動画, view 1: .*checksum.*cache verify"):
        reader.read([4], [1])


def test_a_shard_that_is_missing_behind_a_url_is_no_zeros(damaged: tuple[TokenReader, Any, str]) -> None:
    reader, memory, folder = damaged
    memory.rm(folder + reader.split.layout.owned["tokens"].key(2))
    with pytest.raises(CacheCorrupt, match=r"tokens/c/2/.*: the file is missing though its shard is finished"):
        reader.read([6], [0])


def test_an_index_of_holes_behind_a_url_is_no_zeros(
    world: Any, tmp_path: Path, damaged: tuple[TokenReader, Any, str]
) -> None:
    reader, memory, folder = damaged
    holes = world.fill(world.make(tmp_path, codec=reader.split.spec.codec), failing=(0, 1, 3))
    key = reader.split.layout.owned["tokens"].key(0)
    memory.pipe(folder + key, (holes.path / key).read_bytes())
    with pytest.raises(CacheCorrupt, match=r"video vidéo 1, 動画, view 0: stored, but absent from the shard's index"):
        reader.read([1], [0])


def test_making_a_split_behind_a_url_writes_nothing(local: Split, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match="memory://fresh: this command needs a local folder"):
        create_split(
            Path("memory://fresh"), local.spec, video_ids=["a"], labels=[0], class_names=local.class_names,
            text=local.text, channel_mean=local.channel_mean, channel_std=local.channel_std,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_room, "ANSWER_TIMEOUT", timedelta(seconds=0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(CacheError, match="the store answers with an error"):
            splits(f"http://127.0.0.1:{silent.getsockname()[1]}/zarr")
        assert time.monotonic() - began < 60
