"""What a cache was made with: every setting that changes a stored number, and the arithmetic of its size.

    CacheSpec ──▶ to_dict ──▶ zarr.json attributes ──▶ from_dict ──▶ CacheSpec      (equal, tested)
        └──▶ fingerprint: sha256 over the format number and every field

`expect_same` names the fields in which two specs differ. No file is opened here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from vidxfer.pipeline.cache.codecs.form import Form, codec_form
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.video.sampling import SEGMENT, Sampling

FORMAT = 1
"""Version of the promise on disk. A change of layout raises it; caches of every past format stay readable."""

ViewKind = Literal["train", "test"]
ClipPrecision = Literal["fp32", "bf16", "fp16"]

WHICH_VIDEOS = ("dataset", "dataset_fingerprint", "split")
"""Fields that say which videos a split holds. Every other one changes the tokens of a given video."""

NOT_ALWAYS_THERE = ("first_view", "square_pixels", "rule")
"""Fields that caches lack where they are 0, false, or the rule "segment": so those of before the field keep settings
and fingerprint."""

LARGEST_SIZE = 1 << 24
"""Of any count among the settings: what is read from a file is not to make anybody reserve more."""

SHARD_BYTES_TARGET = 1_000_000_000
SHARD_VIDEOS_MOST = 64
CHUNK_OVERHEAD_BYTES = 20  # crc32c (4) behind each chunk, offset and length (16) in the shard's index


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Every setting that changes what one split of a cache holds.

    Attributes:
        clip_model: open_clip's name of the model.
        clip_weights_sha256: hash of the weights file.
        clip_precision: arithmetic of the tower: "fp32", "bf16" or "fp16".
        channels, tokens, embed: CLIP's width, tokens per frame including CLS, and width of the joint space.
        layers: tapped layers in ascending order; -1 is the stem.
        pixel_mean, pixel_std: normalisation of the pixels, red green blue, of the 0..1 range.
        sampling: how views are drawn.
        view_kind: "train" (random draws) or "test" (fixed temporal views × spatial crops).
        views, crops: stored views are `views` for training, `views * crops` for testing.
        codec: how tokens are stored, as codec_form.py spells it.
        calibration_videos: size of the sample behind channel_mean, channel_std and what else the codec fits.
        dataset, dataset_fingerprint, split: which videos.
        first_view: number of the first of these views; above 0 in the part that `cache add --views` made.
        square_pixels: pictures were resized so that their pixels are square; false: taken as stored.
    """

    clip_model: str
    clip_weights_sha256: str
    clip_precision: ClipPrecision
    channels: int
    tokens: int
    embed: int
    layers: tuple[int, ...]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    sampling: Sampling
    view_kind: ViewKind
    views: int
    crops: int
    codec: str
    calibration_videos: int
    dataset: str
    dataset_fingerprint: str
    split: str
    first_view: int = 0
    square_pixels: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "tokens", "embed", "views", "crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("calibration_videos", "first_view"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        if self.first_view and self.view_kind == "test":
            raise ValueError(f"first_view={self.first_view}: test views depend on how many there are; they begin at 0")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < STEM:
            raise ValueError(f"layers={self.layers} must ascend without repeats from {STEM} (the stem)")
        for name, choices in (("view_kind", ViewKind), ("clip_precision", ClipPrecision)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(choices))}")
        if self.form.name != self.codec:
            raise ValueError(f"codec={self.codec!r} is spelled {self.form.name!r}")
        self.form.values(self.channels)
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise ValueError("pixel_mean and pixel_std hold three numbers each: red, green, blue")
        if not self.split or self.split.startswith(".") or "/" in self.split:
            raise ValueError(f"split={self.split!r} must be usable as the name of a folder")

    @property
    def form(self) -> Form:
        """The codec, taken apart."""
        return codec_form(self.codec)

    @property
    def fitted_shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Axes and shape of the arrays that the codec has beside channel_mean and channel_std."""
        return self.form.fitted_shapes(len(self.layers), self.channels)

    @property
    def stored_views(self) -> int:
        """Number of stored views per video."""
        return self.views * self.crops if self.view_kind == "test" else self.views

    @property
    def view_numbers(self) -> range:
        """Numbers of the stored views, as they are drawn."""
        return range(self.first_view, self.first_view + self.stored_views)

    @property
    def title(self) -> str:
        """The split's name, and of a part that was added later which views it holds."""
        views = self.view_numbers
        return f"{self.split} views {views[0]}-{views[-1]}" if self.first_view else self.split

    @property
    def sparse_frames(self) -> int:
        """Number of frames CLIP sees per view."""
        return self.sampling.sparse_frames

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the format number and every field."""
        text = json.dumps({"format": FORMAT, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def passport(self) -> dict[str, dict[str, object]]:
        """Every setting under its dotted name: "tokens", what changes them, and "videos", which of them there are."""
        flat = _flat(self.to_dict())
        return {
            "tokens": {name: value for name, value in flat.items() if name not in WHICH_VIDEOS},
            "videos": {name: flat[name] for name in WHICH_VIDEOS},
        }

    @property
    def tokens_fingerprint(self) -> str:
        """16 hex digits over what changes tokens: splits that share it may hold rows of each other's videos."""
        text = json.dumps({"format": FORMAT, **self.passport["tokens"]}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def token_bytes_per_view(self) -> int:
        """Bytes of the token codes of one view, without scales and checksums."""
        return len(self.layers) * self.sparse_frames * self.tokens * self.form.token_bytes(self.channels)[0]

    @property
    def bytes_per_view(self) -> int:
        """Bytes that one more view costs on disk, over all arrays, checksums and index entries included."""
        layers = len(self.layers)
        total = self.token_bytes_per_view + layers * CHUNK_OVERHEAD_BYTES
        if scale_bytes := self.form.token_bytes(self.channels)[1]:
            total += layers * (self.sparse_frames * self.tokens * scale_bytes + CHUNK_OVERHEAD_BYTES)
        total += self.sparse_frames * self.embed * 2 + CHUNK_OVERHEAD_BYTES
        geometry = self.sampling.dense_frames * 4 + 4 * 4 + 3  # frame_index, crop, resize_first + flip + grey
        return total + geometry

    @property
    def shard_videos_default(self) -> int:
        """Videos per shard: about 1 GB, at least 1 and at most 64."""
        return max(1, min(SHARD_VIDEOS_MOST, SHARD_BYTES_TARGET // (self.bytes_per_view * self.stored_views)))

    def layer_positions(self, layers: Sequence[int] | None) -> list[int]:
        """Where the named layers stand on the layer axis; None means all.

        Raises:
            CacheError: a layer was not stored; the text lists the stored ones.
        """
        if layers is None:
            return list(range(len(self.layers)))
        absent = [layer for layer in layers if layer not in self.layers]
        if absent:
            raise CacheError(
                f"layers {absent} are not in the cache, which holds {list(self.layers)} ({STEM} is the stem). "
                "Choose among those, or extract again with the layers the head needs."
            )
        return [self.layers.index(layer) for layer in layers]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: lists instead of tuples, the sampling as a nested dict."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.sampling.rule == SEGMENT:
            del plain["sampling"]["rule"]
        return {name: value for name, value in plain.items() if value or name not in NOT_ALWAYS_THERE}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CacheSpec:
        """The inverse of `to_dict`.

        Raises:
            CacheError: a key is unknown or missing (the text names them), or a value cannot be meant.
        """
        _expect_keys(stored, cls, "")
        _expect_keys(stored["sampling"], Sampling, "sampling.")
        try:
            seed = checked(stored["sampling"]["seed"], int, "spec.sampling.seed")
            sized = {**stored, "sampling": {**stored["sampling"], "seed": 0}}
            spec: CacheSpec = checked(sized, cls, "spec", most=LARGEST_SIZE)
            return replace(spec, sampling=replace(spec.sampling, seed=seed))
        except ValueError as error:
            raise CacheError(f"the cache's settings cannot be meant: {error}") from error

    def expect_same(self, other: CacheSpec, where: object) -> None:
        """Check that `self`, found at `where`, is what `other` (the run) needs.

        Raises:
            CacheMismatch: names each differing field with the cache's and the run's value.
        """
        stored, wanted = _flat(self.to_dict()), _flat(other.to_dict())
        names = dict.fromkeys([*stored, *wanted])
        pairs = {name: (stored.get(name), wanted.get(name)) for name in names}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if differing:
            raise CacheMismatch(where, differing)


@dataclass(frozen=True, kw_only=True)
class FrozenFile:
    """The file of CLIP's own parameters beside the splits. No part of the spec, which has the hash of all of them.

    Attributes:
        sha256: of its bytes.
        heads: attention heads of CLIP's blocks, which cut queries and keys.
    """

    sha256: str
    heads: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"frozen.sha256={self.sha256[:80]!r} must have 64 hex digits")
        if self.heads < 1:
            raise ValueError(f"frozen.heads={self.heads} must be at least 1")

    @property
    def name(self) -> str:
        """Its name in the cache's folder."""
        return f"frozen.{self.sha256[:16]}.safetensors"


def _flat(stored: Mapping[str, Any]) -> dict[str, object]:
    """Nested settings under dotted names: {"sampling": {"alpha": 2}} becomes {"sampling.alpha": 2}."""
    flat: dict[str, object] = {}
    for name, value in stored.items():
        inner = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
        flat.update(inner)
    return flat


def _expect_keys(stored: object, kind: type, prefix: str) -> None:
    if not isinstance(stored, Mapping):
        raise CacheError(f"the cache's settings are not a table of names and values: {prefix.rstrip('.') or 'spec'}")
    known = {field.name for field in fields(kind)}
    missing = sorted(prefix + name for name in known - set(stored) - set(NOT_ALWAYS_THERE))
    unknown = sorted(prefix + str(name) for name in set(stored) - known)
    if missing or unknown:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise CacheError(
            f"the cache's settings are not those of this version of vidxfer ({'; '.join(parts)}). "
            "Use the version that made the cache, or extract again."
        )
