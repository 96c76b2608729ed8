"""Labels that change places in the mirror come from their words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from vidxfer.pipeline.video.mirror import flip_pairs

SSV2 = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}


def names_in(path: Path) -> list[str]:
    if path.suffix == ".json":
        numbers = {name: int(number) for name, number in json.loads(path.read_text()).items()}
        return sorted(numbers, key=numbers.__getitem__)
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [row[-1] for row in csv.reader(file)][1:]
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    "file",
    ["ssv2_DiST_ssv2_labels.json", "ssv2_mmaction2_label_map.txt", "ssv2_sth_labels.csv", "ssv2_sth_labels_me.csv"],
)
def test_something_something_swaps_exactly_the_three_known_pairs(fixtures_dir, file):
    names = names_in(fixtures_dir / "annotations" / "labels" / file)
    assert len(names) == 174
    assert flip_pairs(names) == SSV2


def test_kinetics_has_no_pairs(fixtures_dir):
    assert flip_pairs(names_in(fixtures_dir / "annotations" / "labels" / "k400_mmaction2_label_map.txt")) == {}


def test_case_is_kept_and_only_whole_words_count():
    assert flip_pairs(["Left turn", "Right turn"]) == {0: 1, 1: 0}
    assert flip_pairs(["turn_left", "turn_right"]) == {0: 1, 1: 0}
    assert flip_pairs(["Left turn", "right turn"]) == {}
    assert flip_pairs(["leftover", "rightover"]) == {}


def test_a_class_without_a_partner_and_one_that_mirrors_to_itself_stay():
    assert flip_pairs(["turning left", "sitting"]) == {}
    assert flip_pairs([]) == {}
