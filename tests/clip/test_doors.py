"""The doors to a tower: names, tags, files, folders, repositories; and what is refused, by name and with a way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vidxfer.pipeline.clip import from_open_clip
from vidxfer.pipeline.clip.describe import Described, Refusal, describe, list_open_clip
from vidxfer.pipeline.clip.load import load_tower, untrained_tower, whole_name
from vidxfer.pipeline.clip.preprocess import preprocess_of_file
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.resize import AS_DIST, Resize

Folder = Callable[[str], Path]
LAYERS = (-1, 0, 3, 7, 11)


def as_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A plain vision transformer of open_clip without ln_pre and projection, under timm's names."""
    words = {"attn.in_proj_": "attn.qkv.", "attn.out_proj": "attn.proj", "ln_1": "norm1", "ln_2": "norm2",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2", "transformer.resblocks": "blocks", "ln_post": "norm",
             "conv1": "patch_embed.proj"}  # fmt: skip
    made = {}
    for name, value in state.items():
        if not name.startswith("visual.") or name in ("visual.proj", "visual.class_embedding"):
            continue
        short = name.removeprefix("visual.")
        for theirs, ours in words.items():
            short = short.replace(theirs, ours)
        made[short] = value.float()
    made["pos_embed"] = made.pop("positional_embedding").unsqueeze(0)
    made["cls_token"] = state["visual.class_embedding"].float().reshape(1, 1, -1)
    made["patch_embed.proj.bias"] = torch.zeros(len(made["patch_embed.proj.weight"]))
    return {name: value.contiguous() for name, value in made.items()}


def test_the_real_tower_is_one_through_both_of_its_doors(real_dir: Any, tmp_path: Path) -> None:
    folder = (real_dir / "vit-tiny-augreg" / "open_clip_config.json").parent
    weights = tmp_path / "vit-tiny.safetensors"
    save_file(as_timm(load_file(folder / "open_clip_model.safetensors")), weights)
    first = load_tower(str(folder), device="cpu", precision="fp32")
    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    second = load_tower(name, str(weights), device="cpu", precision="fp32")
    shown = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mine, other = first.taps(shown, LAYERS), second.taps(shown, LAYERS)
    scale = mine.tokens.abs().amax()
    assert float((mine.tokens - other.tokens).abs().max() / scale) < 1e-5
    torch.testing.assert_close(mine.embedding, other.embedding, atol=1e-3, rtol=1e-4)
    assert (first.info.has_text, second.info.has_text) == (True, False)
    same = ("channels", "tokens", "blocks", "image_px", "embed", "pixel_mean", "pixel_std", "class_row")
    assert [getattr(first.info, one) for one in same] == [getattr(second.info, one) for one in same]
    made = timm.create_model(name.removeprefix("timm:"), num_classes=0, pretrained=False)
    made.load_state_dict(load_file(weights))
    timm.models.save_for_hf(made, tmp_path / "folder", safe_serialization=True)
    third = load_tower(str(tmp_path / "folder"), device="cpu", precision="fp32")
    assert torch.equal(third.taps(shown, LAYERS).tokens, other.tokens)
    assert third.info.weights_sha256 == second.info.weights_sha256


def test_a_file_of_timm_may_have_a_classifier_and_must_have_everything_else(tmp_path: Path) -> None:
    made = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    name = "timm:vit_tiny_patch16_224.augreg_in21k"
    torch.save({"state_dict": made.state_dict()}, tmp_path / "with.pt")
    tower = load_tower(name, str(tmp_path / "with.pt"), device="cpu")
    assert tower.info.embed == 192
    assert "head.weight" not in tower.state()
    lacking = {key: value for key, value in made.state_dict().items() if key != "blocks.3.mlp.fc1.weight"}
    save_file(lacking, tmp_path / "without.safetensors")
    with pytest.raises(ClipError, match=r"blocks\.3\.mlp\.fc1\.weight"):
        load_tower(name, str(tmp_path / "without.safetensors"), device="cpu")


