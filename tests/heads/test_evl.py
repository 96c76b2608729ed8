"""EVL: the fast form equals the plain one, its temporal parts tell the order of frames, and it resumes with dropout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.dist.published import B16, L14
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.evl.published import PUBLISHED
from vidxfer.pipeline.heads.recipe import ClipShape
from vidxfer.pipeline.training.build import build_head, expect_made_for
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.published import trainable_parameters
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.learning import trainer as trainer_module
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import train
from vidxfer.stages.settings import TrainRequest

OFFER = Offer(
    layers=(-1, 0, 1, 2), sparse_frames=5, alpha=1, grid=(3, 4), channels=48, embed=8, classes=6, image_px=48,
    clip_heads=3,
)  # fmt: skip
SWITCHES = ("convolution", "position", "cross_frame")
OFF = EvlConfig(blocks=3, convolution=False, position=False, cross_frame=False, dropout=0.0)


def offered(config: EvlConfig, offer: Offer = OFFER) -> Offer:
    """With random CLIP weights where the head reads them; large ones, so that its attention is no mean."""
    generator = torch.Generator().manual_seed(7)
    frozen = offer.for_sizes(config.needs(offer)).frozen
    some = {name: torch.randn(value.shape, generator=generator) / 4 for name, value in frozen.items()}
    return replace(offer, frozen=some)


def build(config: EvlConfig, offer: Offer = OFFER) -> Head:
    """In eval mode, every parameter random and none of them zero."""
    head = config.build(offered(config, offer)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return head


def batch_of(head: Head, clips: int = 3, offer: Offer = OFFER) -> Any:
    torch.manual_seed(1)
    return offer.fake_batch(head.needs, clips)


@pytest.mark.parametrize("grid", [(3, 4), (4, 3), (1, 5), (5, 1), (2, 2)])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_fast_form_is_the_plain_one_with_its_gradients(grid: tuple[int, int], frames: int) -> None:
    offer = replace(OFFER, grid=grid, sparse_frames=frames)
    found = []
    for form in ("plain", "fast"):
        head = build(EvlConfig(blocks=3, channels=32, attention_heads=4, mlp_ratio=1.5, form=form), offer)
        logits = head(batch_of(head, offer=offer))
        logits.square().sum().backward()
        found.append((logits, {name: parameter.grad for name, parameter in head.named_parameters()}))
    (plain, theirs), (fast, ours) = found
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "on", [(), *((switch,) for switch in SWITCHES), SWITCHES], ids=lambda on: "+".join(on) or "none"
)
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_frames_in_another_order_are_seen_by_each_temporal_part_and_by_nothing_else(
    on: tuple[str, ...], form: str
) -> None:
    head = build(replace(OFF, form=form, **dict.fromkeys(on, True)))
    batch = batch_of(head)
    assert batch.tokens is not None
    shuffled = replace(batch, tokens=batch.tokens[:, :, [2, 0, 1, 4, 3]])
    with torch.no_grad():
        difference = (head(shuffled) - head(batch)).abs()
    if on:
        assert difference.amax(dim=1).min() > 1e-3
    else:
        assert difference.max() < 1e-5
    head(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_cross_frame_attention_has_no_wrap_around_and_leaves_cls_alone() -> None:
    """The last frame's patches see the one before, the first frame's the one behind, and nobody the other end."""
    config = replace(OFF, cross_frame=True, blocks=1, form="plain")
    head = build(config)
    tokens = batch_of(head).tokens
    torch.manual_seed(0)
    maps = [torch.rand(3, 4, 12, 12) for _ in range(2)]
    from vidxfer.pipeline.heads.evl.parts import Maps

    def term(previous: Tensor, following: Tensor) -> Tensor:
        return head.decoder.memory(0, tokens[:, 1], Maps(previous, following)) - tokens[:, 1]

    both = term(*maps)
    assert both[:, :, 0].abs().max() == 0
    only_previous, only_following = term(maps[0], torch.zeros_like(maps[1])), term(torch.zeros_like(maps[0]), maps[1])
    assert only_previous[:, 0].abs().max() == 0
    assert only_following[:, -1].abs().max() == 0
    assert only_previous[:, 1:, 1:].abs().amin(dim=(2, 3)).max() > 0
    rows, columns = OFFER.grid
    w1 = head.decoder.cross_attention[0].w1
    by_hand = torch.zeros(48)
    for key in range(12):  # query patch 5 (row 1, column 1) of frame 2, looking at frame 1
        at = (1 - key // columns + rows - 1) * (2 * columns - 1) + (1 - key % columns + columns - 1)
        by_hand += maps[0][0, 1, 5, key] * w1[at]
    torch.testing.assert_close(only_previous[0, 2, 6], by_hand, atol=1e-5, rtol=1e-5)


def test_layers_are_the_last_blocks_and_those_before_them() -> None:
    assert EvlConfig(blocks=2).needs(OFFER).layers == (0, 1, 2)
    assert EvlConfig(blocks=2, cross_frame=False).needs(OFFER).layers == (1, 2)
    assert EvlConfig(blocks=0).needs(OFFER).layers == (-1, 0, 1, 2)
    assert EvlConfig(layers=(2, 0)).needs(OFFER).layers == (-1, 0, 1, 2)
    needs = EvlConfig(layers=(2,)).needs(OFFER)
    assert needs.layers == (1, 2)
    assert needs.frozen == tuple(
        f"visual.transformer.resblocks.2.{name}" for name in ("ln_1.weight", "ln_1.bias", "attn.in_proj_weight",
                                                              "attn.in_proj_bias")
    )  # fmt: skip
    with pytest.raises(CacheError, match=r"head\.blocks=4.*--set head\.blocks=3"):
        EvlConfig().needs(OFFER)
    with pytest.raises(CacheError, match=r"reads CLIP layers \[-1\]"):
        EvlConfig(blocks=0).needs(replace(OFFER, layers=(0, 1, 2)))


def test_the_deepest_block_feeds_the_last_layer() -> None:
    head = build(replace(OFF, blocks=2))
    batch = batch_of(head)
    with torch.no_grad():
        there = head(batch)
        swapped = head(replace(batch, tokens=batch.tokens.flip(1)))
    assert (there - swapped).abs().max() > 1e-3
    named_so = build(replace(OFF, layers=(2, 1)))
    torch.testing.assert_close(named_so(replace(batch, tokens=batch.tokens)), swapped)


def test_clips_frozen_weights_are_neither_trained_nor_kept_and_move_with_the_head() -> None:
    config = EvlConfig(blocks=2)
    head = build(config)
    names = {name for name, _ in head.named_parameters()} | head.state_dict().keys()
    assert not any("frozen" in name for name in names)
    buffers = dict(head.named_buffers())
    assert len(buffers) == 8
    assert buffers["decoder.frozen.0.weight"].shape == (96, 48), "rows of queries and keys alone"
    assert not any(value.requires_grad for value in buffers.values())
    assert all(value.device.type == "meta" for value in config.build(offered(config)).to("meta").buffers())
    other = config.build(replace(offered(config), frozen=offered(config).frozen))
    other.load_state_dict(head.state_dict())
    batch = batch_of(head)
    assert torch.equal(other.eval()(batch), head(batch))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"form": "slow"}, "none of fast, plain"),
        ({"blocks": -1}, r"head\.blocks=-1"),
        ({"layers": ()}, r"head\.layers=\(\)"),
        ({"layers": (-1, 0)}, r"head\.layers"),
        ({"channels": 0}, r"head\.channels=0"),
        ({"channels": 32, "attention_heads": 3}, "does not divide"),
        ({"mlp_ratio": 0.0}, r"head\.mlp_ratio=0.0"),
        ({"dropout": 1.0}, r"head\.dropout=1.0"),
        ({"clip_heads": True}, r"head\.clip_heads=True"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        EvlConfig(**change)


def test_how_many_heads_clip_has_is_never_guessed() -> None:
    config = EvlConfig(blocks=1)
    with pytest.raises(CacheError, match=r"--set head\.clip_heads=1 .*--set head\.cross_frame=false"):
        config.build(replace(offered(config), clip_heads=None))
    with pytest.raises(CacheMismatch, match="clip_heads: it has 3, the recipe says 4"):
        replace(config, clip_heads=4).build(offered(config))
    with pytest.raises(UsageError, match="48 channels do not divide"):
        replace(config, clip_heads=5).build(replace(offered(config), clip_heads=None))
    with pytest.raises(UsageError, match=r"head\.attention_heads=5"):
        replace(config, attention_heads=5).build(offered(config))
    said = replace(config, clip_heads=3).build(replace(offered(config), clip_heads=None))
    assert said.decoder.frozen[0].heads == 3


def test_the_head_begins_as_the_release_does() -> None:
    torch.manual_seed(0)
    config = EvlConfig(blocks=2)
    head = config.build(offered(config))
    for name, value in head.state_dict().items():
        if name.endswith(("cls_token", ".w1", ".w2")) or "temporal_pos_embed" in name:
            assert value.abs().max() == 0, name
        elif "temporal_conv" in name:
            assert 0.5 < value.abs().max() <= 3**-0.5, name
        elif "_proj.weight" in name:
            assert value.abs().max() == pytest.approx((6 / sum(value.shape)) ** 0.5, rel=0.02), name
        elif "_proj.bias" in name:
            assert value.abs().max() == 0, name
        elif "mlp" in name and name.endswith("bias"):
            assert 0 < value.abs().max() < 1e-5, name
    with torch.no_grad():
        assert (head.eval()(batch_of(head)) != 0).any()


# -- sizes ---------------------------------------------------------------------------------------------------------

TABLE = {  # docs/spec/evl.md §9: K, frames, decoder GMAC, of which K and V, cross-frame, trainable millions (400-way)
    "B/16 8f K=4": (B16, 4, 8, 10.79, 7.44, 3.30, 33.18),
    "B/16 8f K=12": (B16, 0, 8, 32.37, 22.31, 9.91, 98.93),
    "B/16 16f K=4": (B16, 4, 16, 22.03, 14.87, 7.08, 33.21),
    "B/16 32f K=4": (B16, 4, 32, 44.50, 29.75, 14.63, 33.26),
    "L/14 8f K=4": (L14, 4, 8, 24.85, 17.25, 7.52, 58.73),
    "L/14 8f K=24": (L14, 0, 8, 149.08, 103.5, 45.1, 350.3),
    "L/14 32f K=4": (L14, 4, 32, 102.48, 69.0, 33.3, 58.83),
}


def counted(clip: ClipShape, frames: int, config: EvlConfig) -> tuple[float, float]:
    """Multiply-accumulates of one clip's forward in 10^9 (2 of ours are 1), and trained numbers in 10^6."""
    offer = Offer(
        layers=tuple(range(-1, clip.blocks)), sparse_frames=frames, alpha=1, grid=clip.grid, channels=clip.width,
        embed=clip.embed, classes=400, image_px=clip.image_px,
    )  # fmt: skip
    with torch.device("meta"):
        head = config.build(offer.for_sizes(config.needs(offer))).eval()
        with FlopCounterMode(display=False) as counter:
            head(offer.fake_batch(head.needs, 1, device="meta"))
    return counter.get_total_flops() / 2e9, sum(parameter.numel() for parameter in head.parameters()) / 1e6


