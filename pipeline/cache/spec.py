"""What a cache was made with: every setting that changes a stored number, and the arithmetic of its size.

    CacheSpec ──▶ to_dict ──▶ zarr.json attributes ──▶ from_dict ──▶ CacheSpec      (equal, tested)
        └──▶ fingerprint: sha256 over the format number and every field

`expect_same` names the fields in which two specs differ. No file is opened here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from vidxfer.pipeline.cache.codecs.form import Form, codec_form
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.resize import Interpolation, Resize, ResizeMode
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.spelled import dotted
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.video.sampling import SEGMENT, Sampling

FORMAT = 1
"""Version of the promise on disk. A change of layout raises it; caches of every past format stay readable."""

LEAST = (("calibration_videos", "first_view", "left_out"), ("channels", "tokens", "embed", "views", "crops", "pool"))
ViewKind = Literal["train", "test"]
ClipPrecision = Literal["fp32", "bf16", "fp16"]
ClassRow = Literal["token", "mean"]
BlocksOf = Literal["clip", "timm"]
CHOICES = {"view_kind": ViewKind, "clip_precision": ClipPrecision, "class_row": ClassRow, "blocks_of": BlocksOf}

WHICH_VIDEOS = ("dataset", "dataset_fingerprint", "split")
"""Fields that say which videos a split holds. Every other one changes the tokens of a given video."""

BEFORE_THERE_WAS_A_CHOICE: dict[str, Any] = {
    "first_view": 0, "square_pixels": False, "sampling.rule": SEGMENT, "interpolation": "bilinear",
    "antialias": False, "resize_mode": "shortest", "class_row": "token", "left_out": 0, "textless": False,
    "blocks_of": "clip", "pool": 1,
}  # fmt: skip
"""Fields that caches lack where they have this value: so those of before the field keep settings and fingerprint."""

LARGEST_SIZE = 1 << 24
"""Of any count among the settings: what is read from a file is not to make anybody reserve more."""
SHARD_BYTES_TARGET = 1_000_000_000
SHARD_VIDEOS_MOST = 64
CHUNK_OVERHEAD_BYTES = 20  # crc32c (4) behind each chunk, offset and length (16) in the shard's index


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Every setting that changes what one split of a cache holds.

    Attributes:
        clip_model, clip_weights_sha256: the name the tower was loaded by, and a hash of its tensors.
        clip_precision: arithmetic of the tower: "fp32", "bf16" or "fp16".
        channels, tokens, embed: CLIP's width, stored tokens per frame including CLS, and width of the joint space.
        layers: tapped layers in ascending order; -1 is the stem.
        pixel_mean, pixel_std: normalisation of the pixels, red green blue, of the 0..1 range.
        sampling: how views are drawn.
        view_kind: "train" (random draws) or "test" (fixed temporal views × spatial crops).
        views, crops: stored views are `views` for training, `views * crops` for testing.
        codec: how tokens are stored, as codecs/form.py spells it.
        calibration_videos: size of the sample behind channel_mean, channel_std and what else the codec fits.
        dataset, dataset_fingerprint, split: which videos.
        first_view: number of the first of these views; above 0 in the part that `cache add --views` made.
        square_pixels: pictures were resized so that their pixels are square; false: as stored.
        interpolation, antialias, resize_mode: how pictures became the square that the tower saw; see `Resize`.
        class_row: token 0 of every frame: "token", the tower's class token, or "mean", the mean of the patches.
        left_out: further tokens before the patches, which the tower has and the cache does not: registers.
        textless: the tower has no text: there are no embeddings of class names.
        blocks_of: whose blocks the image tower has: "clip", open_clip's VisionTransformer, or "timm".
        pool: side of the squares of the tower's patches that a stored patch is the mean of; 1: none is averaged.
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
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    resize_mode: ResizeMode = "shortest"
    class_row: ClassRow = "token"
    left_out: int = 0
    textless: bool = False
    blocks_of: BlocksOf = "clip"
    pool: int = 1

    def __post_init__(self) -> None:
        for least, names in enumerate(LEAST):
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.first_view and self.view_kind == "test":
            raise ValueError(f"first_view={self.first_view}: test views depend on how many there are; they begin at 0")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < STEM:
            raise ValueError(f"layers={self.layers} must ascend without repeats from {STEM} (the stem)")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(choices))}")
        if self.resize.resize_mode == "squash" and self.crops > 1:
            raise ValueError(f"crops={self.crops}: a squashed picture is seen whole, so there is one crop of it")
        if self.form.name != self.codec:
            raise ValueError(f"codec={self.codec!r} is spelled {self.form.name!r}")
        self.form.values(self.channels)
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3:
            raise ValueError("pixel_mean and pixel_std hold three numbers each: red, green, blue")
        if not self.split or self.split.startswith(".") or "/" in self.split:
            raise ValueError(f"split={self.split!r} must be usable as the name of a folder")

    @property
    def resize(self) -> Resize:
        """How pictures became the tower's square."""
        return Resize(interpolation=self.interpolation, antialias=self.antialias, resize_mode=self.resize_mode)

    @property
    def picture(self) -> dict[str, Any]:
        """What `replay` needs beside frames and a view."""
        mean, std = self.pixel_mean, self.pixel_std
        return {"image_px": self.sampling.image_px, "mean": mean, "std": std, "resize": self.resize}

    @property
    def form(self) -> Form:
        """The codec, taken apart."""
        return codec_form(self.codec)

    @property
    def fitted_shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Axes and shape of the arrays that the codec has beside channel_mean and channel_std."""
        return self.form.fitted_shapes(len(self.layers), self.channels, self.tokens, self.sparse_frames)

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
    def tower_tokens(self) -> int:
        """Tokens per frame that the tower makes, before patches are averaged."""
        return 1 + (self.tokens - 1) * self.pool**2

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
        flat = dotted(self.to_dict())
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
        return len(self.layers) * self.sparse_frames * self.form.frame_bytes(self.tokens, self.channels)[0]

    @property
    def bytes_per_view(self) -> int:
        """Bytes that one more view costs on disk, over all arrays, checksums and index entries included."""
        layers = len(self.layers)
        total = self.token_bytes_per_view + layers * CHUNK_OVERHEAD_BYTES
        if scale_bytes := self.form.frame_bytes(self.tokens, self.channels)[1]:
            total += layers * (self.sparse_frames * scale_bytes + CHUNK_OVERHEAD_BYTES)
        total += self.sparse_frames * self.embed * 2 + CHUNK_OVERHEAD_BYTES
        return total + self.sampling.dense_frames * 4 + 4 * 4 + 3  # frame_index, crop, resize_first + flip + grey

    @property
    def shard_videos_default(self) -> int:
        """Videos per shard: about 1 GB, at least 1 and at most 64."""
        return max(1, min(SHARD_VIDEOS_MOST, SHARD_BYTES_TARGET // (self.bytes_per_view * self.stored_views)))

    def layer_positions(self, layers: Sequence[int] | None) -> list[int]:
        """Where the named layers stand on the layer axis; None means all.

        Raises:
            CacheError: a layer was not stored; the text lists the stored ones.
        """
        wanted = self.layers if layers is None else layers
        if absent := [layer for layer in wanted if layer not in self.layers]:
            raise CacheError(
                f"layers {absent} are not in the cache, which holds {list(self.layers)} ({STEM} is the stem). "
                "Choose among those, or extract again with the layers the head needs."
            )
        return [self.layers.index(layer) for layer in wanted]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: lists instead of tuples, the sampling as a nested dict."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name, before in BEFORE_THERE_WAS_A_CHOICE.items():
            table, _, key = name.rpartition(".")
            if (holder := plain[table] if table else plain)[key] == before:
                del holder[key]
        return plain

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
        stored, wanted = dotted(self.to_dict()), dotted(other.to_dict())
        pairs = {name: (stored.get(name), wanted.get(name)) for name in {**stored, **wanted}}
        if differing := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
            raise CacheMismatch(where, differing)


def _expect_keys(stored: object, kind: type, prefix: str) -> None:
    if not isinstance(stored, Mapping):
        raise CacheError(f"the cache's settings are not a table of names and values: {prefix.rstrip('.') or 'spec'}")
    known = {field.name for field in fields(kind)}
    missing = sorted(prefix + name for name in known - set(stored) if prefix + name not in BEFORE_THERE_WAS_A_CHOICE)
    unknown = sorted(prefix + str(name) for name in set(stored) - known)
    if missing or unknown:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise CacheError(
            f"the cache's settings are not those of this version of vidxfer ({'; '.join(parts)}). "
            "Use the version that made the cache, or extract again."
        )
