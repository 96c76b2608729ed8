"""Averaged patches: stored, made of a finished cache, or made on the device; every command works on them.

One cache of 2 x 2 means serves all: of the toy's 4 x 4 patches of 8 px, 2 x 2 of 16 px are left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Mixing
from vidxfer.pipeline.training.build import build_head, settled
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.convert import ImportRequest, import_weights
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.export import ExportRequest, export_weights
from vidxfer.stages.learning.predict import PredictRequest, load_run, predict
from vidxfer.stages.learning.sources import cached_source, online_sources
from vidxfer.stages.learning.train import train
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.library.opened import open_cache
from vidxfer.stages.settings import CacheChoice, ClipChoice, TrainRequest
from vidxfer.stages.upkeep.add import AddRequest, add
from vidxfer.stages.upkeep.fidelity import FidelityRequest, fidelity
from vidxfer.stages.upkeep.parity import ParityRequest, parity
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.recode import RecodeRequest, recode
from vidxfer.stages.upkeep.verify import VerifyRequest, verify

CPU = torch.device("cpu")
SHORT = ["epochs=1", "warmup_epochs=0", "batch_clips=2", "evaluate_every_epochs=1"]
RECIPES = {
    "dist-toy": [], "side4video-toy": [], "tds-toy": [], "evl-toy": ["head.blocks=0"], "attentive-d1": [],
    "frame-transformer": [], "probe": [],
}  # fmt: skip


def means_by_hand(tokens: np.ndarray[Any, Any], pool: int) -> np.ndarray[Any, Any]:
    """[... token channel] with the patches of a square grid averaged, in float64 and one by one."""
    side = round((tokens.shape[-2] - 1) ** 0.5)
    rows = [tokens[..., 0, :].astype(np.float64)]
    for top in range(0, side, pool):
        for left in range(0, side, pool):
            places = [1 + y * side + x for y in range(top, top + pool) for x in range(left, left + pool)]
            rows.append(tokens[..., places, :].astype(np.float64).mean(axis=-2))
    return np.stack(rows, axis=-2)


@dataclass(frozen=True)
class World:
    """Six training and two validation videos: a float16 cache, and one of 2 x 2 means with frames and windows."""

    data: Path
    exact: Path
    pooled: Path
    run: Callable[[str], Path]
    runs: Path

    def request(self, name: str, run: Path, cache: Path | None = None, *sets: str) -> TrainRequest:
        recipe = with_settings(named(name), [*SHORT, *RECIPES.get(name, []), *sets])
        return TrainRequest(recipe=recipe, cache=cache or self.pooled, run=run, device="cpu")


@pytest.fixture(scope="module")
def world(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("pooled")
    data = toy.smaller(folder / "ssv2")
    common = {"root": data, "codec": "float16", "stem": True}
    extract(toy.request(folder / "exact", **common))
    extract(toy.request(folder / "two", **common, pool=2, with_frames=True, window=5))

    @cache
    def run_of(name: str) -> Path:
        train(whole.request(name, folder / "runs" / name))
        return folder / "runs" / name

    whole = World(data=data, exact=folder / "exact", pooled=folder / "two", run=run_of, runs=folder / "runs")
    return whole


def stored(cache: Path, split: str = "train") -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_group(cache / split, mode="r")["tokens"][:])


def test_a_stored_patch_is_the_mean_of_four_and_the_class_row_is_as_it_was(world: World) -> None:
    exact, two = stored(world.exact), stored(world.pooled)
    assert (exact.shape[-2], two.shape[-2]) == (17, 5)
    assert np.array_equal(two[..., 0, :], exact[..., 0, :])
    expected = means_by_hand(exact, 2)
    assert np.abs(two - expected).max() <= 2 * 2**-11 * np.abs(expected).max()
    assert np.abs(expected[..., 1, :] - expected[..., 2, :]).max() > 0.1  # or any mean would do
    spec = open_split(world.pooled, "train").spec
    assert (spec.pool, spec.tokens, spec.tower_tokens) == (2, 5, 17)


def test_recode_makes_of_a_float16_cache_what_extract_makes(world: World, tmp_path: Path) -> None:
    (made, _) = recode(RecodeRequest(source=world.exact, target=tmp_path / "two", pool=2))
    assert (made.source_pool, made.pool, made.codec) == (1, 2, "float16")
    exact, again = stored(world.exact), stored(tmp_path / "two")
    assert np.array_equal(again, means_by_hand(exact, 2).astype(np.float32).astype(np.float16))
    assert np.abs(again.astype(np.float32) - stored(world.pooled)).max() <= 2**-10 * np.abs(exact).max()
    one, other = (open_split(cache, "train").spec for cache in (world.pooled, tmp_path / "two"))
    assert one.tokens_fingerprint == other.tokens_fingerprint
    recode(RecodeRequest(source=tmp_path / "two", target=tmp_path / "four", pool=4, codec="int8"))  # further
    recode(RecodeRequest(source=world.exact, target=tmp_path / "at once", pool=4, codec="int8"))
    further, at_once = (open_cache(tmp_path / name).tokens(0) for name in ("four", "at once"))
    assert further.shape[2] == 2
    assert torch.allclose(further, at_once, atol=0.05)
    with pytest.raises(UsageError, match=r"--pool 1: the cache holds .* over 2 x 2, .*Choose --pool 2, 4,"):
        recode(RecodeRequest(source=tmp_path / "two", target=tmp_path / "back", pool=1))


def test_a_codec_is_fitted_on_the_means(world: World, toy: Any, tmp_path: Path) -> None:
    extract(toy.request(tmp_path / "int8", root=world.data, pool=4, splits=("train",)))
    split = open_split(tmp_path / "int8", "train")
    means = means_by_hand(stored(world.exact)[:, :, 1:], 4)  # [video view layer frame token channel], without the stem
    expected = means.std(axis=(0, 1, 3, 4))
    assert np.allclose(split.channel_std, expected, rtol=2e-2, atol=1e-3)
    assert not np.allclose(stored(world.exact)[:, :, 1:].astype(np.float64).std(axis=(0, 1, 3, 4)), expected, rtol=2e-2)
    recode(RecodeRequest(source=world.exact, target=tmp_path / "again", pool=4, codec="int8", layers=(0, 1, 2)))
    assert np.allclose(open_split(tmp_path / "again", "train").channel_std, split.channel_std, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("pool", [3, 8])
def test_a_pool_that_does_not_divide_the_grid_is_refused_with_those_that_do(
    pool: int, world: World, toy: Any, tmp_path: Path, invoke: Any
) -> None:
    words = rf"--pool {pool} does not divide the tower's grid of 4 x 4 patches. Choose --pool 1, 2, 4\."
    with pytest.raises(UsageError, match=words):
        extract(toy.request(tmp_path / "zarr", root=world.data, pool=pool))
    with pytest.raises(UsageError, match=words):
        recode(RecodeRequest(source=world.exact, target=tmp_path / "zarr", pool=pool))
    with pytest.raises(UsageError, match=words):
        train(world.request("probe", tmp_path / "run", world.exact, f"pool={pool}"))
    with pytest.raises(UsageError, match=words.replace("1, 2, 4", "2, 4")):
        train(world.request("probe", tmp_path / "run", world.pooled, f"pool={pool}"))
    told = invoke("plan", "--root", world.data, "--model", toy.clip, "--no-measure", "--pool", pool)
    assert (told.exit_code, "Choose --pool 1, 2, 4." in " ".join(told.stderr.split())) == (2, True)
    assert not (tmp_path / "run").exists()


def assembled(cache: Path, needs: Needs, **settings: Any) -> Tensor:
    source = cached_source(cache, "train", None)
    with source.loader(needs, decode_threads=1, read_threads=1) as loader:
        (batch,) = map(source.assembler(needs, CPU, **settings), loader.batches([[(0, 0), (3, 1)]]))
    assert batch.tokens is not None
    return batch.tokens


@pytest.mark.parametrize("name", ["int8", "float16"])
def test_on_the_device_the_mean_is_taken_of_decoded_tokens(name: str, toy: Any) -> None:
    decoded = assembled(getattr(toy, name), Needs(layers=(0, 2)))
    for pool in (2, 4):
        found = assembled(getattr(toy, name), Needs(layers=(0, 2), pool=pool))
        expected = torch.from_numpy(means_by_hand(decoded.numpy(), pool)).float()
        assert torch.allclose(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
        assert torch.equal(found[..., 0, :], decoded[..., 0, :])


def test_of_a_cache_of_means_further_means_are_taken(world: World) -> None:
    two = assembled(world.pooled, Needs(layers=(1,)))
    assert torch.equal(two, assembled(world.pooled, Needs(layers=(1,), pool=2)))
    four = assembled(world.pooled, Needs(layers=(1,), pool=4))
    expected = torch.from_numpy(means_by_hand(two.numpy(), 2)).float()
    assert torch.allclose(four, expected, atol=1e-5)
    with pytest.raises(UsageError, match="only means of those can be made"):
        assembled(world.pooled, Needs(layers=(1,), pool=1))


def test_boxes_of_mixed_tokens_lie_on_the_grid_that_the_head_sees(world: World, monkeypatch: Any) -> None:
    from vidxfer.pipeline.training import loader as loading

    sides = []
    monkeypatch.setattr(loading, "draw_mix", lambda *_, patch_px, **__: sides.append(patch_px))
    for path, pool in ((world.exact, 0), (world.exact, 4), (world.pooled, 0), (world.pooled, 4)):
        split = open_split(path, "train")
        Assembler(split, Needs(layers=(1,), pool=pool), CPU, mixing=Mixing(kind="tokens"))._draw(0)
    assert sides == [8, 32, 16, 32]


@pytest.mark.parametrize("name", RECIPES)
def test_every_head_trains_scores_and_answers_on_means(world: World, name: str) -> None:
    run = Run.open(world.run(name))
    assert run.recipe.pool == 2
    scored = evaluate(EvaluateRequest(run=run.path, cache=world.pooled, device="cpu"))
    assert (scored.score.scored, scored.score.listed) == (2, 2)
    lines = (run.path / "predictions.val.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    # `predict` sees what the cache holds: CLIP again on the video, and its patches averaged.
    (video,) = world.data.rglob(f"{entry['id']}.webm")
    (answer,) = predict(PredictRequest(videos=(video,), run=run.path, device="cpu"))
    assert answer.error is None
    assert [name for name, _ in answer.top5] == [name for name, _ in entry["top5"]]
    assert [share for _, share in answer.top5] == pytest.approx([share for _, share in entry["top5"]], abs=2e-3)
    if name in ("dist-toy", "side4video-toy", "tds-toy"):
        stems = [
            value
            for key, value in build_head(run.recipe, cached_source(world.pooled, "train", None).offer(run.recipe))
            .state_dict()
            .items()
            if key.endswith(("temporal_stem.weight", "side_conv1.weight"))
        ]
        assert [tuple(stem.shape[-2:]) for stem in stems] == [(16, 16)]  # two patches of 8 px


@pytest.mark.parametrize("name", ["dist-toy", "side4video-toy", "tds-toy", "evl-toy", "attentive-d1"])
def test_a_whole_frame_may_be_one_patch_and_stored_means_are_averaged_on(name: str, world: World) -> None:
    path = world.runs / f"{name}-four"
    report = train(world.request(name, path, world.pooled, "pool=4"))
    assert report is not None
    assert (report.finished, Run.open(path).recipe.pool) == (True, 4)


def fine_run(world: World) -> Path:
    """A run on the tower's own patches."""
    fine = world.runs / "fine"
    if not fine.exists():
        train(world.request("dist-toy", fine, world.exact))
    return fine


