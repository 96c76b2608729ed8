"""CLIP's own parameters beside the tokens: written, found whole, or taken from CLIP; and never another CLIP's."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.frozen import frozen_bytes, frozen_parameters, write_frozen
from vidxfer.pipeline.cache.write.grow import write_attributes
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.errors import CacheCorrupt, CacheError, CacheMismatch
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.shapes import ClipBatch, FrozenFile
from vidxfer.pipeline.training.build import build_head
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.extract import extract
from vidxfer.stages.learning.frozen import frozen_of, offer_from
from vidxfer.stages.learning.sources import Source, cached_source, online_sources
from vidxfer.stages.learning.train import train
from vidxfer.stages.learning.union import source_of
from vidxfer.stages.settings import CacheChoice, ClipChoice, TrainRequest
from vidxfer.stages.upkeep.prune import PruneRequest, prune
from vidxfer.stages.upkeep.recode import RecodeRequest, recode

PARTS = ("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias")
KEPT = {f"visual.transformer.resblocks.{block}.{part}" for block in (1, 2) for part in PARTS}
"""The toy's cache has the layers 0, 1 and 2: the inputs of blocks 1 and 2."""


@dataclass(frozen=True, kw_only=True)
class KeysConfig(HeadConfig):
    """A head that reads some of CLIP's parameters."""

    kind: ClassVar[str] = "keys"
    names: tuple[str, ...] = tuple(sorted(KEPT))

    def needs(self, offer: Offer) -> Needs:
        """The named parameters of the blocks whose input is on offer."""
        fed = {str(layer + 1) for layer in offer.layers}
        return Needs(frozen=tuple(name for name in self.names if "resblocks" not in name or name.split(".")[3] in fed))

    def build(self, offer: Offer) -> Head:
        """Keeps them."""
        return Keys(self, offer)


