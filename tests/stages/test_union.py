"""Several caches as one: the same tokens as the caches themselves, classes by name, nothing counted twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.datasets.names import official_names
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.learning.union import member_names, rows_to_keep, source_of, text_of

HEADER = "label,youtube_id,time_start,time_end,split\n"
TRAIN = {
    "k400": [("drinking", "aaaaaaaaaaa"), ("abseiling", "bbbbbbbbbbb"), ("abseiling", "ccccccccccc"), ("zumba", "-d")],
    "k700": [
        ("sipping cup", "aaaaaaaaaaa"),
        ("acting in play", "eeeeeeeeeee"),
        ("zumba", "ggggggggggg"),
        ("zumba", "h"),
    ],
}
VAL = {"k400": [("zumba", "hhhhhhhhhhh"), ("drinking", "fffffffffff")], "k700": [("acting in play", "ccccccccccc")]}


@pytest.fixture(scope="module")
def caches(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kinetics-400 and -700 of a few toy videos, one stored as int8 and one as float16."""
    folder = tmp_path_factory.mktemp("union")
    videos = sorted(toy.videos.iterdir())
    found = {}
    for place, kind in enumerate(TRAIN):
        root = folder / "data" / kind
        for split, rows in (("train", TRAIN[kind]), ("val", VAL[kind])):
            (root / split).mkdir(parents=True)
            (root / "annotations").mkdir(exist_ok=True)
            full = [(label, id_.ljust(11, id_[-1])) for label, id_ in rows]
            lines = [f"{label},{id_},0,10,{split}\n" for label, id_ in full]
            (root / f"annotations/{split}.csv").write_text(HEADER + "".join(lines))
            for number, (_, id_) in enumerate(full):
                shutil.copyfile(videos[number + 5 * place], root / split / f"{id_}_000000_000010.webm")
        codec = ("int8", "float16")[place]
        found[kind] = folder / "zarr" / kind
        extract(toy.request(found[kind], root=root, kind=kind, codec=codec, decode_in="threads"))
    return found


def test_classes_go_by_name_and_repeated_recordings_are_left_out(caches: dict[str, Path]) -> None:
    said: list[str] = []
    shown: Any = SimpleNamespace(line=said.append)
    train = source_of(tuple(caches.values()), "train", labels_as="k710", shown=shown)
    split = train.split
    assert split.class_names == official_names("k710")
    assert list(split.video_ids) == ["k400/aaaaaaaaaaa_0_10", "k400/bbbbbbbbbbb_0_10", "k400/-dddddddddd_0_10",
                                     "k700/eeeeeeeeeee_0_10", "k700/ggggggggggg_0_10"]  # fmt: skip
    assert [split.class_names[label] for label in split.labels] == [
        "sipping cup", "abseiling", "zumba", "acting in play", "zumba",
    ]  # fmt: skip
    assert said == [
        "train: k400: left out: 1 recordings of a val split",
        "train: k700: left out: 1 recordings of an earlier cache, 1 recordings of a val split",
    ]
    known = open_split(caches["k400"], "train")
    np.testing.assert_array_equal(
        split.text[split.class_names.index("abseiling")], known.text[known.class_names.index("abseiling")]
    )
    assert np.isfinite(split.text).all()
    assert np.abs(split.text).max(axis=1).min() > 0  # names that no cache has were embedded


@pytest.mark.parametrize(("precision", "product"), [("fp32", None), ("bf16", torch.bfloat16)])
def test_every_cache_turns_its_tokens_back_in_the_precision_of_the_head(
    caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch, precision: str, product: torch.dtype | None
) -> None:
    asked, real = [], Dequantiser.of
    monkeypatch.setattr(
        Dequantiser, "of", lambda *words, **more: (asked.append(more["product"]), real(*words, **more))[1]
    )
    union = source_of(tuple(caches.values()), "train", labels_as="k710")
    union.assembler(Needs(layers=(0,)), torch.device("cpu"), precision=precision)
    assert asked == [product] * (1 + len(caches)), "the union's own serves nobody"


