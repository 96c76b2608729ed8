"""What a codec does to a tower's own meaning: decoded tokens take a layer's place, and the tower goes on to its end.

    tokens of layer k ───────────────────▶ blocks k+1, k+2, … ─ last norm ─▶ ends ─┐
    tokens of layer k ─ codec, and back ─▶ blocks k+1, k+2, … ─ last norm ─▶ ends ─┴▶ cosine: class row, patches

No labels are needed, and errors count as much as the tower cares for them. A codec's loss is 1 - the smaller of the two
mean cosines, in the layer where it is worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import UsageError

WORST_SHARE = 100
"""One of so many patches is among the worst ones."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One video: float tokens [view layer frame token channel].

    Attributes:
        row: its number.
        tokens: of the asked layers.
        left_out: [layer (view frame) token channel] that the tower has and a cache has not; None: none, or unknown.
    """

    row: int
    tokens: Tensor
    left_out: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LayerThrough:
    """Cosines at the tower's end with the tokens of one layer replaced.

    Attributes:
        layer: number.
        class_row, patches: mean over frames, and over frames and patches.
        patches_worst: mean over the worst 1 % of the patches, over all frames together.
    """

    layer: int
    class_row: float
    patches: float
    patches_worst: float

    @property
    def loss(self) -> float:
        """1 - the smaller mean."""
        return 1 - min(self.class_row, self.patches)


@dataclass(frozen=True, kw_only=True)
class ThroughTower:
    """One codec: its loss, the layer where it is that large, and every layer."""

    loss: float
    worst_layer: int
    layers: tuple[LayerThrough, ...]

    @classmethod
    def of(cls, layers: Sequence[LayerThrough]) -> ThroughTower:
        """The worst of the layers says what a codec loses."""
        worst = max(layers, key=lambda layer: layer.loss)
        return cls(loss=worst.loss, worst_layer=worst.layer, layers=tuple(layers))


class Ending:
    """A tower that goes on from the tokens of a cache's layers.

    Args:
        tower: that made the tokens.
        layers: of the cache, in its order.
        batch_frames: frames the tower sees at once.
    """

    def __init__(self, tower: Tower, layers: tuple[int, ...], batch_frames: int) -> None:
        self._tower, self._layers, self._batch = tower, layers, batch_frames

    @property
    def device(self) -> torch.device:
        """Where the tower lives."""
        return self._tower.device

    def expect_no_left_out(self) -> None:
        """Raise UsageError where stored tokens alone are not enough to go on from."""
        info = self._tower.info
        if info.left_out:
            raise UsageError(
                f"{info.model} has {info.left_out} more tokens per frame than the class row and the patches, and the "
                "cache does not hold them: its blocks cannot go on from stored tokens. Take --truth pixels, or name "
                "the codec."
            )

    def ends(self, tokens: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Where the tower ends from each layer.

        Args:
            tokens: float [view layer frame token channel].
            left_out: of the same layers and frames, where the tower leaves some out:
                [layer (view frame) token channel], from the undisturbed tower, whatever was done to `tokens`.

        Returns:
            float32 [layer (view frame) token channel], class row first.

        Raises:
            UsageError: these are not all tokens of a frame.
        """
        if tokens.shape[-2] != self._tower.info.tokens:
            raise UsageError(
                f"the cache holds {tokens.shape[-2]} tokens per frame, and the blocks of {self._tower.info.model} go "
                f"on with {self._tower.info.tokens}: give a cache that keeps every patch."
            )
        ends = []
        for i, layer in enumerate(self._layers):
            frames = torch.split(tokens[:, i].flatten(0, 1), self._batch)
            others = [None] * len(frames) if left_out is None else torch.split(left_out[i], self._batch)
            pairs = zip(frames, others, strict=True)
            ends.append(torch.cat([self._tower.finish(part, layer, other) for part, other in pairs]))
        return torch.stack(ends)


class EndSums:
    """Running cosines between ends, in float64. Of the patches only the worst are kept one by one.

    Args:
        layers: numbers.
        frames: how many will come at most.
    """

    def __init__(self, layers: tuple[int, ...], frames: int) -> None:
        self._layers, self._frames_most = layers, frames
        self._frames, self._patches = 0, 0
        self._class_row, self._patch = [torch.zeros(len(layers), dtype=torch.float64) for _ in range(2)]
        self._worst = torch.zeros(len(layers), 0, dtype=torch.float64)

    def update(self, truth: Tensor, ends: Tensor) -> None:
        """Take in ends of the same frames: both [layer frame token channel]."""
        cosines = torch.stack(  # a layer at a time: float64 of all would be twice the memory of both
            [F.cosine_similarity(x.double(), y.double(), dim=-1, eps=1e-30) for x, y in zip(truth, ends, strict=True)]
        ).cpu()
        patches = cosines[:, :, 1:].flatten(1)
        self._frames += cosines.shape[1]
        self._patches += patches.shape[1]
        self._class_row += cosines[:, :, 0].sum(1)
        self._patch += patches.sum(1)
        most = max(1, self._frames_most * (cosines.shape[2] - 1) // WORST_SHARE)
        both = torch.cat([self._worst, patches], dim=1)
        self._worst = both.topk(min(most, both.shape[1]), dim=1, largest=False, sorted=True).values

    def finish(self) -> tuple[LayerThrough, ...]:
        """One entry per layer; none where no frame came."""
        if not self._frames:
            return ()
        worst = self._worst[:, : max(1, self._patches // WORST_SHARE)].mean(1).tolist()
        rows, patches = (self._class_row / self._frames).tolist(), (self._patch / self._patches).tolist()
        return tuple(
            LayerThrough(layer=layer, class_row=rows[i], patches=patches[i], patches_worst=worst[i])
            for i, layer in enumerate(self._layers)
        )