@pytest.mark.parametrize("name", TABLE)
def test_operations_and_parameters_equal_the_official_count(name: str) -> None:
    clip, blocks, frames, decoder, keys_and_values, cross_frame, millions = TABLE[name]
    config = EvlConfig(blocks=blocks, form="plain")
    whole, trained = counted(clip, frames, config)
    without, _ = counted(clip, frames, replace(config, cross_frame=False))
    assert trained == pytest.approx(millions, rel=2e-4)
    layers, channels, tokens = blocks or clip.blocks, clip.width, frames * clip.tokens
    again = layers * tokens * 2 * channels * channels / 1e9  # q and k out of the cache, which the release never has to
    assert again == pytest.approx(keys_and_values, rel=2e-3)
    # The table counts products: of the convolution too.
    assert whole - again == pytest.approx(decoder, rel=2e-3)
    assert whole - without - again == pytest.approx(cross_frame, rel=3e-3)
    assert decoder - without == pytest.approx(cross_frame, rel=2e-2)


def test_the_fast_form_projects_no_memory() -> None:
    """docs/spec/evl.md §4.2: about 0.2 of 7.5 GMAC are left without cross-frame attention."""
    plain = counted(B16, 8, EvlConfig(form="plain", cross_frame=False))[0]
    fast = counted(B16, 8, EvlConfig(form="fast", cross_frame=False))[0]
    assert plain > 7.44
    assert fast < 0.3


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.recipe)
def test_a_published_recipe_trains_as_section_7_says(row: Any) -> None:
    recipe = named(row.recipe)
    assert isinstance(recipe.head, EvlConfig)
    steps = {"K400": 50_000, "SSv2": 30_000}[row.data]
    assert recipe.epochs == int(steps * 256 / row.train_videos)
    assert (recipe.batch_clips, recipe.learning_rate, recipe.weight_decay, recipe.warmup_epochs) == (256, 4e-4, 0.05, 0)
    assert (recipe.label_smoothing, recipe.mixing.kind, recipe.optimiser.decay) == (0, "none", "all")
    assert (recipe.head.dropout, recipe.head.mlp_ratio, recipe.head.blocks) == (
        0.5,
        4.0,
        4 if row.data == "K400" else 0,
    )
    assert (row.alpha, recipe.sparse_frames, recipe.dense_frames) == (1, row.sparse_frames, None)
    assert recipe.head.clip_heads == {768: 12, 1024: 16}[row.clip.width]
    assert all(getattr(recipe.head, switch) for switch in SWITCHES)
    classes = {"K400": 400, "SSv2": 174}[row.data]
    layers = recipe.head.blocks or row.clip.blocks
    own, every = trainable_parameters(recipe, row), counted(row.clip, row.sparse_frames, recipe.head)[1]
    assert own == round(every * 1e6) - (400 - classes) * (row.clip.width + 1), layers