@pytest.mark.parametrize(
    ("model", "pretrained", "kind", "message"),
    [
        ("RN50", None, ClipError, r"convolutional trunk.*--model ViT-B-32-quickgelu"),
        ("convnext_large", "x", ClipError, r"convolutional trunk.*--model ViT-L-14"),
        ("MobileCLIP2-S3", None, ClipError, r"convolutional trunk.*--model MobileCLIP2-B"),
        ("swin_base_patch4_window7_224", None, ClipError, r"hierarchical.*--model ViT-B-16"),
        ("coca_base", None, ClipError, r"CoCa.*normalise.*--model ViT-B-16"),
        ("timm:naflexvit_base_patch16_gap", None, ClipError, r"NaFlex.*--model timm:vit_base"),
        ("timm:resnet50", None, ClipError, r"convolutional trunk.*--model timm:vit_base"),
        ("timm:cait_s24_224", None, ClipError, r"another trunk.*--model timm:vit_base"),
        ("timm:vit_base_patch16_dinov4", None, ClipError, r"Did you mean timm:vit_base_patch16_dinov3"),
        ("vit_base_patch16_dinov3", None, ClipError, r"--model timm:vit_base_patch16_dinov3"),
        ("timm:vit_base_patch16_224", "nope", ClipError, r"no file here and no tag.*augreg"),
        ("timm:vit_base_patch16_224.dino", "mae", UsageError, r"two sets of weights"),
        ("timm:vit_base_patch16_clip_224.openai", None, ClipError, r"use --model timm:vit_base_patch16_clip_quickgelu"),
        ("timm:hf-hub:timm/x", "y", UsageError, r"has its own weights"),
        ("hf-hub:laion/x", "laion2b", UsageError, r"the repository hf-hub:laion/x has its own weights"),
    ],
)
def test_refused_before_anything_is_fetched(model: str, pretrained: str | None, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        load_tower(model, pretrained, device="cpu")


def test_an_open_clip_folder_whose_trunk_is_not_square_or_is_convolutional_is_refused(tmp_path: Path) -> None:
    text = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 1, "layers": 1}
    vit = {"patch_size": 8, "width": 64, "layers": 1, "head_width": 32}
    cases = [
        ({**vit, "image_size": [32, 16]}, "not square.*32 x 16"),
        ({**vit, "image_size": 32, "attentional_pool": True}, "attention pooling"),
        ({"timm_model_name": "test_convnext", "image_size": 160}, "convolutional trunk"),
    ]
    for number, (vision, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        torch.manual_seed(0)
        save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
        with pytest.raises(ClipError, match=message):
            load_tower(str(folder), device="cpu")


@pytest.fixture
def clip_files(folder_of: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of the small plain CLIP as a file alone, for two names of open_clip that differ in the GELU."""
    config = json.loads((folder_of("clip") / "open_clip_config.json").read_text())["model_cfg"]
    for name, quick in (("Small", False), ("Small-quickgelu", True), ("Only", False)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**config, "quick_gelu": quick})
    return Path(shutil.copy(folder_of("clip") / "open_clip_model.safetensors", tmp_path / "my-openai-copy.safetensors"))


def test_a_file_that_does_not_say_its_gelu_is_asked_about(clip_files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model Small-quickgelu if they were.*--activation gelu"):
        load_tower("Small", str(clip_files), device="cpu")
    assert load_tower("Small", str(clip_files), device="cpu", activation="gelu").info.model == "Small"
    assert load_tower("Only", str(clip_files), device="cpu").info.model == "Only"  # there is one form of it
    assert load_tower("Small-quickgelu", str(clip_files), device="cpu").info.model == "Small-quickgelu"
    with pytest.raises(ClipError, match=r"exact GELU: use --model Small, not Small-quickgelu"):
        load_tower("Small-quickgelu", str(clip_files), device="cpu", activation="gelu")
    with pytest.raises(UsageError, match="known are gelu and quickgelu"):
        load_tower("Small", str(clip_files), device="cpu", activation="relu")
    marked = {**load_file(clip_files), "input_resolution": torch.tensor(32)}
    save_file(marked, tmp_path / "plain.safetensors")
    with pytest.raises(ClipError, match=r"QuickGELU: use --model Small-quickgelu, not Small"):
        load_tower("Small", str(tmp_path / "plain.safetensors"), device="cpu")


def test_the_config_beside_a_file_says_its_gelu_and_its_pictures(clip_files: Path) -> None:
    beside = clip_files.with_name("open_clip_config.json")
    picture = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "resize_mode": "squash"}
    beside.write_text(json.dumps({"model_cfg": {"quick_gelu": True}, "preprocess_cfg": picture}))
    with pytest.raises(ClipError, match=r"QuickGELU: use --model Small-quickgelu, not Small"):
        load_tower("Small", str(clip_files), device="cpu")
    info = load_tower("Small-quickgelu", str(clip_files), device="cpu").info
    assert info.pixel_mean == (0.1, 0.2, 0.3)
    assert info.resize == Resize(interpolation="bicubic", antialias=True, resize_mode="squash")


def test_a_repository_that_open_clip_lists_says_its_gelu(
    folder_of: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = open_clip.create_model(f"local-dir:{folder_of('clip')}")
    monkeypatch.setattr(from_open_clip, "_made", lambda name, source: model)
    with pytest.raises(ClipError, match="QuickGELU"):
        load_tower("hf-hub:timm/vit_base_patch16_clip_224.openai", device="cpu")
    assert from_open_clip.create("hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K", None, None) is model
    assert from_open_clip.create("hf-hub:somebody/else", None, None) is model
    with pytest.raises(ClipError, match="QuickGELU"):
        from_open_clip.create("hf-hub:somebody/else", None, "quickgelu")


def test_a_file_for_a_name_gets_the_pictures_its_tags_agree_on(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    siglip = preprocess_of_file("ViT-B-16-SigLIP2", file)
    assert siglip is not None
    assert (siglip["mean"], siglip["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert preprocess_of_file("ViT-L-14", file) is None  # its tags differ
    file.touch()
    with pytest.raises(UsageError, match=r"name the ones it holds, as in --model timm:vit_base_patch16_224\.augreg2"):
        load_tower("timm:vit_base_patch16_224", str(file), device="cpu")


def test_resizing_is_the_towers_own_and_may_be_overridden(tower_of: Callable[[str], Any], folder_of: Folder) -> None:
    assert tower_of("clip").info.resize == AS_DIST  # open_clip's default, as DiST's authors had it
    own = Resize(interpolation="bicubic", antialias=True, resize_mode="squash")
    assert tower_of("siglip").info.resize == tower_of("clipa").info.resize == own
    assert tower_of("dinov3").info.resize == Resize(interpolation="bicubic", antialias=True)
    other = load_tower(str(folder_of("clipa")), device="cpu", resize="bilinear").info.resize
    assert other == Resize(interpolation="bilinear", antialias=False, resize_mode="squash")
    with pytest.raises(UsageError, match=r"--resize 'lanczos'"):
        load_tower(str(folder_of("clipa")), device="cpu", resize="lanczos")


def test_every_configuration_of_open_clip_works_or_says_why_and_what_to_take_instead() -> None:
    told = [describe(name) for name in list_open_clip()]
    refused = [one for one in told if isinstance(one, Refusal)]
    assert len(told) - len(refused) >= 112
    groups = {"convolutional trunk", "CoCa", "hierarchical trunk"}
    assert {one.group for one in refused} == groups
    assert all(isinstance(describe(one.nearest), Described) for one in refused)


@pytest.mark.parametrize("name", ["ViT-S-32", "timm:vit_small_patch16_dinov3", "PE-Core-T-16-384"])
def test_a_description_is_what_the_model_is(name: str) -> None:
    told = describe(name)
    assert isinstance(told, Described)
    info = untrained_tower(name, device="cpu", precision="fp32").info
    assert vars(told.sizes) == {key: getattr(info, key) for key in vars(told.sizes)}
    assert told.has_text is info.has_text


def test_a_folder_is_remembered_by_its_whole_path(folder_of: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("dinov3")
    monkeypatch.chdir(folder.parent)
    assert whole_name(folder.name) == whole_name(f"local-dir:{folder.name}") == str(folder)
    assert whole_name(f"timm:{folder.name}") == f"timm:{folder}"
    assert whole_name("ViT-B-16") == "ViT-B-16"
    assert load_tower(f"timm:{folder}", device="cpu").info.model == folder.name
