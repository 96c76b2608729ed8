"""Stored views are shown of the videos they were drawn for, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.read.check import damage_of
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.training.dense import dense_frames, origin_of
from vidxfer.pipeline.video.identity import identity_of
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.writer import write_video
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import Source, cached_source
from vidxfer.stages.settings import DataSource
from vidxfer.stages.upkeep.add import AddRequest, add
from vidxfer.stages.upkeep.fidelity import FidelityRequest, fidelity
from vidxfer.stages.upkeep.parity import ParityRequest, parity
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.recode import RecodeRequest, recode
from vidxfer.stages.upkeep.verify import VerifyRequest, verify

NEEDS = Needs(pixels="dense")


@pytest.fixture(scope="module")
def made(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data and cache: six training videos, with dense frames; read-only."""
    folder = tmp_path_factory.mktemp("same")
    root = toy.smaller(folder / "data")
    extract(toy.request(folder / "cache", root=root, splits=("train",), codec="float16", with_frames=True))
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of both, to be changed; the data set is where the cache looks for it."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def file_of(folder: Path, row: int) -> Path:
    name = open_split(folder / "cache", "train").video_ids[row]
    return folder / "data" / "20bn-something-something-v2" / f"{name}.webm"


def source_of(folder: Path, frames_from: str = "videos") -> Source:
    return cached_source(folder / "cache", "train", folder / "data", frames_from)


def dense_of(folder: Path, row: int, frames_from: str = "videos") -> torch.Tensor:
    """Dense frames of both views of a row, as training reads them."""
    source = source_of(folder, frames_from)
    with source.loader(NEEDS, decode_threads=1, read_threads=1) as loader:
        (raw,) = list(loader.batches([[(row, 0), (row, 1)]]))
    assert isinstance(raw.dense, torch.Tensor)
    return raw.dense


def of_another_size(path: Path, step: int = 2) -> None:
    with open_video(path) as source:
        frames = source.read(range(source.frame_count)).pixels
    write_video(path, np.ascontiguousarray(frames[:, ::step, ::step]) if step > 1 else frames.repeat(2, 1).repeat(2, 2))


def remuxed(path: Path) -> None:
    """The same packets in a file of other bytes."""
    part = path.with_suffix(".part.webm")
    with av.open(str(path)) as container, av.open(str(part), "w", options={"cluster_size_limit": "1000"}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    part.rename(path)


def without_identities(cache: Path) -> None:
    """Make of a cache one as 0.1.0 wrote it: no array of identities, and no word of it."""
    from dataclasses import replace

    from vidxfer.pipeline.cache.write.grow import write_attributes

    split = open_split(cache, "train")
    metadata = split.path / "zarr.json"
    stored = json.loads(metadata.read_text())
    del stored["attributes"]["vidxfer"]["seal"]["arrays"]["source_file"]
    metadata.write_text(json.dumps(stored))
    shutil.rmtree(split.path / "source_file")
    write_attributes(replace(split, identities=False))
    lines = [json.loads(line) for line in split.ledger.path.read_text().splitlines()]
    for line in lines:
        del line["crc32c"]["source_file"], line["line_crc32c"]
    split.ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_extraction_keeps_which_files_it_read(made: Path) -> None:
    split = open_split(made / "cache", "train")
    rows = Rows(split)
    assert split.identities
    for row in range(6):
        assert rows.file_of(row) == (*identity_of(file_of(made, row)), 0)
        assert rows.view(row, 1).source_px == rows.source_of(row)[1:]


@pytest.mark.parametrize("step", [1, 2])
def test_a_video_of_another_size_stops_training_with_its_name_and_a_way_on(own: Path, step: int) -> None:
    expected = dense_of(own, 2)
    of_another_size(file_of(own, 2), step)
    with pytest.raises(
        CacheError, match=r"had \d+ x \d+ px when the cache was made and now has \d+ x \d+ px"
    ) as caught:
        dense_of(own, 2)
    assert str(caught.value).startswith(f"{file_of(own, 2)}: ")
    assert "--frames-from cache" in str(caught.value)
    with pytest.raises(CacheError, match="it is not the same file"):
        dense_of(own, 2, "changed-videos")
    source = source_of(own, "cache")
    with source.loader(NEEDS, decode_threads=1, read_threads=1) as loader:
        (raw,) = list(loader.batches([[(2, 0)]]))
    assert raw.dense is not None
    assert torch.equal(dense_of(own, 1), dense_of(own, 1))
    assert expected.shape[0] == 2


def test_the_view_itself_remembers_the_size_it_was_drawn_for(own: Path) -> None:
    """Whoever pairs a stored view with a video, by whatever way, is told."""
    of_another_size(file_of(own, 0))
    source = source_of(own)
    rows = Rows(source.split)
    with pytest.raises(CacheError, match="when the cache was made"):
        dense_frames(source.find_videos()[rows.video_ids[0]], rows.view(0, 0), source.split.spec, rows.source_of(0)[0])


def test_copies_and_dates_do_not_matter_other_bytes_do_and_may_be_allowed(own: Path) -> None:
    expected = dense_of(own, 3)
    os.utime(file_of(own, 3), (1, 1))
    assert torch.equal(dense_of(own, 3), expected)
    remuxed(file_of(own, 3))
    with pytest.raises(CacheError, match=r"its bytes differ \([\d,]+ bytes, ") as caught:
        dense_of(own, 3)
    assert "--frames-from changed-videos" in str(caught.value)
    assert torch.equal(dense_of(own, 3, "changed-videos"), expected)


def test_other_bytes_of_the_same_length_are_another_file(own: Path) -> None:
    """One byte of the last kilobyte: pictures decode as before, the length is the same."""
    path = file_of(own, 3)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match=rf"its bytes differ \({len(content):,} bytes, then and now\)"):
        dense_of(own, 3)


