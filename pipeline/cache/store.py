"""Making and opening a split: the folder that plain zarr-python reads without us.

    <cache>/train/zarr.json            group; attribute "vidxfer": format, settings, class names, ...
    <cache>/train/<array>/zarr.json    one folder per array; files of shards as layout.py draws them
    <cache>/train.ledger.jsonl         finished shards; not in the group, since zarr warns of strangers there
    <cache>/train.lock                 held while writing
    <cache>/train.views/2/zarr.json    views from 2 on that were added later: a group as the first one (more_views.py)

A split is made in a folder with a hidden name and renamed when it is whole, so half a split is never seen.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.metadata import (
    ATTRIBUTE,
    COPY_AGAIN,
    MOST_JSON_BYTES,
    attributes_of,
    described,
    expect_layout,
    expect_sealed,
    read_fixed,
)
from vidxfer.pipeline.cache.packed import ZSTD_LEVEL
from vidxfer.pipeline.cache.remote import SPLIT_NAMES, RemotePath, local_folder, open_group, place_of, read_json
from vidxfer.pipeline.cache.said import described_by
from vidxfer.pipeline.cache.spec import FORMAT, CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.disk import FolderLock, disk_errors, expect_no_run
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.shapes import FrozenFile
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.writing import PART, make_folder, make_fresh_folder, remove, rename, sync_folder, sync_tree

MAKE_IT = "vidxfer extract --dataset ssv2 --cache"


def create_split(
    cache_path: Path | str,
    spec: CacheSpec,
    *,
    video_ids: Sequence[str],
    labels: Sequence[int] | AnyArray,
    class_names: Sequence[str],
    text: AnyArray | None,
    channel_mean: AnyArray,
    channel_std: AnyArray,
    fitted: Mapping[str, AnyArray] | None = None,
    flip_pairs: Mapping[int, int] | None = None,
    shard_videos: int | None = None,
    informs: Mapping[str, Any] | None = None,
    factors: Mapping[str, Sequence[str]] | None = None,
    frames: FrameStore | None = None,
    identities: bool = False,
    frozen: FrozenFile | None = None,
) -> Split:
    """Make the split `spec.split` with every row pending, and open it. Arguments as in `Split`.

    Raises:
        CacheError: the split exists, or what it is to hold does not fit together, or the folder cannot be written.
        CacheBusy: another process is writing this split. UsageError: the folder is that of a training run.
    """
    wanted = spec.shard_videos_default if shard_videos is None else shard_videos
    split = Split(
        path=local_folder(cache_path) / spec.split,
        spec=spec,
        cache_id=new_cache_id(),
        video_ids=tuple(video_ids),
        labels=np.asarray(labels, dtype=np.int32),
        class_names=tuple(class_names),
        text=None if text is None else np.asarray(text, dtype=np.float32),
        channel_mean=np.asarray(channel_mean, dtype=np.float32),
        channel_std=np.asarray(channel_std, dtype=np.float32),
        flip_pairs=dict(flip_pairs or {}),
        shard_videos=max(1, min(wanted, len(video_ids))),
        informs={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "zarr": zarr.__version__,
            **(informs or {}),
        },
        factors=_factors(factors),
        fitted={name: np.asarray(values, dtype=np.float32) for name, values in (fitted or {}).items()},
        frames=frames,
        identities=identities,
        frozen=frozen,
    )
    write_new(split)
    return split


def new_cache_id() -> str:
    """An identity that no other split has."""
    return uuid.uuid4().hex


def write_new(split: Split) -> None:
    """Make the folder of a split that is not there yet, every row pending. Raises as `create_split`."""
    expect_no_run(split.path.parent)
    spec, cache = split.spec, split.path.parent
    needed = {name: shape for name, (_, shape) in spec.fitted_shapes.items()}
    if needed != {name: values.shape for name, values in split.fitted.items()}:
        raise CacheError(f"{split.path}: codec {spec.codec} needs {needed}, got {sorted(split.fitted)}")
    if not split.video_ids:
        raise CacheError(f"{split.path}: there is not one video to store")
    with disk_errors(cache, 1 << 20):
        make_folder(split.cache_folder)
        make_folder(cache, below=split.cache_folder)
    with FolderLock(split.lock_path), disk_errors(split.path, 1 << 20):
        if split.path.exists():
            raise CacheError(f"{split.path} already exists. Open it, or use another folder (--cache).")
        for leftover in cache.glob(f".{split.path.name}.*{PART}"):  # ours alone: the lock is held
            remove(leftover)
        building = cache / f".{split.path.name}.{split.cache_id}{PART}"
        try:
            make_fresh_folder(building)
            _write_group(building, split)
            sync_tree(building)
            rename(building, split.path)
        except BaseException:
            remove(building)
            raise
        sync_folder(cache)


def open_split(cache_path: Path | str | RemotePath, split: str) -> Split:
    """Open a split for reading or writing; behind a URL, for reading (see remote.py).

    Raises:
        CacheError: nothing there, something else there, or made by a newer vidxfer.
    """
    # A RemotePath is typed as what it stands in for: it reads like a Path, and says what it is when written to.
    first = open_part(cast(Path, place_of(cache_path) / split))
    if not first.more_views:
        return first
    paths = {view: first.views_path(view) for view in first.more_views}
    for view, path in paths.items():
        if not (path / "zarr.json").is_file():
            raise CacheCorrupt(f"{path} is missing: {first.path} has its views from {view} on there. {COPY_AGAIN}")
    return first.with_parts([open_part(path) for path in paths.values()])


def open_part(path: Path) -> Split:
    """Open one group with its ledger: a split, or a part of its views by itself. Raises as `open_split`."""
    while True:
        stored = _attributes(path)
        try:
            return _open(path, stored)
        except CacheError:
            if _attributes(path) == stored:
                raise  # else videos were added meanwhile: grow.py


def _open(path: Path, stored: Mapping[str, Any]) -> Split:
    try:
        return _opened(path, stored)
    except (ValueError, OverflowError) as error:  # a value of the wrong type or range, or arrays it does not fit
        raise CacheCorrupt(f"{path}/zarr.json: {error}. {COPY_AGAIN}") from error


def _opened(path: Path, stored: Mapping[str, Any]) -> Split:
    spec, said = CacheSpec.from_dict(stored["spec"]), described_by(path, stored)
    try:
        group = open_group(path)
    except (ValueError, KeyError, TypeError) as error:
        raise CacheCorrupt(f"{path}/zarr.json: no group that zarr opens ({error}). {COPY_AGAIN}") from error
    rows = said.extents[-1].end if said.extents else None  # arrays may be longer: an addition that was never finished
    fixed = partial(read_fixed, group, path)
    ids = tuple(str(name) for name in fixed("video_id")[:rows])
    if said.extents and len(ids) != rows:
        raise ValueError(f"extents end at row {rows}, and there are {len(ids)} ids")
    opened = Split(
        path=path.absolute(),
        spec=spec,
        cache_id=said.cache_id,
        video_ids=ids,
        labels=fixed("label")[:rows],
        class_names=said.class_names,
        text=None if spec.textless else fixed("text")[: len(said.class_names)],
        channel_mean=fixed("channel_mean"),
        channel_std=fixed("channel_std"),
        flip_pairs=dict(said.flip_pairs),
        shard_videos=said.shard_videos,
        informs=said.informs,
        factors=said.factors,
        fitted={name: fixed(name) for name in spec.fitted_shapes},
        extents=said.extents,
        frames=FrameStore.from_dict(stored["frames"]) if "frames" in stored else None,
        identities=said.identities,
        frozen=said.frozen,
        more_views=said.more_views,
    )
    expect_sealed(path, stored, opened.video_ids, opened.fixed)
    for array in [*opened.layout.owned.values(), *opened.layout.fixed.values()]:
        expect_layout(path, array, may_be_longer=bool(said.extents))
    return opened


def _factors(stored: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {name: tuple(values) for name, values in (stored or {}).items()}


def splits(cache_path: Path | str | RemotePath) -> list[str]:
    """Names of the splits in a cache folder, sorted; empty when it holds none."""
    cache = place_of(cache_path)
    if isinstance(cache, RemotePath):
        return [name for name in SPLIT_NAMES if (cache / name / "zarr.json").is_file()]
    metadata_files = cache.glob("*/zarr.json")
    return sorted(path.parent.name for path in metadata_files if not path.parent.name.startswith("."))


def _attributes(path: Path) -> dict[str, Any]:
    metadata = path / "zarr.json"
    try:
        stored = read_json(metadata, most=MOST_JSON_BYTES, remedy=COPY_AGAIN)["attributes"][ATTRIBUTE]
        version = checked(stored["format"], int, "format")
    except FileNotFoundError as error:
        split_names = splits(path.parent)
        others = f" The folder has: {', '.join(split_names)}." if split_names else ""
        raise CacheError(
            f"no cache at {path}: {metadata} is not there.{others} Make it with `{MAKE_IT} {path.parent}`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{metadata} is not vidxfer's: its attributes have no {ATTRIBUTE!r} with a format number. "
            f"Make a cache with `{MAKE_IT} {path.parent}`, in a folder of its own."
        ) from error
    if version != FORMAT:
        raise CacheError(
            f"{path} has format {version}; this vidxfer reads format {FORMAT}. Install the version that made it"
            ", or extract again."
        )
    missing = {"spec", "cache_id", "class_names", "flip_pairs", "shard_videos", "informs"} - set(stored)
    if missing:
        raise CacheError(f"{metadata}: the attribute {ATTRIBUTE!r} lacks {', '.join(sorted(missing))}")
    return dict(stored)


def _write_group(folder: Path, split: Split) -> None:
    """Metadata of every array, and the arrays that are known from the start."""
    layout, group = split.layout, zarr.create_group(folder, zarr_format=3)
    for array in layout.owned.values():
        _create(group, array)
    for name, values in split.fixed.items():
        _create(group, layout.fixed[name])[:] = values
    # `str` is zarr's "string" with vlen-utf8: the one text type of Zarr v3 that other readers know too.
    ids = group.create_array(
        "video_id", shape=(len(split.video_ids),), chunks=(len(split.video_ids),), dtype=str,
        compressors=[Crc32cCodec()], dimension_names=["video"],
    )  # fmt: skip
    ids[:] = np.array(split.video_ids, dtype=np.dtypes.StringDType())
    group.update_attributes({ATTRIBUTE: attributes_of(split, described(folder))})


def _create(group: Any, array: ArrayLayout) -> Any:
    return group.create_array(
        array.name,
        shape=array.shape,
        chunks=array.chunk_shape or array.file_shape,
        shards=array.file_shape if array.chunk_shape else None,
        dtype=array.dtype,
        filters=[],
        serializer=BytesCodec(),
        # Zarr's default would be zstd for all: 2-4 times slower for 8 %. Packed chunks are mostly zeros.
        compressors=[*([] if array.packed_bytes is None else [ZstdCodec(level=ZSTD_LEVEL)]), Crc32cCodec()],
        fill_value=0,
        dimension_names=array.axes.split(),
    )
