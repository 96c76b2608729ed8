"""`vidxfer cache add --views N`: a cache that was extended holds, and trains, what one extraction of N views would."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidxfer.pipeline.cache.codecs.fit import Fitted
from vidxfer.pipeline.cache.layout import FAILED, STORED
from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.more_views import begun_views
from vidxfer.pipeline.errors import CacheError, CacheFull, CacheMismatch, RunError
from vidxfer.stages import room
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.train import train
from vidxfer.stages.settings import DataSource, TrainRequest
from vidxfer.stages.shards import prepare
from vidxfer.stages.upkeep.add import AddRequest, add
from vidxfer.stages.upkeep.prune import PruneRequest, prune

MADE_ALIKE: dict[str, Any] = {"codec": "float16", "with_frames": True, "window": 5, "batch_frames": 32}


@pytest.fixture(scope="module")
def seven(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 7 training videos of the toy world."""
    return Path(toy.smaller(tmp_path_factory.mktemp("seven") / "ssv2", 7))


@pytest.fixture(scope="module")
def ten(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These and three more."""
    return Path(toy.smaller(tmp_path_factory.mktemp("ten") / "ssv2", 10))


@pytest.fixture(scope="module")
def once(toy: Any, seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 cache with dense frames of 4 views, made by one extraction; read-only."""
    cache = tmp_path_factory.mktemp("once") / "zarr"
    extract(toy.request(cache, root=seven, train_views=4, **MADE_ALIKE))
    return Path(cache)


@pytest.fixture(scope="module")
def two(toy: Any, seven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of 2 views; read-only."""
    cache = tmp_path_factory.mktemp("two") / "zarr"
    extract(toy.request(cache, root=seven, train_views=2, **MADE_ALIKE))
    return Path(cache)


@pytest.fixture(scope="module")
def four(seven: Path, two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That one, extended to 4 views; read-only."""
    cache = Path(shutil.copytree(two, tmp_path_factory.mktemp("four") / "zarr"))
    add(to_views(cache, seven, 4))
    return cache


@pytest.fixture
def cache(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "zarr"))


def to_views(cache: Path, root: Path, views: int | None, **changes: Any) -> AddRequest:
    data = DataSource(kind="ssv2", root=root)
    return AddRequest(**{"data": data, "cache": cache, "views": views, "batch_frames": 32, **changes})


def expect_same_rows(ours: Split, theirs: Split) -> None:
    """Every view of every video that `theirs` stores, byte for byte, whatever the order of the rows."""
    with open_reader(ours) as mine, open_reader(theirs) as wanted:
        place = {name: row for row, name in enumerate(mine.video_ids) if name}
        views = range(theirs.spec.stored_views)
        assert len(wanted.stored_rows())
        for row in wanted.stored_rows().tolist():
            name = theirs.video_ids[row]
            read = mine.read([place[name]] * len(views), views)
            expected = wanted.read([row] * len(views), views)
            assert torch.equal(read.codes, expected.codes), name
            assert (read.scale is None) or torch.equal(read.scale, expected.scale), name
            assert mine.views_of(place[name]) == wanted.views_of(row)
            assert mine.source_of(place[name]) == wanted.source_of(row)
            for view in views if ours.frames else ():
                ours_jpegs = FrameReader(mine).files(place[name], view)
                theirs_jpegs = FrameReader(wanted).files(row, view)
                assert [bytes(one) for one in ours_jpegs] == [bytes(one) for one in theirs_jpegs]


def test_extended_views_are_those_of_one_extraction_and_no_finished_file_is_touched(
    two: Path, four: Path, once: Path
) -> None:
    ours, theirs = open_split(four, "train"), open_split(once, "train")
    assert ours.more_views == (2,)
    assert (ours.spec, ours.spec.fingerprint) == (theirs.spec, theirs.spec.fingerprint)
    expect_same_rows(ours, theirs)
    for path in two.rglob("*"):
        if path.is_file() and path.suffix != ".lock" and path != two / "train" / "zarr.json":
            assert (four / path.relative_to(two)).read_bytes() == path.read_bytes(), path
    assert open_split(four, "val").spec == open_split(two, "val").spec


def test_int8_codes_are_those_of_one_extraction_with_the_same_statistics(
    toy: Any, seven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = toy.request(tmp_path / "grown", root=seven, train_views=1, splits=("train",))
    extract(request)
    (report,) = add(to_views(tmp_path / "grown", seven, 3))
    assert (report.views, report.views_added, report.views_pending, report.failed) == (3, 2, 0, {})
    grown = open_split(tmp_path / "grown", "train")
    fitted = Fitted(mean=torch.from_numpy(grown.channel_mean), std=torch.from_numpy(grown.channel_std), arrays={})
    monkeypatch.setattr(prepare, "calibrate", lambda *_: fitted)
    extract(toy.request(tmp_path / "once", root=seven, train_views=3, splits=("train",)))
    expect_same_rows(grown, open_split(tmp_path / "once", "train"))
    assert summary(tmp_path / "grown")["train"]["passport"]["informs"]["codec fitted on views"] == "0"


def test_training_on_the_extended_cache_is_training_on_one_made_at_once(
    toy: Any, four: Path, once: Path, tmp_path: Path
) -> None:
    losses = []
    for name, cache in (("grown", four), ("once", once)):
        run = tmp_path / name
        train(TrainRequest(recipe=toy.recipe("batch_clips=4"), cache=cache, run=run, device="cpu"))
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        losses.append([(line["step"], line.get("loss"), line.get("val_top1")) for line in lines])
    assert losses[0] == losses[1]
    assert len(losses[0]) > 2


def test_a_run_of_before_is_told_what_changed(toy: Any, cache: Path, seven: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    request = TrainRequest(recipe=toy.recipe("epochs=1", "warmup_epochs=0"), cache=cache, run=run, device="cpu")
    train(request)
    add(to_views(cache, seven, 3, splits=("train",)))
    with pytest.raises(RunError, match=r"cache_fingerprint: .*\n  views: the run has 2, you ask for 3\n"):
        train(request)


def test_views_and_videos_are_added_in_any_order(toy: Any, cache: Path, four: Path, ten: Path, tmp_path: Path) -> None:
    (both,) = add(to_views(cache, ten, 3, splits=("train",)))
    assert (both.added, both.views, both.stored, both.pending) == (3, 3, 10, 0)
    add(to_views(cache, ten, 4, splits=("train",)))
    last = Path(shutil.copytree(four, tmp_path / "last"))
    (videos,) = add(to_views(last, ten, None, splits=("train",)))
    assert (videos.added, videos.views, videos.stored) == (3, 4, 10)
    extract(toy.request(tmp_path / "at once", root=ten, train_views=4, splits=("train",), **MADE_ALIKE))
    for grown, parts in ((cache, (2, 3)), (last, (2,))):
        split = open_split(grown, "train")
        assert (len(split.extents), split.more_views, split.video_count) == (2, parts, 10)
        expect_same_rows(split, open_split(tmp_path / "at once", "train"))


def test_a_video_that_fails_in_one_part_has_failed_until_it_is_tried_again(
    toy: Any, cache: Path, seven: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(seven, tmp_path / "ssv2"))
    name = open_split(cache, "train").video_ids[3]
    video = root / toy.videos.name / f"{name}.webm"
    whole = video.read_bytes()
    video.write_bytes(b"")
    (report,) = add(to_views(cache, root, 4, splits=("train",)))
    assert (report.views, report.stored, list(report.failed)) == (4, 6, [name])
    split = open_split(cache, "train")
    assert split.failures()[name].reason == "empty"
    with open_reader(split) as reader:
        assert (reader.state == FAILED).sum() == 1
        assert reader.state[3] == FAILED
    found = summary(cache)["train"]
    assert (found["stored"], found["failed"], found["reasons"]) == (6, 1, {"empty": 1})
    pruned = PruneRequest(source=cache, target=tmp_path / "pruned", views=2, splits=("train",))
    assert prune(pruned)[0].stored == 7  # the first two views of it are there
    video.write_bytes(whole)
    again = toy.request(cache, root=root, train_views=4, splits=("train",), retry_failed=True, **MADE_ALIKE)
    (mended,) = extract(again)
    assert (mended.stored, mended.failed) == (7, {})
    with open_reader(open_split(cache, "train")) as reader:
        assert (reader.state == STORED).all()


def test_another_file_under_the_same_name_is_not_joined(toy: Any, cache: Path, seven: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(seven, tmp_path / "ssv2"))
    split = open_split(cache, "train")
    video = root / toy.videos.name / f"{split.video_ids[6]}.webm"
    mine = video.read_bytes()
    video.write_bytes(another_length(toy, seven, split, 6).read_bytes())
    with pytest.raises(CacheError, match=f"{split.video_ids[6]}: not the files that the first views"):
        add(to_views(cache, root, 3, splits=("train",)))
    assert open_split(cache, "train").spec.views == 2
    video.write_bytes(mine)
    assert add(to_views(cache, root, 3, splits=("train",)))[0].views_added == 1


def another_length(toy: Any, root: Path, split: Split, row: int) -> Path:
    """A video of the toy world that has not as many frames as the one of a row."""
    with open_reader(split) as reader:
        frames = {other: reader.source_of(other)[0] for other in reader.stored_rows().tolist()}
    other = next(one for one, count in frames.items() if count != frames[row])
    return root / Path(toy.videos.name) / f"{split.video_ids[other]}.webm"


def test_what_looks_at_a_cache_sees_the_added_views(four: Path, seven: Path, invoke: Any, tmp_path: Path) -> None:
    found = json.loads(invoke("cache", "info", "--cache", four, "--json").stdout)["train"]
    assert (found["shape"]["view"], found["views_in_parts"], found["views_being_added"]) == (4, ["0-1", "2-3"], None)
    assert "in parts: 0-1, 2-3" in invoke("cache", "info", "--cache", four).stdout
    checked = json.loads(invoke("cache", "verify", "--cache", four, "--json").stdout)
    assert [(one["split"], one["checked"], one["damage"]) for one in checked] == [
        ("train", 2, []), ("train views 2-3", 2, []), ("val", 1, []),
    ]  # fmt: skip
    (same, _) = json.loads(invoke("cache", "parity", "--cache", four, "--videos", 2, "--json").stdout)
    assert (same["tokens"] % 4, [layer["beyond"] for layer in same["layers"]]) == (0, [0, 0, 0])
    close = invoke("cache", "fidelity", "--cache", four, "--videos", 2, "--codec", "int8", "--json")
    assert close.exit_code == 0, close.stderr
    written = invoke("cache", "export", "--cache", four, "--view", 3, "--first", 2, "--to", tmp_path / "x.npz")
    assert written.exit_code == 0, written.stderr
    with np.load(tmp_path / "x.npz") as arrays, open_reader(open_split(four, "train")) as reader:
        assert arrays["view"].tolist() == [3, 3]
        assert (arrays["tokens"][1] == reader.read([1], [3]).codes[0].float().numpy()).all()


def test_pruned_and_recoded_copies_hold_all_views_in_one_part(
    four: Path, two: Path, once: Path, invoke: Any, tmp_path: Path
) -> None:
    for to, words, same in (
        ("pruned", ("prune", "--cache", four, "--views", 2), two),
        ("fewer", ("prune", "--cache", four, "--layers", 1), None),
        ("recoded", ("recode", four, "--codec", "float16"), once),
        ("smaller", ("recode", four, "--codec", "int8"), None),
    ):
        done = invoke("cache", *words, "--to", tmp_path / to, "--split", "train")
        assert done.exit_code == 0, done.stderr
        split = open_split(tmp_path / to, "train")
        assert (split.parts[0] is split, split.more_views) == (True, ())
        with open_reader(split) as reader:
            assert reader.stored_rows().tolist() == list(range(7))
        if same is not None:
            expect_same_rows(split, open_split(same, "train"))


def test_a_damaged_part_is_found_taken_back_and_made_again(
    toy: Any, four: Path, once: Path, seven: Path, invoke: Any, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(four, tmp_path / "zarr"))
    part = open_split(cache, "train").parts[1]
    file = part.path / part.layout.owned["tokens"].key(1)
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    found = invoke("cache", "verify", "--cache", cache, "--drop-damaged")
    assert found.exit_code == 1
    assert "damaged: train views 2-3 shard 1" in found.stdout
    assert summary(cache)["train"]["pending"] == 2
    extract(toy.request(cache, root=seven, train_views=4, **MADE_ALIKE))
    expect_same_rows(open_split(cache, "train"), open_split(once, "train"))


def test_views_are_refused_where_they_cannot_be_meant(
    toy: Any, cache: Path, seven: Path, content: Any, invoke: Any
) -> None:
    before = content(cache)
    with pytest.raises(CacheMismatch, match="views: cache has 2, run needs 1"):
        add(to_views(cache, seven, 1))
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", seven, "--views", 3]
    assert "views: cache has 2, run needs 1" in invoke(*words[:-1], 1).stderr
    with pytest.raises(CacheError, match=r"cache has 2, run needs 3\n`vidxfer cache add --views 3` adds"):
        extract(toy.request(cache, root=seven, train_views=3, **MADE_ALIKE))
    (report,) = add(to_views(cache, seven, 4, splits=("val",)))  # --views is about training views
    assert (report.views, report.views_added) == (1, 0)
    assert content(cache) == before


def test_there_is_room_or_nothing_is_begun(cache: Path, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 1000)
    with pytest.raises(CacheFull, match="would take"):
        add(to_views(cache, seven, 4))
    assert not (cache / "train.views").exists()


@pytest.mark.slow
def test_an_addition_that_was_killed_goes_on_and_counts_only_when_it_is_whole(
    cache: Path, seven: Path, once: Path, started: Any, invoke: Any
) -> None:
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", seven, "--split", "train", "--views", 4]
    process = started(*words, "--batch-frames", 32)
    ledger, end = cache / "train.views" / "2.ledger.jsonl", time.monotonic() + 60
    while not ledger.is_file() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    split = open_split(cache, "train")
    begun = begun_views(split)
    if split.spec.views == 2:  # unless it was faster than this test
        assert begun is not None
        assert "views 2-3 are being added" in invoke("cache", "info", "--cache", cache).stdout
        with pytest.raises(CacheError, match="`vidxfer cache add --views 4` finishes that"):
            add(to_views(cache, seven, 3, splits=("train",)))
        assert add(to_views(cache, seven, None, splits=("train",)))[0].views_pending == 2
    (report,) = add(to_views(cache, seven, 4, splits=("train",)))
    assert (report.views, report.views_pending, report.stored) == (4, 0, 7)
    expect_same_rows(open_split(cache, "train"), open_split(once, "train"))


@pytest.mark.slow
def test_workers_add_views_as_one_process_does(cache: Path, seven: Path, once: Path, invoke: Any) -> None:
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", seven, "--split", "train", "--views", 4]
    done = invoke(*words, "--batch-frames", 32, "--workers", 1)
    assert done.exit_code == 0, done.stderr
    expect_same_rows(open_split(cache, "train"), open_split(once, "train"))
