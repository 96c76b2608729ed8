"""From one codec to another: the same rows, the same views, tokens as near as the codec allows; killed and resumed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import CacheCorrupt, CacheIncomplete, CacheMismatch, UsageError
from vidxfer.stages.extract import extract
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.recode import RecodeRequest, recode


def request(source: Path, target: Path, **changes: Any) -> RecodeRequest:
    return RecodeRequest(source=source, target=target, **{"codec": "int4", "splits": ("train",), **changes})


def test_codes_are_those_that_the_decoded_tokens_give_and_the_rest_is_copied_byte_for_byte(
    toy: Any, tmp_path: Path
) -> None:
    report = recode(request(toy.float16, tmp_path / "new"))[0]
    assert (report.stored, report.resumed, report.source_is_exact) == (24, 0, True)
    assert report.bytes_after < 0.5 * report.bytes_before
    source, made = open_split(toy.float16, "train"), open_split(tmp_path / "new", "train")
    assert (made.spec.codec, made.video_ids, made.class_names) == ("int4", source.video_ids, source.class_names)
    quantise = Quantiser.of(made)
    with CacheReader(source) as old, CacheReader(made) as new:
        for row in (0, 7, 23):
            codes, scale = quantise(Dequantiser.of(source)(old.read([row, row], [0, 1]).codes, None))
            found = new.read([row, row], [0, 1])
            assert torch.equal(found.codes, codes)
            assert torch.equal(found.scale, scale)
            assert new.views_of(row) == old.views_of(row)
    for name, array in made.layout.owned.items():
        if name not in ("tokens", "scale"):
            for shard in range(made.shard_count):
                assert (made.path / array.key(shard)).read_bytes() == (source.path / array.key(shard)).read_bytes()
    assert made.informs["recoded_from"]["codec"] == "float16"
    assert made.informs["recoded_from"]["cache_id"] == source.cache_id


def test_fewer_layers_with_the_same_codec_keep_their_codes_as_they_are(toy: Any, tmp_path: Path) -> None:
    for codec in ("int8", "pca32+pq16"):
        source = toy.int8
        if codec != "int8":
            recode(request(toy.float16, tmp_path / "pq", codec=codec))
            source = tmp_path / "pq"
        target = tmp_path / f"few-{codec}"
        recode(request(source, target, codec=None, layers=(0, 2)))
        old, new = open_split(source, "train"), open_split(target, "train")
        assert (new.spec.layers, new.spec.codec) == ((0, 2), codec)
        with CacheReader(old) as before, CacheReader(new) as after:
            expected, found = before.read([3, 9], [1, 0], [0, 2]), after.read([3, 9], [1, 0])
            assert torch.equal(expected.codes, found.codes)
            assert torch.equal(expected.scale, found.scale)
            tokens = [Dequantiser.of(one, layers=[0, 2])(found.codes, found.scale) for one in (old, new)]
            assert torch.equal(*tokens)


def test_dense_frames_are_taken_over_as_they_are(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "small")
    extract(toy.request(tmp_path / "old", root=root, codec="float16", with_frames=True, splits=("train",)))
    recode(request(tmp_path / "old", tmp_path / "new", layers=(0, 2)))
    old, new = (open_split(tmp_path / name, "train") for name in ("old", "new"))
    assert new.frames == old.frames
    assert set(new.layout.owned) == {*old.layout.owned, "scale"}
    for name, array in new.layout.owned.items():
        for shard in range(new.shard_count) if name not in ("tokens", "scale") else ():
            assert (new.path / array.key(shard)).read_bytes() == (old.path / array.key(shard)).read_bytes(), name


def test_refused_videos_keep_their_reason(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "small")
    victim = sorted((root / toy.videos.name).glob("*.webm"))[0]
    victim.write_bytes(victim.read_bytes()[:300])
    extract(toy.request(tmp_path / "old", root=root, codec="float16"))
    recode(request(tmp_path / "old", tmp_path / "new", splits=None))
    for name in ("train", "val"):
        old, new = open_split(tmp_path / "old", name), open_split(tmp_path / "new", name)
        assert new.failures() == old.failures()
    failed = [one.id for name in ("train", "val") for one in open_split(tmp_path / "new", name).failures().values()]
    assert failed == [victim.stem]


def test_a_shard_of_which_every_video_was_refused_is_taken_over(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "small")
    for victim in sorted((root / toy.videos.name).glob("*.webm"))[:5]:  # shard 0
        victim.write_bytes(b"")
    extract(toy.request(tmp_path / "old", root=root, splits=("train",)))
    (recoded,) = recode(request(tmp_path / "old", tmp_path / "new"))
    (pruned,) = prune(PruneRequest(source=tmp_path / "old", target=tmp_path / "few", layers=(0,)))
    assert (recoded.stored, pruned.stored) == (1, 1)
    for name in ("new", "few"):
        found = open_split(tmp_path / name, "train").ledger.finished()
        assert [(len(one.failed), one.stored) for one in found.values()] == [(5, 0), (0, 1)]


def test_videos_that_the_source_has_stored_since_are_taken_over_too(toy: Any, tmp_path: Path) -> None:
    root, old = toy.smaller(tmp_path / "small"), tmp_path / "old"
    victim = sorted((root / toy.videos.name).glob("*.webm"))[1]
    whole = victim.read_bytes()
    victim.write_bytes(b"")
    extract(toy.request(old, root=root, splits=("train",)))

    def made() -> tuple[int, ...]:
        (recoded,) = recode(request(old, tmp_path / "new"))
        (layers,) = prune(PruneRequest(source=old, target=tmp_path / "few", layers=(0, 1)))
        (views,) = prune(PruneRequest(source=old, target=tmp_path / "one", views=1))
        return recoded.stored, layers.stored, views.stored

    assert made() == (5, 5, 5)
    victim.write_bytes(whole)
    extract(toy.request(old, root=root, splits=("train",), retry_failed=True))
    assert made() == (6, 6, 6)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/train/tokens/c/*/0/0/0/0/0")}
    assert made() == (6, 6, 6)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what is up to date is not written again"


def test_killed_again_and_again_it_ends_with_the_bytes_of_an_undisturbed_run(
    toy: Any, started: Any, content: Any, tmp_path: Path
) -> None:
    recode(request(toy.float16, tmp_path / "calm", codec="rotate+int4", splits=None))
    words = ["cache", "recode", toy.float16, "--to", tmp_path / "rough", "--codec", "rotate+int4"]
    moments, killed = random.Random(3), 0
    for _ in range(3):
        process = started(*words)
        time.sleep(moments.uniform(1.0, 4.0))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = recode(request(toy.float16, tmp_path / "rough", codec="rotate+int4", splits=None))
    assert [one.stored for one in done] == [24, 16]
    calm, rough = content(tmp_path / "calm"), content(tmp_path / "rough")
    for found in (calm, rough):
        for name in ("train/zarr.json", "val/zarr.json"):
            found[name].pop("seal", None)  # of what differs: identity and time
    assert calm == rough
    print(f"{killed} of 3 were killed in time")


def test_an_interrupted_run_does_only_the_shards_that_are_missing(toy: Any, tmp_path: Path) -> None:
    recode(request(toy.float16, tmp_path / "new"))
    split = open_split(tmp_path / "new", "train")
    with SplitWriter(split) as writer:
        writer.drop(2, "test")
    before = {path: path.stat().st_mtime_ns for path in (split.path / "tokens/c").rglob("0") if path.is_file()}
    report = recode(request(toy.float16, tmp_path / "new"))[0]
    assert (report.stored, report.resumed) == (24, 19)
    changed = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert changed == [split.path / split.layout.owned["tokens"].key(2)]


def test_what_cannot_be_meant_is_refused_and_the_text_says_what_to_do(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give another folder with --to"):
        recode(request(toy.float16, toy.float16))
    with pytest.raises(UsageError, match=r"codec='int5' must be one of int8.*Nearest: int"):
        recode(request(toy.float16, tmp_path / "x", codec="int5"))
    with pytest.raises(UsageError, match=r"layers \[9\] are not in the cache"):
        recode(request(toy.float16, tmp_path / "x", layers=(1, 9)))
    with pytest.raises(UsageError, match="has no split 'test'; it has train, val"):
        recode(request(toy.float16, tmp_path / "x", splits=("test",)))
    assert not (tmp_path / "x").exists()
    recode(request(toy.float16, tmp_path / "new"))
    with pytest.raises(CacheMismatch, match="codec: cache has 'int4', run needs 'int6'"):
        recode(request(toy.float16, tmp_path / "new", codec="int6"))
    with pytest.raises(CacheMismatch, match="the cache it was made from"):
        recode(request(toy.int8, tmp_path / "new"))
    shutil.copytree(toy.float16, tmp_path / "holes")
    with SplitWriter(open_split(tmp_path / "holes", "train")) as writer:
        writer.drop(1, "test")
    with pytest.raises(CacheIncomplete, match=r"1 of 5 shards are pending. `vidxfer extract` finishes them"):
        recode(request(tmp_path / "holes", tmp_path / "y"))


def test_a_damaged_source_is_named_and_nothing_false_is_stored(toy: Any, tmp_path: Path) -> None:
    shutil.copytree(toy.float16, tmp_path / "old")
    source = open_split(tmp_path / "old", "train")
    file = source.path / source.layout.owned["tokens"].key(3)
    raw = bytearray(file.read_bytes())
    raw[1000] ^= 4
    file.write_bytes(raw)
    with pytest.raises(CacheCorrupt, match=r"tokens/c/3/"):
        recode(request(tmp_path / "old", tmp_path / "new", codec=None, layers=(0, 1)))
    assert 3 not in open_split(tmp_path / "new", "train").ledger.finished()


def test_recoding_from_a_lossy_cache_is_said_and_remembered(toy: Any, invoke: Any, tmp_path: Path) -> None:
    target = tmp_path / "new"
    result = invoke("cache", "recode", toy.int8, "--to", target, "--codec", "pca16+int8", "--split", "train")
    assert result.exit_code == 0
    assert "what that lost stays lost" in " ".join(result.stderr.split())
    assert "pca16+int8" in result.stdout
    info = json.loads(invoke("cache", "info", "--cache", target, "--json").stdout)["train"]
    assert info["informs"]["recoded_from"]["codec"] == "int8"
    assert invoke("cache", "verify", "--cache", target).exit_code == 0
