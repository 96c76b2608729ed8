"""Going back to a tower: a cache of 0.1.0 remembers neither resizing nor GELU, and meets the tower as it was then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidxfer.pipeline.cache.read.agree import expect_agree, facts_of_tower
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.resize import AS_DIST
from vidxfer.stages.remembered import remembered_clip
from vidxfer.stages.settings import ClipChoice


def test_what_0_1_0_remembers_is_resized_as_0_1_0_did(folder_of: Callable[[str], Path]) -> None:
    """The folder asks for squash, which 0.1.0 did not give."""
    folder = str(folder_of("clipa"))
    old = remembered_clip({"model": folder, "pretrained": None}, "fp32", device="cpu")
    new = ClipChoice(model=folder, device="cpu", precision="fp32")
    assert old.load().info.resize == AS_DIST
    again = remembered_clip(new.to_dict(), "fp32", device="cpu")
    assert again.load().info == new.load().info
    with pytest.raises(
        CacheMismatch, match=r"interpolation: cache has 'bilinear'(.|\n)*resize_mode: cache has 'shortest'"
    ):
        expect_agree("cache with tower", "zarr", facts_of_tower(old.load().info), facts_of_tower(new.load().info))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("ViT-B-16-quickgelu", "quickgelu"),
        ("ViT-B-16", "gelu"),
        ("timm:vit_base_patch16_clip_quickgelu_224.openai", "quickgelu"),
        ("hf-hub:laion/x", None),
    ],
)
def test_a_name_that_was_accepted_once_is_not_asked_about_again(model: str, expected: str | None) -> None:
    assert remembered_clip({"model": model, "pretrained": "w.pt"}, "fp32", device="cpu").activation == expected
