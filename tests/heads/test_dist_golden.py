"""DiST, in both forms, equals the official modules: outputs, inner values, gradients (tests/golden/README_dist.md)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import FORMS, DistConfig
from vidxfer.pipeline.heads.dist.net import DistNet


def build(config: dict[str, Any]) -> DistNet:
    layers = tuple(config["layers"])
    grid = config["image"] // config["s_patch"]
    inputs = Offer(
        layers=layers,
        sparse_frames=config["sparse_frames"],
        alpha=config["alpha"],
        grid=(grid, grid),
        channels=config["d_model"],
        embed=config["output_dim"],
        classes=1,
        image_px=config["image"],
    )
    sizes = DistConfig(
        integration_channels=config["integration_dim"],
        temporal_channels=config["temporal_dim"],
        pooling_layers=config["pool_layers"],
        stem_frames=config["t_patch"],
        kernel_frames=config["t_kernel"],
        temporal_mlp_ratio=config["temporal_mlp_ratio"],
        integration_mlp_ratio=config["integration_mlp_ratio"],
        integration_temporal_mlp_ratio=config["integration_temporal_mlp_ratio"],
    )
    return DistNet(sizes, inputs, layers)


def inputs_of(config: dict, golden: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    tokens = torch.stack(
        [
            rearrange(
                golden[f"input.mid_feat.{layer}"],
                "token (clip frame) channel -> clip frame token channel",
                clip=config["batch"],
            )
            for layer in config["layers"]
        ],
        dim=1,
    )
    dense = rearrange(golden["input.images"], "(clip dense) c h w -> clip dense c h w", clip=config["batch"])
    return tokens, dense


FILES = ["dist_tiny.safetensors", "dist_tiny_oddgrid.safetensors"]


@pytest.fixture(params=[(file, form) for file in FILES for form in FORMS], ids=lambda pair: "-".join(pair))
def case(request: pytest.FixtureRequest, golden: Any) -> tuple[dict[str, Any], dict[str, Tensor], DistNet, Any]:
    """Settings, golden tensors, the net with the golden weights, and its forward in one of the forms."""
    name, form = request.param
    file = golden(name)
    net = build(file.config)
    file.load_into(net, "param.")
    return file.config, file.below(""), net, partial(FORMS[form], net)


def test_video_embedding_equals_the_official_one(case: tuple) -> None:
    config, golden, _, forward = case
    video = forward(*inputs_of(config, golden))
    torch.testing.assert_close(video, golden["output.cls_x"], atol=5e-6, rtol=0)


def test_gradient_norms_equal_the_official_ones(case: tuple) -> None:
    config, golden, net, forward = case
    (forward(*inputs_of(config, golden)) * golden["input.grad_probe"]).sum().backward()
    for name, parameter in net.named_parameters():
        norm = torch.zeros(()) if parameter.grad is None else parameter.grad.norm()
        torch.testing.assert_close(norm, golden[f"gradnorm.{name}"].reshape(()), rtol=1e-4, atol=1e-3, msg=name)


def test_only_the_last_integration_to_temporal_net_gets_no_gradient(case: tuple) -> None:
    config, golden, net, forward = case
    forward(*inputs_of(config, golden)).sum().backward()
    without = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    last = f"integration2temporal_nets.{len(config['layers']) - 1}."
    assert without
    assert all(name.startswith(last) for name in without)


def test_intermediates_of_the_first_layer_equal_the_official_ones(case: tuple) -> None:
    config, golden, net, _ = case
    tokens, dense = inputs_of(config, golden)
    x = net.temporal_stem(rearrange(dense, "clip dense c h w -> clip c dense h w"))
    torch.testing.assert_close(x, golden["inter.stem"], atol=5e-6, rtol=1e-5)
    x = net.temporal_nets[0](x)
    torch.testing.assert_close(x, golden["inter.L0.temporal"], atol=5e-6, rtol=1e-5)
    m = net.input_linears[0](tokens[:, 0])
    up = net.integration2temporal_nets[0](m, net.rows)
    torch.testing.assert_close(up, golden["inter.L0.i2t"], atol=5e-6, rtol=1e-5)
    down = net.temporal2integration_nets[0](x)
    official = rearrange(
        golden["inter.L0.t2i"], "token (clip frame) channel -> clip frame token channel", clip=config["batch"]
    )
    torch.testing.assert_close(down, official, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("frames", "pooling", "count"),
    [(8, 2, 19_001_184), (8, 4, 26_105_184), (16, 2, 19_044_192), (32, 4, 26_252_640)],
)
def test_b16_parameter_count_is_the_published_one(frames: int, pooling: int, count: int) -> None:
    inputs = Offer(
        layers=tuple(range(12)),
        sparse_frames=frames,
        alpha=2,
        grid=(14, 14),
        channels=768,
        embed=512,
        classes=174,
        image_px=224,
    )
    with torch.device("meta"):
        net = DistNet(DistConfig(pooling_layers=pooling), inputs, inputs.layers)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
