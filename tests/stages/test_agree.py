"""What must agree is compared before anything is spent; what may differ is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.cache.read.agree import AGREE, differing_fields, expect_agree, expect_tower, facts_of, other_text
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.grow import write_attributes
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import CacheMismatch, RunError, difference
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.run import Run
from vidxfer.stages import settings
from vidxfer.stages.extract import extract
from vidxfer.stages.learning import predict as predicting
from vidxfer.stages.learning import sources as sourcing
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.predict import PredictRequest
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.learning.train import TrainRequest, expect_trainable, train
from vidxfer.stages.upkeep.recode import RecodeRequest, recode


def changed(split: Split, **changes: Any) -> Split:
    """The split with other settings: names as in `facts_of`, `more_names` for class names that come last."""
    spec, sampling = split.spec, split.spec.sampling
    own = {name: changes.pop(name) for name in list(changes) if name == "class_names"}
    if "more_names" in changes:
        own["class_names"] = (*split.class_names, *changes.pop("more_names"))
        own["factors"] = {}
        own["text"] = np.concatenate([split.text, np.ones((1, spec.embed), dtype=np.float32)])
    if "templates" in changes:
        own["informs"] = {**split.informs, "templates": list(changes.pop("templates"))}
    drawn = {name: changes.pop(name) for name in list(changes) if hasattr(sampling, name)}
    spec = replace(spec, **changes, sampling=replace(sampling, **drawn))
    layers = len(spec.layers)
    shapes = {name: np.ones((layers, spec.channels), dtype=np.float32) for name in ("channel_mean", "channel_std")}
    return replace(split, spec=spec, **own, **({} if layers == len(split.spec.layers) else shapes))


def request(toy: Any, run: Path, recipe: str = "dist-toy", **changes: Any) -> TrainRequest:
    return TrainRequest(recipe=named(recipe), cache=toy.float16, run=run, device="cpu", **changes)


def plain(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(value))


NAMES = ("Moving right with a red triangle", "Moving left with a red triangle")
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"more_names": ("zzz",)}, "class_names"),
    ({"templates": ("a photo of {}",)}, "templates"),
    ({"clip_weights_sha256": "0" * 64}, "clip_weights_sha256"),
    ({"clip_precision": "bf16"}, "clip_precision"),
    ({"pixel_mean": (0.5, 0.5, 0.5)}, "pixel_mean"),
    ({"pixel_std": (0.5, 0.5, 0.5)}, "pixel_std"),
    ({"image_px": 64}, "sampling.image_px"),
    ({"tokens": 5}, "tokens"),
    ({"alpha": 4}, "sampling.alpha"),
    ({"dense_frames": 16}, "sampling.dense_frames"),
    ({"layers": (0, 1)}, "layers"),
]


@pytest.mark.parametrize(("changes", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_a_validation_split_that_does_not_agree_is_refused_with_both_values(
    toy: Any, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    sources = {name: cached_source(toy.float16, name, None) for name in ("train", "val")}
    assert expect_trainable(sources, request(toy, tmp_path)) == []
    val = changed(sources["val"].split, **changes)
    with pytest.raises(CacheMismatch, match="val has") as caught:
        expect_trainable({**sources, "val": replace(sources["val"], split=val)}, request(toy, tmp_path))
    assert list(caught.value.fields) == [field]
    assert caught.value.fields[field] == tuple(plain(facts_of(one)[field]) for one in (val, sources["train"].split))


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("dist-toy", {"codec": "int8", "calibration_videos": 8}),
        ("dist-toy", {"seed": 9, "views": 3}),
        ("dist-toy", {"layers": (-1, 0, 1, 2)}),
        ("probe", {"layers": (1,)}),
        ("attentive-probe", {"layers": (2,)}),
        ("probe", {"dense_frames": 16}),
    ],
)
def test_what_a_head_does_not_see_may_differ_in_validation(
    toy: Any, tmp_path: Path, recipe: str, changes: dict[str, Any]
) -> None:
    sources = {name: cached_source(toy.float16, name, None) for name in ("train", "val")}
    val = replace(sources["val"], split=changed(sources["val"].split, **changes))
    assert expect_trainable({**sources, "val": val}, request(toy, tmp_path, recipe)) == []


def test_extraction_names_the_class_that_has_another_name_now(toy: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "ssv2")
    extract(toy.request(tmp_path / "zarr", root=root, splits=("val",)))
    for file in (root / "labels").iterdir():
        file.write_text(file.read_text().replace("Moving right with", "Sliding right with"))
    with pytest.raises(CacheMismatch, match="dataset_fingerprint: ") as caught:
        extract(toy.request(tmp_path / "zarr", root=root, splits=("val",)))
    text = f"number 0, counted from 0: cache has {NAMES[0]!r}, run needs {NAMES[0].replace('Moving', 'Sliding')!r}"
    assert text in str(caught.value)
    assert "videos" not in caught.value.fields


def other_order(toy: Any, folder: Path) -> Path:
    """A copy of the cache whose validation split has two class names in each other's place."""
    shutil.copytree(toy.float16, folder)
    val = open_split(folder, "val")
    first, second, *rest = val.class_names
    write_attributes(replace(val, class_names=(second, first, *rest)))
    return folder


