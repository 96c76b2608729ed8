"""`vidxfer towers`: which there are, of what sizes, and why others are not; and a plan of any, without its numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm

from vidxfer.pipeline.clip import from_open_clip, from_timm
from vidxfer.pipeline.clip.listed import WELL_KNOWN, names_of_towers, weights_of_tower
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.planning.towers import TowersReport, list_towers


@pytest.fixture(scope="module")
def every() -> TowersReport:
    return list_towers()


def test_every_configuration_of_open_clip_works_or_says_why_not(every: TowersReport) -> None:
    works = {row.model for row in every.towers if not row.model.startswith("timm:")}
    refused = {refusal.model: refusal for refusal in every.refused}
    assert works | set(refused) == set(open_clip.list_models())
    assert not works & set(refused)
    assert every.open_clip == len(open_clip.list_models())
    assert len(works) >= 112
    groups = Counter(refusal.group for refusal in refused.values())
    assert groups == {"convolutional trunk": 27, "CoCa": 4, "hierarchical trunk": 1}
    assert {refusal.nearest for refusal in refused.values()} <= works, "what is recommended works"


def test_what_people_ask_for_is_among_them(every: TowersReport) -> None:
    works = {row.model for row in every.towers}
    assert works >= {
        "ViT-B-16-quickgelu", "ViT-B-16-SigLIP2", "PE-Core-B-16", "EVA02-B-16", "MobileCLIP2-B",
        "timm:vit_small_patch16_dinov3", "timm:vit_7b_patch16_dinov3", "timm:vit_small_patch14_dinov2",
        "timm:vit_large_patch14_reg4_dinov2", "timm:vit_tiny_patch16_224", "timm:vit_pe_core_base_patch16_224",
        "timm:eva02_base_patch14_224", "timm:vit_base_patch16_siglip_224", "timm:beitv2_base_patch16_224",
    }  # fmt: skip
    names = names_of_towers()
    for family, pattern in WELL_KNOWN.items():
        assert list_of(pattern, names), f"timm has no {family} any more: {pattern}"


def list_of(pattern: str, names: list[str]) -> list[str]:
    return [name for name in names if re.fullmatch(f"timm:{pattern}", name)]


def test_sizes_are_those_that_the_papers_state(every: TowersReport) -> None:
    rows = {row.model: row for row in every.towers}
    clip = rows["ViT-B-16-quickgelu"]
    assert (clip.sizes.tokens, clip.sizes.image_px, clip.sizes.channels, clip.sizes.blocks) == (197, 224, 768, 12)
    assert clip.sizes.parameters == 86_192_640  # 85.8 M of ViT-B/16, ln_pre, and a projection of 768 x 512
    assert (clip.has_text, clip.lacks, clip.weights["openai"]) == (True, None, "apache-2.0")
    # 8 frames x 12 blocks x 197 tokens x (768 bytes and a float16), 8 embeddings of 512 in float16, and checksums
    assert 0 < clip.bytes_per_view - (8 * 12 * 197 * 770 + 8 * 512 * 2) < 1000
    assert clip.gflop_per_frame == pytest.approx(35.1, abs=0.1)  # twice the 17.56 G multiply-adds of ViT-B/16
    dino = rows["timm:vit_small_patch16_dinov3"]
    assert (dino.sizes.tokens, dino.sizes.left_out, dino.sizes.image_px, dino.has_text) == (257, 4, 256, False)
    assert dino.sizes.parameters == pytest.approx(21e6, rel=0.03)  # 21 M in DINOv3's table of models
    assert dino.weights == {"lvd1689m": "dinov3-license"}
    assert rows["timm:vit_7b_patch16_dinov3"].sizes.parameters == pytest.approx(6716e6, rel=0.001)
    siglip = rows["ViT-B-16-SigLIP2"]
    assert (siglip.sizes.class_row, siglip.sizes.tokens, siglip.weights) == ("mean", 197, {"webli": None})


@pytest.mark.parametrize(
    ("word", "some", "none"),
    [
        ("DINOv3", "timm:vit_small_patch16_dinov3", "timm:vit_small_patch14_dinov2"),
        ("pe-core", "timm:vit_pe_core_base_patch16_224", "ViT-B-16"),
        ("EVA-02", "timm:eva02_base_patch14_224", "EVA01-g-14"),
        ("dfn2b", "ViT-B-16-quickgelu", "EVA02-B-16"),  # a tag
        ("siglip2", "ViT-B-16-SigLIP2", "ViT-B-16-SigLIP-256"),
    ],
)
def test_a_word_is_looked_for_in_names_and_tags(word: str, some: str, none: str) -> None:
    names = names_of_towers(word)
    assert some in names
    assert none not in names


def test_a_word_that_nothing_has_is_answered_with_names_that_there_are(invoke: Any) -> None:
    with pytest.raises(UsageError, match=r"'vit_small_dino3'.*Near: timm:vit_small"):
        list_towers("vit_small_dino3")
    assert invoke("towers", "no such thing").exit_code == 2


def test_licences_are_what_timm_states_and_nobody_guesses() -> None:
    assert weights_of_tower("timm:eva02_tiny_patch14_224") == {
        timm.get_pretrained_cfg("eva02_tiny_patch14_224").tag: timm.get_pretrained_cfg("eva02_tiny_patch14_224").license
    }
    tags = weights_of_tower("ViT-B-16")
    assert set(tags) == set(open_clip.list_pretrained_tags_by_model("ViT-B-16"))
    assert tags["metaclip_400m"] == "cc-by-nc-4.0"
    assert tags["datacomp_xl_s13b_b90k"] is None, "timm has no such repository"


def test_the_command_prints_a_table_counts_and_reasons(invoke: Any) -> None:
    done = invoke("towers", "mobileclip2")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    assert "MobileCLIP2-B" in text
    assert "open_clip: 2 work, 4 do not; looked at were 6 of 144 configurations." in text
    assert "not: convolutional trunk, 4: MobileCLIP2-S0, MobileCLIP2-S2, MobileCLIP2-S3, MobileCLIP2-S4." in text
    assert "Nearest that works: MobileCLIP2-B" in text
    told = json.loads(invoke("towers", "mobileclip2", "--json").stdout)
    assert [row["model"] for row in told["towers"]] == ["MobileCLIP2-B", "MobileCLIP2-L-14"]
    assert told["store"]["codec"] == "int8"
    assert told["refused"][0]["reason"].startswith("convolutional trunk: ")


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP2", "PE-Core-B-16", "timm:vit_7b_patch16_dinov3"])
def test_a_plan_says_the_same_of_any_of_them(model: str, toy: Any, invoke: Any, tmp_path: Path) -> None:
    where = ["--root", toy.root, "--model", model, "--cache", tmp_path / "zarr", "--split", "val"]
    (split,) = json.loads(invoke("plan", *where, "--no-measure", "--json").stdout)["splits"]
    (row,) = [row for row in list_towers(model).towers if row.model == model]
    assert split["bytes_per_view"] == row.bytes_per_view
    assert split["clip_tflop"] == pytest.approx(16 * 8 * row.gflop_per_frame / 1e3)


def test_a_tower_without_numbers_is_the_one_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, model in ((from_timm, "timm:vit_tiny_patch16_224"), (from_open_clip, "ViT-B-32-quickgelu")):
        whole, make = untrained_tower(model, device="cpu"), library.untrained

        def watched(name: str, make: Any = make) -> Any:
            made = make(name)
            assert all(value.is_meta for value in made.parameters()), "numbers are not even made and thrown away"
            return made

        with monkeypatch.context() as patch:
            patch.setattr(library, "untrained", watched)
            shapes = untrained_tower(model, device="cpu", numbers=False)
        assert (shapes.info, shapes.heads) == (whole.info, whole.heads)
        assert shapes.device.type == "meta"
