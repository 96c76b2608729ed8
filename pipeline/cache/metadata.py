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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.spec import FORMAT
from vidxfer.pipeline.cache.split import Extent, Split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.typed import Kept, checked, parsed

ATTRIBUTE = "vidxfer"
"""Key of what we say in the attributes of a split's group."""

SEAL = "seal"
"""Key of the checksums within the group's attribute; optional."""

DESCRIBED = "arrays"
"""Key of the checksums of the arrays' descriptions within the seal; optional."""

COPY_AGAIN = "Copy the cache again from where it came, or extract again into another folder (--cache)."


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the group's attribute says beside the spec and the seal; the fields are those of `Split`."""

    cache_id: str
    class_names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    shard_videos: int
    informs: Mapping[str, Any]
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extents: tuple[Extent, ...] = ()
    more_views: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shard_videos >= 1:
            raise ValueError(f"shard_videos is {self.shard_videos}, expected at least 1")
        classes, labels = len(self.class_names), [label for pair in self.flip_pairs for label in pair]
        if labels and not 0 <= min(labels) <= max(labels) < classes:
            raise ValueError(f"flip_pairs names a label that is none of 0…{classes - 1}")
        first_rows = [one.first_row for one in self.extents]
        ends = [one.end for one in self.extents]
        if any(end <= first for first, end in zip(first_rows, ends, strict=True)) or first_rows != sorted(first_rows):
            raise ValueError(f"extents begin at {first_rows[:5]} and end at {ends[:5]}, which does not ascend")
        if any(view < 1 for view in self.more_views) or list(self.more_views) != sorted(set(self.more_views)):
            raise ValueError(f"more_views is {self.more_views[:5]}, expected ascending numbers of views")


INFORMS = {"logit_scale": float, "clip": Mapping[str, str | None], "data": Mapping[str, Any], "created": str,
           "templates": tuple[str, ...]}  # fmt: skip
"""Types of what informs and is read again."""


def described_by(path: Path, stored: Mapping[str, Any]) -> Said:
    """The attribute's values, checked.

    Raises:
        ValueError: one is missing or of another type or range. CacheError: later, for what `informs` does not have.
    """
    known = {one.name for one in fields(Said)}
    said: Said = checked({name: one for name, one in stored.items() if name in known}, Said, ATTRIBUTE, most=1 << 40)
    informs = {n: checked(one, INFORMS.get(n, Any), f"informs.{n}") for n, one in said.informs.items()}

    def refuse(name: str) -> CacheError:
        return CacheError(f"{path}/zarr.json does not say {name!r} (informs), which is needed here. {COPY_AGAIN}")

    if "clip" in informs:
        informs["clip"] = Kept(informs["clip"], refuse)
    return replace(said, informs=Kept(informs, refuse))


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
        stored = parsed(metadata.read_text())
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
    if not isinstance(attributes[SEAL], Mapping):
        raise CacheCorrupt(f"{path}: its seal is no table of checksums. {COPY_AGAIN}")
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
