"""Which blocks feed a head that may read all of them: named ones, or each n-th, counted from the last."""

from __future__ import annotations

import pytest
import torch

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.training.recipes import named, with_settings

BLOCKS = tuple(range(-1, 12))


def offer(layers: tuple[int, ...] = BLOCKS) -> Offer:
    return Offer(
        layers=layers, sparse_frames=2, alpha=2, grid=(2, 2), channels=64, embed=8, classes=3, image_px=16,
        text=torch.ones(3, 8),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dist-toy", "side4video-toy", "tds-toy"])
@pytest.mark.parametrize(
    ("every", "layers", "expected"),
    [
        (1, BLOCKS, tuple(range(12))),
        (2, BLOCKS, (1, 3, 5, 7, 9, 11)),
        (3, BLOCKS, (2, 5, 8, 11)),
        (6, tuple(range(24)), (5, 11, 17, 23)),
        (2, (0, 1, 2), (0, 2)),
        (2, (2, 5, 8, 11), (5, 11)),
        (30, BLOCKS, (11,)),
    ],
)
def test_each_nth_block_counted_from_the_last(
    name: str, every: int, layers: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    config = with_settings(named(name), [f"head.every={every}"]).head
    assert config.needs(offer(layers)).layers == expected


def test_recipes_of_a_part_of_the_blocks_and_what_is_refused() -> None:
    assert named("dist-every-second").head.needs(offer()).layers == (1, 3, 5, 7, 9, 11)
    assert named("dist-every-third").head.needs(offer()).layers == (2, 5, 8, 11)
    for name in ("dist-toy", "tds-toy"):
        assert with_settings(named(name), ["head.layers=[0,7]"]).head.needs(offer()).layers == (0, 7)
        for settings, words in (
            (["head.every=0"], "head.every=0"),
            (["head.every=2", "head.layers=[0,7]"], "leave one out"),
        ):
            with pytest.raises(UsageError, match=words):
                with_settings(named(name), settings)
