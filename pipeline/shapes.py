"""The words for axes, and the small frozen classes that cross a boundary.

    axis      meaning                                    axis      meaning
    video     row of a split                             token     CLS at 0, then patches row-major
    view      stored draw of (indices, crop, flip)       channel   CLIP width
    layer     tapped CLIP block; -1 is the stem          embed     CLIP joint space
    frame     sparse frame = dense frame alpha·i         clip      item of a training batch
    dense     dense frame                                rgb, height, width

Each class checks itself once, when it is made; after that nobody checks again. Printing one shows shapes, not numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FRAME_FOLDER_FPS = 30.0
"""A folder of pictures has no clock: its i-th picture counts as shown at i / FRAME_FOLDER_FPS seconds."""

STEM = -1
"""Layer number of the tokens after ln_pre, before the first block."""

SourceFile = tuple[int, int, int]
"""Bytes, 63 bits of a hash, and the quarter turns that put its pictures upright: what a cache keeps of a file."""

NOT_KNOWN: SourceFile = (0, 0, 0)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""Pictures as numbers from 0 to 255, or the bytes of a file."""


WindowEnds = Literal["clamp", "wrap"]
"""What a window has beyond the ends of the video: the first and the last frame again; or, as in TDS-CLIP's release for
video files, in front of the first frame the last ones of the video, and behind the last frame that one again."""


def expect(name: str, array: Any, axes: str, **sizes: int) -> dict[str, int]:
    """Check that `array` has the named axes and return the size of each by name.

    `axes` are words separated by blanks; `sizes` are the sizes that must hold. Works for numpy arrays and tensors.

    Raises:
        ValueError: the number of axes or a size differs; the text shows the found and the expected shape.
    """
    words = axes.split()
    shape = tuple(array.shape)
    seen = dict(zip(words, shape, strict=False))
    wrong = [f"{word}={seen[word]} (expected {size})" for word, size in sizes.items() if seen.get(word) != size]
    if len(words) != len(shape) or wrong:
        raise ValueError(f"{name} has shape {shape}, expected [{axes}]" + (": " + ", ".join(wrong) if wrong else ""))
    return seen


