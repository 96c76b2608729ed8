"""Towers that are no CLIP, from extraction to an answer: one without text, and one that was trained with a sigmoid.

Both stand in for real ones through `Tower`. Nobody may ask the first one for text: it would fail the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.tower import Tower, TowerInfo, hash_weights
from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError, WeightsError
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import Taps
from vidxfer.pipeline.training.build import build_head, for_any_tower, head_of_shapes, offer_of, settled
from vidxfer.pipeline.training.recipes import from_dict, named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.convert import ImportRequest, import_weights
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.export import ExportRequest, export_weights
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import train
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.planning.plan import PlanRequest, plan
from vidxfer.stages.progress import Silent
from vidxfer.stages.settings import ClipChoice, TrainRequest
from vidxfer.stages.upkeep.add import AddRequest, add
from vidxfer.stages.upkeep.recode import RecodeRequest, recode
from vidxfer.stages.upkeep.verify import VerifyRequest, verify

WIDTH, EMBED, PATCH_PX, IMAGE_PX, BIAS, SCALE = 96, 24, 8, 32, -10.0, 50.0


class Small(nn.Module):
    """Three blocks over patches, which mix a little of the mean of all tokens into each."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.stem = nn.Conv2d(3, WIDTH, PATCH_PX, stride=PATCH_PX)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.pool = nn.Linear(WIDTH, EMBED)


