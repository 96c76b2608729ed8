"""The tap equals the official CLIP's block outputs, stem and embedding (golden/dist_clip_tap)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from open_clip.transformer import QuickGELU, VisionTransformer

from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.clip.vit import run_taps
from vidxfer.pipeline.errors import ClipError, UsageError

TINY = {"image_px": 32, "patch_px": 8, "channels": 64, "blocks": 3, "embed": 16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"), **TINY)


@pytest.fixture(scope="module")
def tower(tiny: Path) -> Tower:
    return load_tower(str(tiny), device="cpu")


def test_taps_equal_the_official_clip(golden: Any) -> None:
    file = golden("dist_clip_tap.safetensors")
    config, official = file.config, file.below("")
    visual = VisionTransformer(
        image_size=config["image"],
        patch_size=config["patch"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=4.0,
        output_dim=config["output_dim"],
        act_layer=QuickGELU,
    )
    before = {key.partition("visual.")[0] for key in official if "visual." in key}
    file.load_into(visual, f"{min(before, default='')}visual.")
    layers = (-1, *range(config["layers"]))
    with torch.inference_mode():
        taps = run_taps(visual.eval(), official["input.pixels"][:: config["alpha"]], layers)
    for layer, tokens in zip(layers, taps.tokens, strict=True):
        theirs = rearrange(official[f"output.mid_feat.{layer}"], "token frame channel -> frame token channel")
        torch.testing.assert_close(tokens, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(taps.embedding, official["output.cls_x"], atol=1e-5, rtol=0)


def test_layers_come_in_the_asked_order_and_once_per_mention(tower: Tower) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    taps = tower.taps(pixels, (2, -1, 0))
    assert taps.layers == (2, -1, 0)
    for place, layer in enumerate((2, -1, 0)):
        torch.testing.assert_close(taps.tokens[place], tower.taps(pixels, (layer,)).tokens[0], atol=0, rtol=0)


def test_frames_do_not_see_each_other(tower: Tower) -> None:
    pixels = torch.randn(5, 3, 32, 32)
    together = tower.taps(pixels, (0, 2))
    alone = tower.taps(pixels[3:4], (0, 2))
    torch.testing.assert_close(together.tokens[:, 3:4], alone.tokens, atol=1e-5, rtol=1e-5)


def test_without_layers_only_the_embedding_is_computed(tower: Tower) -> None:
    taps = tower.taps(torch.randn(2, 3, 32, 32), ())
    assert taps.tokens.shape[:2] == (0, 2)
    assert taps.embedding.shape == (2, TINY["embed"])


def test_a_layer_the_tower_does_not_have_is_named(tower: Tower) -> None:
    with pytest.raises(ClipError, match=r"blocks 0…2 and the stem -1, not \[7\]"):
        tower.taps(torch.randn(1, 3, 32, 32), (0, 7))


def test_the_weights_hash_follows_the_weights_and_not_the_file(tiny: Path, tmp_path: Path) -> None:
    first = load_tower(str(tiny), device="cpu").info
    again = load_tower(str(write_tiny_clip(tmp_path / "same", **TINY)), device="cpu").info
    other = load_tower(str(write_tiny_clip(tmp_path / "other", seed=1, **TINY)), device="cpu").info
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


def test_text_embeddings_tell_mirrored_names_apart(tower: Tower) -> None:
    text = tower.encode_text(["moving left", "moving right", "moving left"])
    text = text / text.norm(dim=-1, keepdim=True)
    assert text.shape == (3, TINY["embed"])
    assert text[0] @ text[2] > 0.99999
    assert text[0] @ text[1] < 0.999


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-16", "openai", "use --model ViT-B-16-quickgelu"),
        ("ViT-B-61", None, "Did you mean .*ViT-B-16"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "is no file here and no tag"),
    ],
)
def test_a_wrong_tower_is_refused_before_anything_is_fetched(model: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(ClipError, match=message):
        load_tower(model, pretrained, device="cpu")


def test_weights_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    wrong = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, wrong)
    with pytest.raises(ClipError, match="cannot load ViT-B-32"):
        load_tower("ViT-B-32", str(wrong), device="cpu")


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ClipError):
        load_tower("ViT-B-32", str(evil), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_model_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"needs open_clip_config\.json"):
        load_tower(str(tmp_path), device="cpu")


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(UsageError, match="not a device torch knows"):
        load_tower("ViT-B-32", None, device="gpu0")


def test_a_folder_has_its_own_weights_and_one_name(tiny: Path) -> None:
    assert load_tower(f"local-dir:{tiny}", device="cpu").info.model == load_tower(str(tiny), device="cpu").info.model
    with pytest.raises(UsageError, match="has its own weights"):
        load_tower(str(tiny), "openai", device="cpu")
