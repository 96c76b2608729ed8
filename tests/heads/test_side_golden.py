"""Side4Video and TDS-CLIP, in both forms, equal the official modules (tests/golden/README_tds.md).

Sizes are read from the files: weights through the family's own reading of a release, frames and grid from shapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from einops import rearrange
from open_clip.model import CLIP
from torch import Tensor, nn

from vidxfer.pipeline.clip.vit import run_taps
from vidxfer.pipeline.heads import RELEASES
from vidxfer.pipeline.heads.base import Head
from vidxfer.pipeline.heads.family import Released
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.optimise import soft_cross_entropy, soft_targets

FILES = ("side4video_tiny", "side4video_tiny_mh", "tds_tiny", "tds_tiny_mh")
SMOOTHING = 0.1
"""Of the loss in the files (README_tds.md)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A golden file, what our reading of its weights says, and the head with these weights."""

    file: Any
    name: str
    released: Released
    head: Any
    batch: ClipBatch

    @property
    def loss(self) -> Tensor:
        """Of a training forward; the running statistics move."""
        targets = soft_targets(self.batch.labels, self.file.tensors["output.logits"].shape[1], SMOOTHING)
        return soft_cross_entropy(self.head.train()(self.batch), targets)


def made(golden: Any, name: str, form: str) -> Case:
    file = golden(f"{name}.safetensors")
    kind = name.split("_")[0]
    params = {key.removeprefix("param."): v for key, v in file.tensors.items() if key.startswith("param.")}
    released = RELEASES[kind].read(params)
    assert released.problems == ()
    assert released.unknown == ()
    labels = file.tensors["input.labels"]
    taps = [file.tensors[f"input.clip.{k}"] for k in range(released.layers)]
    as_ours = "token (clip frame) channel -> clip frame token channel"
    tokens = torch.stack([rearrange(tap, as_ours, clip=len(labels)) for tap in taps], dim=1)
    offer = replace(released.offer, sparse_frames=tokens.shape[2], alpha=1)
    assert offer.image_px == file.tensors["input.frames"].shape[-1]
    head = replace(released.config, form=form).build(offer)
    head.load_state_dict(released.weights)
    batch = ClipBatch(
        tokens=tokens, embedding=None, dense=file.tensors["input.frames"], targets=None, labels=labels,
        ids=tuple(map(str, range(len(labels)))),
    )  # fmt: skip
    return Case(file=file, name=name, released=released, head=head, batch=batch)


@pytest.fixture(params=[(name, form) for name in FILES for form in ("plain", "fast")], ids="-".join)
def case(request: pytest.FixtureRequest, golden: Any) -> Case:
    return made(golden, *request.param)


@pytest.fixture(params=FILES)
def plain(request: pytest.FixtureRequest, golden: Any) -> Case:
    return made(golden, request.param, "plain")


@torch.no_grad()
def test_logits_at_evaluation_equal_the_official_ones(case: Case) -> None:
    logits = case.head.eval()(case.batch)
    torch.testing.assert_close(logits, case.file.tensors["output.logits"], atol=2e-5, rtol=0)


def test_logits_and_loss_of_a_training_step_equal_the_official_ones(case: Case) -> None:
    seen = []
    case.head.register_forward_hook(lambda module, given, logits: seen.append(logits))
    loss = case.loss
    torch.testing.assert_close(seen[0], case.file.tensors["output.train.logits"], atol=2e-5, rtol=0)
    torch.testing.assert_close(loss.reshape(1), case.file.tensors["output.train.loss"].reshape(1), atol=5e-6, rtol=0)


@torch.no_grad()
def test_running_statistics_behind_one_training_step_equal_the_official_ones(case: Case) -> None:
    official = case.file.below("output.train.buffer.")
    before = {name: value.clone() for name, value in case.head.named_buffers()}
    assert case.loss.isfinite()
    after = dict(case.head.named_buffers())
    moving = {name for name in after if not name.endswith("num_batches_tracked")}
    assert {name for name in official if not name.endswith("num_batches_tracked")} == moving
    for name in moving:
        torch.testing.assert_close(after[name], official[name], atol=1e-5, rtol=0, msg=name)
    assert all(int(after[name] - before[name]) == 1 for name in after.keys() - moving)


def test_every_gradient_equals_the_official_one(case: Case, golden: Any) -> None:
    official = golden(f"{case.name}_grads.safetensors").below("grad.")
    case.loss.backward()
    parameters = dict(case.head.named_parameters())
    assert parameters.keys() == official.keys()
    for name, parameter in parameters.items():
        allowed = 1e-4 * float(official[name].abs().max()) + 1e-6
        torch.testing.assert_close(parameter.grad, official[name], atol=allowed, rtol=0, msg=name)


def watched(case: Case, layer: int) -> dict[str, Tensor]:
    """What the modules of the plain form give at evaluation, under the golden names."""
    found: dict[str, Tensor] = {}
    net = case.head.visual
    inner, flat = net.transformer, "clip channel frame row col -> (row col) (clip frame) channel"
    block = inner.side_transformer[layer]

    def keep(name: str, module: nn.Module, turned: str = "", given: bool = False) -> None:
        def hook(_: nn.Module, inputs: Any, out: Any) -> None:
            one = inputs[0] if given else out[0] if isinstance(out, tuple) else out
            found[name] = rearrange(one, turned) if turned else one

        module.register_forward_hook(hook)

    keep("stem.rgb", net.side_pre_bn3d)
    if "inter.stem.diff" in case.file.tensors:
        keep("stem.diff", net.side_pre_bn3d_c5)
        keep("stem.diff_in", net.side_conv1_c5, given=True)
    for k, one in enumerate(inner.side_transformer):
        keep(f"layer{k}.block_out", one, flat)
    keep(f"layer{layer}.proj", inner.side_linears[layer], "clip frame token channel -> token (clip frame) channel")
    keep(f"layer{layer}.fused_in", block, flat, given=True)
    keep(f"layer{layer}.tconv_out", block.conv)
    if hasattr(block, "mse"):
        pictures = "clip channel frame row col -> (clip frame) channel row col"
        keep(f"layer{layer}.mse_reduced", block.mse.bn1, pictures)
        keep(f"layer{layer}.mse_bn2", block.mse.bn2, pictures)
        keep(f"layer{layer}.mse_out", block.mse)
    keep(f"layer{layer}.attn_tokens", block.ln_1, "picture token channel -> token picture channel", given=True)
    keep(f"layer{layer}.attn_out", block.attn, "picture place channel -> place picture channel")
    keep(f"layer{layer}.mlp_out", block.mlp, "clip frame row col channel -> (row col) (clip frame) channel")
    keep("post_bn", net.side_post_bn)
    keep("pooled", case.head.fc, given=True)  # the form is called, not the module
    case.head.eval()(case.batch)
    return found


@torch.no_grad()
def test_every_inner_value_equals_the_official_one(plain: Case) -> None:
    official = plain.file.below("inter.")
    layers = {int(found[1]) for name in official if (found := re.fullmatch(r"layer(\d+)\.proj", name))}
    assert len(layers) == 1, "one layer in detail"
    found = watched(plain, layers.pop())
    assert found.keys() == official.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, official[name], atol=5e-5, rtol=0, msg=name)


def trunk(case: Case) -> nn.Module:
    """A CLIP image tower with the file's frozen trunk."""
    offer, told = case.released.offer, case.file.told
    clip = CLIP(
        embed_dim=8,
        quick_gelu=True,
        vision_cfg={
            "image_size": offer.image_px,
            "patch_size": offer.patch_px,
            "width": int(told["width"]),
            "layers": case.released.layers,
            "head_width": 64,
        },
        text_cfg={"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
    )
    lacking = clip.load_state_dict(case.released.clip, strict=False)
    assert lacking.unexpected_keys == []
    assert not [key for key in lacking.missing_keys if re.match(r"visual\.(?!ln_post|proj)", key)]
    return clip.visual.eval()


@pytest.fixture(params=["side4video_tiny", "tds_tiny"])
def with_trunk(request: pytest.FixtureRequest, golden: Any) -> Case:
    return made(golden, request.param, "fast")


@torch.no_grad()
def test_taps_of_our_clip_give_the_official_logits_too(with_trunk: Case) -> None:
    case, pixels = with_trunk, with_trunk.batch.dense
    assert pixels is not None
    window = int(case.file.told["num_diff"])
    taps = run_taps(trunk(case), pixels[:, window // 2 :: window].flatten(0, 1), tuple(range(case.released.layers)))
    for k in range(case.released.layers):
        ours = rearrange(taps.tokens[k], "picture token channel -> token picture channel")
        torch.testing.assert_close(ours, case.file.tensors[f"input.clip.{k}"], atol=5e-5, rtol=0)
    tokens = rearrange(taps.tokens, "layer (clip frame) token channel -> clip layer frame token channel",
                       clip=len(pixels))  # fmt: skip
    logits = case.head.eval()(replace(case.batch, tokens=tokens))
    torch.testing.assert_close(logits, case.file.tensors["output.logits"], atol=2e-5, rtol=0)


def test_a_head_is_one(plain: Case) -> None:
    assert isinstance(plain.head, Head)
    assert plain.released.config is not None
    assert type(plain.released.config).kind == plain.name.split("_")[0]
