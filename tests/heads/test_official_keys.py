"""Keys of the released checkpoints: every one has a place, and every one that does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from vidxfer.pipeline.heads import PUBLISHED
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.keys import HEAD, OLD_HEAD, OLD_NAMES, PREFIX, SortedKeys, official_state, sort_keys
from vidxfer.pipeline.heads.dist.net import DistNet, DistSizes
from vidxfer.pipeline.heads.dist.release import FileSizes, _ratio, problems, read_sizes
from vidxfer.pipeline.training.recipes import named

LISTS = {
    "b16_k400_8+16f": "dist-k400-b16-8f",
    "b16_ssv2_8+16f": "dist-ssv2-b16-8f",
    "l14_k400_32+64f": "dist-k400-l14-32f",
}


@pytest.fixture(scope="session")
def official_shapes(spec_dir: Any) -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Key -> shape of a released configuration, listed on the official model."""

    def load(name: str) -> dict[str, tuple[int, ...]]:
        listed = json.loads((spec_dir / f"dist_state_dict_{name}.json").read_text(encoding="utf-8"))
        return {key: tuple(shape) for key, shape in listed.items()}

    return load


def sizes_of(config: object) -> DistSizes:
    """The sizes alone of DiST's settings."""
    return DistSizes(**{one.name: getattr(config, one.name) for one in fields(DistSizes)})


def small() -> SortedKeys:
    """A branch of two layers and one pooling block with a CLIP stub, as `sort_keys` gives it."""
    torch.manual_seed(0)
    return sort_keys({key: torch.randn(shape) for key, shape in shapes_of_a_small_one().items()})


def shapes_of_a_small_one() -> dict[str, tuple[int, ...]]:
    inputs = Offer(layers=(0, 1), sparse_frames=3, alpha=2, grid=(4, 4), channels=40, embed=24, classes=1, image_px=32)
    config = DistSizes(
        integration_channels=64, temporal_channels=20, pooling_layers=1, stem_frames=3, temporal_mlp_ratio=1.35,
        integration_mlp_ratio=0.7, integration_temporal_mlp_ratio=0.33,
    )  # fmt: skip
    with torch.device("meta"):
        net = DistNet(config, inputs, (0, 1))
    clip = {
        "visual.conv1.weight": (40, 3, 8, 8),
        "visual.positional_embedding": (17, 40),
        "visual.transformer.resblocks.0.ln_1.weight": (40,),
        "visual.transformer.resblocks.1.ln_1.weight": (40,),
        "logit_scale": (),
    }
    head = {HEAD + name: tuple(value.shape) for name, value in net.state_dict().items()}
    return {PREFIX + name: shape for name, shape in {**clip, **head}.items()}


def older(key: str) -> str:
    """The name a key had before the release."""
    name = key.removeprefix(PREFIX)
    if not name.startswith(HEAD):
        return key
    first, dot, rest = name.removeprefix(HEAD).partition(".")
    return PREFIX + OLD_HEAD + {new: old for old, new in OLD_NAMES.items()}.get(first, first) + dot + rest


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("generation", ["dist_net", "ladder_net"])
def test_every_official_key_has_its_place(
    official_shapes: Callable[[str], dict[str, tuple[int, ...]]], name: str, generation: str
) -> None:
    shapes = official_shapes(name)
    rename = older if generation == "ladder_net" else str
    with torch.device("meta"):
        keys = sort_keys({rename(key): torch.empty(shape) for key, shape in shapes.items()})
    assert keys.unknown == ()
    assert keys.old_names is (generation == "ladder_net")
    assert len(keys.head) + len(keys.clip) == len(shapes)
    head = {key.removeprefix(PREFIX + HEAD): shape for key, shape in shapes.items() if HEAD in key}
    assert {key: tuple(value.shape) for key, value in keys.head.items()} == head
    row = next(row for row in PUBLISHED if row.recipe == LISTS[name])
    sizes = read_sizes(keys)
    assert sizes == FileSizes(
        config=sizes_of(named(row.recipe).head),
        layers=row.clip.blocks,
        sparse_frames=row.sparse_frames,
        alpha=2,
        patch_px=14 if "l14" in name else 16,
        channels=row.clip.width,
        embed=row.clip.embed,
        clip_blocks=row.clip.blocks,
        grid=row.clip.grid[0],
    )
    state = {key: torch.zeros(()).expand(value.shape) for key, value in keys.head.items()}
    assert problems(SortedKeys(head=state, clip=keys.clip, unknown=(), old_names=False), sizes) == []


