"""`vidxfer plan`: the bill is what extraction then needs, measuring leaves nothing behind, the advice follows."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from vidxfer.cli.plan import given_rates
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheFull, UsageError
from vidxfer.stages import room
from vidxfer.stages.extract import extract
from vidxfer.stages.planning import measure
from vidxfer.stages.planning.costs import Rates
from vidxfer.stages.planning.measure import measure_disk
from vidxfer.stages.planning.plan import PlanReport, PlanRequest, plan

FAST = Rates(
    disk_read_gb_per_second=2, disk_write_gb_per_second=1, clip_frames_per_second=10, decode_videos_per_second=50,
    dense_clips_per_second=40, jpeg_frames_per_second=1e4, head_clips_per_second=100,
)  # fmt: skip


def bill(toy: Any, cache: Path, **changes: Any) -> PlanReport:
    made = toy.request(cache)
    return plan(PlanRequest(**{
        "data": made.data, "clip": made.clip, "store": made.store, "cache": cache, "measure": False, "rates": FAST,
        **changes,
    }))  # fmt: skip


def test_planned_inodes_are_those_that_are_there(toy: Any) -> None:
    planned = bill(toy, toy.int8)
    for one in planned.splits:
        split = open_split(toy.int8, one.split)
        beside = [split.path, split.lock_path, split.ledger.path]
        assert one.inodes == split.layout.inodes == len([*split.path.rglob("*"), *beside])


def test_given_rates_are_not_measured_and_lead_to_advice(toy: Any, tmp_path: Path) -> None:
    found = bill(toy, tmp_path / "zarr")
    assert found.rates == FAST
    assert found.extract_hours == pytest.approx((24 * 2 + 16) * 4 / 10 / 3600)
    cached, online, *_ = found.epochs
    assert (cached.bound_by, online.bound_by) == ("CPU", "device")
    assert cached.seconds == pytest.approx(24 / 40)
    assert "it pays: 16.4x faster epochs than online" in found.advice
    assert "stored frames" in found.advice
    assert not (tmp_path / "zarr").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dense_clips_per_second": 0.1}, "does not pay: without CLIP an epoch is bound by the CPU all the same"),
        ({"disk_read_gb_per_second": 1e-7}, "does not pay: it would have to be read at"),
        ({"disk_read_gb_per_second": None}, "it pays where the disk reads more than"),
        ({"clip_frames_per_second": None}, "It fits ("),
    ],
)
def test_the_advice_follows_from_the_numbers(toy: Any, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in bill(toy, tmp_path, rates=Rates(**{**vars(FAST), **changes})).advice


def test_what_does_not_fit_is_said_by_plan_and_refused_by_extract(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidxfer.stages.planning.plan.free_inodes", lambda cache: 100)
    monkeypatch.setattr(room, "free_inodes", lambda cache: 100)
    assert "inodes are needed, 100 are free. More videos per shard" in bill(toy, tmp_path / "zarr").advice
    with pytest.raises(CacheFull, match=r"files and folders.*100 inodes free.*--shard-videos"):
        extract(toy.request(tmp_path / "zarr"))
    assert not (tmp_path / "zarr").exists()


def test_measuring_finds_every_rate_and_leaves_nothing(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MEASURE_SECONDS", 0.2)
    monkeypatch.setattr(measure, "FILE_BYTES", 32 << 20)
    began = time.monotonic()
    found = bill(toy, tmp_path, measure=True, rates=Rates(clip_frames_per_second=7), recipe=toy.recipe())
    assert time.monotonic() - began < 30
    assert found.rates.clip_frames_per_second == 7
    assert all(rate is not None and rate > 0 for rate in vars(found.rates).values())
    assert [one.not_counted for one in found.epochs] == [()] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert measure_disk(tmp_path, 1 << 20) is None


def test_a_rate_that_cannot_be_is_a_usage_error(toy: Any, invoke: Any) -> None:
    words = ["plan", "--root", toy.root, "--model", toy.clip, "--no-measure", "--clip-frames-per-second", 0]
    result = invoke(*words)
    assert result.exit_code == 2
    assert "clip_frames_per_second=0.0 must be above 0" in result.stderr


def test_rates_of_a_file_are_taken_and_options_go_before(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text('{"clip_frames_per_second": 5000, "head_clips_per_second": 250.5}')
    assert given_rates(*[None] * 7, file=file) == Rates(clip_frames_per_second=5000.0, head_clips_per_second=250.5)
    assert given_rates(*[None] * 6, 9.0, file=file) == Rates(clip_frames_per_second=5000.0, head_clips_per_second=9.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"speed": 5}', "'speed', which is no rate"),
        ("[1]", r"holds \[1\]"),
        ("{", "is no JSON file"),
        ('{"clip_frames_per_second": true}', "is True, expected a number"),
        ('{"clip_frames_per_second": NaN}', "must be above 0"),
        (None, "is no JSON file"),
    ],
)
def test_a_file_that_holds_no_rates_is_refused(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "rates.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        given_rates(*[None] * 7, file=tmp_path / "rates.json")