def test_any_alpha_of_a_shared_cache_will_do() -> None:
    """EVL sees no pixels: a cache of 8 sparse and 16 dense frames is one of 8 frames to it."""
    recipe = named("evl-k400-b16-8f")
    offer = Offer(
        layers=tuple(range(12)), sparse_frames=8, alpha=2, grid=(14, 14), channels=768, embed=512, classes=400,
        image_px=224,
    )  # fmt: skip
    expect_made_for(recipe, offer)
    with pytest.raises(CacheMismatch, match="sparse_frames: cache has 16"):
        expect_made_for(recipe, replace(offer, sparse_frames=16))


def test_mlap_is_evl_of_four_blocks_without_its_temporal_parts() -> None:
    head = named("mlap").head
    assert isinstance(head, EvlConfig)
    assert (head.blocks, head.fixed_frames) == (4, False)
    assert not any(getattr(head, switch) for switch in SWITCHES)
    assert counted(B16, 8, head)[1] == pytest.approx(28.7, abs=0.05)  # docs/spec/systems.md §1
    assert counted(L14, 8, head)[1] == pytest.approx(50.8, abs=0.05)


# -- training ------------------------------------------------------------------------------------------------------

SETTINGS = ["epochs=2", "warmup_epochs=0", "batch_clips=8", "evaluate_every_epochs=2", "head.blocks=2",
            "head.channels=32", "head.attention_heads=4", "head.mlp_ratio=1", "head.dropout=0.5"]  # fmt: skip


