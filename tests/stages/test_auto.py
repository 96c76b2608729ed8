"""`--codec auto`: the smallest codec within the bound, measured once, on other videos than it was fitted on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.stages.candidates import CANDIDATES, Candidate, choice_of, smallest_passing
from vidxfer.stages.codecs.choose import in_halves
from vidxfer.stages.extract import extract
from vidxfer.stages.settings import CacheChoice
from vidxfer.stages.upkeep.recode import RecodeRequest, recode


def candidate(bytes_per_view: int, loss: float) -> Candidate:
    return Candidate(
        bytes_per_view=bytes_per_view, loss=loss, worst_layer=0, class_row=(), patches=(), patches_worst=()
    )


def test_the_smallest_that_keeps_within_the_bound_is_taken_and_the_largest_where_none_does() -> None:
    found = {"b": candidate(20, 0.02), "a": candidate(10, 0.3), "d": candidate(40, 1e-7), "c": candidate(30, 0.05)}
    bounds = {1.0: "a", 0.3: "a", 0.29: "b", 0.02: "b", 0.019: "d", 0.0: "d"}
    assert {bound: smallest_passing(found, bound) for bound in bounds} == bounds


def test_halves_share_no_video_and_no_file_where_there_are_several() -> None:
    items = [("long", n) for n in range(5)] + [("b", 5), ("c", 6), ("d", 7)]
    fit_on, measured_on = in_halves(items, "train")
    assert (sorted(fit_on), sorted(measured_on)) == ([0, 1, 2, 3, 4, 6], [5, 7])
    assert in_halves([("one", n) for n in range(5)], "train") == ([0, 1, 2], [3, 4])
    with pytest.raises(UsageError, match=r"fits on one half of the calibration videos .* train has 1"):
        in_halves([("one", 0)], "train")


@pytest.fixture(scope="module")
def auto(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose codec was chosen; read-only."""
    cache = tmp_path_factory.mktemp("auto") / "zarr"
    extract(toy.request(cache, codec="auto", loss=0.004, calibration_videos=12))
    return cache


def test_the_cache_is_that_of_the_chosen_codec_by_name_and_remembers_every_figure(
    auto: Path, toy: Any, content: Any, tmp_path: Path
) -> None:
    train, val = (choice_of(open_split(auto, split)) for split in ("train", "val"))
    assert train is not None
    assert train == val
    assert (train.split, train.fitted_on, train.measured_on, train.layers) == ("train", 6, 6, (0, 1, 2))
    assert (train.loss, train.files_apart, train.frames) == (0.004, True, 6 * 8)
    assert set(train.candidates) == set(CANDIDATES)
    sizes = [one.bytes_per_view for one in train.candidates.values()]
    assert sizes == sorted(sizes)
    for one in train.candidates.values():
        both = [min(pair) for pair in zip(one.class_row, one.patches, strict=True)]
        assert (one.loss, one.worst_layer) == (1 - min(both), both.index(min(both)))
    assert train.candidates["float16"].loss < 1e-6
    smaller = [one.loss for codec, one in train.candidates.items() if one.bytes_per_view < sizes_of(train)]
    assert smaller
    assert min(smaller) > 0.004 >= train.candidates[train.codec].loss
    named = tmp_path / "named"
    extract(toy.request(named, codec=train.codec, calibration_videos=12))
    assert content(auto) == content(named)
    assert open_split(auto, "train").spec.fingerprint == open_split(named, "train").spec.fingerprint
    assert choice_of(open_split(named, "train")) is None


def sizes_of(choice: Any) -> int:
    return int(choice.candidates[choice.codec].bytes_per_view)


