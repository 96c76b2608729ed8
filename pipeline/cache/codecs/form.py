"""What a codec's name says: shapes, types and bytes. Text and arithmetic only.

    [rotate+ | pcaK+] quantiser          "int8"   "int4"   "pca64+int8"   "rotate+pq4"
    kltB                                 "klt4"   "klt1"   "klt0.5"

    quantiser   one value becomes            beside it
    float16     16 bits                      nothing
    int8        8 bits                       one scale per token
    int6        6 bits, 4 values in 3 bytes  one scale per 64 values
    int4        4 bits, 2 values in 1 byte   one scale per 32 values
    pqN         8 / N bits: N values are the nearest of 256 codewords; one scale per token; pq is pq8

`rotate` and `pcaK` turn the normalised channels of each layer first; `pcaK` keeps the K directions that vary most.
`kltB` shares out B bits per value over the directions by their variance (klt.py): from 3 bits on as whole numbers of
each frame, below as codewords over several frames.
A codec has one spelling, because its name stands in the cache's fingerprint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

CODEWORDS = 256
PART_SIZES = (2, 4, 8, 16)
PART_DEFAULT = 8
GROUPS = {"int6": 64, "int4": 32}
"""Values that share a scale."""

BITS = {"int6": 6, "int4": 4}
PACKED = {"int6": (4, 3), "int4": (2, 1)}
"""So many values in so many bytes."""

KLT_BITS = (0.5, 1, 2, 3, 4, 5, 6, 7, 8)
"""Bits per value of `kltB`, on average over the values of a patch."""

LEAST_BITS_OF_PLANES = 3
"""From here on `kltB` stores whole numbers in bit planes; below, codewords."""

BLOCK_FRAMES_MOST = 16
BLOCK_KINDS = 4
"""Kinds of tracks that codewords of `kltB` tell apart: from still to moving."""

PART_MOST = 16
"""Most values of one codeword of `kltB`; it may have any number from 1 on."""

CODEWORD_VALUES = PART_MOST * (PART_MOST + 1) // 2
LEAST_KLT_BYTES = 3  # a block of frames begins with its gain and its kind

QUANTISERS = ("int8", "float16", "int6", "int4", "pq")
LISTED = (
    "int8, float16, int6, int4, pq (also pq2, pq4, pq16), each alone or after rotate+ or pcaK+ as in pca64+int8, "
    f"or klt0.5, klt1 … klt{KLT_BITS[-1]}"
)

Transform = Literal["", "rotate", "pca"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A codec, taken apart.

    Attributes:
        name: the one spelling.
        transform: "", "rotate" or "pca".
        kept: directions that "pca" keeps; 0 otherwise.
        quantiser: one of `QUANTISERS`.
        part: values per codeword of "pq"; 0 otherwise.
        bits: per value, of "klt"; 0 otherwise.
    """

    name: str
    transform: Transform
    kept: int
    quantiser: str
    part: int
    bits: float = 0

    @property
    def is_exact(self) -> bool:
        """Tokens come back as they were, but for float16's rounding."""
        return self.name == "float16"

    @property
    def group(self) -> int:
        """Values that share a scale where a token has several; 0 otherwise."""
        return GROUPS.get(self.quantiser, 0)

    @property
    def code_dtype(self) -> str:
        """Type of the stored codes."""
        return self.quantiser if self.quantiser in ("int8", "float16") else "uint8"

    @property
    def is_klt(self) -> bool:
        """It has a mean per place, the class row apart, and directions that share out its bits."""
        return self.quantiser == "klt"

    @property
    def joins_frames(self) -> bool:
        """A token can be decoded only with those of the other frames of its view."""
        return 0 < self.bits < LEAST_BITS_OF_PLANES

    def values(self, channels: int) -> int:
        """Values per token that are quantised.

        Raises:
            ValueError: fewer channels than directions to keep, or than "klt" can share bits out over.
        """
        if self.is_klt:
            if channels < 2:
                raise ValueError(f"codec={self.name!r} needs at least 2 channels, got {channels}")
            return channels - 1  # one direction is stored apart
        if self.transform == "pca" and self.kept >= channels:
            raise ValueError(
                f"codec={self.name!r} keeps {self.kept} directions, CLIP has {channels} channels: "
                f"keep fewer, or write rotate+{self.name.split('+')[1]}"
            )
        return self.kept or channels

    def decoding_operations(self, channels: int) -> int:
        """Of turning one token's values back into channels, with two for a multiply-add; 0: nothing is turned."""
        return 2 * self.values(channels) * channels if self.is_klt or self.transform else 0

    def code_width(self, channels: int) -> int:
        """Length of the last axis of the codes of one token."""
        values = self.values(channels)
        if self.is_klt:
            return max(LEAST_KLT_BYTES, int(channels * self.bits / 8))
        if self.quantiser in PACKED:
            together, their_bytes = PACKED[self.quantiser]
            return -(-values // together) * their_bytes
        return -(-values // self.part) if self.part else values

    def code_tokens(self, tokens: int, channels: int) -> int:
        """Length of the token axis of the codes: the class row of "klt" is stored finely and takes several."""
        return tokens - 1 + -(-channels // self.code_width(channels)) if self.is_klt else tokens

    def scale_shape(self, channels: int) -> tuple[int, ...] | None:
        """Axes of the scale behind the token axis: (), or (groups,); None: there is no scale."""
        if self.quantiser == "float16":
            return None
        if self.is_klt:
            return () if self.joins_frames else (2,)
        return (-(-self.values(channels) // self.group),) if self.group else ()

    def fitted_shapes(
        self, layers: int, channels: int, tokens: int, frames: int
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Axes and shape of the float32 arrays that are stored once beside channel_mean and channel_std."""
        values = self.values(channels)
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self.is_klt:
            shapes |= _klt_shapes(self, channels, tokens, frames)
        if self.transform:
            shapes["rotation"] = ("component channel", (values, channels))
            shapes["component_std"] = ("component", (values,))
        if self.part:
            shapes["codebook"] = ("part codeword value", (self.code_width(channels), CODEWORDS, self.part))
        return {name: (f"layer {axes}".strip(), (layers, *shape)) for name, (axes, shape) in shapes.items()}

    def token_bytes(self, channels: int) -> tuple[int, int]:
        """Bytes of one place of the token axis: of its codes and of its scales."""
        codes = self.code_width(channels) * (2 if self.code_dtype == "float16" else 1)
        scale = self.scale_shape(channels)
        return codes, 0 if scale is None else 2 * (scale[0] if scale else 1)

    def frame_bytes(self, tokens: int, channels: int) -> tuple[int, int]:
        """Bytes of all tokens of one frame in one layer: of their codes and of their scales."""
        codes, scales = self.token_bytes(channels)
        places = self.code_tokens(tokens, channels)
        return codes * places, scales * places


def _klt_shapes(form: Form, channels: int, tokens: int, frames: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What "klt" fits per layer; klt.py says what each is."""
    values = form.values(channels)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "place_mean": ("token channel", (tokens, channels)),
        "class_std": ("channel", (channels,)),
        "wild": ("channel", (channels,)),
        "rotation": ("component channel", (values, channels)),
    }
    if not form.joins_frames:
        return {**shapes, "component_bits": ("group", (-(-values // 8),))}
    block = block_frames(frames)
    return {
        **shapes,
        "gain": ("", ()),
        "coefficient_std": ("kind coefficient", (BLOCK_KINDS, block * values)),
        "part_sizes": ("part", (block * form.code_width(channels) - 2,)),
        "codewords": ("codeword value", (CODEWORDS, CODEWORD_VALUES)),
    }


def block_frames(frames: int) -> int:
    """Frames that are coded together: the largest divisor of `frames` up to `BLOCK_FRAMES_MOST`."""
    return max(block for block in range(1, BLOCK_FRAMES_MOST + 1) if frames % block == 0)


@lru_cache(maxsize=256)
def codec_form(name: str) -> Form:
    """Take a codec's name apart.

    Raises:
        ValueError: no such codec; the text lists what is known and the nearest to what was written.
    """
    if klt := re.fullmatch(r"klt(0\.5|[1-8])", name):
        return Form(name=name, transform="", kept=0, quantiser="klt", part=0, bits=float(klt[1]))
    match = re.fullmatch(r"(?:(rotate|pca([1-9]\d*))\+)?(?:(int8|float16|int6|int4)|pq([1-9]\d*)?)", name)
    if match is None:
        raise ValueError(f"codec={name!r} must be one of {LISTED}.{_nearest(name)}")
    turned, kept, plain, size = match.groups()
    part = 0 if plain else int(size or PART_DEFAULT)
    if part and part not in PART_SIZES:
        sizes = ", ".join(f"pq{size}" for size in PART_SIZES)
        raise ValueError(f"codec={name!r}: values per codeword are {sizes} (pq is pq{PART_DEFAULT})")
    quantiser = plain or "pq"
    spelled = quantiser + (str(part) if part not in (0, PART_DEFAULT) else "")
    return Form(
        name=f"{turned}+{spelled}" if turned else spelled,
        transform="pca" if kept else ("rotate" if turned else ""),
        kept=int(kept or 0),
        quantiser=quantiser,
        part=part,
    )


def _nearest(name: str) -> str:
    """A sentence with the known spelling that is closest part by part; empty when none is close."""
    words = [f"pq{size}" for size in PART_SIZES] + [f"klt{bits}" for bits in KLT_BITS] + [*QUANTISERS, "rotate"]
    parts = []
    for part in name.lower().replace(" ", "").split("+"):
        kept = re.fullmatch(r"pca-?(\d+)", part)
        near = [f"pca{int(kept[1])}"] if kept else get_close_matches(part, words, n=1, cutoff=0.5)
        if part == "pca":
            return " pca needs a number, as in pca64+int8: how many directions to keep."
        parts += near
    quantisers = [part for part in parts if not part.startswith(("pca", "rotate"))][:1]
    turned = [part for part in parts if part.startswith(("pca", "rotate"))][:1]
    if "pca0" in turned:
        return " pca keeps at least 1 direction, as in pca64+int8."
    return f" Nearest: {'+'.join(turned + quantisers)}." if quantisers else ""
