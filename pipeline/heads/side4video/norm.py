"""Batch norm of the side networks: statistics of one device, or of all devices together.

    training    mean and variance over clips, frames and places of this device's part of a batch; running ones updated
    eval        running mean and variance

In training, the mean of the pooled features over a batch is the last norm's bias, whatever the clips show. A batch of
one clip therefore gives nothing to learn from (docs/spec/tds_clip_side4video.md §2.3).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of [clip channel frame row col]. `rows` computes the same on [… channel].

    Attributes:
        synchronised: whether a training step takes statistics over all devices.
    """

    synchronised = False

    def forward(self, x: Tensor) -> Tensor:
        """[clip channel frame row col] -> same."""
        if self.synchronised:
            return self.rows(x.movedim(1, -1)).movedim(-1, 1)
        # Without the axes of the picture: where they have length 1, torch 2.15 on the CPU can take a gradient for one
        # in another memory format, and the bias then gets numbers of other channels.
        normed: Tensor = super().forward(x.flatten(2))
        return normed.view_as(x)

    def rows(self, x: Tensor) -> Tensor:
        """[… channel] -> same. Channels are last in memory, and no axes are permuted."""
        if not self.training:
            scale, shift = self.folded()
            return x * scale + shift
        if self.synchronised and dist.is_initialized() and dist.get_world_size() > 1:
            return self._over_all_devices(x)
        self._counted()
        normed = F.batch_norm(
            x.reshape(-1, x.shape[-1]), self.running_mean, self.running_var, self.weight, self.bias, True,
            self._momentum, self.eps,
        )  # fmt: skip
        return normed.view_as(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, both [channel]: at evaluation the norm is x · scale + shift."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    @property
    def _momentum(self) -> float:
        assert self.momentum is not None
        return self.momentum

    def _counted(self) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)

    def _over_all_devices(self, x: Tensor) -> Tensor:
        """Two passes, as on one device: first the mean over all devices, then the squared differences from it."""
        assert self.running_mean is not None
        assert self.running_var is not None
        values = x.reshape(-1, x.shape[-1]).to(torch.promote_types(x.dtype, torch.float32))
        ones = torch.full((1,), len(values), dtype=values.dtype, device=values.device)
        sums = summed(torch.cat([values.sum(dim=0), ones]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        var = summed((values - mean).square().sum(dim=0)) / count
        self._counted()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self._momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self._momentum)
        normed = (values - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
        return normed.to(x.dtype).view_as(x)


class _Summed(torch.autograd.Function):
    """Sum over all processes. All processes read the sum, so its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, with its gradient."""
    total: Tensor = _Summed.apply(values)
    return total


def synchronise(net: nn.Module) -> None:
    """Let every batch norm of a network take the statistics of all devices."""
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = True
