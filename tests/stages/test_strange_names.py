"""Ids and paths that are legal on disk and nowhere else, through to the end of an extraction."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.settings import DataSource

NAMES = (b"caf\xe9, d\xe9but.webm", b"-rf .webm", b"a\tb\n\x07c.webm", "日本 語.webm".encode(), b"back\\slash.webm")
BROKEN = (b"cut\xff.webm", b"-empty\xfe.webm")
IDS = (
    "train/open \\xe9/-empty\\xfe.webm",
    "train/open \\xe9/-rf .webm",
    "train/open \\xe9/a\\tb\\n\\x07c.webm",
    "train/open \\xe9/back\\slash.webm",
    "train/open \\xe9/caf\\xe9, d\\xe9but.webm",
    "train/open \\xe9/cut\\xff.webm",
    "train/open \\xe9/日本 語.webm",
)


@pytest.fixture
def root(toy: Any, tmp_path: Path) -> Path:
    """A folder whose own name, whose class and whose files are not UTF-8; two files are broken."""
    root = tmp_path / os.fsdecode(b"root \xe9")
    folder = root / "train" / os.fsdecode(b"open \xe9")
    folder.mkdir(parents=True)
    (root / "val/other").mkdir(parents=True)
    some = sorted(toy.videos.iterdir())
    for name, video in zip(NAMES, some, strict=False):
        shutil.copyfile(video, folder / os.fsdecode(name))
    shutil.copyfile(some[0], root / "val/other/x.webm")
    (folder / os.fsdecode(BROKEN[0])).write_bytes(some[0].read_bytes()[:900])
    (folder / os.fsdecode(BROKEN[1])).write_bytes(b"")
    return root


def test_every_name_reaches_the_cache_the_ledger_and_the_reports(
    root: Path, toy: Any, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    cache = tmp_path / "zarr"
    train, val = extract(toy.request(cache, root=root, kind="folder"))
    assert (train.stored, val.stored) == (5, 1)
    split = open_split(cache, "train")
    assert tuple(split.video_ids) == IDS
    assert split.class_names == ("open \\xe9", "other")
    assert set(train.failed) == {IDS[0], IDS[5]}
    for line in (cache / "train.ledger.jsonl").read_bytes().decode("utf-8").splitlines():
        json.loads(line)
    found = cached_source(cache, "train", None).find_videos()
    assert all(found[name].path.exists() for name in IDS)
    for words in (("cache", "info", "--cache", cache), ("data", "inspect", "--root", root)):
        assert invoke(*words, "--json").exit_code == 0
        assert invoke(*words).exit_code == 0
    again = extract(toy.request(cache, root=root, kind="folder"))
    assert again[0].resumed == 5


def test_two_names_that_look_alike_after_the_escape_are_refused_not_merged(toy: Any, root: Path) -> None:
    folder = root / "train" / os.fsdecode(b"open \xe9")
    shutil.copyfile(next(iter(toy.videos.iterdir())), folder / "cut\\xff.webm")
    with pytest.raises(Exception, match="1 ids of the train split occur more than once"):
        DataSource(kind="folder", root=root).load("train")