def test_a_run_on_means_stands_beside_a_finer_one(world: World, invoke: Any) -> None:
    fine = fine_run(world)
    for run in (world.run("dist-toy"), fine):
        evaluate(EvaluateRequest(run=run, cache=world.exact, device="cpu"))  # of which means are made on the device
    both = compare((world.run("dist-toy"), fine), world.exact)
    two, one = both.runs
    assert [row.settings["grid"] for row in (two, one)] == ["32 px, 4 patches", "32 px, 16 patches"]
    assert "grid" in both.differing
    assert two.cost.training_gflop < 0.5 * one.cost.training_gflop  # the stem sees as many pixels as before
    assert (two.cost.bytes_per_view, one.cost.bytes_per_view) == (3 * 4 * 5 * 64 * 2, 3 * 4 * 17 * 64 * 2)
    page = world.runs / "report.html"
    assert invoke("report", world.run("dist-toy"), fine, "--cache", world.exact, "--out", page).exit_code == 0
    assert "32 px, 4 patches" in page.read_text()


def test_a_run_on_means_made_on_the_device_is_the_run_on_stored_ones(world: World, tmp_path: Path) -> None:
    two = tmp_path / "two"
    recode(RecodeRequest(source=world.exact, target=two, pool=2, codec="float16"))
    losses = []
    for name, path, sets in (("stored", two, []), ("made", world.exact, ["pool=2"])):
        report = train(world.request("attentive-d1", tmp_path / name, path, *sets))
        assert report is not None
        losses.append(report.loss)
        run = Run.open(tmp_path / name)
        assert run.recipe.pool == 2
        for scored_on in (two, world.exact, world.pooled):
            assert evaluate(EvaluateRequest(run=run.path, cache=scored_on, device="cpu")).score.scored == 2
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    train(world.request("attentive-d1", tmp_path / "fine", world.exact))
    with pytest.raises(CacheMismatch, match="pool: cache has 2, run needs 1") as refused:
        evaluate(EvaluateRequest(run=tmp_path / "fine", cache=two, device="cpu"))
    assert "--pool 1" in str(refused.value)