def test_a_video_of_another_length_is_another_one(own: Path) -> None:
    path = file_of(own, 2)
    with open_video(path) as source:
        frames = source.read(range(source.frame_count)).pixels
    write_video(path, frames[:-1])
    words = f"had {len(frames)} frames when the cache was made and now has {len(frames) - 1} frames"
    with pytest.raises(CacheError, match=words):
        dense_of(own, 2, "changed-videos")


def test_a_file_is_looked_at_once_per_loader(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidxfer.pipeline.training import same

    asked: list[Path] = []
    monkeypatch.setattr(same, "identity_of", lambda path: asked.append(path) or identity_of(path))
    with source_of(made).loader(NEEDS, decode_threads=2, read_threads=1) as loader:
        for _ in range(3):
            list(loader.batches([[(0, 0)], [(0, 1)], [(1, 0)]]))
    assert asked == [file_of(made, 0), file_of(made, 1)]


def test_a_turned_video_of_the_same_size_is_another_one(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidxfer.pipeline.video.reader import VideoSource

    monkeypatch.setattr(VideoSource, "quarter_turns", 2)
    with pytest.raises(CacheError, match="had a turn by 0 degrees when the cache was made and now has a turn by 180"):
        dense_of(own, 0, "changed-videos")


def test_a_cache_of_before_compares_what_it_has_and_says_so_once(own: Path) -> None:
    expected = dense_of(own, 4)
    assert "0.1.0" not in str(origin_of(open_split(own / "cache", "train"), NEEDS, "videos"))
    without_identities(own / "cache")
    split = open_split(own / "cache", "train")
    assert not split.identities
    assert str(origin_of(split, NEEDS, "videos")).count("as those of vidxfer 0.1.0") == 1
    assert "0.1.0" not in str(origin_of(split, NEEDS, "cache"))
    remuxed(file_of(own, 4))
    assert torch.equal(dense_of(own, 4), expected)
    of_another_size(file_of(own, 4))
    with pytest.raises(CacheError, match="when the cache was made"):
        dense_of(own, 4)


def test_0_1_0_reads_the_dense_frames_of_a_cache_with_identities(made: Path) -> None:
    """It knows nothing of the array, and finds the length of the frames' file from the bytes of all it knows."""
    split = open_split(made / "cache", "train")
    known = SplitLayout(
        spec=split.spec, videos=6, classes=len(split.class_names), shard_videos=split.shard_videos, frames=split.frames
    )
    assert "source_file" not in known.owned
    for shard, record in split.ledger.finished().items():
        rest = sum(
            array.file_bytes(len(known.rows(shard))) for array in known.owned.values() if array.packed_bytes is None
        )
        file = split.path / known.owned["frames"].key(shard)
        assert (
            file.stat().st_size
            == record.bytes - rest
            == split.layout.file_bytes(known.owned["frames"], shard, record.bytes)
        )


def test_a_shard_that_0_1_0_wrote_into_a_newer_cache_is_whole_and_says_nothing_of_its_files(own: Path) -> None:
    split = open_split(own / "cache", "train")
    lines = [json.loads(line) for line in split.ledger.path.read_text().splitlines()]
    line = next(line for line in lines if line["shard"] == 0)
    del line["crc32c"]["source_file"], line["line_crc32c"]
    split.ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (split.path / split.layout.owned["source_file"].key(0)).unlink()
    with open_reader(open_split(own / "cache", "train")) as reader:
        assert damage_of(reader, 0) == []
        assert reader.file_of(0) is None
        assert reader.file_of(5) is not None
    (report,) = verify(VerifyRequest(cache=own / "cache"))
    assert report.damage == ()


def known_of(split: Split) -> list[Any]:
    rows = Rows(split)
    return [rows.file_of(int(row)) for row in rows.stored_rows()]


def test_smaller_recoded_and_grown_caches_keep_it(own: Path, toy: Any, tmp_path: Path) -> None:
    expected = known_of(open_split(own / "cache", "train"))
    prune(PruneRequest(source=own / "cache", target=tmp_path / "layers", layers=(0, 2)))
    prune(PruneRequest(source=own / "cache", target=tmp_path / "views", views=1))
    recode(RecodeRequest(source=own / "cache", target=tmp_path / "int8", codec="int8"))
    for name in ("layers", "views", "int8"):
        assert known_of(open_split(tmp_path / name, "train")) == expected
    add(AddRequest(data=DataSource(kind="ssv2", root=toy.root), cache=own / "cache", views=3, splits=("train",)))
    grown = open_split(own / "cache", "train")
    assert (grown.spec.views, grown.video_count, len(grown.parts)) == (3, 24, 2)
    assert sorted(known_of(grown)) == sorted(
        (*identity_of(file), 0) for file in toy.videos.glob("*.webm") if file.stem in grown.video_ids
    )
    assert [part.identities for part in grown.parts] == [True, True]


def test_parity_and_fidelity_refuse_another_file(own: Path) -> None:
    request = {"cache": own / "cache", "root": own / "data", "videos": 6}
    (held,) = parity(ParityRequest(**request))
    assert held.holds
    remuxed(file_of(own, 1))
    with pytest.raises(CacheError, match="its bytes differ"):
        parity(ParityRequest(**request))
    with pytest.raises(CacheError, match="its bytes differ"):
        fidelity(FidelityRequest(**request))
    of_another_size(file_of(own, 1))
    with pytest.raises(CacheError, match="when the cache was made"):
        fidelity(FidelityRequest(**request))


def test_added_views_of_another_file_do_not_count(own: Path, toy: Any) -> None:
    remuxed(file_of(own, 1))
    with pytest.raises(CacheError, match="not the files that the first views were extracted from"):
        add(AddRequest(data=DataSource(kind="ssv2", root=own / "data"), cache=own / "cache", views=3))
    assert open_split(own / "cache", "train").spec.views == 2


def test_a_video_tried_again_in_added_views_must_be_the_one_of_the_first(own: Path, toy: Any) -> None:
    """Its first views are stored; the added ones failed, and are tried again with another file."""
    whole = file_of(own, 1).read_bytes()
    file_of(own, 1).write_bytes(b"")
    add(AddRequest(data=DataSource(kind="ssv2", root=own / "data"), cache=own / "cache", views=3))
    split = open_split(own / "cache", "train")
    assert split.spec.views == 3
    assert split.failures()[split.video_ids[1]].reason == "empty"
    file_of(own, 1).write_bytes(whole)
    of_another_size(file_of(own, 1))
    again = toy.request(
        own / "cache", root=own / "data", splits=("train",), codec="float16", with_frames=True, train_views=3,
        retry_failed=True,
    )  # fmt: skip
    with pytest.raises(CacheError, match="not the files that the first views were extracted from"):
        extract(again)
    file_of(own, 1).write_bytes(whole)
    (report,) = extract(again)
    assert (report.stored, report.failed) == (6, {})
