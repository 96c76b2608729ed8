"""Chosen clips of a cache as plain float32 arrays in one file, for whoever wants numbers and no cache.

codes, scales ─ decode ─▶ tokens [clip layer frame token channel] ┐
embedding, frame_index, crop, flip, grey, label, ids, layers      ┴─▶ FILE.npz or FILE.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.views import view_arrays
from vidxfer.pipeline.disk import disk_errors
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.writing import make_folder, whole_file, whole_path

SAMPLE_FILES = (".npz", ".safetensors")


def tokens_of(reader: TokenReader, rows: Sequence[int], views: Sequence[int], dequantise: Dequantiser) -> Tensor:
    """Tokens of one view per clip, float32 [clip layer frame token channel], of the layers of `dequantise`.

    Raises:
        CacheIncomplete: a row is not stored. CacheCorrupt: bytes are damaged.
    """
    read = reader.read(rows, views, dequantise.layers)
    return dequantise(read.codes, read.scale).float()  # type: ignore[no-any-return]


def samples(
    reader: TokenReader, rows: Sequence[int], views: Sequence[int], layers: Sequence[int] | None = None
) -> dict[str, AnyArray]:
    """Everything stored of every (row, view), by name; tokens and embeddings as float32, texts apart (`names_of`).

    Raises:
        CacheIncomplete: a row is not stored. CacheError: a layer is not in the cache.
    """
    split = reader.split
    places = [(row, view) for row in rows for view in views]
    clip_rows, clip_views = [row for row, _ in places], [view for _, view in places]
    tokens = tokens_of(reader, clip_rows, clip_views, Dequantiser.of(split, layers=layers))
    return {
        "tokens": tokens.numpy(),
        "embedding": reader.embedding(clip_rows, clip_views).astype(np.float32),
        **view_arrays([reader.view(row, view) for row, view in places]),
        "label": split.labels[clip_rows],
        "view": np.array(clip_views, dtype=np.int32),
        "layers": np.array(split.spec.layers if layers is None else layers, dtype=np.int32),
    }


def write_samples(path: Path, arrays: dict[str, AnyArray], names: dict[str, list[str]]) -> None:
    """Write one file, whole or not at all; `names` are arrays of text in npz, JSON in the metadata of safetensors.

    Raises:
        UsageError: the file's name ends in neither. CacheFull: the disk is full.
    """
    if path.suffix not in SAMPLE_FILES:
        raise UsageError(f"{path}: a file that ends in {' or '.join(SAMPLE_FILES)} is wanted")
    make_folder(path.parent)
    with disk_errors(path, sum(values.nbytes for values in arrays.values())):
        if path.suffix == ".npz":
            with whole_file(path) as file:
                texts = {name: np.array(values) for name, values in names.items()}
                np.savez(file, allow_pickle=False, **arrays, **texts)
        else:
            plain = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
            with whole_path(path) as own:
                save_file(plain, own, metadata={name: json.dumps(values) for name, values in names.items()})