def test_online_and_from_a_cache_a_head_sees_the_same_means(world: World, toy: Any) -> None:
    online = online_sources(
        world.pooled, None, data=None, clip=ClipChoice(model=str(toy.clip), device="cpu"), store=CacheChoice()
    )["train"]
    recipe = with_settings(named("side4video-toy"), [])
    recipe, told = settled(recipe, online.offer(recipe))
    assert (recipe.pool, told) == (2, ["patches are means over 2 x 2 of CLIP's"])
    needs = build_head(recipe, online.offer(recipe)).needs
    assert needs.pool == 2
    with online.loader(needs, decode_threads=1, read_threads=1) as loader:
        (batch,) = map(online.assembler(needs, CPU), loader.batches([[(0, 0)]]))
    assert batch.tokens is not None
    assert batch.tokens.shape[3] == 5
    assert torch.allclose(batch.tokens, assembled(world.pooled, needs)[:1], atol=0.01)
    four = with_settings(named("side4video-toy"), ["pool=4"])
    needs = build_head(four, online.offer(four)).needs
    with online.loader(needs, decode_threads=1, read_threads=1) as loader:
        (batch,) = map(online.assembler(needs, CPU), loader.batches([[(0, 0)]]))
    assert batch.tokens is not None
    assert batch.tokens.shape[3] == 2