class StandIn(Tower):
    def run(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        net = self._model
        patches = net.stem(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([net.cls.expand(len(pixels), 1, WIDTH), patches], dim=1)
        after = {-1: tokens}
        for number, block in enumerate(net.blocks):
            tokens = tokens + torch.tanh(block(tokens + tokens.mean(dim=1, keepdim=True)))
            after[number] = tokens
        empty = tokens.new_zeros((0, len(pixels), 1, 1))
        return Taps(
            tokens=torch.stack([after[layer] for layer in layers]) if layers else empty,
            embedding=net.pool(tokens.mean(dim=1)),
            layers=tuple(layers),
        )

    @torch.inference_mode()
    def encode_text(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        assert self.info.has_text, "a tower without text was asked for some"
        rows = [torch.Generator().manual_seed(sum(name.encode())) for name in names]
        return torch.stack([torch.randn(EMBED, generator=row) for row in rows])


def stand_in(model: str, pretrained: str | None = None, **how: Any) -> Tower:
    """ "textless" or "sigmoid"; the same weights each time, and how it is loaded changes nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed({"textless": 1, "sigmoid": 2}[model])
        net = Small()
    info = TowerInfo(
        model=model, weights_sha256=hash_weights(net), precision="fp32", channels=WIDTH,
        tokens=1 + (IMAGE_PX // PATCH_PX) ** 2, embed=EMBED, blocks=3, image_px=IMAGE_PX, pixel_mean=(0.5, 0.5, 0.5),
        pixel_std=(0.5, 0.5, 0.5), logit_scale=SCALE, has_text=model != "textless",
        logit_bias=BIAS if model == "sigmoid" else None,
    )  # fmt: skip
    return StandIn(net, None, info, torch.device("cpu"))


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@dataclass(frozen=True, kw_only=True)
class World:
    """Six training and two validation videos, and a cache of each tower; `told` at extraction, by tower."""

    data: Path
    video: Path
    told: dict[str, list[str]]
    folder: Path

    def cache(self, tower: str) -> Path:
        return self.folder / tower

    def spec(self, tower: str) -> CacheSpec:
        return open_split(self.cache(tower), "train").spec

    def trained(self, tower: str, name: str, run: Path, *settings: str, online: bool = False) -> list[str]:
        """Train for two epochs; what was told."""
        sets = ["epochs=2", "warmup_epochs=1", "batch_clips=2", "evaluate_every_epochs=2", *settings]
        shown = Lines()
        recipe = with_settings(named(name), sets)
        train(TrainRequest(recipe=recipe, cache=self.cache(tower), run=run, device="cpu", online=online), shown)
        return shown.lines


@pytest.fixture(scope="module", autouse=True)
def towers() -> Iterator[None]:
    """The two names are loaded as the stand-ins, wherever a tower is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidxfer.stages.settings.load_tower", stand_in)
        patch.setattr("vidxfer.stages.planning.plan.untrained_tower", stand_in)
        yield


@pytest.fixture(scope="module")
def world(toy: Any, towers: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("towers")
    data, told = toy.smaller(folder / "ssv2"), {}
    for tower in ("textless", "sigmoid"):
        shown = Lines()
        request = toy.request(folder / tower, root=data, clip=ClipChoice(model=tower), stem=True)
        extract(replace(request, store=replace(request.store, with_frames=True, window=5)), shown)
        told[tower] = shown.lines
    video = sorted((data / toy.videos.name).glob("*.webm"))[0]
    return World(data=data, video=video, told=told, folder=folder)


def test_a_cache_without_text_says_so_and_holds_none(world: World) -> None:
    split = open_split(world.cache("textless"), "train")
    assert (split.text, split.spec.textless, split.informs["templates"]) == (None, True, ())
    assert not (world.cache("textless") / "train" / "text").exists()
    assert (world.cache("sigmoid") / "train" / "text").is_dir()
    assert "textless" not in world.spec("sigmoid").to_dict(), "other caches keep settings and fingerprint"
    assert CacheSpec.from_dict(split.spec.to_dict()) == split.spec
    assert any("textless has no text: no zero-shot" in line for line in world.told["textless"])
    assert not any("text" in line for line in world.told["sigmoid"])
    assert [(one.damage, one.pending) for one in verify(VerifyRequest(cache=world.cache("textless")))] == [((), 0)] * 2


@pytest.mark.parametrize("name", ["dist-toy", "probe"])
def test_heads_train_score_and_answer_without_text(world: World, name: str, tmp_path: Path) -> None:
    told = world.trained("textless", name, tmp_path / "run")
    chosen = [line for line in told if "head.classifier=linear" in line]
    assert len(chosen) == (name == "dist-toy")
    assert all("textless, which has no text: the 8 classes" in line for line in chosen)
    run = Run.open(tmp_path / "run")
    assert run.recipe.head.to_dict().get("classifier", "linear") == "linear", "the run's own settings say it"
    assert run.text() is None
    assert not (tmp_path / "run/checkpoint/text.safetensors").exists()
    world.trained("textless", name, tmp_path / "run")  # again: the run is found finished, of the same settings
    result = run.result()
    assert result is not None
    scored = evaluate(EvaluateRequest(run=tmp_path / "run", cache=world.cache("textless"), device="cpu"))
    assert scored.score.top1 == result["score"]["top1"]
    (answer,) = predict(PredictRequest(videos=(world.video,), run=tmp_path / "run", device="cpu"))
    assert (answer.error, len(answer.top5)) == (None, 5)
    (row,) = compare((tmp_path / "run",), world.cache("textless")).runs
    assert row.cost.sees_order == (name == "dist-toy")


def test_weights_of_a_linear_dist_leave_and_come_back(world: World, tmp_path: Path) -> None:
    world.trained("textless", "dist-toy", tmp_path / "run")
    report = export_weights(ExportRequest(run=tmp_path / "run", out=tmp_path / "dist.pyth", with_clip=False))
    assert report.settings["(not in the release) linear classifier"] == "8 classes"
    cache = world.cache("textless")
    request = ImportRequest(file=tmp_path / "dist.pyth", cache=cache, run=tmp_path / "back", layers=(0, 1, 2))
    assert "a linear classifier of 8 classes" in import_weights(request).words
    weights = [load_file(tmp_path / name / "checkpoint/weights.safetensors") for name in ("run", "back")]
    assert weights[0].keys() == weights[1].keys()
    assert {"classify.weight", "classify.bias"} < weights[0].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert Run.open(tmp_path / "back").recipe.head.to_dict()["classifier"] == "linear"
    scored = [
        evaluate(EvaluateRequest(run=tmp_path / name, cache=cache, device="cpu")).predictions.read_text()
        for name in ("run", "back")
    ]
    assert scored[0] == scored[1]
    held = torch.load(tmp_path / "dist.pyth", weights_only=True)
    held["model_state"]["backbone.base_encoder.dist_net.classify.bias"] = torch.zeros(7)
    torch.save(held, tmp_path / "other.pyth")
    with pytest.raises(WeightsError, match=r"classify\.(bias|weight): file has"):
        import_weights(replace(request, file=tmp_path / "other.pyth", run=tmp_path / "no"))


def test_what_needs_text_is_refused_with_what_works(world: World, tmp_path: Path, toy: Any) -> None:
    cache = world.cache("textless")
    with pytest.raises(UsageError, match=r"textless has no text.*--recipe probe --cache .*textless"):
        evaluate(EvaluateRequest(run=None, cache=cache, device="cpu"))
    world.trained("textless", "probe", tmp_path / "probe")
    with pytest.raises(UsageError, match="textless has no text"):
        evaluate(EvaluateRequest(run=tmp_path / "probe", cache=cache, device="cpu", fuse_clip=0.5))
    with pytest.raises(CacheError, match=r"textless has no text.*--set head\.classifier=linear"):
        world.trained("textless", "dist-toy", tmp_path / "no", "head.classifier=text")
    assert not (tmp_path / "no").exists()
    request = toy.request(tmp_path / "zarr", root=world.data, clip=ClipChoice(model="textless"))
    with pytest.raises(UsageError, match=r"--template 'a \{\}': this tower has no text"):
        extract(replace(request, store=replace(request.store, templates=("a {}",))))
    assert not (tmp_path / "zarr").exists()


def test_such_a_cache_grows_is_recoded_and_read_with_another(world: World, tmp_path: Path, toy: Any) -> None:
    whole = toy.request(tmp_path / "zarr", root=world.data, clip=ClipChoice(model="textless"), stem=True)
    extract(replace(whole, data=replace(whole.data, limit=3), splits=("train",)))
    extract(replace(whole, data=replace(whole.data, limit=3), splits=("train",)))  # goes on: nothing is asked
    (report,) = add(AddRequest(data=whole.data, cache=tmp_path / "zarr"))
    grown = open_split(tmp_path / "zarr", "train")
    assert (report.added, grown.text, len(grown.video_ids) >= 6) == (3, None, True)
    recode(RecodeRequest(source=tmp_path / "zarr", target=tmp_path / "int4", codec="int4", splits=("train",)))
    assert open_split(tmp_path / "int4", "train").text is None
    both = source_of([tmp_path / "zarr", world.cache("textless")], "train", labels_as="union")
    assert (both.split.text, both.offer(named("probe")).textless) == (None, True)


def test_a_sigmoid_tower_adds_its_bias_and_scores_each_class_by_itself(world: World, tmp_path: Path) -> None:
    split = open_split(world.cache("sigmoid"), "val")
    assert split.informs["logit_bias"] == BIAS
    assert split.text is not None
    report = evaluate(EvaluateRequest(run=None, cache=world.cache("sigmoid"), device="cpu"))
    embedding = torch.from_numpy(_stored_embeddings(world.cache("sigmoid")))  # [video frame embed]
    text = torch.from_numpy(split.text)
    cosines = nn.functional.normalize(embedding, dim=-1) @ nn.functional.normalize(text, dim=-1).T
    logits = (SCALE * cosines + BIAS).mean(dim=1)
    shares = logits.sigmoid() / logits.sigmoid().sum(dim=1, keepdim=True)
    lines = [json.loads(line) for line in report.predictions.read_text().splitlines()]
    for line, share in zip(lines, shares, strict=True):
        assert [one[1] for one in line["top5"]] == pytest.approx(share.topk(5).values.tolist(), abs=2e-5)
    assert not torch.allclose(shares, logits.softmax(dim=1), atol=1e-3), "or the two could not be told apart"
    told = world.trained("sigmoid", "dist-toy", tmp_path / "run")
    assert not any("by the tower" in line for line in told)
    run = Run.open(tmp_path / "run")
    assert (run.recipe.head.to_dict()["classifier"], run.made_from["logit_bias"]) == ("auto", BIAS)
    assert run.text() is not None
    (answer,) = predict(PredictRequest(videos=(world.video,), run=tmp_path / "run", device="cpu"))
    assert len(answer.top5) == 5
    export_weights(ExportRequest(run=tmp_path / "run", out=tmp_path / "text.pyth", with_clip=False))
    there = {"file": tmp_path / "text.pyth", "cache": world.cache("textless"), "run": tmp_path / "no"}
    with pytest.raises(CacheMismatch, match="textless: cache has True, run needs False"):
        import_weights(ImportRequest(**there, layers=(0, 1, 2)))  # type: ignore[arg-type]
    offer = offer_of(world.spec("sigmoid"), run.recipe, classes=8, text=text, logit_scale=SCALE, logit_bias=BIAS)
    head, batch = build_head(run.recipe, offer), offer.fake_batch(run.recipe.head.needs(offer), 2)
    same = build_head(run.recipe, replace(offer, logit_bias=None))
    torch.testing.assert_close(head(batch), same(batch) + BIAS)


def _stored_embeddings(cache: Path) -> Any:
    import zarr

    return zarr.open_group(cache / "val", mode="r")["embedding"][:, 0].astype("float32")


ANY_TOWER = [recipe for recipe in RECIPES if recipe.clip is None]
PUBLISHED = [recipe for recipe in RECIPES if recipe.clip is not None]


@pytest.mark.parametrize("tower", ["textless", "sigmoid"])
@pytest.mark.parametrize("recipe", ANY_TOWER, ids=lambda recipe: recipe.name)
def test_a_recipe_for_any_tower_takes_its_sizes_from_the_tower(world: World, recipe: Recipe, tower: str) -> None:
    spec = world.spec(tower)
    settings = {"evl": ["head.cross_frame=false"], "evl-toy": ["head.cross_frame=false"]}.get(recipe.name, [])
    if "attentive-d" in recipe.name:
        settings = ["head.attention_heads=12"]  # 96 channels do not divide into 16, which the error says
    if "blocks" in recipe.head.to_dict() and recipe.head.kind == "evl":
        settings.append("head.blocks=3")
    head, offer = head_of_shapes(with_settings(recipe, settings), spec, 8)
    batch = offer.fake_batch(head.needs, 2, device="meta")
    assert head(batch).shape == (2, 8)
    assert head.needs.text == (recipe.head.kind == "dist" and tower == "sigmoid")
    if (tokens := batch.tokens) is not None:
        assert tokens.shape[-2:] == (17, WIDTH)


@pytest.mark.parametrize("recipe", PUBLISHED, ids=lambda recipe: recipe.name)
def test_a_published_recipe_refuses_another_tower_and_names_the_one_that_works(world: World, recipe: Recipe) -> None:
    spec = world.spec("textless")
    offer = offer_of(spec, recipe, classes=8)
    clip = recipe.clip
    assert clip is not None
    with pytest.raises(CacheMismatch) as refused:
        build_head(recipe, offer)
    words = str(refused.value)
    assert f"published for {clip.model}, and this cache is of textless" in words
    general = named(for_any_tower(recipe))
    assert f"`vidxfer train --recipe {general.name}`" in words
    assert (general.clip, general.dense_frames, general.head.kind) == (None, None, recipe.head.kind)
    # A tower of CLIP's very shape is another one all the same.
    shaped = replace(
        spec, channels=clip.width, tokens=clip.tokens, embed=clip.embed, layers=tuple(range(-1, clip.blocks)),
        sampling=replace(
            spec.sampling, image_px=clip.image_px, dense_frames=(recipe.sparse_frames or 8) * 2, alpha=2,
        ),
    )  # fmt: skip
    if recipe.dense_frames == recipe.sparse_frames:
        shaped = replace(shaped, sampling=replace(shaped.sampling, dense_frames=recipe.sparse_frames or 8, alpha=1))
    text = torch.zeros(8, clip.embed)
    with torch.device("meta"):
        with pytest.raises(CacheMismatch, match=r"clip\.text: cache has 'none'"):
            head_of_shapes(recipe, shaped, 8)
        with pytest.raises(CacheMismatch, match=r"clip\.text: cache has \"with a sigmoid's bias\""):
            build_head(
                recipe,
                replace(offer_of(replace(shaped, textless=False), recipe, classes=8, text=text), logit_bias=-10.0),
            )
        head_of_shapes(recipe, replace(shaped, textless=False), 8)


def test_names_of_the_recipes_that_work_on_any_tower() -> None:
    pairs = {
        "dist-ssv2-b16-8f": "dist-ssv2-b16", "dist-ssv2-l14-32f": "dist-ssv2-b16", "dist-k400-l14-32f": "dist-k400-b16",
        "dist-k400-l14-32f-k710": "dist-k400-b16", "evl-k400-b16-8f": "evl", "tds-ssv2-l14-8f": "tds",
        "side4video-ssv1-b16-8f": "side4video",
    }  # fmt: skip
    assert {name: for_any_tower(named(name)) for name in pairs} == pairs


@pytest.mark.parametrize("name", ["tds", "side4video"])
def test_the_width_of_a_side_network_is_decided_once_and_kept(world: World, name: str, tmp_path: Path) -> None:
    told = world.trained("textless", name, tmp_path / "run")
    assert any("head.side_channels=64, by the tower textless" in line for line in told)
    assert Run.open(tmp_path / "run").recipe.head.to_dict()["side_channels"] == 64
    scored = evaluate(EvaluateRequest(run=tmp_path / "run", cache=world.cache("textless"), device="cpu"))
    assert scored.score.scored == 2


def test_what_enters_clips_blocks_names_the_tower_and_the_switch(world: World, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"textless is none\. .*--set head\.cross_frame=false"):
        world.trained("textless", "evl-toy", tmp_path / "run", "head.blocks=2")
    world.trained("textless", "evl-toy", tmp_path / "run", "head.blocks=2", "head.cross_frame=false")


def test_a_plan_of_a_tower_without_text_counts_its_linear_head(world: World, toy: Any, tmp_path: Path) -> None:
    base = toy.request(tmp_path / "zarr", root=world.data, clip=ClipChoice(model="textless"))
    request = PlanRequest(
        data=base.data, clip=base.clip, store=base.store, cache=base.cache, measure=False, recipe=named("dist-toy")
    )
    bill = plan(request)
    assert bill.training_bytes
    assert any("has no text" in note for note in bill.splits[0].notes)
    assert bill.frozen_bytes == 0, "extraction keeps none of it"
    published = named("dist-ssv2-b16-8f")
    with pytest.raises(CacheMismatch, match="--recipe dist-ssv2-b16"):
        plan(replace(request, recipe=published))


def test_online_training_needs_no_text_either(world: World, tmp_path: Path) -> None:
    told = world.trained("textless", "dist-toy", tmp_path / "run", "epochs=1", "warmup_epochs=0", online=True)
    assert any("head.classifier=linear" in line for line in told)


def test_a_linear_classifier_works_with_clip_too_and_knows_its_own_classes_alone(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidxfer.pipeline.clip.load import load_tower

    monkeypatch.setattr("vidxfer.stages.settings.load_tower", load_tower)
    recipe = toy.recipe("head.classifier=linear", "epochs=1", "warmup_epochs=0")
    train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "run", device="cpu"))
    run = Run.open(tmp_path / "run")
    assert (run.recipe, run.recipe.head.any_classes) == (recipe, False)
    other = replace(recipe, head=replace(recipe.head, classifier="text"))
    with pytest.raises(CacheMismatch, match="any_classes: that run has False, this one has True"):
        train(TrainRequest(recipe=other, cache=toy.int8, run=tmp_path / "b", device="cpu", init_from=tmp_path / "run"))
    split = open_split(toy.int8, "val")
    extract(toy.request(tmp_path / "other", limit=2, splits=("val",)))
    path = tmp_path / "other/val/zarr.json"
    names = [f"another {name}" for name in split.class_names]
    stored = json.loads(path.read_text())
    stored["attributes"]["vidxfer"]["class_names"] = names
    del stored["attributes"]["vidxfer"]["seal"]
    path.write_text(json.dumps(stored))
    with pytest.raises(CacheMismatch, match="class_names"):
        evaluate(EvaluateRequest(run=tmp_path / "run", cache=tmp_path / "other", device="cpu"))


def test_settings_are_decided_by_the_tower_unless_they_are_said(world: World) -> None:
    for tower, chosen in (("textless", "linear"), ("sigmoid", "auto")):
        for asked, found in (("auto", chosen), ("text", "text"), ("linear", "linear")):
            recipe = with_settings(named("dist-toy"), [f"head.classifier={asked}"])
            whole, told = settled(recipe, offer_of(world.spec(tower), recipe, classes=8))
            assert whole.head.to_dict()["classifier"] == found
            assert bool(told) == (asked == "auto" and found == "linear")


def test_a_recipe_of_before_there_was_a_choice_scores_class_names() -> None:
    stored = json.loads(json.dumps(named("dist-ssv2-b16").to_dict()))
    del stored["head"]["classifier"]
    assert from_dict(stored) == named("dist-ssv2-b16")
    assert from_dict(stored).head.any_classes
    with pytest.raises(UsageError, match=r"head\.classifier='cosine' is none of auto, text, linear"):
        with_settings(named("dist-toy"), ["head.classifier=cosine"])
    for recipe in RECIPES:
        if recipe.head.kind != "dist":
            with pytest.raises(UsageError, match="always linear; leave it out"):
                with_settings(recipe, ["head.classifier=linear"])