def request_of(toy: Any, run: Path, *settings: str, **more: Any) -> TrainRequest:
    recipe = with_settings(named("evl-toy"), [*SETTINGS, *settings])
    return TrainRequest(recipe=recipe, cache=toy.int8, run=run, device="cpu", **more)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def test_from_a_cache_it_trains_breaks_off_goes_on_and_is_scored(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all temporal parts, CLIP's own weights from beside the tokens; with dropout, in the middle of an epoch."""
    request = request_of(toy, tmp_path / "whole")
    report = train(request)
    assert report is not None
    broken = replace(request, run=tmp_path / "broken")
    break_off_and_go_on(broken, 4, monkeypatch)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    weights = [(tmp_path / name / "checkpoint" / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    calm = with_settings(request.recipe, ["head.dropout=0"])
    train(replace(request, recipe=calm, run=tmp_path / "calm"))
    assert losses(tmp_path / "calm") != losses(tmp_path / "whole"), "there was something random to go on with"
    scored = evaluate(EvaluateRequest(run=tmp_path / "broken", cache=toy.int8, device="cpu"))
    assert scored.score == report.score


def break_off_and_go_on(request: TrainRequest, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def agree(self: Any) -> bool:
        self.stopping = self.place.global_step >= steps
        return bool(self.stopping)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_agree_to_stop", agree)
        stopped = train(request)
        assert stopped is not None
        assert not stopped.finished
    torch.manual_seed(99)
    train(request)


def test_online_it_trains_breaks_off_goes_on_and_predicts(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all temporal parts: CLIP is there, and its weights make q and k."""
    request = request_of(toy, tmp_path / "whole", "epochs=1", "evaluate_every_epochs=1", online=True)
    train(request)
    broken = replace(request, run=tmp_path / "broken")
    break_off_and_go_on(broken, 2, monkeypatch)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    video = next(iter(sorted(toy.videos.glob("*.webm"))))
    answers = [predict(PredictRequest(videos=(video,), run=tmp_path / n, device="cpu")) for n in ("whole", "broken")]
    assert answers[0][0].error is None
    assert answers[0] == answers[1]


def test_without_clips_weights_at_hand_it_says_what_is_missing() -> None:
    recipe = with_settings(named("evl"), ["head.blocks=2"])
    with pytest.raises(CacheError, match=r"resblocks\.1\.ln_1\.weight.*--online"):
        build_head(recipe, OFFER)
    assert build_head(recipe, offered(recipe.head)).needs.frozen  # type: ignore[arg-type]


def test_a_step_in_bf16_is_near_the_one_in_float32() -> None:
    for form in ("plain", "fast"):
        head = build(EvlConfig(blocks=2, form=form, dropout=0.0))
        batch = batch_of(head)
        found = []
        for on in (False, True):
            head.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
                logits = head(batch)
            loss = torch.nn.functional.cross_entropy(logits.float(), batch.labels)
            loss.backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
            gradient = torch.cat([p.grad.flatten() for p in head.parameters()])
            found.append((loss.detach(), gradient))
        assert abs(found[0][0] - found[1][0]) < 0.05 * found[0][0]
        assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.99


def test_dropout_leaves_out_inside_the_mlp_and_before_the_classifier() -> None:
    head = build(replace(OFF, dropout=0.5))
    batch = batch_of(head)
    same = [head(batch) for _ in range(2)]
    assert torch.equal(*same)
    head.train()
    assert not torch.equal(head(batch), head(batch))
    layers = [name for name, module in head.named_modules() if isinstance(module, torch.nn.Dropout)]
    assert layers == [*(f"decoder.decoder_layers.{n}.mlp.dropout" for n in range(3)), "proj.1"]


def test_the_same_seed_builds_the_same_head() -> None:
    recipe = with_settings(named("evl"), ["head.blocks=2"])
    states = [build_head(recipe, offered(recipe.head)).state_dict() for _ in range(2)]  # type: ignore[arg-type]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
