"""The ledger: whole lines count, torn ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.cache.ledger import Failure, Ledger, ShardRecord
from vidxfer.pipeline.errors import CacheCorrupt


def record(shard: int, *, stored: int = 2) -> ShardRecord:
    failed = (Failure(id="vidéo 1,\r„2“", reason="decode_failed", detail="line\nbreak"),)
    return ShardRecord(
        shard=shard, first_row=shard * 3, last_row=shard * 3 + 2, stored=stored, failed=failed, bytes=12,
        crc32c={"tokens": 7}, notes={"decoder": {"decord": 2}}, seconds=0.5,
    )  # fmt: skip


def test_what_is_appended_is_read_back_and_the_last_line_of_a_shard_wins(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "train.ledger.jsonl", "me")
    assert ledger.finished() == {}
    for entry in (record(1), record(0), record(1, stored=1)):
        ledger.append(entry)
    assert ledger.finished() == {1: record(1, stored=1), 0: record(0)}
    assert [failure.id for failure in ledger.failures()] == ["vidéo 1,\r„2“"] * 2
    ledger.drop(1, "damaged")
    assert list(ledger.finished()) == [0]


@given(st.data())
def test_a_line_torn_anywhere_is_ignored_and_cut_off_before_the_next(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l.jsonl"
    ledger = Ledger(path, "me")
    ledger.append(record(0))
    whole = path.stat().st_size
    ledger.append(record(1))
    at = data.draw(st.integers(whole, path.stat().st_size - 1))
    is_no_json = at < path.stat().st_size - 1
    rubbish = data.draw(st.sampled_from([b"", b"\0\0\0", b"\n"])) if whole < at and is_no_json else b""
    path.write_bytes(path.read_bytes()[:at] + rubbish)
    assert list(ledger.finished()) == [0]
    ledger.append(record(2))
    assert list(ledger.finished()) == [0, 2]
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in path.read_bytes().splitlines())


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl", "me")
    ledger.append(record(0))
    ledger.append(record(1))
    ledger.path.write_bytes(b"{nonsense\n" + ledger.path.read_bytes())
    with pytest.raises(CacheCorrupt, match=r"line 1: .*Remove that line"):
        ledger.finished()


def test_lines_of_another_split_of_the_same_name_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    Ledger(path, "former").append(record(0))
    mine = Ledger(path, "me")
    mine.append(replace(record(1)))
    assert list(mine.finished()) == [1]
