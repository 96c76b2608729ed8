"""Keys of the released DiST checkpoints: which module each key belongs to, in both generations of names.

    state of a file ─ sort_keys ─▶ head  "temporal_stem.weight" …   (our names; both generations of keys)
                                   clip  "visual.conv1.weight" …    (open_clip's names)
                                   unknown                          (everything else, by its full key)
    head + clip ─ official_state ─▶ the layout of the release

Source: docs/spec/dist.md §8. Nothing is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

PREFIX = "backbone.base_encoder."
HEAD, OLD_HEAD = "dist_net.", "ladder_net."
OLD_NAMES = {
    "input_map_feat_nets": "input_linears",
    "s2t_fuse_nets": "integration2temporal_nets",
    "t2s_fuse_nets": "temporal2integration_nets",
    "spatial_nets": "integration_nets",
    "final_temporal_nets": "adapooling_nets",
}
"""First words of names in files made before the release -> first words in the release. All other names are equal."""

_BLOCK = (
    r"transformer\.resblocks\.\d+\.(attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))|ln_[12]\.(weight|bias)"
    r"|mlp\.c_(fc|proj)\.(weight|bias))"
)
_CLIP = re.compile(
    r"logit_scale|positional_embedding|text_projection|token_embedding\.weight|ln_final\.(weight|bias)"
    rf"|visual\.(class_embedding|positional_embedding|proj|conv1\.weight|ln_(pre|post)\.(weight|bias))"
    rf"|(visual\.)?{_BLOCK}"
)


CLASSIFIER = "classify."
"""Beginning of the names of a linear classifier, in a head and in a file. The release has none: it scores class names."""


@dataclass(frozen=True, kw_only=True)
class SortedKeys:
    """Every key of a file, sorted into three groups.

    Attributes:
        head: of the DiST branch, under our names.
        clip: of the frozen CLIP, under open_clip's names.
        unknown: full keys that are neither.
        old_names: whether the branch is called `ladder_net`.
    """

    head: dict[str, Tensor]
    clip: dict[str, Tensor]
    unknown: tuple[str, ...]
    old_names: bool


def sort_keys(state: Mapping[str, Tensor]) -> SortedKeys:
    """Sort every key into its group. The prefix may be missing. A second key for the same name counts as unknown."""
    head: dict[str, Tensor] = {}
    clip: dict[str, Tensor] = {}
    unknown: list[str] = []
    old_names = False
    for key, value in state.items():
        name = key.removeprefix(PREFIX)
        if name.startswith((HEAD, OLD_HEAD)):
            old = name.startswith(OLD_HEAD)
            ours = _released_name(name.removeprefix(OLD_HEAD)) if old else name.removeprefix(HEAD)
            target = head
            old_names |= old
        else:
            ours, target = name, clip
        if ours in target or (target is clip and not _CLIP.fullmatch(ours)):
            unknown.append(key)
        else:
            target[ours] = value
    return SortedKeys(head=head, clip=clip, unknown=tuple(unknown), old_names=old_names)


def _released_name(name: str) -> str:
    first, dot, rest = name.partition(".")
    return OLD_NAMES.get(first, first) + dot + rest


def official_state(head: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under the keys of the release, CLIP first. Tensors are float32 on the CPU, and share no memory."""
    named: Iterable[tuple[str, Tensor]] = [*clip.items(), *((HEAD + name, value) for name, value in head.items())]
    return {PREFIX + name: value.detach().float().cpu().clone() for name, value in named}
