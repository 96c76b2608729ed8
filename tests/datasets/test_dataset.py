"""One split of a labelled set: checks itself, has a fingerprint that survives a move, can be cut short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import Dataset, load_dataset
from vidxfer.pipeline.datasets.base import falls_into_val
from vidxfer.pipeline.datasets.paths import clean_text
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.shapes import Video


def dataset(labels: list[int | None], *, root: str = "/data", classes: int = 4) -> Dataset:
    videos = tuple(
        Video(id=f"v{row}", path=Path(root) / f"{row}.mp4", label=label, split="train")
        for row, label in enumerate(labels)
    )
    names = tuple(f"class {number}" for number in range(classes))
    return Dataset(name="csv", root=Path(root), split="train", videos=videos, class_names=names)


def test_an_id_that_occurs_twice_is_named() -> None:
    one = dataset([0, 1])
    with pytest.raises(DatasetError, match=r"1 ids of the train split occur more than once: 'v0'"):
        replace(one, videos=(*one.videos, one.videos[0]))


def test_a_label_without_a_class_name_is_named() -> None:
    with pytest.raises(DatasetError, match=r"1 labels .* not among the 4 classes: 'v1' has 4"):
        dataset([0, 4])


def test_factors_have_one_value_per_class_and_are_no_part_of_the_fingerprint() -> None:
    one = dataset([0, 1])
    factored = replace(one, factors={"verb": ("take", "take", "put", "put")})
    assert factored.fingerprint == one.fingerprint
    assert factored.take(1).factors == factored.factors
    with pytest.raises(DatasetError, match=r"4 classes, but factors with other numbers of values: \{'verb': 1\}"):
        replace(one, factors={"verb": ("take",)})


def test_printing_shows_counts_not_videos() -> None:
    assert repr(dataset([0, 1])) == "Dataset(csv train: 2 videos, 4 classes)"


def test_the_fingerprint_is_of_ids_and_labels_not_of_paths_or_order() -> None:
    here = dataset([0, 1, None])
    assert here.fingerprint == dataset([0, 1, None], root="/elsewhere").fingerprint
    assert here.fingerprint == replace(here, videos=here.videos[::-1]).fingerprint
    assert len(here.fingerprint) == 16
    cut = replace(here.videos[0], end_seconds=2.0)
    others = [
        dataset([0, 2, None]),
        dataset([0, 1]),
        dataset([0, 1, None], classes=3),
        replace(here, split="val"),
        replace(here, videos=(cut, *here.videos[1:])),
    ]
    assert len({here.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_the_fingerprint_is_a_promise() -> None:
    assert dataset([0, 1, None]).fingerprint == "07f08a76d9ce265d"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 70))
def test_take_gives_so_many_distinct_videos_in_their_order(labels: list[int], count: int) -> None:
    whole = dataset(list(labels))
    part = whole.take(count)
    assert len(part) == min(count, len(labels))
    rows = [whole.videos.index(video) for video in part.videos]
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("labels", [[row % 4 for row in range(80)], [row // 20 for row in range(80)]])
def test_take_keeps_classes_mixed_however_the_list_is_ordered(labels: list[int | None]) -> None:
    part = dataset(labels).take(8)
    assert sorted(str(video.label) for video in part.videos) == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert part.notes == ("limited to 8 of 80 train videos",)
    with pytest.raises(UsageError, match="limit of 0"):
        part.take(0)


def test_the_val_share_is_near_what_was_asked_and_stable() -> None:
    keys = [f"clips/{number}.mp4" for number in range(4000)]
    inside = {key for key in keys if falls_into_val(key, 0.2)}
    assert 700 < len(inside) < 900
    assert inside <= {key for key in keys if falls_into_val(key, 0.3)}
    assert [falls_into_val(f"{number}", 0.5) for number in range(6)] == [True, True, True, True, False, True]


def test_unknown_words_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown data set kind 'ssv3' \(did you mean 'ssv2'\?\)\. Known: auto, ssv2, ssv1"
    ):
        load_dataset("ssv3", tmp_path, "train")
    with pytest.raises(UsageError, match=r"unknown split 'valid' \(did you mean 'val'\?\)"):
        load_dataset("csv", tmp_path, "valid")
    with pytest.raises(UsageError, match=r"between 0 and 1, not 1\.0"):
        load_dataset("csv", tmp_path, "val", val_fraction=1.0)


@pytest.mark.parametrize("kind", ["ssv2", "folder", "csv"])
def test_a_root_that_is_not_there_draws_the_layout(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"(?s)nowhere: no such file or folder\. The {kind} layout is:\n  <root>/"):
        load_dataset(kind, tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match=r"nothing\.csv: no such file or folder"):
        load_dataset(kind, tmp_path, "train", labels=tmp_path / "nothing.csv")


@given(st.text(st.characters()))
def test_any_text_becomes_one_line_of_valid_unicode(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert len(cleaned.splitlines()) <= 1
    assert clean_text(cleaned) == cleaned
