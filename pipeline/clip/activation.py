"""Which GELU were the weights trained with? With the other one every feature is silently wrong.

    a tag of open_clip, a hub repository that is one    open_clip's own list says it
    a folder's config, or one beside the file           says it
    OpenAI's archive, or tensors that only those have   QuickGELU
    a file that says nothing, for a name that has both forms        ask: --activation

timm's architectures have the GELU in their name too: clip_224 and clip_quickgelu_224.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from vidxfer.pipeline.clip.archive import is_torchscript
from vidxfer.pipeline.errors import ClipError, UsageError
from vidxfer.pipeline.reading import expect_unpacked, opened, parsed, read_json

QUICK = "-quickgelu"
ACTIVATIONS = ("gelu", "quickgelu")
OPENAI_ONLY = {"input_resolution", "context_length", "vocab_size"}
"""Numbers among the tensors of OpenAI's files, and of no others."""

CONFIG = "open_clip_config.json"
MOST_CONFIG_BYTES, MOST_HEADER_BYTES = 1 << 20, 1 << 26


def quick_of_tag(name: str, tag: str) -> bool:
    """Whether open_clip's list says that the weights of a tag were trained with QuickGELU."""
    from open_clip.pretrained import get_pretrained_cfg

    return bool(get_pretrained_cfg(name, tag).get("quick_gelu", False))


def quick_of_repository(repository: str) -> bool | None:
    """The same of a repository on the hub that open_clip's list names; None: it names no such one, or both kinds."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    listed = [(get_pretrained_cfg(name, tag), name) for name, tag in open_clip.list_pretrained()]
    said = {bool(config.get("quick_gelu", False)) for config, _ in listed if _repository(config) == repository}
    return said.pop() if len(said) == 1 else None


def quick_of_file(path: Path, names: Collection[str]) -> bool | None:
    """What a local file, or the config beside it, says; None: nothing.

    Args:
        path: of the weights.
        names: of its tensors.
    """
    if is_torchscript(path) or OPENAI_ONLY & set(names):
        return True
    beside = path.parent / CONFIG
    if beside.is_file():
        config = read_json(beside, most=MOST_CONFIG_BYTES)
        return bool(config.get("model_cfg", {}).get("quick_gelu", False)) if isinstance(config, dict) else None
    return None


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors of a weights file; empty where it is not one that can be looked into.

    Raises:
        RuntimeError, ValueError …: what torch and JSON raise on a damaged file; nothing in it is run.
    """
    if is_torchscript(path):
        return []
    with opened(path) as file:
        if path.suffix == ".safetensors":
            header_bytes = min(int.from_bytes(file.read(8), "little"), MOST_HEADER_BYTES)
            return [name for name in parsed(file.read(header_bytes)) if name != "__metadata__"]
        expect_unpacked(file, path)
        stored = torch.load(file, map_location="meta", weights_only=True)
    table = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    return [str(name).removeprefix("module.") for name in table]


def expect_activation(
    name: str, source: str, *, has_quick: bool, wants_quick: bool | None, siblings: Collection[str]
) -> None:
    """Refuse a name whose GELU is not that of the weights, or may not be.

    Args:
        name: of the model.
        source: tag or file, for the error.
        has_quick: the model's GELU is QuickGELU.
        wants_quick: the weights were trained with it; None: nothing says it.
        siblings: names of models that there are.

    Raises:
        ClipError: they differ. UsageError: nobody knows.
    """
    plain, quick = name.removesuffix(QUICK), name.removesuffix(QUICK) + QUICK
    if wants_quick is None and not has_quick and quick in siblings:
        raise UsageError(
            f"nothing in {source} says whether its weights were trained with QuickGELU, and {name} has exact GELU: use "
            f"--model {quick} if they were (OpenAI's, MetaCLIP's and DFN's are), else say --activation gelu"
        )
    if wants_quick is None or wants_quick == has_quick:
        return
    trained, use = ("QuickGELU", quick) if wants_quick else ("exact GELU", plain)
    advice = f"use --model {use}, not {name}" if use in siblings else f'set "quick_gelu" right in its {CONFIG}'
    raise ClipError(f"weights {source!r} were trained with {trained}: {advice}")


def activation_named(model: str) -> str | None:
    """What the name of a model that was accepted once says of its GELU, as --activation has it.

    None: it is a folder's or a repository's, whose config says it.
    """
    if Path(model.removeprefix("local-dir:")).is_dir() or "hf-hub:" in model:
        return None
    return "quickgelu" if "quickgelu" in model else "gelu"


def stated_quick(activation: str | None) -> bool | None:
    """What --activation states; None: nothing.

    Raises:
        UsageError: a word that there is not.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise UsageError(f"--activation {activation!r}: known are {' and '.join(ACTIVATIONS)}")
    return None if activation is None else activation == "quickgelu"


def _repository(listed: dict[str, Any]) -> str:
    return "/".join(str(listed.get("hf_hub") or "").split("/")[:2])  # some name a file behind it
