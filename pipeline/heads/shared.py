"""Settings that several heads have, and their checks.

layers   block numbers, or None: the blocks that the cache holds
every    of those, each n-th, counted from the last one
pooled   whether a recipe for a named CLIP takes averaged patches too (cache of `extract --pool 2`, `train --pool 2`)
"""

from __future__ import annotations

from dataclasses import dataclass

from vidxfer.pipeline.errors import UsageError

POOLED = ("auto", "any")


@dataclass(frozen=True, kw_only=True)
class PooledSetting:
    """What heads with published recipes have beside their sizes.

    Attributes:
        pooled: one of `POOLED`. "auto": recipes for a named CLIP, which are published, refuse averaged patches, and
            all other recipes take them. "any": all take them, which no author has published.
    """

    pooled: str = "auto"

    @property
    def takes_pooled(self) -> bool:
        """See `HeadConfig`."""
        return self.pooled == "any"

    def expect_pooled(self) -> None:
        """Check the setting.

        Raises:
            UsageError: it is none of `POOLED`.
        """
        if self.pooled not in POOLED:
            raise UsageError(f"head.pooled={self.pooled!r} is none of {', '.join(POOLED)}")


@dataclass(frozen=True, kw_only=True)
class BlocksSetting:
    """Which blocks of CLIP feed a head that may read all of them.

    Attributes:
        layers: CLIP layers to read; None: the blocks that the cache holds.
        every: of the blocks that the cache holds, each `every`-th, counted from the last one; 1: all.
    """

    layers: tuple[int, ...] | None = None
    every: int = 1

    def expect_blocks(self) -> None:
        """Check the settings.

        Raises:
            UsageError: no block numbers, no step of at least 1, or both are set.
        """
        expect_block_numbers(self.layers)
        if type(self.every) is not int or self.every < 1:
            raise UsageError(f"head.every={self.every!r} must be a whole number of at least 1")
        if self.every > 1 and self.layers is not None:
            raise UsageError(f"head.every={self.every} with head.layers={list(self.layers)}: leave one out")

    def blocks_of(self, offered: tuple[int, ...]) -> tuple[int, ...]:
        """The layers that feed the head, of those that are on offer."""
        return self.layers or tuple(layer for layer in offered if layer >= 0)[:: -self.every][::-1]


def expect_block_numbers(layers: object) -> None:
    """Check the setting `layers` of a head: block numbers, or None for every block.

    Raises:
        UsageError: it is neither None nor a non-empty list of whole numbers.
    """
    if layers is not None and (
        not layers or not isinstance(layers, tuple) or not all(isinstance(layer, int) for layer in layers)
    ):
        raise UsageError(f"head.layers={layers!r} must be block numbers like [3, 7, 11], or null")
