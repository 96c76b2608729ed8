"""EVL, in both forms, equals the official modules: outputs, inner values, gradients (tests/golden/README_evl.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.transformer import VisionTransformer
from torch import Tensor

from vidxfer.pipeline.clip.vit import run_taps
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.evl.head import FORMS, EvlConfig, EvlHead
from vidxfer.pipeline.heads.evl.net import beside
from vidxfer.pipeline.heads.evl.parts import Maps, neighbour_maps
from vidxfer.pipeline.shapes import ClipBatch

CLOSE = {"atol": 1e-5, "rtol": 0.0}
"""The README's tolerance; of gradients 1e-5 or a ten-thousandth."""

PARTS = {"no_conv": ("convolution",), "no_pos": ("position",), "no_tca": ("cross_frame",),
         "plain": ("convolution", "position", "cross_frame")}  # fmt: skip


def open_clip_names(backbone: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The golden tower under open_clip's names (docs/spec/evl.md §10), without its first and last layers."""
    found = {}
    for block in range(blocks):
        here, there = f"blocks.{block}.", f"transformer.resblocks.{block}."
        for kind in ("weight", "bias"):
            found[f"{there}attn.in_proj_{kind}"] = torch.cat([backbone[f"{here}attn.{x}_proj.{kind}"] for x in "qkv"])
            for ours, theirs in (("ln_1", "norm1"), ("ln_2", "norm2"), ("mlp.c_fc", "mlp.fc1"),
                                 ("mlp.c_proj", "mlp.fc2"), ("attn.out_proj", "attn.out_proj")):  # fmt: skip
                found[f"{there}{ours}.{kind}"] = backbone[f"{here}{theirs}.{kind}"]
    return found


@dataclass
class Case:
    """The golden file with the head of its sizes and weights."""

    golden: Any
    offer: Offer
    config: EvlConfig
    head: EvlHead
    tokens: Tensor

    def batch(self) -> ClipBatch:
        labels = self.golden.tensors["input.labels"]
        return ClipBatch(
            tokens=self.tokens, embedding=None, dense=None, targets=None, labels=labels,
            ids=tuple(map(str, range(len(labels)))),
        )  # fmt: skip


def sizes_of(golden: Any) -> tuple[Offer, EvlConfig]:
    told, state = golden.config, golden.below("param.")
    (height, width), (down, across) = told["input"], told["patch"]
    depth, last = told["layers"], told["layers"] - told["K"]
    backbone = open_clip_names(golden.below("param.backbone."), depth)
    offer = Offer(
        layers=tuple(range(-1, depth)), sparse_frames=told["T"], alpha=1, grid=(height // down, width // across),
        channels=told["dim"], embed=1, classes=told["classes"], image_px=height,
        frozen={f"visual.{name}": value for name, value in backbone.items()}, clip_heads=told["heads"],
    )  # fmt: skip
    config = EvlConfig(
        blocks=0 if last == 0 else told["K"], channels=told["qkv"], attention_heads=told["dheads"],
        mlp_ratio=told["dec_mlp"], dropout=0.5,
    )  # fmt: skip
    assert state["decoder.temporal_pos_embed.0"].shape == (told["T"], told["dim"])
    return offer, config


def tokens_of(golden: Any, layers: tuple[int, ...]) -> Tensor:
    """[clip layer frame token channel] of the golden tower's blocks."""
    names = ["ln_pre" if layer < 0 else f"block{layer}.out" for layer in layers]
    return torch.stack([golden.below("inter.backbone.")[name] for name in names], dim=1)


def fill(head: EvlHead, golden: Any, leave_out: tuple[str, ...] = ()) -> None:
    state = {**{f"decoder.{k}": v for k, v in golden.below("param.decoder.").items()},
             **{f"proj.{k}": v for k, v in golden.below("param.proj.").items()}}  # fmt: skip
    gone = {"convolution": "decoder.temporal_conv.", "position": "decoder.temporal_pos_embed.",
            "cross_frame": "decoder.cross_attention."}  # fmt: skip
    without = tuple(gone[part] for part in leave_out)
    head.load_state_dict({k: v for k, v in state.items() if not (without and k.startswith(without))}, strict=True)


@pytest.fixture(params=FORMS)
def case(request: pytest.FixtureRequest, golden: Any) -> Case:
    file = golden("evl_tiny.safetensors")
    offer, config = sizes_of(file)
    config = replace(config, form=request.param)
    head = config.build(offer).eval()
    fill(head, file)
    return Case(golden=file, offer=offer, config=config, head=head, tokens=tokens_of(file, head.needs.layers))


def test_video_token_logits_and_loss_equal_the_official_ones(case: Case) -> None:
    outputs = case.golden.below("output.")
    token = FORMS[case.config.form](case.head.decoder, case.tokens)
    torch.testing.assert_close(token[:, None], outputs["decoder"], **CLOSE)
    logits = case.head(case.batch())
    torch.testing.assert_close(logits, outputs["logits"], **CLOSE)
    loss = F.cross_entropy(logits, case.golden.tensors["input.labels"])
    torch.testing.assert_close(loss, outputs["loss"].reshape(()), **CLOSE)


def test_gradients_equal_the_official_ones(case: Case) -> None:
    F.cross_entropy(case.head(case.batch()), case.golden.tensors["input.labels"]).backward()
    wanted = case.golden.below("grad.")
    found = dict(case.head.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, wanted[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_blocks_feed_the_decoder_shallowest_first_from_the_features_alone(case: Case) -> None:
    """q and k as the file has them, no tower: the plain memory of each layer."""
    decoder, features, inter = case.head.decoder, case.golden.below("input.features."), case.golden.below("inter.")
    x = decoder.cls_token.expand(len(case.tokens), -1)
    for number, layer in enumerate(decoder.decoder_layers):
        q, k = (features[f"{number}.{name}"][:, :, 1:] for name in "qk")
        maps = neighbour_maps(q, k)
        at = f"layer{number}."
        torch.testing.assert_close(maps.previous, inter[f"{at}tca_map_prev"], **CLOSE)
        torch.testing.assert_close(maps.following, inter[f"{at}tca_map_next"], **CLOSE)
        previous, following = decoder.cross_attention[number](maps)
        taken = beside(previous, first=1) + beside(following, first=0)
        torch.testing.assert_close(taken, inter[f"{at}temporal_cross_attention"], **CLOSE)
        memory = decoder.memory(number, features[f"{number}.out"], maps).flatten(1, 2)
        torch.testing.assert_close(memory, inter[f"{at}memory"], **CLOSE)
        torch.testing.assert_close(x[:, None], inter[f"{at}query_in"], **CLOSE)
        seen = layer.attn(layer.norm1(x), layer.norm3(memory))
        torch.testing.assert_close(seen[:, None], inter[f"{at}attn_out"], **CLOSE)
        torch.testing.assert_close(layer.mlp(layer.norm2(x + seen))[:, None], inter[f"{at}mlp_out"], **CLOSE)
        x = layer(x, memory)
        torch.testing.assert_close(x[:, None], inter[f"{at}query_out"], **CLOSE)
    torch.testing.assert_close(case.head.proj(x), case.golden.below("output.")["logits"], **CLOSE)


def test_the_convolution_over_time_equals_the_official_one(case: Case) -> None:
    features = case.golden.below("input.features.")
    for number in range(len(case.head.decoder.decoder_layers)):
        f = features[f"{number}.out"]
        rows = rearrange(f, "clip frame token channel -> (clip token) channel frame")
        found = rearrange(
            case.head.decoder.temporal_conv[number](rows), "(clip token) c t -> clip t token c", clip=len(f)
        )
        torch.testing.assert_close(found, case.golden.below(f"inter.layer{number}.")["temporal_conv"], **CLOSE)


def test_queries_and_keys_made_again_equal_the_blocks_own(case: Case) -> None:
    features = case.golden.below("input.features.")
    for number, frozen in enumerate(case.head.decoder.frozen):
        before = case.tokens[:, case.head.decoder.before[number]]
        for name, found in zip("qk", frozen(before), strict=True):
            torch.testing.assert_close(found, features[f"{number}.{name}"][:, :, 1:], **CLOSE)


def test_from_the_video_to_the_logits(case: Case) -> None:
    """The golden tower as open_clip's, its taps, and the head on them."""
    told, backbone = case.golden.config, case.golden.below("param.backbone.")
    tower = VisionTransformer(
        image_size=tuple(told["input"]), patch_size=tuple(told["patch"]), width=told["dim"], layers=told["layers"],
        heads=told["heads"], mlp_ratio=told["bb_mlp"], output_dim=1, act_layer=QuickGelu,
    ).eval()  # fmt: skip
    state = open_clip_names(dict(backbone), told["layers"])
    weight = backbone["patch_embed.proj.weight"]
    state |= {
        "conv1.weight": weight.view(len(weight), 3, *told["patch"]),
        "class_embedding": backbone["cls_token"],
        "positional_embedding": backbone["pos_embed"],
        "ln_pre.weight": backbone["ln_pre.weight"],
        "ln_pre.bias": backbone["ln_pre.bias"],
    }
    # open_clip's patches have no bias, the port's have: that of the file is added to every patch's position.
    state["positional_embedding"] = torch.cat([
        state["positional_embedding"][:1], state["positional_embedding"][1:] + backbone["patch_embed.proj.bias"]
    ])  # fmt: skip
    missing, unknown = tower.load_state_dict(state, strict=False)
    assert (set(missing), unknown) == ({"proj", "ln_post.weight", "ln_post.bias"}, [])
    video = case.golden.tensors["input.video"]
    pixels = rearrange(video, "clip rgb frame height width -> (clip frame) rgb height width")
    with torch.no_grad():
        taps = run_taps(tower, pixels, case.head.needs.layers).tokens
    tokens = rearrange(taps, "layer (clip frame) token channel -> clip layer frame token channel", clip=len(video))
    torch.testing.assert_close(tokens, case.tokens, **CLOSE)
    logits = case.head(replace(case.batch(), tokens=tokens))
    torch.testing.assert_close(logits, case.golden.below("output.")["logits"], **CLOSE)


class QuickGelu(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("name", PARTS)
def test_without_a_temporal_part_logits_equal_the_official_ablations(case: Case, name: str) -> None:
    config = replace(case.config, **dict.fromkeys(PARTS[name], False))
    head = config.build(case.offer).eval()
    fill(head, case.golden, PARTS[name])
    logits = head(replace(case.batch(), tokens=tokens_of(case.golden, head.needs.layers)))
    torch.testing.assert_close(logits, case.golden.below("output.ablation.")[f"{name}.logits"], **CLOSE)


def test_maps_of_the_file_make_the_official_memory(case: Case) -> None:
    """Cross-frame attention from maps that were kept, instead of from queries and keys."""
    inter = case.golden.below("inter.")
    for number in range(len(case.head.decoder.decoder_layers)):
        at = f"layer{number}."
        maps = Maps(inter[f"{at}tca_map_prev"], inter[f"{at}tca_map_next"])
        f = case.golden.below("input.features.")[f"{number}.out"]
        memory = case.head.decoder.memory(number, f, maps)
        torch.testing.assert_close(memory.flatten(1, 2), inter[f"{at}memory"], **CLOSE)


def test_a_batch_is_read_and_not_written(case: Case) -> None:
    before = case.tokens.clone()
    case.head(case.batch()).sum().backward()
    assert torch.equal(case.tokens, before)
    assert case.tokens.grad is None


def test_the_norms_have_the_official_eps(case: Case) -> None:
    """1e-6 would move logits by less than the tolerance."""
    norms = [module for module in case.head.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 3 * case.golden.config["K"] + 1
    assert {norm.eps for norm in norms} == {1e-5}
