"""Settings that several heads have, and their checks.

layers   block numbers, or None: every block that the cache holds
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


def expect_block_numbers(layers: object) -> None:
    """Check the setting `layers` of a head: block numbers, or None for every block.

    Raises:
        UsageError: it is neither None nor a non-empty list of whole numbers.
    """
    if layers is not None and (
        not layers or not isinstance(layers, tuple) or not all(isinstance(layer, int) for layer in layers)
    ):
        raise UsageError(f"head.layers={layers!r} must be block numbers like [3, 7, 11], or null")
