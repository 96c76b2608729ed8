"""From pixels and class names to logits, and from class names to token ids: equal to the official model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from open_clip import get_tokenizer
from open_clip.model import CLIP
from torch import Tensor

from vidxfer.pipeline.clip.vit import run_taps
from vidxfer.pipeline.heads.dist.head import DistConfig, DistHead
from vidxfer.pipeline.heads.dist.keys import SortedKeys, sort_keys
from vidxfer.pipeline.heads.dist.release import problems, read_sizes
from vidxfer.pipeline.shapes import ClipBatch

Model = tuple[dict[str, Any], dict[str, Tensor], Any, DistHead]


@pytest.fixture(scope="module")
def whole(golden: Any) -> Any:
    return golden("dist_e2e.safetensors")


@pytest.fixture(scope="module")
def keys(whole: Any) -> SortedKeys:
    return sort_keys(whole.below("param."))


@pytest.fixture(scope="module", params=["fast", "plain"])
def model(whole: Any, keys: SortedKeys, request: pytest.FixtureRequest) -> Model:
    config, tensors = whole.config, whole.tensors
    clip = CLIP(
        embed_dim=config["embed_dim"],
        quick_gelu=True,
        vision_cfg={
            "image_size": config["image"],
            "patch_size": config["patch"],
            "width": config["vision_width"],
            "layers": config["vision_layers"],
            "head_width": 64,
        },
        text_cfg={
            "context_length": config["context"],
            "vocab_size": config["vocab"],
            "width": config["text_width"],
            "heads": config["text_heads"],
            "layers": config["text_layers"],
        },
    )
    clip.load_state_dict(keys.clip, strict=True)
    clip = clip.eval().requires_grad_(False)
    sizes = read_sizes(keys)
    text = clip.encode_text(tensors["input.texts"].long())
    layers = tuple(config["layers_sel"])
    offer = replace(sizes.offer, layers=layers, text=text, logit_scale=float(clip.logit_scale.exp()))
    head = DistHead(DistConfig(**asdict(sizes.config), layers=layers, form=request.param), offer)
    head.dist_net.load_state_dict(keys.head, strict=True)
    return config, tensors, clip, head.eval()


def batch_of(config: dict[str, Any], tensors: dict[str, Tensor], clip: Any) -> ClipBatch:
    """What the loader hands a head: taps of the sparse frames of the same dense pixels."""
    dense = rearrange(tensors["input.video"].float(), "clip rgb dense height width -> clip dense rgb height width")
    sparse = dense[:, :: config["alpha"]].flatten(0, 1)
    taps = run_taps(clip.visual, sparse, tuple(config["layers_sel"]))
    return ClipBatch(
        tokens=rearrange(
            taps.tokens,
            "layer (clip frame) token channel -> clip layer frame token channel",
            clip=config["batch"],
        ),
        embedding=None,
        dense=dense,
        targets=None,
        labels=torch.zeros(config["batch"], dtype=torch.int64),
        ids=tuple(map(str, range(config["batch"]))),
    )


def test_the_golden_checkpoint_is_understood_whole(whole: Any, keys: SortedKeys) -> None:
    config, sizes = whole.config, read_sizes(keys)
    assert problems(keys, sizes) == []
    assert (keys.unknown, keys.old_names) == ((), False)
    told = (sizes.dense_frames, sizes.alpha, sizes.patch_px, sizes.embed, sizes.clip_blocks)
    assert told == tuple(config[n] for n in ("dense_frames", "alpha", "patch", "embed_dim", "vision_layers"))
    assert sizes.layers == len(config["layers_sel"])


@torch.inference_mode()
def test_taps_of_the_golden_video_equal_the_official_features(model: Model) -> None:
    config, tensors, clip, _ = model
    tokens = batch_of(config, tensors, clip).tokens
    assert tokens is not None
    for place, layer in enumerate(config["layers_sel"]):
        ours = rearrange(tokens[:, place], "clip frame token channel -> token (clip frame) channel")
        torch.testing.assert_close(ours, tensors[f"inter.mid_feat.{layer}"], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_text_features_equal_the_official_golden_ones(model: Model) -> None:
    _, tensors, _, head = model
    torch.testing.assert_close(head.classify.text, tensors["inter.text_features"], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_whole_model_equals_the_official_golden_one(model: Model) -> None:
    config, tensors, clip, head = model
    batch = batch_of(config, tensors, clip)
    video = head.dist_net(batch.tokens, batch.dense)
    torch.testing.assert_close(video, tensors["inter.cls_x"], atol=1e-5, rtol=0)
    logits = head(batch)
    torch.testing.assert_close(logits, tensors["output.preds_train"], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits.softmax(dim=-1), tensors["output.preds_eval"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("data", ["k400", "ssv2"])
def test_token_ids_of_class_names_equal_the_official_golden_ones(golden: Any, data: str) -> None:
    official = golden("dist_text_tokens.json")[data]
    tokenise = get_tokenizer("ViT-B-16-quickgelu")
    assert official["rows"]
    for row in official["rows"]:
        ids = tokenise([row["text"]])[0].tolist()
        assert ids == row["tokens"] + [0] * (77 - len(row["tokens"])), row["text"]


@pytest.mark.parametrize("data", ["k400", "ssv2"])
def test_token_ids_of_all_class_names_sum_up_to_the_golden_ones(golden: Any, fixtures_dir: Path, data: str) -> None:
    file = fixtures_dir / "annotations" / "labels" / f"{data}_DiST_{data}_labels.json"
    official = golden("dist_text_tokens.json")[data]
    by_number = {int(number): name for name, number in json.loads(file.read_text(encoding="utf-8")).items()}
    names = [by_number[number].replace('"', "").strip() for number in range(official["num_classes"])]
    assert get_tokenizer("ViT-B-16-quickgelu")(names).sum(dim=1).tolist() == official["token_row_sums"]
