"""The layout of TDS-CLIP's released checkpoints: Side4Video's, with the keys of the two adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import HeadConfig, Offer
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig
from vidxfer.pipeline.heads.side4video.release import Side4VideoRelease, SideFile
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.heads.tds.net import TD_BLOCKS, TdsSizes

_MOTION = "visual.side_conv1_c5.weight"
_GATE = re.compile(r"visual\.transformer\.side_transformer\.(\d+)\.mse\..+")


class TdsRelease(Side4VideoRelease):
    """The layout of TDS-CLIP's released checkpoints; see `Release`."""

    title, under, holds_clip = "TDS-CLIP", "model_state_dict", True

    def config_of(self, head: Mapping[str, Tensor], sizes: SideFile) -> Side4VideoConfig:
        """See `Side4VideoRelease`.

        Raises:
            UsageError: an unknown size of the window, or the blocks with adapters are neither all nor one half.
        """
        motion = head.get(_MOTION)
        frames = 1 if motion is None or motion.ndim != 5 else 1 + motion.shape[1] // 3
        having = {int(match[1]) for name in head if (match := _GATE.fullmatch(name))}
        for named in TD_BLOCKS:
            guess = TdsSizes(td_blocks=named)
            if having == {place for place in range(sizes.layers) if guess.has_td(place, sizes.layers)}:
                return TdsConfig(side_channels=sizes.side_channels, local_frames=frames, td_blocks=named)
        raise UsageError(f"TD-Adapters in blocks {sorted(having)}: known are those of all blocks, of one half, or none")

    def released(self, config: Side4VideoConfig) -> Side4VideoConfig:
        """See `Side4VideoRelease`."""
        return TdsConfig(side_channels=config.side_channels)

    def told(self, config: HeadConfig, offer: Offer) -> dict[str, Any]:
        """See `Release`."""
        assert isinstance(config, TdsConfig)
        return {**super().told(config, offer), "num_diff": config.local_frames}
