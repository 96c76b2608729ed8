"""One contract for towers: every adapter makes the same claims, against the library's own forward of random weights.

`python tests/clip/test_contract.py` prints the largest deviation of each adapter from its library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import ClipError
from vidxfer.pipeline.shapes import Taps

KINDS = ("clip", "clipa", "layer scale", "siglip", "pe", "eva02", "augreg", "dinov2", "dinov2 with registers", "dinov3",
         "dinov3 plus", "registers and no class token", "no class token", "two class tokens", "beit",
         "relative places")  # fmt: skip
WITHOUT_CLASS_TOKEN = ("siglip", "registers and no class token", "no class token")
LEFT_OUT = {"dinov2 with registers": 4, "dinov3": 4, "dinov3 plus": 4, "registers and no class token": 4,
            "two class tokens": 1}  # fmt: skip
LAYERS = (2, -1, 0, 1)
each = pytest.mark.parametrize("kind", KINDS)


Towers = Callable[[str], Any]


def in_half(tower: Tower) -> Tower:
    """The same tower in bfloat16 arithmetic."""
    return type(tower)(tower._model, tower._tokenizer, replace(tower.info, precision="bf16"), tower.device)


def pixels(frames: int, seed: int = 3) -> Tensor:
    """Normalised [frame rgb height width] of 32 px."""
    return torch.randn(frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_every_kind_is_asked(small: Any) -> None:
    assert small.KINDS == KINDS


@each
def test_shapes_and_what_the_passport_says(kind: str, tower_of: Towers) -> None:
    tower = tower_of(kind)
    seen = tower.taps(pixels(5), LAYERS)
    assert (seen.tokens.shape, seen.layers) == ((4, 5, 17, 64), LAYERS)
    assert seen.embedding.shape == (5, tower.info.embed)
    info = tower.info
    assert (info.channels, info.tokens, info.grid, info.blocks, info.image_px) == (64, 17, (4, 4), 3, 32)
    assert info.class_row == ("mean" if kind in WITHOUT_CLASS_TOKEN else "token")
    assert info.left_out == LEFT_OUT.get(kind, 0)
    assert info.blocks_of == ("clip" if kind in ("clip", "clipa", "layer scale") else "timm")
    nothing = tower.taps(pixels(2), ())
    assert nothing.tokens.shape[:2] == (0, 2)
    torch.testing.assert_close(nothing.embedding, tower.taps(pixels(2), (1,)).embedding, atol=0, rtol=0)


def own_of_library(image: Any, shown: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """All tokens by layer and the embedding, of the library's public forward; the stem by its parts."""
    trunk = getattr(image, "trunk", image)
    if hasattr(trunk, "transformer"):
        seen = trunk.forward_intermediates(shown, indices=[0, 1, 2], output_fmt="NLC", output_extra_tokens=True)
        pairs = zip(seen["image_intermediates_prefix"], seen["image_intermediates"], strict=True)
        patches = trunk.conv1(shown).flatten(2).mT
        cls = trunk.class_embedding.expand(len(shown), 1, -1)
        stem = trunk.ln_pre(torch.cat([cls, patches], dim=1) + trunk.positional_embedding)
        return dict(enumerate(torch.cat(pair, dim=1) for pair in pairs)) | {-1: stem}, image(shown)
    before = trunk.num_prefix_tokens
    _, seen = trunk.forward_intermediates(shown, output_fmt="NLC", norm=False, return_prefix_tokens=bool(before))
    after = [torch.cat([one[1], one[0]], dim=1) if before else one for one in seen]
    stem = trunk.patch_embed(shown)
    if hasattr(trunk, "_pos_embed"):
        placed = trunk._pos_embed(stem)
        stem = trunk.norm_pre(placed[0] if isinstance(placed, tuple) else placed)
    else:  # BEiT and relative places: positions are in the attention
        stem = torch.cat([trunk.cls_token.expand(len(shown), -1, -1), stem], dim=1)
    return dict(enumerate(after)) | {-1: stem}, image(shown)


def handed_on(tokens: Tensor, kind: str) -> Tensor:
    """Class row and patches, as the contract has them, of all tokens of a layer: 16 patches are the last."""
    patches = tokens[:, -16:]
    row = patches.mean(dim=1, keepdim=True) if kind in WITHOUT_CLASS_TOKEN else tokens[:, :1]
    return torch.cat([row, patches], dim=1)


