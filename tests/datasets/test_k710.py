"""Kinetics-710 by names: the same classes as the published lists of numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets.k710 import RENAMED, map_labels, names_of
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.errors import UsageError


@pytest.mark.parametrize("kind", ["k400", "k600", "k700"])
def test_names_give_the_published_numbers_for_every_class(kind: str, fixtures_dir: Path) -> None:
    published = json.loads((fixtures_dir / f"annotations/labels/k710_channel_map_{kind}.json").read_text())
    names = official_names(kind)
    assert list(map_labels(names, official_names("k710"), labels_as="k710", where=kind)) == published
    assert len(set(published)) == len(names)


def test_only_names_that_are_none_of_the_710_are_renamed() -> None:
    assert set(RENAMED).isdisjoint(official_names("k710"))
    assert set(RENAMED.values()) <= set(official_names("k710"))
    everywhere = {name for kind in ("k400", "k600", "k700") for name in official_names(kind)}
    assert set(RENAMED) == everywhere - set(official_names("k710"))
    assert set(official_names("k710")) <= everywhere


def test_a_class_of_another_set_is_named_and_not_guessed() -> None:
    with pytest.raises(UsageError, match=r"x: 1 of its 2 classes are none of k710: 'abseilin' \(did you mean 'abse"):
        map_labels(("zumba", "abseilin"), official_names("k710"), labels_as="k710", where="x")


def test_label_sets_are_known_by_name() -> None:
    assert names_of("union", [("b", "a"), ("a", "c")]) == ("a", "b", "c")
    assert len(names_of("k710", [])) == 710
    with pytest.raises(UsageError, match=r"--labels-as 'k700' is none of k710, union \(did you mean 'k710'\?\)"):
        names_of("k700", [])
