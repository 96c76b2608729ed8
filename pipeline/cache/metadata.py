"""Checks a split's metadata against the layout, and checks that its small arrays are whole.

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
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from vidxfer.pipeline.cache.layout import CRC_BYTES, MOST_BYTES, AnyArray, ArrayLayout
from vidxfer.pipeline.cache.remote import Place, expect_size, read_json
from vidxfer.pipeline.cache.spec import FORMAT
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError

ATTRIBUTE = "vidxfer"
"""Key of what we say in the attributes of a split's group."""

SEAL = "seal"
"""Key of the checksums within the group's attribute; optional."""

DESCRIBED = "arrays"
"""Key of the checksums of the arrays' descriptions within the seal; optional."""

MOST_JSON_BYTES = 16 << 20
"""A zarr.json has no more: names, pairs and factors of 100,000 classes."""

MOST_FILES = 1_000_000
"""Files of one small array: as many as it was added to."""

ID_BYTES, MOST_IDS = 1024, 1 << 24
"""An id takes no more on average, and no split has more of them."""

COPY_AGAIN = "Copy the cache again from where it came, or extract again into another folder (--cache)."


def expect_layout(path: Path, array: ArrayLayout, *, may_be_longer: bool = False) -> None:
    """Check that an array's metadata agrees with the layout. The readers rely on it.

    Args:
        path: the split's folder.
        array: its layout.
        may_be_longer: the first axis may have grown beyond the rows that count, and its chunks with it.

    Raises:
        CacheError: the metadata is not there or says something else. CacheCorrupt: it is not JSON of an array.
    """
    metadata = path / array.name / "zarr.json"
    try:
        stored = read_description(path / array.name)
        codec = stored["codecs"][0]
        sharded = codec["name"] == "sharding_indexed"
        inner = codec["configuration"]["codecs"] if sharded else stored["codecs"]
        actual: dict[str, Any] = {
            "shape": tuple(stored["shape"]),
            "type": stored["data_type"],
            "file": tuple(stored["chunk_grid"]["configuration"]["chunk_shape"]),
            "chunk": tuple(codec["configuration"]["chunk_shape"]) if sharded else None,
            "codecs": [step["name"] for step in inner],
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
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
    if may_be_longer and actual["shape"][:1] >= array.shape[:1]:
        expected["shape"] = (*actual["shape"][:1], *array.shape[1:])
        if array.file_shape == array.shape:  # one file when it was made; what came later stands in further chunks
            expected["file"] = (*actual["file"][:1], *array.shape[1:])
    if actual != expected:
        raise CacheError(
            f"{metadata}: not the layout of format {FORMAT}: found {actual}, expected {expected}. {COPY_AGAIN}"
        )


def read_description(array: Place) -> Any:
    """What an array's zarr.json says.

    Raises:
        CacheError: it is not there. CacheCorrupt: it is no regular file, or too long. ValueError: it is no JSON.
    """
    try:
        return read_json(array / "zarr.json", most=MOST_JSON_BYTES, remedy=COPY_AGAIN)
    except FileNotFoundError as error:
        raise CacheError(f"{array / 'zarr.json'} is not there: the cache is not whole. {COPY_AGAIN}") from error


def expect_readable(array: Place) -> None:
    """Look at the files of a small array before zarr reads them: it would wait for a pipe, and read any length.

    Raises:
        CacheError: its description is not there. CacheCorrupt: a file is no regular one, or of another length than
            the description says; or the description is not that of a small array of ours.
    """
    try:
        stored = read_description(array)
        sizes = list(zip(stored["shape"], stored["chunk_grid"]["configuration"]["chunk_shape"], strict=True))
        codecs = tuple(step["name"] for step in stored["codecs"])
        keys = stored["chunk_key_encoding"]["name"], stored["chunk_key_encoding"]["configuration"]["separator"]
        if any(type(length) is not int or type(chunk) is not int or length < 0 or chunk < 1 for length, chunk in sizes):
            raise ValueError(f"lengths {sizes}")
        is_text = stored["data_type"] == "string"
        item_bytes = ID_BYTES if is_text else np.dtype(stored["data_type"]).itemsize
        if not is_text and np.dtype(stored["data_type"]).kind not in "biuf":
            raise ValueError(f"type {stored['data_type']}")
        counts, items = [-(-length // chunk) for length, chunk in sizes], prod(chunk for _, chunk in sizes)
        if codecs != (("vlen-utf8" if is_text else "bytes"), "crc32c") or keys != ("default", "/"):
            raise ValueError(f"codecs {codecs}, keys {keys}")
        if prod(counts) > MOST_FILES or prod(counts) * items > (MOST_IDS if is_text else MOST_BYTES // item_bytes):
            raise ValueError(f"{prod(counts)} files of {items} items")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CacheCorrupt(f"{array}/zarr.json: not that of a small array ({error}). {COPY_AGAIN}") from error
    for place in product(*map(range, counts)):
        file = array / "/".join(["c", *map(str, place)])
        size = items * item_bytes + CRC_BYTES
        bounds = {"most": min(size + (1 << 16), MOST_BYTES)} if is_text else {"exactly": size}
        expect_size(file, remedy=COPY_AGAIN, **bounds)


def read_fixed(group: Any, path: Place, name: str) -> AnyArray:
    """A small array of an opened zarr group, whole.

    Raises:
        CacheCorrupt: it is not there, its files are not what they must be, or do not match their crc32c.
    """
    expect_readable(path / name)
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
    """Compare the attributes, ids and arrays with the seal. Older caches without a seal pass.

    Raises:
        CacheCorrupt: names what differs.
    """
    if SEAL not in attributes:
        return
    if not isinstance(attributes[SEAL], Mapping):
        raise CacheCorrupt(f"{path}: its seal is no table of checksums. {COPY_AGAIN}")
    actual = seal_of(attributes, ids, arrays)
    differing = [name for name, crc in actual.items() if attributes[SEAL].get(name) != crc]
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
    if split.frozen is not None:
        attributes["frozen"] = asdict(split.frozen)
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
    crcs = {}
    for metadata in sorted(path.glob("*/zarr.json")):
        stored = read_json(metadata, most=MOST_JSON_BYTES, remedy=COPY_AGAIN)
        stored["shape"] = stored["shape"][1:]
        crcs[metadata.parent.name] = _crc(json.dumps(stored, sort_keys=True).encode())
    return crcs


def expect_described(path: Path) -> None:
    """Compare the arrays' descriptions with the seal. A wrong axis name does not harm our readers, but it harms others.

    Raises:
        CacheCorrupt: names the arrays whose description was changed, or is none.
    """
    group = read_json(path / "zarr.json", most=MOST_JSON_BYTES, remedy=COPY_AGAIN)
    known = next(iter(group["attributes"].values())).get(SEAL, {}).get(DESCRIBED)
    if known is None:
        return
    try:
        actual = described(path)
    except (ValueError, KeyError, TypeError) as error:
        raise CacheCorrupt(f"{path}: a zarr.json is not the description of an array ({error}). {COPY_AGAIN}") from error
    if differing := [name for name, crc in known.items() if actual.get(name) != crc]:
        raise CacheCorrupt(f"{path}: zarr.json is not as it was written: {', '.join(differing)}. {COPY_AGAIN}")


def _crc(raw: bytes) -> int:
    return int(crc32c(raw))