def test_sizes_of_any_ratio_are_read_back() -> None:
    keys = small()
    assert problems(keys, read_sizes(keys)) == []
    sizes = read_sizes(keys)
    hidden = [int(64 * sizes.config.integration_mlp_ratio), int(64 * sizes.config.integration_temporal_mlp_ratio)]
    assert hidden == [int(64 * 0.7), int(64 * 0.33)]
    assert (sizes.grid, sizes.clip_blocks, sizes.offer.image_px) == (4, 2, 32)


@pytest.mark.parametrize(("hidden", "outer"), [(61, 224), (115, 224), (15, 11), (384, 96)])
def test_a_ratio_gives_back_the_width_it_was_read_from(hidden: int, outer: int) -> None:
    """int(224 * (61 / 224)) is 60: a division alone loses a channel."""
    assert int(outer * _ratio(hidden, outer)) == hidden


def without(keys: SortedKeys, *names: str, **changed: Tensor) -> list[str]:
    head = {name: value for name, value in keys.head.items() if name not in names}
    head |= {name.replace("__", "."): value for name, value in changed.items()}
    broken = SortedKeys(head=head, clip=keys.clip, unknown=(), old_names=False)
    return problems(broken, read_sizes(broken))


def test_all_problems_are_listed_at_once() -> None:
    lines = without(
        small(),
        "proj",
        "temporal_stem.bias",
        ln_post__weight=torch.ones(65),
        ln_post__bias=torch.full((64,), torch.nan),
        extra__weight=torch.ones(2),
        aggregated_cls_token=torch.ones(1, 1, 64, dtype=torch.int64),
    )
    assert lines == [
        "proj: missing",
        "temporal_stem.bias: missing",
        "extra.weight: not a part of this branch",
        "aggregated_cls_token: holds torch.int64, not floating-point numbers",
        "ln_post.bias: holds NaN or infinity",
        "ln_post.weight: file has (65,), expected (64,)",
    ]


def test_one_layer_of_another_size_does_not_make_the_others_wrong() -> None:
    keys = small()
    head = {**keys.head, "integration_nets.0.ln.weight": torch.ones(63)}
    broken = SortedKeys(head=head, clip={}, unknown=(), old_names=False)
    assert problems(broken, read_sizes(broken)) == ["integration_nets.0.ln.weight: file has (63,), expected (64,)"]


def test_a_patch_that_is_not_clips_is_named() -> None:
    keys = small()
    other = {**keys.clip, "visual.conv1.weight": torch.ones(40, 3, 16, 16)}
    broken = SortedKeys(head=keys.head, clip=other, unknown=(), old_names=False)
    assert problems(broken, read_sizes(broken)) == ["temporal_stem.weight: patch of 8 px, the file's CLIP has 16 px"]


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ({}, "no key begins with"),
        ({"proj": torch.ones(64, 8)}, "input_linears.0: missing, and every other"),
        ({"input_linears.0.weight": torch.ones(200, 8), "adapooling_nets.0.x": torch.ones(1)}, "heads of about 64"),
        ({"input_linears.0.weight": torch.ones(0, 8)}, "is empty"),
        ({"input_linears.999999999.weight": torch.ones(64, 8), "adapooling_nets.8.x": torch.ones(1)}, "missing"),
    ],
)
def test_what_is_no_branch_at_all_is_said_without_building_it(head: dict[str, Tensor], text: str) -> None:
    keys = SortedKeys(head=head, clip={}, unknown=(), old_names=False)
    assert any(text in line for line in problems(keys, read_sizes(keys)))


def test_two_keys_for_one_name_are_not_merged() -> None:
    one = torch.ones(1)
    keys = sort_keys({f"{PREFIX}{HEAD}proj": one, f"{PREFIX}{OLD_HEAD}proj": one, f"{PREFIX}optimizer": one})
    assert keys.unknown == (f"{PREFIX}{OLD_HEAD}proj", f"{PREFIX}optimizer")


def test_the_official_layout_is_the_one_that_was_read() -> None:
    keys = small()
    state = official_state(keys.head, keys.clip)
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes_of_a_small_one()
    again = sort_keys(state)
    assert all(torch.equal(again.head[name], value) for name, value in keys.head.items())
    assert all(torch.equal(again.clip[name], value) for name, value in keys.clip.items())
