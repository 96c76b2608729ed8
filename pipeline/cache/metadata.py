"""Is the metadata beside a split's numbers what the layout says, and are its small arrays whole?

zarr.json of each array ─▶ expect_layout      shapes, types, chunks and codecs, which the readers rely on
label, text, ids, …     ─▶ read_fixed         through zarr, whose checksum errors become ours
both                    ─▶ expect_sealed      against the checksums in the attribute's "seal", where it has one

Zarr reads a missing file as zeros and does not checksum metadata: the seal finds what that would hide.

The one array axis that may be longer than the split says is the first, where videos were being added: what lies beyond
the split's rows was never made part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.spec import FORMAT
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError

ATTRIBUTE = "vidxfer"
"""Key of what we say in the attributes of a split's group."""

SEAL = "seal"
"""Key of the checksums within the group's attribute; optional."""

DESCRIBED = "arrays"
"""Key of the checksums of the arrays' descriptions within the seal; optional."""

COPY_AGAIN = "Copy the cache again from where it came, or extract again into another folder (--cache)."


def expect_layout(path: Path, array: ArrayLayout, *, may_be_longer: bool = False) -> None:
    """Check that an array's metadata says what the layout says: the readers rely on it.

    Args:
        path: the split's folder.
        array: its layout.
        may_be_longer: the first axis may have grown beyond the rows that count, and its chunks with it.

    Raises:
        CacheError: the metadata is not there or says something else. CacheCorrupt: it is not JSON of an array.
    """
    metadata = path / array.name / "zarr.json"
    if not metadata.is_file():
        raise CacheError(f"{metadata} is not there: the cache is not whole. {COPY_AGAIN}")
    try:
        stored = json.loads(metadata.read_text())
        codec = stored["codecs"][0]
        sharded = codec["name"] == "sharding_indexed"
        inner = codec["configuration"]["codecs"] if sharded else stored["codecs"]
        found: dict[str, Any] = {
            "shape": tuple(stored["shape"]),
            "type": stored["data_type"],
            "file": tuple(stored["chunk_grid"]["configuration"]["chunk_shape"]),
            "chunk": tuple(codec["configuration"]["chunk_shape"]) if sharded else None,
            "codecs": [step["name"] for step in inner],
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CacheCorrupt(
            f"{metadata}: not the description of an array ({type(error).__name__}: {error}). {COPY_AGAIN}"
        ) from error
    expected = {
        "shape": array.shape,
        "type": array.dtype,
        "file": array.file_shape,
        "chunk": array.chunk_shape,
        "codecs": list(array.codecs),
    }
    if may_be_longer and found["shape"][:1] >= array.shape[:1]:
        expected["shape"] = (*found["shape"][:1], *array.shape[1:])
        if array.file_shape == array.shape:  # one file when it was made; what came later stands in further chunks
            expected["file"] = (*found["file"][:1], *array.shape[1:])
    if found != expected:
        raise CacheError(
            f"{metadata}: not the layout of format {FORMAT}: found {found}, expected {expected}. {COPY_AGAIN}"
        )


def read_fixed(group: Any, path: Path, name: str) -> AnyArray:
    """A small array of an opened zarr group, whole.

    Raises:
        CacheCorrupt: it is not there, or its bytes do not match their crc32c.
    """
    try:
        values: AnyArray = group[name][:]
    except (KeyError, FileNotFoundError) as error:
        raise CacheCorrupt(f"{path / name}: the array is missing. {COPY_AGAIN}") from error
    except (ValueError, UnicodeDecodeError, TypeError) as error:
        raise CacheCorrupt(f"{path / name}: cannot be read ({error}). {COPY_AGAIN}") from error
    return values


def seal_of(attributes: Mapping[str, Any], ids: Sequence[str], arrays: Mapping[str, AnyArray]) -> dict[str, int]:
    """crc32c of the attribute (its seal left out), of the ids, and of each small array as it lies on disk."""
    rest = {name: value for name, value in attributes.items() if name != SEAL}
    seal = {"attributes": _crc(json.dumps(rest, sort_keys=True).encode()), "video_id": _crc("\n".join(ids).encode())}
    for name, values in arrays.items():
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        seal[name] = _crc(little.tobytes())
    return seal


def expect_sealed(
    path: Path, attributes: Mapping[str, Any], ids: Sequence[str], arrays: Mapping[str, AnyArray]
) -> None:
    """Compare what was read with the seal; caches of before there was one pass.

    Raises:
        CacheCorrupt: names what differs.
    """
    if SEAL not in attributes:
        return
    found = seal_of(attributes, ids, arrays)
    differing = [name for name, crc in found.items() if attributes[SEAL].get(name) != crc]
    if differing:
        raise CacheCorrupt(
            f"{path}: not as it was written: {', '.join(differing)} (crc32c of the split's zarr.json). {COPY_AGAIN}"
        )


def attributes_of(split: Split, arrays: Mapping[str, int]) -> dict[str, Any]:
    """What the group's attribute says of a split, sealed; `arrays` as `metadata.described`."""
    spec = split.spec
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "spec": spec.to_dict(),
        "fingerprint": spec.fingerprint,
        "cache_id": split.cache_id,
        "class_names": list(split.class_names),
        "flip_pairs": [[label, flipped] for label, flipped in sorted(split.flip_pairs.items())],
        "shard_videos": split.shard_videos,
        "informs": dict(split.informs),
        **({} if split.frames is None else {"frames": split.frames.to_dict()}),
    }
    if split.identities:
        attributes["identities"] = True
    if split.factors:
        attributes["factors"] = {name: list(values) for name, values in split.factors.items()}
    if split.extents:
        attributes["extents"] = [asdict(extent) for extent in split.extents]
    if split.more_views:
        attributes["more_views"] = list(split.more_views)
    attributes = json.loads(json.dumps(attributes))
    return {**attributes, SEAL: {**seal_of(attributes, split.video_ids, split.fixed), DESCRIBED: dict(arrays)}}


def described(path: Path) -> dict[str, int]:
    """crc32c of each array's description; the length of its first axis, which may grow, is left out."""
    found = {}
    for metadata in sorted(path.glob("*/zarr.json")):
        stored = json.loads(metadata.read_text())
        stored["shape"] = stored["shape"][1:]
        found[metadata.parent.name] = _crc(json.dumps(stored, sort_keys=True).encode())
    return found


def expect_described(path: Path) -> None:
    """Compare the arrays' descriptions with the seal: a wrong name of an axis harms no reader of ours, but others.

    Raises:
        CacheCorrupt: names the arrays whose description was changed, or is none.
    """
    group = json.loads((path / "zarr.json").read_text())
    known = next(iter(group["attributes"].values())).get(SEAL, {}).get(DESCRIBED)
    if known is None:
        return
    try:
        found = described(path)
    except (ValueError, KeyError, TypeError) as error:
        raise CacheCorrupt(f"{path}: a zarr.json is not the description of an array ({error}). {COPY_AGAIN}") from error
    if differing := [name for name, crc in known.items() if found.get(name) != crc]:
        raise CacheCorrupt(f"{path}: zarr.json is not as it was written: {', '.join(differing)}. {COPY_AGAIN}")


def _crc(raw: bytes) -> int:
    return int(crc32c(raw))