def test_the_life_of_a_cache_of_means(world: World, toy: Any, tmp_path: Path, invoke: Any) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(world.pooled, grown)
    data = toy.request(grown, root=world.data).data
    (train_added, _) = add(AddRequest(data=data, cache=grown, views=3, device="cpu"))
    assert (train_added.views, train_added.failed) == (3, {})
    assert [part.damage for part in verify(VerifyRequest(cache=grown))] == [(), (), ()]  # the added views too
    for split in parity(ParityRequest(cache=grown, videos=2, device="cpu")):
        assert (split.holds, split.unreadable) == (True, {})
    for name in ("train", "val"):
        views = open_split(grown, name).spec.stored_views
        assert stored(world.pooled, name).shape[-2] == 5
        assert open_cache(grown, name).tokens(0, views - 1).shape == (4, 4, 5, 64)
    prune(PruneRequest(source=grown, target=tmp_path / "few", layers=(0, 2), views=1))
    before, after = open_cache(grown), open_cache(tmp_path / "few")
    assert torch.equal(after.tokens(2), before.tokens(2, layers=(0, 2)))
    report = fidelity(FidelityRequest(cache=grown, videos=2, codecs=("int8",), device="cpu"))
    assert [codec.codec for codec in report.codecs] == ["float16", "int8"]
    assert min(layer.centred for codec in report.codecs for layer in codec.layers) > 0.999
    told = " ".join(invoke("cache", "info", "--cache", grown).stdout.split())
    assert "patches │ means over 2 x 2 of the tower's │" in told
    assert "patches │ the tower's own │" in " ".join(invoke("cache", "info", "--cache", world.exact).stdout.split())
    page = tmp_path / "view.html"
    assert invoke("view", "--cache", grown, "--out", page, "--videos", 2, "--codec", "int8").exit_code == 0
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["dist", "side4video", "tds"])
def test_weights_for_means_go_out_and_come_in(world: World, name: str, tmp_path: Path) -> None:
    run, file = world.run(f"{name}-toy"), tmp_path / "out.pth"
    export_weights(ExportRequest(run=run, out=file, kind=name))
    layers = (0, 1, 2) if name != "dist" else None
    back = import_weights(ImportRequest(file=file, kind=name, cache=world.pooled, run=tmp_path / "run", layers=layers))
    assert "patch 16 px" in back.words
    scores = [evaluate(EvaluateRequest(run=one, cache=world.pooled, device="cpu")) for one in (run, tmp_path / "run")]
    lines = [[json.loads(line)["top5"] for line in one.predictions.read_text().splitlines()] for one in scores]
    assert lines[0] == lines[1]
    with pytest.raises(CacheMismatch, match="patch_px: cache has 8, run needs 16"):
        import_weights(ImportRequest(file=file, kind=name, cache=world.exact, run=tmp_path / "no", layers=layers))


