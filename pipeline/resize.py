"""How a picture becomes the square that a tower sees: interpolation, antialiasing, and what happens to its aspect.

    "bicubic-antialias-squash" ──▶ Resize ──▶ "bicubic-antialias-squash"       (the words of --resize)
    "bilinear"                 ──▶ the same two words changed in a tower's own

CLIP's pictures are resized as DiST's authors did, whatever the weights' own preprocessing was: bilinear, no antialias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from vidxfer.pipeline.errors import UsageError

Interpolation = Literal["bilinear", "bicubic"]
ResizeMode = Literal["shortest", "squash"]
"""The short side becomes the square's and a square is cut out; or the whole picture is squashed into the square."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How pictures are resized.

    Attributes:
        interpolation: "bilinear" or "bicubic".
        antialias: what is made smaller is smoothed first, as Pillow does.
        resize_mode: of test views: "shortest" or "squash". Training crops keep their aspect.
    """

    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    resize_mode: ResizeMode = "shortest"

    def __post_init__(self) -> None:
        for name, choices in (("interpolation", Interpolation), ("resize_mode", ResizeMode)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(choices))}")

    @property
    def words(self) -> str:
        """As --resize spells the whole of it."""
        return "-".join([self.interpolation, *["antialias"] * self.antialias, self.resize_mode])

    def overridden(self, words: str | None) -> Resize:
        """This one, changed by the words of --resize; None changes nothing. A mode that is not named stays.

        Raises:
            UsageError: words that there are not.
        """
        if words is None:
            return self
        first, *others = words.split("-")
        antialias = others[:1] == ["antialias"]
        mode = others[antialias:]
        if first not in get_args(Interpolation) or mode not in ([], *([known] for known in get_args(ResizeMode))):
            raise UsageError(
                f"--resize {words!r}: known are bilinear and bicubic, each with -antialias or without, and behind it "
                "-shortest or -squash where the tower's own way is not wanted"
            )
        named = {"interpolation": first, "antialias": antialias} | ({"resize_mode": mode[0]} if mode else {})
        return replace(self, **named)  # type: ignore[arg-type]  # checked above


AS_DIST = Resize()
"""What DiST's authors did, and what every cache of 0.1.0 holds."""