class Keys(Head):
    def __init__(self, config: KeysConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        self.held = [offer.frozen[name] for name in self.needs.frozen]
        self.classifier = nn.Linear(1, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        return self.classifier(batch.labels[:, None].float())


def recipe(*names: str) -> Recipe:
    head = KeysConfig(names=names) if names else KeysConfig()
    return Recipe(name="keys", head=head, optimiser=Optimiser(warmup_from=1e-4), epochs=1, warmup_epochs=0)


def file_of(cache: Path) -> Path:
    (found,) = cache.glob("frozen.*.safetensors")
    return found


@pytest.fixture
def cache(toy: Any, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(toy.int8, tmp_path / "zarr"))


@pytest.fixture
def old(cache: Path) -> Path:
    """As a cache of 0.1.0: no file, and nothing is said of one."""
    file_of(cache).unlink()
    for name in ("train", "val"):
        write_attributes(replace(open_split(cache, name), frozen=None))
        assert "frozen" not in (cache / name / "zarr.json").read_text().replace("frozen_", "")
    return cache


@pytest.fixture(scope="module")
def clip(toy: Any) -> dict[str, Tensor]:
    """Every parameter of the toy's CLIP."""
    return load_tower(str(toy.clip), device="cpu").state()


def expect_offered(source: Source, clip: dict[str, Tensor]) -> None:
    offer = source.offer(recipe())
    assert set(offer.frozen) == KEPT
    assert offer.clip_heads == load_heads(source)
    for name, values in offer.frozen.items():
        wanted = clip[name][: 2 * 64] if "in_proj" in name else clip[name]
        assert values.dtype == torch.float32
        assert torch.equal(values, wanted), name
    held = build_head(recipe(), offer).held
    assert [one.shape[0] for one in held] == [128 if "in_proj" in name else 64 for name in sorted(KEPT)]


def load_heads(source: Source) -> int:
    config = json.loads((Path(source.split.informs["clip"]["model"]) / "open_clip_config.json").read_text())
    vision = config["model_cfg"]["vision_cfg"]
    return int(vision["width"] // vision.get("head_width", 64))


def test_extraction_keeps_queries_and_keys_of_each_block_whose_input_it_has(
    toy: Any, clip: dict[str, Tensor], invoke: Any
) -> None:
    kept = load_file(file_of(toy.int8))
    assert set(kept) == KEPT
    assert sum(values.nbytes for values in kept.values()) == frozen_bytes((0, 1, 2), 3, 64) == 2 * (2 * 64 + 4) * 64 * 4
    splits = [open_split(toy.int8, name) for name in ("train", "val")]
    assert splits[0].frozen == splits[1].frozen
    assert splits[0].frozen is not None
    assert splits[0].frozen.sha256[:16] in file_of(toy.int8).name
    expect_offered(cached_source(toy.int8, "train", None), clip)
    assert file_of(toy.int8).name in " ".join(invoke("cache", "info", "--cache", toy.int8).stdout.split())


def test_what_the_cache_says_of_them_moves_no_fingerprint(toy: Any, old: Path) -> None:
    for name in ("train", "val"):
        with_file, without = open_split(toy.int8, name), open_split(old, name)
        assert (with_file.spec, with_file.spec.fingerprint) == (without.spec, without.spec.fingerprint)


def test_a_cache_of_before_takes_them_from_its_clip(old: Path, clip: dict[str, Tensor], tmp_path: Path) -> None:
    expect_offered(cached_source(old, "train", None), clip)


def test_a_cache_of_a_half_precision_clip_takes_them_from_it_too(old: Path, clip: dict[str, Tensor]) -> None:
    """Caches made on a GPU: the weights are those of the file whatever the precision they were used in."""
    split = open_split(old, "train")
    frozen, _ = frozen_of(replace(split, spec=replace(split.spec, clip_precision="bf16")), sorted(KEPT))
    for name in KEPT:
        assert torch.equal(frozen[name], clip[name][: 2 * 64] if "in_proj" in name else clip[name]), name


def test_evl_trains_from_a_cache_of_before_as_from_one_that_keeps_them_and_from_no_other_clip(
    toy: Any, old: Path, tmp_path: Path
) -> None:
    sets = ["epochs=1", "warmup_epochs=0", "batch_clips=8", "head.blocks=2", "head.mlp_ratio=1"]
    request = TrainRequest(
        recipe=with_settings(named("evl-toy"), sets), cache=toy.int8, run=tmp_path / "new", device="cpu"
    )
    train(request)
    train(replace(request, cache=old, run=tmp_path / "old"))
    kept = [(tmp_path / name / "checkpoint" / "weights.safetensors").read_bytes() for name in ("new", "old")]
    assert kept[0] == kept[1]
    other = write_tiny_clip(tmp_path / "other", image_px=32, channels=64, blocks=3, embed=32, seed=5)
    for name in ("train", "val"):
        split = open_split(old, name)
        write_attributes(replace(split, informs={**split.informs, "clip": {"model": str(other), "pretrained": None}}))
    with pytest.raises(CacheMismatch, match="clip_weights_sha256"):
        train(replace(request, cache=old, run=tmp_path / "other-clip"))
    assert not (tmp_path / "other-clip").exists()


def test_another_clip_than_the_caches_is_refused_and_a_lost_one_named(
    toy: Any, old: Path, tmp_path: Path, invoke: Any
) -> None:
    split, other = open_split(old, "train"), write_tiny_clip(
        tmp_path / "other", image_px=32, channels=64, blocks=3, embed=32, seed=5
    )  # fmt: skip
    moved = replace(split, informs={**split.informs, "clip": {"model": str(other), "pretrained": None}})
    with pytest.raises(CacheMismatch, match=r"clip_weights_sha256"):
        frozen_of(moved, sorted(KEPT))
    lost = replace(split, informs={**split.informs, "clip": {"model": str(tmp_path / "gone"), "pretrained": None}})
    with pytest.raises(CacheError, match=r"(?s)ln_1.bias|in_proj.* and 7 more\).*does not keep.*gone.*extract again"):
        frozen_of(lost, sorted(KEPT))


def test_a_flipped_bit_or_a_missing_file_is_named_and_extraction_writes_it_again(
    toy: Any, cache: Path, clip: dict[str, Tensor], invoke: Any
) -> None:
    file = file_of(cache)
    whole = file.read_bytes()
    for at in (3, len(whole) // 2, len(whole) - 1, None):
        if at is None:
            file.unlink()
        else:
            damaged = bytearray(whole)
            damaged[at] ^= 8
            file.write_bytes(damaged)
        words = "are missing" if at is None else "not as it was written"
        with pytest.raises(CacheCorrupt, match=rf"{file.name}: .*{words}.*vidxfer extract"):
            cached_source(cache, "train", None).offer(recipe())
        verified = invoke("cache", "verify", "--cache", cache)
        assert verified.exit_code == 1
        assert file.name in "".join(verified.stderr.split())
        assert [one.resumed for one in extract(toy.request(cache))] == [24, 16]
        assert file.read_bytes() == whole
    expect_offered(cached_source(cache, "val", None), clip)
    assert invoke("cache", "verify", "--cache", cache).exit_code == 0


def test_pruned_and_recoded_caches_take_the_file_along_and_check_it(
    cache: Path, clip: dict[str, Tensor], tmp_path: Path
) -> None:
    prune(PruneRequest(source=cache, target=tmp_path / "pruned", layers=(0, 1)))
    recode(RecodeRequest(source=cache, target=tmp_path / "recoded", codec="int4"))
    for name in ("pruned", "recoded"):
        assert file_of(tmp_path / name).read_bytes() == file_of(cache).read_bytes()
        expect_offered(cached_source(tmp_path / name, "val", None), clip)
    file_of(cache).write_bytes(b"x")
    with pytest.raises(CacheCorrupt, match="not as it was written"):
        recode(RecodeRequest(source=cache, target=tmp_path / "third", codec="int4"))
    assert not (tmp_path / "third" / "train").exists()


def test_caches_read_as_one_and_clip_in_the_loop_offer_the_same(toy: Any, cache: Path, clip: dict[str, Tensor]) -> None:
    together = source_of((toy.int8, cache), "train", labels_as="union")
    expect_offered(together, clip)
    online = online_sources(toy.int8, None, data=None, clip=ClipChoice(device="cpu"), store=CacheChoice())
    offer = online["train"].offer(recipe())
    assert offer.clip_heads == load_heads(together)
    assert all(torch.equal(offer.frozen[name], clip[name]) for name in KEPT)


def test_what_the_file_lacks_comes_from_clip_and_what_clip_lacks_is_refused(toy: Any, clip: dict[str, Tensor]) -> None:
    source = cached_source(toy.int8, "train", None)
    offer = source.offer(recipe("visual.ln_pre.weight", *sorted(KEPT)))
    assert torch.equal(offer.frozen["visual.ln_pre.weight"], clip["visual.ln_pre.weight"])
    assert offer.frozen["visual.transformer.resblocks.1.attn.in_proj_bias"].shape == (128,)
    strange = recipe("visual.blocks.0.attn.qkv.weight")
    with pytest.raises(CacheError, match=r"qkv.*neither the cache nor its CLIP has them.*open_clip.*--model"):
        build_head(strange, source.offer(strange))
    assert source.offer(recipe(), (1,)).frozen.keys() == {name for name in KEPT if ".2." in name}


def test_a_tower_of_another_make_keeps_nothing(tmp_path: Path) -> None:
    eva = {"visual.blocks.0.attn.qkv.weight": torch.zeros(12, 4)}
    assert frozen_parameters(eva, (-1, 0)) == {}
    assert write_frozen(tmp_path, {}, None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", [{"sha256": "../../x"}, {"sha256": "0" * 63 + "/"}, {"heads": 0}, {"heads": True}])
def test_what_a_stranger_may_say_of_the_file_is_checked(cache: Path, said: dict[str, Any]) -> None:
    path = cache / "train" / "zarr.json"
    stored = json.loads(path.read_text())
    stored["attributes"]["vidxfer"]["frozen"].update(said)
    path.write_text(json.dumps(stored))
    with pytest.raises(CacheCorrupt, match="frozen"):
        open_split(cache, "train")
    assert FrozenFile(sha256="0" * 64, heads=1).name == "frozen.0000000000000000.safetensors"


def test_the_file_is_read_from_behind_a_url(toy: Any, clip: dict[str, Tensor]) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(toy.int8), "/frozen-behind-a-url", recursive=True)
    split = open_split("memory://frozen-behind-a-url", "train")
    found, _ = frozen_of(split, sorted(KEPT))
    assert torch.equal(
        found["visual.transformer.resblocks.2.ln_1.bias"], clip["visual.transformer.resblocks.2.ln_1.bias"]
    )
    memory.rm(f"/frozen-behind-a-url/{file_of(toy.int8).name}")
    with pytest.raises(CacheCorrupt, match="are missing"):
        frozen_of(split, sorted(KEPT))


def test_a_recipe_for_another_clip_is_named_before_the_layers_of_its_head(toy: Any) -> None:
    with pytest.raises(
        CacheMismatch, match=r"(?s)published for ViT-B-16-quickgelu.*--model ViT-B-16-quickgelu"
    ) as caught:
        offer_from(open_split(toy.int8, "train"), named("evl-k400-b16-8f"))
    assert {"clip.width", "clip.image_px"} <= set(caught.value.fields)
