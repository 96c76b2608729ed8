"""A split's zarr.json with any value replaced: it opens as it is, or an error of the tree says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheError, VidxferError

from ..hostile import ODD, changed, places


@pytest.fixture(scope="module")
def one(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a cache whose val split has no seal."""
    cache: Path = tmp_path_factory.mktemp("odd") / "cache"
    shutil.copytree(toy.int8, cache, ignore=shutil.ignore_patterns("train*"))
    file = cache / "val" / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["vidxfer"].pop("seal")
    file.write_text(json.dumps(document))
    return cache


def opened(cache: Path, document: Any) -> str:
    """What comes of a document: "opens", or the name of the error."""
    file = cache / "val" / "zarr.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(document))
        split = open_split(cache, "val")
        summary(cache)
        split.informs["logit_scale"], split.informs["clip"]["model"], split.informs["clip"]["pretrained"]
        split.informs["data"], split.informs["unheard of"]
    except VidxferError as error:
        return type(error).__name__
    finally:
        file.write_text(before)
    return "opens"


def test_the_document_as_it_is_opens(one: Path) -> None:
    open_split(one, "val")
    assert summary(one)["val"]["stored"] > 0


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_ends_outside_the_error_tree(one: Path, data: st.DataObject) -> None:
    document = json.loads((one / "val" / "zarr.json").read_text())
    path = data.draw(st.sampled_from(list(places(document))))
    change = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
    opened(one, changed(document, path, change, data.draw(st.sampled_from(ODD))))


NAMED: list[tuple[str, Any, str]] = [
    ("flip_pairs", None, "flip_pairs is None, expected a list"),
    ("flip_pairs", [[0, 99]], "flip_pairs names a label"),
    ("shard_videos", 0, "shard_videos is 0, expected at least 1"),
    ("format", float("inf"), "is not vidxfer's"),
    ("class_names", 5, "class_names is 5, expected a list"),
    ("class_names", [1, 2], r"class_names\[0\] is 1, expected a text"),
    ("cache_id", [], r"cache_id is \[\], expected a text"),
    ("spec", {"channels": 7}, "missing: .*tokens"),
    ("extents", [{"first_row": 0, "end": 2**40, "dataset": "x", "dataset_fingerprint": "y", "data": {}}], "extents"),
    ("extents", [{"first_row": 0, "end": -1, "dataset": "x", "dataset_fingerprint": "y", "data": {}}], "extents"),
    ("frames", 3, "dense frames are not kept as this version"),
    ("more_views", ["../../x"], "more_views"),
    ("informs", {"logit_scale": "a"}, "informs.logit_scale is 'a', expected a finite number"),
]


@pytest.mark.parametrize(("name", "value", "said"), NAMED)
def test_the_value_is_named_with_what_was_expected(one: Path, name: str, value: Any, said: str) -> None:
    file = one / "val" / "zarr.json"
    before = file.read_text()
    document = json.loads(before)
    document["attributes"]["vidxfer"][name] = value
    try:
        file.write_text(json.dumps(document))
        with pytest.raises(CacheError, match=said):
            open_split(one, "val")
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "null", "[]", '{"attributes": 3}', "\x00", '{"attributes": {"vidxfer": []}}']
)
def test_a_file_that_is_no_group_is_said_to_be_none(one: Path, text: str) -> None:
    file = one / "val" / "zarr.json"
    before = file.read_text()
    try:
        file.write_text(text)
        with pytest.raises(CacheError):
            open_split(one, "val")
    finally:
        file.write_text(before)
