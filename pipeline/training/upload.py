"""Host to device on a stream of its own, so that the next batch is copied while the device works on this one.

pinned memory ─ copy stream ─▶ device ─ the stream that computes waits for the copy, the host does not
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Upload:
    """Moves tensors to a device. On a CPU it returns them as they are.

    Args:
        device: where they go.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor on the device. What is pinned must not be written to before a later step has been waited for."""
        if self._stream is None:
            return tensor.to(self.device, non_blocking=True)
        with torch.cuda.stream(self._stream):
            moved = tensor.to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._stream)
        moved.record_stream(computing)  # else its memory could be given away while the device still reads it
        return moved


def pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory where there is a CUDA device and the tensor lies on the host; else the tensor itself."""
    return tensor.pin_memory() if torch.cuda.is_available() and tensor.device.type == "cpu" else tensor