def test_classes_in_another_order_end_training_before_there_is_a_run(toy: Any, tmp_path: Path, invoke: Any) -> None:
    cache = other_order(toy, tmp_path / "zarr")
    result = invoke("train", "--cache", cache, "--recipe", "probe", "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert "class_names: val has 8, train has 8 (the same names in another order)" in result.stderr
    assert f"number 0, counted from 0: val has {NAMES[1]!r}, train has {NAMES[0]!r}" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def runs(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One short run of each head on the float16 cache."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("dist-toy", "probe", "attentive-probe"):
        recipe = replace(named(name), epochs=1, warmup_epochs=0, batch_clips=8)
        train(TrainRequest(recipe=recipe, cache=toy.float16, run=folder / name, device="cpu"))
    return {path.name: path for path in folder.iterdir()}


def test_a_probe_refuses_classes_in_another_order_and_a_text_head_does_not_mind(
    toy: Any, runs: dict[str, Path], tmp_path: Path, invoke: Any
) -> None:
    cache = other_order(toy, tmp_path / "zarr")
    refused = invoke("evaluate", "--cache", cache, "--run", runs["probe"])
    assert refused.exit_code == 1
    assert "class_names: cache has 8, run needs 8 (the same names in another order)" in refused.stderr
    scored = invoke("evaluate", "--cache", cache, "--run", runs["dist-toy"])
    assert (scored.exit_code, "class_names" in scored.stderr) == (0, False)


def rewritten(toy: Any, folder: Path, **changes: Any) -> Path:
    shutil.copytree(toy.float16, folder)
    write_attributes(changed(open_split(folder, "val"), **changes))
    return folder


def test_other_prompts_than_the_trainings_are_said(
    toy: Any, runs: dict[str, Path], tmp_path: Path, invoke: Any
) -> None:
    plain = invoke("evaluate", "--cache", toy.float16, "--run", runs["dist-toy"])
    assert "evaluate:" not in plain.stderr
    cache = rewritten(toy, tmp_path / "zarr", templates=("no {} at all",), clip_precision="bf16")
    told = invoke("evaluate", "--cache", cache, "--run", runs["dist-toy"])
    assert told.exit_code == 0
    lines = " ".join(told.stderr.split())
    assert "evaluate: templates: cache has ['no {} at all'], run needs ['{}']" in lines
    assert "evaluate: clip_precision: cache has 'bf16', run needs 'fp32'" in lines


@pytest.mark.parametrize("field", ["pixel_mean", "pixel_std"])
def test_a_run_is_not_scored_on_other_pixels(toy: Any, runs: dict[str, Path], tmp_path: Path, field: str) -> None:
    cache = rewritten(toy, tmp_path / "zarr", **{field: (0.25, 0.5, 0.75)})
    with pytest.raises(CacheMismatch) as caught:
        evaluate(EvaluateRequest(run=runs["probe"], cache=cache, device="cpu"))
    assert list(caught.value.fields) == [field]
    assert caught.value.fields[field][0] == [0.25, 0.5, 0.75]


def test_a_head_reads_the_layers_it_was_trained_on_from_a_cache_that_has_more(
    toy: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    recode(RecodeRequest(source=toy.float16, target=tmp_path / "some", layers=(0, 1)))
    for name in ("dist-toy", "attentive-probe"):  # each takes by default what there is
        recipe = replace(named(name), epochs=1, warmup_epochs=0, batch_clips=8)
        run = tmp_path / name
        train(TrainRequest(recipe=recipe, cache=tmp_path / "some", run=run, device="cpu"))
        lines = []
        for cache in (tmp_path / "some", toy.float16):
            evaluate(EvaluateRequest(run=run, cache=cache, device="cpu"))
            lines.append((run / "predictions.val.jsonl").read_text())
        assert lines[0] == lines[1]
    with pytest.raises(CacheMismatch, match=r"layers: cache has \[0, 1\], run needs \[0, 1, 2\]"):
        evaluate(EvaluateRequest(run=runs["dist-toy"], cache=tmp_path / "some", device="cpu"))


def forget(run: Path, target: Path, *names: str) -> Path:
    """A copy of a run as 0.1.0 wrote it: without some fields, and without what it was scored on."""
    shutil.copytree(run, target)
    made = json.loads((target / "run.json").read_text())
    (target / "run.json").write_text(json.dumps({name: value for name, value in made.items() if name not in names}))
    (target / "validation.json").unlink()
    return target


def test_an_old_run_is_compared_in_what_it_keeps_and_the_rest_is_said(
    toy: Any, runs: dict[str, Path], tmp_path: Path, invoke: Any
) -> None:
    old = forget(runs["dist-toy"], tmp_path / "old", "templates")
    told = " ".join(invoke("evaluate", "--cache", toy.float16, "--run", old).stderr.split())
    assert told.count("templates: not recorded by an older version, so not compared") == 1
    assert "text embeddings differ" not in told
    folder = tmp_path / "zarr"
    shutil.copytree(toy.float16, folder)
    other = folder / "val"
    stored = open_split(folder, "val")
    import zarr

    zarr.open_group(other, mode="r+")["text"][0] = -stored.text[0]
    write_attributes(replace(stored, text=np.concatenate([-stored.text[:1], stored.text[1:]])))
    told = " ".join(invoke("evaluate", "--cache", folder, "--run", old).stderr.split())
    assert f"text embeddings differ: of {NAMES[0]!r} the cosine is -1.000: other prompts" in told


def test_a_run_is_gone_on_with_over_its_own_prompts_only(toy: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(toy.float16, tmp_path / "zarr")
    for name in ("train", "val"):
        write_attributes(changed(open_split(tmp_path / "zarr", name), templates=("no {} at all",)))
    recipe = Run.open(runs["dist-toy"]).recipe
    with pytest.raises(RunError, match=r"templates: the run has \['\{\}'\], you ask for \['no \{\} at all'\]"):
        train(TrainRequest(recipe=recipe, cache=tmp_path / "zarr", run=runs["dist-toy"], device="cpu"))


def test_other_text_names_the_class_that_differs_most() -> None:
    ours = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=np.float32)
    theirs = np.array([[1.0, 1.0], [9.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert other_text("abc", ours, "cab", theirs) == (
        "text embeddings differ: of 'b' the cosine is 0.000: other prompts"
    )  # a: 9,0 and c: 1,1 are the same directions
    assert other_text("ac", ours[[0, 2]], "ca", theirs[[0, 1]]) is None
    assert other_text("a", ours[:1], "z", theirs[:1]) is None


def test_two_lists_of_names_are_shown_by_their_counts_and_first_difference() -> None:
    sides = ("val has", "train has")
    assert difference("class_names", ("a", "b", "c"), ["a", "c", "b"], sides) == (
        "class_names: val has 3, train has 3 (the same names in another order); the first that differ are number 1, "
        "counted from 0: val has 'b', train has 'c'"
    )
    assert difference("class_names", ("a", "b", "c"), ["a", "b"], sides).endswith(
        "val has 3, train has 2; the first that differ are number 2, counted from 0: val has 'c', train has none"
    )
    assert difference("layers", [3], [5], sides) == "layers: val has [3], train has [5]"


def test_what_is_not_recorded_is_not_compared() -> None:
    assert differing_fields(["a", "b", "c"], {"a": 1, "b": None}, {"a": 2, "b": 3, "c": 4}) == {"a": (1, 2)}
    assert differing_fields(["a"], {"a": (1, (2, 3))}, {"a": [1, [2, 3]]}) == {}


def test_caches_are_read_as_one_only_where_every_setting_of_their_tokens_agrees(toy: Any) -> None:
    """A field of the settings that is added later must be put into the table, or among those that may differ."""
    known = set(facts_of(open_split(toy.float16, "train"))) - {"class_names"}
    may_differ = {"codec", "calibration_videos", "sampling.seed"}
    assert known - set(AGREE["cache with cache"].must) == may_differ


TOWER = [
    ("weights_sha256", "clip_weights_sha256", "f" * 64),
    ("precision", "clip_precision", "bf16"),
    ("channels", "channels", 32),
    ("tokens", "tokens", 5),
    ("embed", "embed", 16),
    ("pixel_mean", "pixel_mean", (0.5, 0.5, 0.5)),
    ("pixel_std", "pixel_std", (0.5, 0.5, 0.5)),
    ("image_px", "sampling.image_px", 64),
]


@pytest.fixture(scope="module")
def tower(toy: Any) -> Any:
    return load_tower(str(toy.clip), device="cpu")


@pytest.mark.parametrize(("name", "field", "value"), TOWER)
def test_a_tower_is_compared_in_everything_that_changes_tokens(
    toy: Any, tower: Any, name: str, field: str, value: object
) -> None:
    split = open_split(toy.float16, "train")
    expect_tower(split, tower.info)
    other = replace(tower.info, **{name: value})
    with pytest.raises(CacheMismatch) as caught:
        expect_tower(split, other)
    assert caught.value.fields == {field: (plain(facts_of(split)[field]), plain(value))}


def test_clip_computes_in_the_precision_of_the_cache_and_of_the_run(
    toy: Any, tower: Any, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU "auto" would be another one than a CPU's, whatever the cache was made with."""
    asked = []

    def load(*_: object, precision: str, **__: object) -> Any:
        asked.append(precision)
        return type("Other", (), {"info": replace(tower.info, precision=precision)})()

    monkeypatch.setattr(settings, "load_tower", load)
    cache = rewritten(toy, tmp_path / "zarr", clip_precision="bf16")
    write_attributes(changed(open_split(cache, "train"), clip_precision="bf16"))
    sourcing.online_sources(cache, None, data=None, clip=sourcing.ClipChoice(), store=sourcing.CacheChoice())
    run = Run.open(runs["probe"])
    trained = replace(open_split(toy.float16, "train").spec, clip_precision="bf16")
    shown: list[str] = []
    line = type("Shown", (), {"line": staticmethod(shown.append)})()
    for precision in ("auto", "fp32"):
        predicting.tower_of(run, trained, PredictRequest(videos=(), run=run.path, precision=precision), line)
    assert asked == ["bf16", "bf16", "fp32"]
    assert shown == ["predict: clip_precision: run has 'fp32', the CLIP here has 'bf16'"]


def test_predict_refuses_a_clip_with_other_pixels(toy: Any, tower: Any, runs: dict[str, Path]) -> None:
    facts = {**predicting.facts_of_tower(tower.info), "pixel_std": (0.5, 0.5, 0.5)}
    run = Run.open(runs["probe"])
    with pytest.raises(CacheMismatch, match=r"pixel_std: run has .*, the CLIP here has \[0\.5, 0\.5, 0\.5\]"):
        expect_agree("run with tower", run.path, predicting.facts_of_run(run.made_from), facts)


def test_a_run_begins_only_with_a_run_of_its_kind(toy: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    for recipe, beginning, field in (("dist-toy", "probe", "head"), ("probe", "attentive-probe", "head")):
        with pytest.raises(CacheMismatch, match=f"{field}: that run has '{beginning}', this one has"):
            train(request(toy, tmp_path / "new", recipe, init_from=runs[beginning]))
    recode(RecodeRequest(source=toy.float16, target=tmp_path / "some", layers=(0, 1)))
    with pytest.raises(CacheMismatch, match=r"layers: that run has \[0, 1, 2\], this one has \[0, 1\]"):
        train(replace(request(toy, tmp_path / "new", init_from=runs["dist-toy"]), cache=tmp_path / "some"))
    assert not (tmp_path / "new").exists()
