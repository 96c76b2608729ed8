"""Which towers there are: names to describe, and of each the weights that its library knows, with their licences.

    nothing named    every configuration of open_clip, and timm's well-known architectures
    a word           every name and every tag of both libraries that has it in it

timm states the licence of weights. open_clip states none: what timm states of the same repository counts there too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from vidxfer.pipeline.clip.describe import list_open_clip
from vidxfer.pipeline.clip.from_timm import PREFIX

WELL_KNOWN = {
    "DINOv3": r"vit_\w+_patch16_dinov3",
    "DINOv2": r"vit_\w+_patch14(_reg4)?_dinov2",
    "AugReg": r"vit_(tiny|small|base|large)_patch(8|16|32)_(224|384)",
    "SigLIP, SigLIP 2": r"vit_\w+_patch\d+_siglip_\d+",
    "Perception Encoder": r"vit_pe_(core|spatial)_\w+",
    "EVA-02": r"eva02_\w+_patch\d+_\d+",
    "BEiT": r"beit(v2)?_\w+_224",
}
"""What people call some of timm's towers, and the names of their architectures."""


def names_of_towers(word: str | None = None) -> list[str]:
    """Names as --model takes them, open_clip's first; those that do not work are among them.

    Args:
        word: part of a name or of a tag, whatever the case; a dash, a dot and an underscore are alike, and where
            nothing has it they count for nothing, so that "EVA-02" finds eva02. None: all of open_clip's, and of
            timm's those of `WELL_KNOWN` that have weights.
    """
    own, of_timm = list_open_clip(), _tags_of_timm()
    if word is None:
        known = [name for name in of_timm if any(re.fullmatch(pattern, name) for pattern in WELL_KNOWN.values())]
        return [*own, *(f"{PREFIX}{name}" for name in known if of_timm[name])]
    texts = {name: (name, *weights_of_tower(name)) for name in [*own, *(f"{PREFIX}{name}" for name in of_timm)]}
    for between in (" ", ""):
        wanted = _bare(word, between)
        having = [name for name in texts if any(wanted in _bare(text, between) for text in texts[name])]
        if having:
            return having
    return []


def weights_of_tower(model: str) -> dict[str, str | None]:
    """Tags of a tower's weights, each with its licence; None: the libraries do not state it.

    Args:
        model: a name of open_clip, or "timm:" and one of timm.
    """
    if model.startswith(PREFIX):
        return {tag: config.license for tag, config in _tags_of_timm().get(model.removeprefix(PREFIX), {}).items()}
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    tags = open_clip.list_pretrained_tags_by_model(model)
    places = {tag: str(get_pretrained_cfg(model, tag).get("hf_hub") or "").rstrip("/") for tag in tags}
    return {tag: _licences_by_repository().get(place) for tag, place in places.items()}


def count_timm() -> int:
    """Architectures of timm, working or not."""
    return len(_tags_of_timm())


@lru_cache(maxsize=1)
def _tags_of_timm() -> dict[str, dict[str, Any]]:
    """Every architecture -> tag of its weights -> what timm knows of them."""
    import timm

    known: dict[str, dict[str, Any]] = {name: {} for name in timm.list_models()}
    for tagged in timm.list_pretrained():
        name, _, tag = tagged.partition(".")
        known[name][tag] = timm.get_pretrained_cfg(tagged)
    return known


@lru_cache(maxsize=1)
def _licences_by_repository() -> dict[str, str]:
    """Repository on the hub -> the licence that timm states; those of which it states several are left out."""
    stated: dict[str, set[str]] = {}
    for tags in _tags_of_timm().values():
        for config in tags.values():
            if config.hf_hub_id and config.license:
                stated.setdefault(str(config.hf_hub_id).rstrip("/"), set()).add(str(config.license))
    return {place: said.pop() for place, said in stated.items() if len(said) == 1}


def _bare(text: str, between: str) -> str:
    """In small letters, with everything that is no letter, digit or colon as `between`."""
    return re.sub(r"[^a-z0-9:]+", between, text.lower())