def test_whoever_goes_on_finds_the_choice_and_measures_nothing(
    auto: Path, toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidxfer.stages.shards.prepare.choose_for_videos", None)
    same = toy.request(auto, codec="auto", calibration_videos=12)
    (train, _) = extract(same)
    assert train.resumed == 24
    assert train.codec_choice == choice_of(open_split(auto, "train"))
    with pytest.raises(CacheMismatch, match=r"loss: cache has 0\.004, run needs 0\.02.*\n.*--loss 0\.004"):
        extract(toy.request(auto, codec="auto", loss=0.02, calibration_videos=12))
    with pytest.raises(CacheMismatch, match=r"codec: cache has 'int8', run needs 'auto'\nGo on with --codec int8"):
        extract(toy.request(toy.int8, codec="auto"))
    shown = invoke("cache", "info", "--cache", auto)
    assert shown.exit_code == 0, shown.stderr
    assert f"{train.codec_choice.codec} (chosen)" in shown.stdout
    assert "--codec auto: the smallest that loses at most 0.004" in shown.stdout
    assert "candidates" not in shown.stdout  # in the table, not as raw names
    told = json.loads(invoke("cache", "info", "--cache", auto, "--json").stdout)["val"]
    assert told["informs"]["codec_choice"]["codec"] == told["codec"] == train.codec_choice.codec


def test_more_views_and_videos_keep_the_codec_and_the_choice(auto: Path, toy: Any, invoke: Any, tmp_path: Path) -> None:
    import shutil

    cache = tmp_path / "zarr"
    shutil.copytree(auto, cache)
    words = ["cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", toy.root, "--split", "train"]
    added = invoke(*words, "--views", 3, "--codec", "auto")
    assert added.exit_code == 0, added.stderr
    split = open_split(cache, "train")
    assert split.spec.views == 3
    assert choice_of(split) == choice_of(open_split(auto, "train"))
    named = invoke("cache", "add", "--cache", toy.int8, "--dataset", "ssv2", "--root", toy.root, "--codec", "auto")
    assert named.exit_code == 1
    assert "codec: cache has 'int8', run needs 'auto'" in named.stderr


def test_recode_chooses_from_float16_tokens_without_videos_and_the_result_is_that_of_the_name(
    auto: Path, toy: Any, content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidxfer.stages.upkeep.truth.dense_videos", None)
    monkeypatch.setattr("vidxfer.stages.codecs.choose.CANDIDATES", ("float16", "int8", "int4"))
    chosen, named = tmp_path / "chosen", tmp_path / "named"
    asked = RecodeRequest(source=toy.float16, target=chosen, codec="auto", loss=0.004, layers=(0, 2), device="cpu")
    (train, val) = recode(asked)
    assert train.codec_choice is not None
    assert train.codec_choice == val.codec_choice == choice_of(open_split(chosen, "val"))
    assert (train.codec, train.codec_choice.layers) == ("int4", (0, 2))
    assert (train.codec_choice.fitted_on, train.codec_choice.measured_on) == (12, 12)
    recode(RecodeRequest(source=toy.float16, target=named, codec=train.codec, layers=(0, 2), device="cpu"))
    assert content(chosen) == content(named)
    with monkeypatch.context() as patch:
        patch.setattr("vidxfer.stages.upkeep.recode.choose_for_cache", None)
        assert recode(asked)[0].resumed == 24
    onward = tmp_path / "onward"  # another codec: the choice was not about it
    recode(RecodeRequest(source=chosen, target=onward, codec="int8", device="cpu", splits=("val",)))
    assert choice_of(open_split(onward, "val")) is None
    with pytest.raises(UsageError, match=r"holds int8: .* give a cache made with --codec float16"):
        recode(RecodeRequest(source=toy.int8, target=tmp_path / "not", codec="auto"))


def test_a_bound_goes_with_auto_and_is_a_share(toy: Any, invoke: Any, tmp_path: Path) -> None:
    for codec, loss, words in (
        ("int8", 0.01, "--loss 0.01 bounds what --codec auto may choose"),
        ("auto", -0.1, "between 0 and 1"),
        ("auto", 1.5, "between 0 and 1"),
        ("auto", float("nan"), "between 0 and 1"),
    ):
        with pytest.raises(UsageError, match=words):
            CacheChoice(codec=codec, loss=loss)
        with pytest.raises(UsageError, match=words):
            RecodeRequest(source=tmp_path, target=tmp_path, codec=codec, loss=loss)
    more = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr"]
    for command in ("extract", "plan"):
        result = invoke(command, *more, "--loss", 0.1)
        assert result.exit_code == 2
        assert "add that, or leave --loss out" in result.stderr
    assert not (tmp_path / "zarr").exists()


def test_too_few_videos_are_said_and_one_is_refused(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "ssv2", 2)
    lines: list[str] = []

    from vidxfer.stages.progress import Lines

    asked = toy.request(tmp_path / "zarr", codec="auto", loss=0.5, root=root, decode_in="threads", splits=("train",))
    (report,) = extract(asked, Lines(lines.append))
    assert report.codec_choice is not None
    assert (report.codec_choice.fitted_on, report.codec_choice.measured_on) == (1, 1)
    assert any("only 1 videos were measured" in line for line in lines)
    with pytest.raises(UsageError, match=r"train has 1\. Name a codec, or give more videos"):
        extract(toy.request(tmp_path / "one", codec="auto", root=root, limit=1, splits=("train",)))
    assert not (tmp_path / "one" / "train").exists()


def test_plan_shows_the_bounds(toy: Any, invoke: Any, tmp_path: Path) -> None:
    more = ["--root", toy.root, "--model", toy.clip, "--cache", tmp_path / "zarr", "--no-measure", "--json"]
    plans = {
        codec: json.loads(invoke("plan", *more, "--codec", codec).stdout)["splits"][0]
        for codec in ("auto", "float16", "klt0.5")
    }
    assert plans["auto"]["bytes_per_view"] == plans["float16"]["bytes_per_view"]
    (note,) = [note for note in plans["auto"]["notes"] if "--codec auto" in note]
    assert f"klt0.5, has {plans['klt0.5']['bytes_per_view']:,} bytes per view" in note
