"""What a codec's name says: shapes, types and bytes. Text and arithmetic only.

    [rotate+ | pcaK+] quantiser          "int8"   "int4"   "pca64+int8"   "rotate+pq4"

    quantiser   one value becomes            beside it
    float16     16 bits                      nothing
    int8        8 bits                       one scale per token
    int6        6 bits, 4 values in 3 bytes  one scale per 64 values
    int4        4 bits, 2 values in 1 byte   one scale per 32 values
    pqN         8 / N bits: N values are the nearest of 256 codewords; one scale per token; pq is pq8

`rotate` and `pcaK` turn the normalised channels of each layer first; `pcaK` keeps the K directions that vary most.
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

QUANTISERS = ("int8", "float16", "int6", "int4", "pq")
LISTED = "int8, float16, int6, int4, pq (also pq2, pq4, pq16), each alone or after rotate+ or pcaK+ as in pca64+int8"

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
    """

    name: str
    transform: Transform
    kept: int
    quantiser: str
    part: int

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

    def values(self, channels: int) -> int:
        """Values per token that are quantised.

        Raises:
            ValueError: fewer channels than directions to keep.
        """
        if self.transform == "pca" and self.kept >= channels:
            raise ValueError(
                f"codec={self.name!r} keeps {self.kept} directions, CLIP has {channels} channels: "
                f"keep fewer, or write rotate+{self.name.split('+')[1]}"
            )
        return self.kept or channels

    def code_width(self, channels: int) -> int:
        """Length of the last axis of the codes of one token."""
        values = self.values(channels)
        if self.quantiser in PACKED:
            together, their_bytes = PACKED[self.quantiser]
            return -(-values // together) * their_bytes
        return -(-values // self.part) if self.part else values

    def scale_shape(self, channels: int) -> tuple[int, ...] | None:
        """Axes of the scale behind the token axis: (), or (groups,); None: there is no scale."""
        if self.quantiser == "float16":
            return None
        return (-(-self.values(channels) // self.group),) if self.group else ()

    def fitted_shapes(self, layers: int, channels: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Axes and shape of the float32 arrays that are stored once beside channel_mean and channel_std."""
        values = self.values(channels)
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        if self.transform:
            shapes["rotation"] = ("layer component channel", (layers, values, channels))
            shapes["component_std"] = ("layer component", (layers, values))
        if self.part:
            shapes["codebook"] = (
                "layer part codeword value",
                (layers, self.code_width(channels), CODEWORDS, self.part),
            )
        return shapes

    def token_bytes(self, channels: int) -> tuple[int, int]:
        """Bytes of one token: of its codes and of its scales."""
        codes = self.code_width(channels) * (2 if self.code_dtype == "float16" else 1)
        scale = self.scale_shape(channels)
        return codes, 0 if scale is None else 2 * (scale[0] if scale else 1)


@lru_cache(maxsize=256)
def codec_form(name: str) -> Form:
    """Take a codec's name apart.

    Raises:
        ValueError: no such codec; the text lists what is known and the nearest to what was written.
    """
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
    words = [f"pq{size}" for size in PART_SIZES] + [*QUANTISERS, "rotate"]
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
