"""The ledger: whole lines count, torn ones do not."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    assert [one.id for _, entry in sorted(ledger.finished().items()) for one in entry.failed] == ["vidéo 1,\r„2“"] * 2
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


def test_a_line_that_was_changed_but_is_still_json_is_found(world: Any, tmp_path: Path) -> None:
    split = world.fill(world.make(tmp_path))
    text = split.ledger.path.read_text()
    split.ledger.path.write_text(text.replace('"stored": 3', '"stored": 2', 1))
    with pytest.raises(CacheCorrupt, match=r"line 1: not a line of a ledger.*does not match its crc32c"):
        split.ledger.finished()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        del line["line_crc32c"]  # as ledgers of before have it
    split.ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sorted(split.ledger.finished()) == [0, 1, 2]


def test_a_line_is_taken_apart_once_however_often_the_ledger_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extraction asks before each of its shards: 52,000 for Kinetics with ViT-L/14."""
    ledger, taken = Ledger(tmp_path / "l.jsonl", "me"), [0]
    record_of = Ledger.record_of

    def counted(entry: Any) -> ShardRecord:
        taken[0] += 1
        return record_of(entry)

    monkeypatch.setattr(Ledger, "record_of", staticmethod(counted))
    for shard in range(50):
        ledger.append(record(shard))
        ledger.finished().clear()
        assert list(ledger.finished()) == list(range(shard + 1))
    assert taken[0] == 50
    assert list(pickle.loads(pickle.dumps(ledger)).finished()) == list(range(50))


def test_lines_that_another_process_wrote_cut_off_or_replaced_are_seen(tmp_path: Path) -> None:
    ours, theirs = (Ledger(tmp_path / "l.jsonl", "me") for _ in range(2))
    theirs.append(record(0))
    assert list(ours.finished()) == [0]
    theirs.append(record(1))
    assert list(ours.finished()) == [0, 1]
    whole = ours.path.read_bytes()
    ours.path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert list(ours.finished()) == [0]
    ours.path.write_bytes(whole[whole.index(b"\n") + 1 :])
    assert list(ours.finished()) == [1]
    ours.path.write_bytes(whole + b"{nonsense\n{}\n")
    for _ in range(2):
        with pytest.raises(CacheCorrupt, match=r"l\.jsonl, line 3: not a line"):
            ours.finished()
    ours.path.unlink()
    assert ours.finished() == {}
