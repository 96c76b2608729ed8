"""`--codec auto`: which codecs are tried, what is asked of them, and what a cache remembers of the choice.

CANDIDATES ─ each through the tower (codecs/choose.py) ─▶ the smallest that keeps within the bound ─▶ CodecChoice

The choice and all figures inform only: a cache is the one that extraction makes with the chosen codec by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.typed import checked

AUTO_CODEC = "auto"
"""What `--codec` says instead of a name."""

CANDIDATES = ("klt0.5", "klt1", "klt2", "klt3", "klt4", "klt5", "klt6", "klt8", "float16")
"""Which are tried; the largest is taken where none keeps within the bound."""

EXACT = "float16"
"""The largest of them, in whose place sizes are counted before there is a choice."""

LOSS = 0.01
"""Most that the chosen one may lose, where nothing is said."""

FEW_VIDEOS = 8
"""Measured on fewer, and a person is told."""

CODEC_CHOICE = "codec_choice"
"""Name of the choice among what informs."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Figures of one codec.

    Attributes:
        bytes_per_view: over all arrays.
        loss, worst_layer: as in `ThroughTower`.
        class_row, patches, patches_worst: per layer, as in `LayerThrough`.
    """

    bytes_per_view: int
    loss: float
    worst_layer: int
    class_row: tuple[float, ...]
    patches: tuple[float, ...]
    patches_worst: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CodecChoice:
    """What was chosen, and on what grounds.

    Attributes:
        codec: the smallest candidate that loses at most `loss`, or the largest of all.
        loss: the bound.
        split: whose videos it was measured on.
        fitted_on, measured_on: so many of them; no video is in both.
        files_apart: no file is in both either, although it may hold several videos.
        frames: that the tower finished in all.
        layers: that are stored.
        candidates: by name, the smallest first.
    """

    codec: str
    loss: float
    split: str
    fitted_on: int
    measured_on: int
    files_apart: bool
    frames: int
    layers: tuple[int, ...]
    candidates: Mapping[str, Candidate]

    @property
    def holds(self) -> bool:
        """Whether the chosen codec keeps within the bound."""
        return self.candidates[self.codec].loss <= self.loss

    @property
    def lines(self) -> tuple[str, ...]:
        """The choice in a sentence, and what weakens it."""
        chosen = self.candidates[self.codec]
        words = f"loses {chosen.loss:.4f} in layer {chosen.worst_layer}, where it loses most; {self.loss:g} may be lost"
        if not self.holds:
            words = f"is the largest of the candidates: none loses at most {self.loss:g}"
        weak = []
        if self.measured_on < FEW_VIDEOS:
            weak.append(f"only {self.measured_on} videos were measured, so the figures are rough")
        if not self.files_apart:
            weak.append("all videos are of one file, so those measured resemble those fitted on")
        return (f"--codec auto: {self.codec} {words}", *(f"--codec auto: {reason}" for reason in weak))

    def to_dict(self) -> dict[str, Any]:
        """As it is kept among what informs."""
        return asdict(self)


def expect_loss(codec: str | None, loss: float | None) -> None:
    """Check a bound that a person named.

    Raises:
        UsageError: it bounds nothing, or is no share.
    """
    if loss is None:
        return
    if codec != AUTO_CODEC:
        raise UsageError(f"--loss {loss:g} bounds what --codec auto may choose: add that, or leave --loss out")
    if not 0 <= loss <= 1:
        raise UsageError(f"--loss {loss:g} must lie between 0 and 1: it is 1 - a cosine, as 0.01")


def choice_of(split: Split) -> CodecChoice | None:
    """The choice that a split remembers; None: its codec was named.

    Raises:
        CacheError: what it says of it cannot be meant.
    """
    stored = split.informs.get(CODEC_CHOICE)
    if stored is None:
        return None
    try:
        choice: CodecChoice = checked(stored, CodecChoice, CODEC_CHOICE)
    except ValueError as error:
        raise CacheError(f"{split.path}/zarr.json: {error}. Copy the cache again.") from error
    return choice


def informed(choice: CodecChoice | None) -> dict[str, Any]:
    """The choice as a part of what informs; nothing where the codec was named."""
    return {} if choice is None else {CODEC_CHOICE: choice.to_dict()}


def smallest_passing(candidates: Mapping[str, Candidate], loss: float) -> str:
    """The codec with the fewest bytes that loses at most `loss`, or the one with the most bytes."""
    by_size: Iterable[str] = sorted(candidates, key=lambda codec: candidates[codec].bytes_per_view)
    passing = [codec for codec in by_size if candidates[codec].loss <= loss]
    return passing[0] if passing else max(candidates, key=lambda codec: candidates[codec].bytes_per_view)
