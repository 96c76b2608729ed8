"""CLIP's own parameters beside the tokens: what makes a block's queries and keys of its input, for heads that do so.

    <cache>/frozen.<hash>.safetensors    float32, under open_clip's names, of every block whose input is in the cache:
                                         ln_1, and of attn.in_proj the first 2 · width rows (the others make values)

The attribute of each split has the file's sha256; what was read is compared with it. Splits of one CLIP share one file.
Caches of 0.1.0 have none, nor have those of towers without such blocks: there the weights come from CLIP itself
(stages/learning/frozen.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.remote import read_whole
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import CacheCorrupt, PathError
from vidxfer.pipeline.shapes import FrozenFile
from vidxfer.pipeline.writing import make_folder, whole_file

PARAMETERS = ("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias")
"""Of one block, as open_clip calls them."""

MOST_FROZEN_BYTES = 4 << 30
"""No file of them is larger: 48 blocks of 1664 channels take 1.1 GB."""

FROZEN_REMEDY = (
    "`vidxfer extract` with the cache's own settings writes it again from CLIP. Or copy it from where the cache came."
)


def frozen_parameters(state: Mapping[str, Any], layers: Iterable[int]) -> dict[str, Any]:
    """Of CLIP's parameters those that a cache of these layers keeps; none where its blocks are not open_clip's.

    Args:
        state: CLIP's tensors or arrays, under open_clip's names.
        layers: that are cached; the block behind each has its input there.
    """
    parameters: dict[str, Any] = {}
    for layer in layers:
        names = [f"visual.transformer.resblocks.{layer + 1}.{name}" for name in PARAMETERS]
        if all(name in state for name in names):
            width = len(state[names[0]])
            parameters |= {name: state[name][: 2 * width] for name in names}
    return parameters


def frozen_bytes(layers: Iterable[int], blocks: int, channels: int) -> int:
    """About what the file takes: the numbers of `frozen_parameters` in float32."""
    held = sum(layer + 1 < blocks for layer in layers)
    return held * (2 * channels * channels + 4 * channels) * 4


def write_frozen(cache: Path, arrays: Mapping[str, AnyArray], heads: int | None) -> FrozenFile | None:
    """Write the file, unless it is there and whole; None where there is nothing to keep.

    Raises:
        CacheFull: the disk cannot hold it. CacheError: the folder cannot be written.
    """
    if not arrays or heads is None:
        return None
    raw = save({name: np.ascontiguousarray(values, dtype=np.float32) for name, values in arrays.items()})
    kept = FrozenFile(sha256=hashlib.sha256(raw).hexdigest(), heads=heads)
    _put(cache, kept, raw)
    return kept


def mend_frozen(split: Split, arrays: Mapping[str, AnyArray], heads: int | None) -> None:
    """Write the file of a split again where it is missing or damaged.

    Args:
        split: the split.
        arrays: what it holds, as CLIP says now.
        heads: of CLIP's attention.

    Raises:
        CacheCorrupt: it was damaged, and comes out as another one. CacheFull, CacheError: as `write_frozen`.
    """
    try:
        read_frozen(split)
    except CacheCorrupt as error:
        if write_frozen(split.cache_folder, arrays, heads) != split.frozen:
            raise CacheCorrupt(f"{error} Made again from CLIP it is another file.") from error


def copy_frozen(source: Split, cache: Path) -> None:
    """Take the file of a split over to another cache's folder.

    Raises:
        CacheCorrupt: it is missing or damaged. CacheFull, CacheError: as `write_frozen`.
    """
    if source.frozen is not None:
        _put(cache, source.frozen, _read(source, source.frozen))


def read_frozen(split: Split) -> dict[str, AnyArray]:
    """The parameters by name, compared with the hash; empty where the split keeps none.

    Raises:
        CacheCorrupt: the file is missing, or is not the one that was written.
    """
    if split.frozen is None:
        return {}
    raw = _read(split, split.frozen)
    try:
        return dict(load(raw))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CacheCorrupt(
            f"{split.cache_folder / split.frozen.name}: no file of safetensors ({error}). {FROZEN_REMEDY}"
        ) from error


def _put(cache: Path, kept: FrozenFile, raw: bytes) -> None:
    file = cache / kept.name
    try:
        if read_whole(file, most=MOST_FROZEN_BYTES) == raw:
            return
    except (FileNotFoundError, CacheCorrupt, PathError):
        pass  # not there, or no file of ours: another takes its name
    with disk_errors(cache, len(raw)):
        make_folder(cache)
        with whole_file(file, below=cache) as stream:
            stream.write(raw)


def _read(split: Split, kept: FrozenFile) -> bytes:
    file = split.cache_folder / kept.name
    try:
        raw = read_whole(file, most=MOST_FROZEN_BYTES, remedy=FROZEN_REMEDY)
    except FileNotFoundError as error:
        raise CacheCorrupt(
            f"{file}: CLIP's parameters are missing, which {split.path} says it has. {FROZEN_REMEDY}"
        ) from error
    if (sha256 := hashlib.sha256(raw).hexdigest()) != kept.sha256:
        raise CacheCorrupt(
            f"{file}: not as it was written: sha256 {sha256[:16]}…, {split.path} says {kept.sha256[:16]}…. "
            + FROZEN_REMEDY
        )
    return raw
