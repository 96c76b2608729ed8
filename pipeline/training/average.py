"""A moving average of a head's weights, which is scored and stored in their place.

    average ← decay · average + (1 − decay) · weights        after every step; it begins at the first weights

Only parameters that are trained are averaged. Buffers, such as the running statistics of batch norms, are the head's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The average of one head's weights, on its device.

    Args:
        head: on the device where it is trained; its weights are the first average.
        decay: share of the average that a step keeps, between 0 and 1.
    """

    def __init__(self, head: nn.Module, decay: float) -> None:
        self._parameters = {name: value for name, value in head.named_parameters() if value.requires_grad}
        self._values = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimiser step."""
        self._average(list(self._values.values()), [value.detach() for value in self._parameters.values()], 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The head has the averaged weights inside of the block, and its own again behind it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._values[name] = self._values[name], parameter.data

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Give the head these weights of its own; what it has now becomes the average. Names and shapes must fit."""
        for name, parameter in self._parameters.items():
            self._values[name] = parameter.detach().clone()
            parameter.data.copy_(weights[name])

    def weights(self) -> dict[str, Tensor]:
        """The head's own weights by name, wherever the head has them now: inside of `in_place`."""
        return dict(self._values)