class _PrintsShapes:
    def __repr__(self) -> str:
        parts = []
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            shown = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)
            parts.append(f"{entry.name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True, kw_only=True)
class FrameSpan:
    """A stretch of a video by the numbers of its frames, counted from 0.

    Attributes:
        start, end: the first frame, and the first one behind the stretch; None: to the end of the video.
        fps: frames per second at which the numbers were counted; None: they are the video's own frames.
    """

    start: int = 0
    end: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise ValueError(f"frames {self.start} up to {self.end} hold no frame")
        if self.fps is not None and not 0.0 < self.fps < 1e6:
            raise ValueError(f"frames are counted at more than 0 per second, not {self.fps}")

    def __str__(self) -> str:
        return f"frames {self.start} up to {'the end' if self.end is None else self.end}"


@dataclass(frozen=True, kw_only=True)
class Video:
    """One labelled video, or one segment of a long one.

    Attributes:
        id: the data set's own id; unique within a split; what the cache and every report call the video.
        path: absolute path inside the data set's root: a file, or a folder whose pictures, sorted by name, are the
            frames. It may be missing: reading then says so.
        label: index into the data set's class names; None when the split carries no labels.
        split: "train", "val" or "test".
        start_seconds, end_seconds: the segment; None for the whole file. Of a folder of pictures by its nominal clock.
        frames: the segment, where its list counts frames; then both seconds are None.
    """

    id: str
    path: Path
    label: int | None
    split: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    frames: FrameSpan | None = None

    @property
    def is_segment(self) -> bool:
        """Whether it is a part of its file."""
        return (self.start_seconds, self.end_seconds, self.frames) != (None, None, None)

    def __post_init__(self) -> None:
        if not self.id or "\n" in self.id:
            raise ValueError(f"a video id must be a non-empty line, not {self.id!r}")


@dataclass(frozen=True, kw_only=True)
class View:
    """Which dense frames and which pixels of a video a clip shows: data, so that it can be stored and replayed.

    Attributes:
        indices: dense frame indices into the video (or segment), in presentation order, non-decreasing.
        crop: (top, left, height, width) in source pixels of the upright picture.
        resize_first: False: the (integer) box is cut out, then resized: training views. True: the whole picture is
            resized so that the box becomes the output square, then cropped: test views. The two differ only in which
            pixels interpolation may see at the edges of the box.
        flip: mirrored left to right, after the crop.
        grey: turned to grey with weights 0.299, 0.587, 0.114, before normalisation.
        source_px: (height, width) of the upright picture that the box was drawn for, where a cache remembers it; a box
            means nothing in a picture of another size. No part of what a view is: equal views may differ in it.
    """

    indices: tuple[int, ...]
    crop: tuple[float, float, float, float]
    resize_first: bool
    flip: bool
    grey: bool
    source_px: tuple[int, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.indices or min(self.indices) < 0:
            raise ValueError(f"a view needs frame indices of at least 0, not {self.indices}")
        if self.crop[2] <= 0 or self.crop[3] <= 0:
            raise ValueError(f"a crop box (top, left, height, width) needs a positive area, not {self.crop}")
        if not self.resize_first and any(float(side) != int(side) for side in self.crop):
            raise ValueError(f"a box that is cut out before resizing has whole pixels, not {self.crop}")


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


@dataclass(frozen=True, repr=False, kw_only=True)
class Frames(_PrintsShapes):
    """Decoded frames. Frame i is the indices[i]-th frame of the video (or segment) in presentation order, always.

    Attributes:
        pixels: uint8 [frame height width rgb], upright (rotation applied).
        indices: int64 [frame].
        pts_seconds: float64 [frame], presentation time stamps from the start of the file; NaN where the file has none.
        decoder: which path decoded them: "decord", "pyav-pts" or "pyav-sequential".
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    indices: np.ndarray[Any, np.dtype[np.int64]]
    pts_seconds: np.ndarray[Any, np.dtype[np.float64]]
    decoder: str

    def __post_init__(self) -> None:
        seen = expect("pixels", self.pixels, "frame height width rgb", rgb=3)
        if self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels are {self.pixels.dtype}, expected uint8")
        expect("indices", self.indices, "frame", frame=seen["frame"])
        expect("pts_seconds", self.pts_seconds, "frame", frame=seen["frame"])


@dataclass(frozen=True, repr=False, kw_only=True)
class Taps(_PrintsShapes):
    """What the frozen tower says about a batch of frames.

    Attributes:
        tokens: [layer frame token channel]: residual stream after each tapped block (before ln_post), CLS at token 0;
            layer -1 is the stem (after ln_pre).
        embedding: [frame embed]: ln_post(CLS) times the visual projection, not normalised.
        layers: layer number of each entry of the layer axis.
    """

    tokens: Tensor
    embedding: Tensor
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        seen = expect("tokens", self.tokens, "layer frame token channel", layer=len(self.layers))
        expect("embedding", self.embedding, "frame embed", frame=seen["frame"])


@dataclass(frozen=True, repr=False, kw_only=True)
class ClipBatch(_PrintsShapes):
    """One step's input: the same clips, seen as cached tokens and as dense frames. Parts a head does not need are None.

    Attributes:
        tokens: [clip layer frame token channel], dequantised on the device, float32.
        embedding: [clip frame embed] projected CLIP image embeddings, one per sparse frame.
        dense: float [clip dense rgb height width], normalised exactly as CLIP's input was.
        targets: float [clip class]: soft targets (labels smoothed and, when mixed, weighted).
        labels: int64 [clip]: the unmixed labels, swapped where a flip swaps them; -1 = unlabelled.
        ids: the videos' ids.
    """

    tokens: Tensor | None
    embedding: Tensor | None
    dense: Tensor | None
    targets: Tensor | None
    labels: Tensor
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        clips = len(self.ids)
        expect("labels", self.labels, "clip", clip=clips)
        if self.tokens is not None:
            expect("tokens", self.tokens, "clip layer frame token channel", clip=clips)
        if self.embedding is not None:
            expect("embedding", self.embedding, "clip frame embed", clip=clips)
        if self.dense is not None:
            expect("dense", self.dense, "clip dense rgb height width", clip=clips, rgb=3)
        if self.targets is not None:
            expect("targets", self.targets, "clip class", clip=clips)

    def to(self, device: Any) -> Self:
        """The same batch with every tensor on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in values.items()}
        return type(self)(**moved)