def test_several_caches_are_one_where_their_pools_are_the_same(world: World) -> None:
    union = source_of((world.pooled, world.pooled), "train", labels_as="union")
    for pool, tokens in ((0, 5), (4, 2)):
        needs = Needs(layers=(1,), pool=pool)
        with union.loader(needs, decode_threads=1, read_threads=1) as loader:
            (batch,) = map(union.assembler(needs, CPU), loader.batches([[(0, 0), (3, 1)]]))
        assert batch.tokens is not None
        assert batch.tokens.shape == (2, 1, 4, tokens, 64)
        assert torch.equal(batch.tokens, assembled(world.pooled, needs))
    with pytest.raises(CacheMismatch, match="pool: it has 1, the first cache has 2"):
        source_of((world.pooled, world.exact), "train", labels_as="union")


def test_batches_in_own_code_are_what_the_run_reads(world: World) -> None:
    run = load_run(world.run("attentive-d1"), device="cpu")
    with open_cache(world.exact) as exact, open_cache(world.pooled) as two:
        (fine,), (coarse,) = (opened.batches(run, rows=[0], batch_clips=2) for opened in (exact, two))
        assert fine.tokens is not None
        assert coarse.tokens is not None
        assert fine.tokens.shape == coarse.tokens.shape == (2, 1, 4, 5, 64)
        assert torch.allclose(run.score(fine), run.score(coarse), atol=2e-3)
