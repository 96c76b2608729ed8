"""How near decoded tokens are to what they were, layer by layer: several measures, because one alone misleads.

    cosine     of whole tokens                       a few channels are 20 to 100 times larger than the rest and fill it
    centred    after the mean of every channel       what tells one token from another
    ordinary   without the 8 largest channels        what the 8 largest hide
    in_std     error in standard deviations of each channel, root mean square: what a head sees that normalises

Plain cosine is 0.9993 for a codec that destroys all ordinary channels (8 bits with one range per token): never judge by
it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_LEFT_OUT = 8


@dataclass(frozen=True, kw_only=True)
class LayerCloseness:
    """One layer under one codec.

    Attributes:
        layer: number.
        bytes_per_view: that its codes and scales take.
        cosine, centred, ordinary: mean over tokens. …_worst: of the worst token.
        relative_error: length of all errors over length of all tokens.
        error_in_std: see the file's head.
    """

    layer: int
    bytes_per_view: int
    cosine: float
    cosine_worst: float
    centred: float
    centred_worst: float
    ordinary: float
    ordinary_worst: float
    relative_error: float
    error_in_std: float


class Closeness:
    """Running sums over tokens, on their device, in float64.

    Args:
        layers: numbers.
        bytes_per_view: of one layer.
        mean, std: float32 [layer channel], of tokens like those that will come: they say which channels are large.
    """

    def __init__(self, layers: tuple[int, ...], bytes_per_view: int, mean: Tensor, std: Tensor) -> None:
        self._layers, self._bytes = layers, bytes_per_view
        self._mean, self._std = mean, std
        size = (mean.square() + std.square()).argsort(dim=-1, descending=True)
        self._ordinary = size[:, min(LARGEST_LEFT_OUT, mean.shape[1] // 2) :]
        self._count = 0
        ones = torch.ones(len(layers), dtype=torch.float64, device=mean.device)
        cosines = ("cosine", "centred", "ordinary")
        self._sums = {name: torch.zeros_like(ones) for name in (*cosines, "error", "length", "in_std")}
        self._worst = {name: ones.clone() for name in cosines}

    def update(self, truth: Tensor, decoded: Tensor) -> None:
        """Take in tokens and what became of them: both float [view layer frame token channel]."""
        self._count += truth[:, 0, ..., 0].numel()
        for i in range(len(self._layers)):
            x, y = truth[:, i].flatten(0, -2).double(), decoded[:, i].flatten(0, -2).double()
            mean, kept = self._mean[i].double(), self._ordinary[i]
            for name, original, restored in (
                ("cosine", x, y),
                ("centred", x - mean, y - mean),
                ("ordinary", x[:, kept], y[:, kept]),
            ):
                angle = F.cosine_similarity(original, restored, dim=-1, eps=1e-30)
                self._sums[name][i] += angle.sum()
                self._worst[name][i] = torch.minimum(self._worst[name][i], angle.min())
            self._sums["error"][i] += (y - x).square().sum()
            self._sums["length"][i] += x.square().sum()
            self._sums["in_std"][i] += ((y - x) / self._std[i].double()).square().mean(-1).sum()

    def finish(self) -> tuple[LayerCloseness, ...]:
        """One entry per layer."""
        mean = {name: (self._sums[name] / self._count).tolist() for name in self._worst}
        worst = {name: values.tolist() for name, values in self._worst.items()}
        relative = (self._sums["error"] / self._sums["length"].clamp_min(1e-300)).sqrt().tolist()
        in_std = (self._sums["in_std"] / self._count).sqrt().tolist()
        return tuple(
            LayerCloseness(
                layer=layer,
                bytes_per_view=self._bytes,
                cosine=mean["cosine"][i],
                cosine_worst=worst["cosine"][i],
                centred=mean["centred"][i],
                centred_worst=worst["centred"][i],
                ordinary=mean["ordinary"][i],
                ordinary_worst=worst["ordinary"][i],
                relative_error=relative[i],
                error_in_std=in_std[i],
            )
            for i, layer in enumerate(self._layers)
        )