def deviation(seen: Taps, model: Any, kind: str, shown: Tensor) -> tuple[float, float]:
    """Largest difference of tokens over all layers, and of embeddings, from the library's."""
    with torch.no_grad():
        tokens, embedding = own_of_library(getattr(model, "visual", model), shown)
    wanted = torch.stack([handed_on(tokens[layer], kind) for layer in seen.layers])
    return float((seen.tokens - wanted).abs().max()), float((seen.embedding - embedding).abs().max())


@each
def test_every_layer_and_the_embedding_are_the_librarys(
    kind: str, tower_of: Towers, folder_of: Callable[[str], Path], small: Any
) -> None:
    folder, shown = folder_of(kind), pixels(3)
    tower = tower_of(kind)
    seen = tower.taps(shown, LAYERS)
    assert max(deviation(seen, small.library(folder), kind, shown)) < 1e-5
    assert float((seen.tokens[0] - seen.tokens[3]).abs().max()) > 0.01  # layers 2 and 1 differ
    for place, layer in enumerate(LAYERS):
        torch.testing.assert_close(tower.taps(shown, (layer,)).tokens[0], seen.tokens[place], atol=0, rtol=0)


@each
def test_frames_do_not_see_each_other(kind: str, tower_of: Towers) -> None:
    tower = tower_of(kind)
    together, alone = tower.taps(pixels(5), LAYERS), tower.taps(pixels(5)[3:4], LAYERS)
    torch.testing.assert_close(together.tokens[:, 3:4], alone.tokens, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(together.embedding[3:4], alone.embedding, atol=2e-5, rtol=1e-5)


@each
def test_half_precision_is_near(kind: str, tower_of: Towers) -> None:
    tower = tower_of(kind)
    whole, half = tower.taps(pixels(2), LAYERS), in_half(tower).taps(pixels(2), LAYERS)
    for mine, other in ((whole.tokens, half.tokens.float()), (whole.embedding, half.embedding.float())):
        assert 0 < float((mine - other).norm() / mine.norm()) < 0.03


@each
def test_text_or_none(kind: str, tower_of: Towers) -> None:
    tower = tower_of(kind)
    has_text = kind in KINDS[:6]
    assert tower.info.has_text is has_text
    bias = tower.state().get("logit_bias")
    assert (bias is not None) is (kind == "siglip")
    assert tower.info.logit_bias == (None if bias is None else float(bias))
    if has_text:
        text = tower.encode_text(["moving left", "moving right", "moving left"])
        assert text.shape == (3, tower.info.embed)
        assert torch.equal(text[0], text[2])
        assert not torch.equal(text[0], text[1])
    else:
        with pytest.raises(ClipError, match=r"no text tower.*linear"):
            tower.encode_text(["moving left"])


@each
def test_work_and_parameters_are_counted(
    kind: str, tower_of: Towers, folder_of: Callable[[str], Path], small: Any
) -> None:
    folder = folder_of(kind)
    model, info = small.library(folder), tower_of(kind).info
    image = getattr(model, "visual", model).requires_grad_(False)
    assert info.parameters == sum(one.numel() for one in image.parameters())
    if kind in ("clip", "clipa", "layer scale"):
        # torch counts no fused attention of nn.MultiheadAttention: what it leaves out is known.
        block = sum(one.numel() for one in image.transformer.resblocks[0].parameters() if one.ndim == 2)
        by_hand = 3 * (block * 17 + 2 * 17 * 17 * 64) + 16 * 3 * 64 * 64 + 64 * 24
        assert info.flop_per_frame() == 2 * by_hand
    else:
        # Attention as its products: torch 2.11 and older do not count the fused one of a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted, torch.no_grad():
            image(pixels(1))
        places = (
            0.05 if kind == "relative places" else 0
        )  # a table of places is made anew in each forward; 0.1 % at 224 px
        assert info.flop_per_frame() == pytest.approx(counted.get_total_flops(), rel=max(places, 1e-9))


def _table() -> None:
    import small_towers as made

    print(f"{'adapter and kind':<44}{'tokens':>10}{'embedding':>11}{'bf16':>8}")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as place:
            folder, shown = made.write_tower(Path(place) / "tower", kind), pixels(3)
            tower: Tower = load_tower(str(folder), device="cpu", precision="fp32")
            seen = tower.taps(shown, LAYERS)
            half = in_half(tower).taps(shown, LAYERS)
            far = float((seen.tokens - half.tokens.float()).norm() / seen.tokens.norm())
            tokens, embedding = deviation(seen, made.library(folder), kind, shown)
            print(f"{type(tower).__name__ + ': ' + kind:<44}{tokens:>10.1e}{embedding:>11.1e}{far:>8.2%}")


if __name__ == "__main__":
    _table()
