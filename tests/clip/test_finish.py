"""A tower that goes on from a layer's tokens ends where it ends from pixels: the library's own forward says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vidxfer.pipeline.errors import ClipError

WITHOUT_CLASS_TOKEN = ("siglip", "registers and no class token", "no class token")
NORM_BEHIND_THE_POOL = ("clipa", "beit")
KINDS = ("clip", "clipa", "layer scale", "siglip", "pe", "eva02", "augreg", "dinov2", "dinov2 with registers", "dinov3",
         "dinov3 plus", "registers and no class token", "no class token", "two class tokens", "beit",
         "relative places")  # fmt: skip
each = pytest.mark.parametrize("kind", KINDS)


def pixels(frames: int = 3) -> Tensor:
    """Normalised [frame rgb height width] of 32 px."""
    return torch.randn(frames, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def library_end(image: Any, shown: Tensor) -> Tensor:
    """All tokens behind the last norm, by the library's own forward from pixels."""
    trunk = getattr(image, "trunk", image)
    with torch.no_grad():
        if hasattr(trunk, "transformer"):
            return trunk.ln_post(trunk.transformer(trunk._embeds(shown)))
        end = trunk.forward_features(shown)
        return trunk.fc_norm(end) if isinstance(trunk.norm, torch.nn.Identity) else end


def handed_on(tokens: Tensor, kind: str) -> Tensor:
    """Class row and patches of all tokens: 16 patches are the last."""
    patches = tokens[:, -16:]
    row = patches.mean(dim=1, keepdim=True) if kind in WITHOUT_CLASS_TOKEN else tokens[:, :1]
    return torch.cat([row, patches], dim=1)


def test_every_kind_is_asked(small: Any) -> None:
    assert small.KINDS == KINDS


@each
def test_from_every_layer_it_ends_where_the_library_ends(
    kind: str, tower_of: Callable[[str], Any], folder_of: Callable[[str], Path], small: Any
) -> None:
    tower, layers = tower_of(kind), (-1, 0, 1, 2)
    model = small.library(folder_of(kind))
    wanted = handed_on(library_end(getattr(model, "visual", model), pixels()), kind)
    taps = tower.taps(pixels(), layers)
    left_out = tower.left_out(pixels(), layers)
    assert left_out.shape == (4, 3, tower.info.left_out, 64)
    for layer, tokens, others in zip(layers, taps.tokens, left_out, strict=True):
        torch.testing.assert_close(tower.finish(tokens, layer, others), wanted, atol=2e-5, rtol=1e-5)
    assert float((tower.finish(taps.tokens[0], 0, left_out[0]) - wanted).abs().max()) > 0.01  # not of that layer


@each
def test_another_picture_s_tokens_end_where_that_picture_ends(kind: str, tower_of: Callable[[str], Any]) -> None:
    tower, shown = tower_of(kind), pixels(4)
    tokens, others = tower.taps(shown, (1,)).tokens[0], tower.left_out(shown, (1,))[0]
    together = tower.finish(tokens, 1, others)
    torch.testing.assert_close(tower.finish(tokens[2:3], 1, others[2:3]), together[2:3], atol=2e-5, rtol=1e-5)
    moved = tokens.clone()
    moved[:, 5, :32] += 1  # not all channels: a norm takes that away again
    assert float((tower.finish(moved, 1, others) - together).abs().amax()) > 0.001


def test_the_mean_of_patches_is_no_token_and_moves_nothing(tower_of: Callable[[str], Any]) -> None:
    tower = tower_of("siglip")
    tokens = tower.taps(pixels(), (0,)).tokens[0]
    other = torch.cat([tokens[:, :1] + 7, tokens[:, 1:]], dim=1)
    torch.testing.assert_close(tower.finish(other, 0), tower.finish(tokens, 0), atol=0, rtol=0)


def test_it_goes_on_in_float32_whatever_the_precision(tower_of: Callable[[str], Any]) -> None:
    from dataclasses import replace

    tower = tower_of("clip")
    half = type(tower)(tower._model, tower._tokenizer, replace(tower.info, precision="bf16"), tower.device)
    tokens = tower.taps(pixels(), (0,)).tokens[0]
    assert torch.equal(half.finish(tokens, 0), tower.finish(tokens, 0))
    assert half.finish(tokens.half(), 0).dtype == torch.float32


@pytest.mark.parametrize("kind", ["dinov2 with registers", "registers and no class token", "two class tokens"])
def test_tokens_that_are_left_out_must_be_given(kind: str, tower_of: Callable[[str], Any]) -> None:
    tower = tower_of(kind)
    with pytest.raises(ClipError, match=r"more tokens per frame .* A cache does not hold them.* give the pixels"):
        tower.finish(tower.taps(pixels(), (0,)).tokens[0], 0)


def test_a_layer_that_there_is_not_and_tokens_of_another_grid_are_refused(tower_of: Callable[[str], Any]) -> None:
    tower = tower_of("clip")
    with pytest.raises(ClipError, match=r"blocks 0…2 and the stem -1, not \[3\]"):
        tower.finish(torch.zeros(1, 17, 64), 3)
    with pytest.raises(ValueError, match="token=5"):
        tower.finish(torch.zeros(1, 5, 64), 0)