def test_a_batch_of_the_union_is_what_each_cache_gives(caches: dict[str, Path]) -> None:
    union = source_of(tuple(caches.values()), "train", labels_as="k710")
    layers = union.split.spec.layers
    needs = Needs(layers=layers, embedding=True, pixels="dense")
    clips = [(4, 1), (0, 0), (3, 1), (2, 0), (1, 1)]
    cpu, threads = torch.device("cpu"), {"decode_threads": 1, "read_threads": 1}
    with union.loader(needs, **threads) as loader:
        (raw,) = loader.batches([clips])
        batch = union.assembler(needs, cpu, smoothing=0.1)(raw)
    assert batch.ids == tuple(union.split.video_ids[row] for row, _ in clips)
    assert batch.targets is not None
    assert batch.targets.shape == (5, 710)
    for place, (row, view) in enumerate(clips):
        name, _, id_ = union.split.video_ids[row].partition("/")
        alone = cached_source(caches[name], "train", None)
        own = alone.split.video_ids.index(id_)
        with alone.loader(needs, **threads) as loader:
            (raw,) = loader.batches([[(own, view)]])
            expected = alone.assembler(needs, cpu)(raw)
        for field in ("tokens", "embedding", "dense"):
            torch.testing.assert_close(getattr(batch, field)[place], getattr(expected, field)[0], rtol=0, atol=0)
        label = int(expected.labels[0])
        mapped = {"drinking": "sipping cup"}.get(alone.split.class_names[label], alone.split.class_names[label])
        assert union.split.class_names[int(batch.labels[place])] == mapped


def test_train_and_evaluate_take_several_caches(
    caches: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    both = [word for cache in caches.values() for word in ("--cache", cache)]
    words = ("--recipe", "dist-toy", "--run", "run", "--set", "epochs=1", "--set", "warmup_epochs=0",
             "--set", "batch_clips=4")  # fmt: skip
    trained = invoke("train", *both, "--labels-as", "k710", *words, "--json")
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["score"]["listed"] == 3
    shown = invoke("evaluate", *both, "--labels-as", "k710", "--run", "run")
    assert shown.exit_code == 0, shown.stderr
    assert "val of k400: top-1" in shown.stdout
    assert "(2 scored / 2 listed)" in shown.stdout
    assert "val of k700: top-1" in shown.stdout
    alone = invoke("evaluate", "--cache", caches["k400"], "--run", "run", "--json")  # its own classes: by their text
    assert json.loads(alone.stdout)["score"]["listed"] == 2
    refused = invoke("train", *both, *words)
    assert refused.exit_code == 2
    assert "several caches need one set of classes: --labels-as k710" in refused.stderr
    other = invoke("train", "--cache", caches["k400"], "--labels-as", "union", *words)
    assert other.exit_code == 1
    assert "holds a run with other settings" in other.stderr


def test_caches_of_other_settings_or_classes_are_refused(caches: dict[str, Path], toy: Any) -> None:
    one, other = open_split(caches["k400"], "train"), open_split(caches["k700"], "train")
    expect_agree("cache with cache", other.path, facts_of(other), facts_of(one))  # int8 and float16 go together
    wrong = replace(other, spec=replace(other.spec, clip_weights_sha256="0" * 64))
    with pytest.raises(CacheMismatch, match="clip_weights_sha256"):
        expect_agree("cache with cache", wrong.path, facts_of(wrong), facts_of(one))
    with pytest.raises(UsageError, match=r"classes are none of k710: '"):
        source_of((caches["k400"], toy.int8), "train", labels_as="k710")
    with pytest.raises(UsageError, match="is none of k710, union"):
        source_of((caches["k400"],), "train", labels_as="k800")


def test_only_the_clip_of_the_caches_embeds_a_name_that_none_of_them_has(caches: dict[str, Path]) -> None:
    split = open_split(caches["k400"], "train")
    names = (*split.class_names, "juggling fish")
    assert text_of(names, [split]).shape == (len(names), split.spec.embed)
    wrong = replace(split, spec=replace(split.spec, clip_weights_sha256="0" * 64))
    with pytest.raises(CacheMismatch, match="made with another CLIP"):
        text_of(names, [wrong])
    assert np.array_equal(text_of(split.class_names, [wrong]), split.text), "no CLIP is needed for names that are there"


def test_two_folders_of_one_name_are_numbered() -> None:
    assert member_names([Path("a/zarr"), Path("b/zarr"), Path("k700")]) == ["zarr-1", "zarr-2", "k700"]


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=6, unique=True), max_size=3))
def test_every_recording_is_kept_by_the_first_cache_that_has_it(sets: list[list[tuple[str, int]]]) -> None:
    class Fake:
        def __init__(self, clips: list[tuple[str, int]]) -> None:
            self.video_ids = tuple(f"{name * 11}_{start}_{start + 1}" for name, start in clips)
            self.video_rows = np.arange(len(clips))
            self.spec = type("Spec", (), {"dataset": "k400"})

    keep, left_out = rows_to_keep([Fake(clips) for clips in sets], held_out={"a" * 11})  # type: ignore[misc]
    kept = [{clips[row][0] for row in rows} for clips, rows in zip(sets, keep, strict=True)]
    assert all("a" not in names for names in kept)
    for first in range(len(kept)):
        assert all(kept[first].isdisjoint(later) for later in kept[first + 1 :])
    assert set().union(*kept) == {name for clips in sets for name, _ in clips} - {"a"}
    assert [len(rows) + why.total() for rows, why in zip(keep, left_out, strict=True)] == [len(s) for s in sets]
