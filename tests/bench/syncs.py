"""How often a training step makes the host wait for the device, counted on a CPU as if it were a device.

    python tests/bench/syncs.py --cache FOLDER --root FOLDER        one line per family of heads

A tensor counts as being on the host if it comes from a loader, was made without a device, or from such tensors alone;
every other tensor is on the device. The host waits where a number of the device is read (`item`, `bool`, `tolist`,
`cpu`, a mask as index …), and where it copies without `non_blocking`. Reading what an earlier step made is counted
apart: it waits for work that the device has behind it.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
READS = {
    ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN._unique2, ATEN.unique_dim,
    ATEN.unique_consecutive, ATEN.equal, ATEN.is_nonzero,
}  # fmt: skip
"""Operations whose result, or its size, the host must have before it can go on."""

COPIED_OUT = ("tolist", "numpy", "cpu")


class HostWaits:
    """Counts while a block of `counting` runs. `step` is the number of the present step.

    Attributes:
        now: waits for work of the present step, by what waited.
        late: reads of numbers that an earlier step made.
    """

    def __init__(self) -> None:
        self.now, self.late, self.step = Counter[str](), Counter[str](), 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        with _Functions(self), _Operations(self):
            yield

    def note(self, what: str, tensors: list[Tensor]) -> None:
        on_device = [tensor for tensor in tensors if not is_host(tensor)]
        if on_device:
            earlier = all(getattr(tensor, "_made_in", self.step) < self.step for tensor in on_device)
            (self.late if earlier else self.now)[what] += 1


def is_host(tensor: Tensor) -> bool:
    return getattr(tensor, "_on_host", False)


def mark_host(batch: Any) -> None:
    """Every tensor of a batch as a loader gives it."""
    if isinstance(batch, Tensor):
        batch._on_host = True
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            mark_host(getattr(batch, field.name))
    elif isinstance(batch, list | tuple):
        for part in batch:
            mark_host(part)


def tensors_in(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class _Operations(TorchDispatchMode):
    """What is done below Python, the backward pass and C++ included."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, tensors = func.overloadpacket, tensors_in(args, kwargs)
        masked = packet in (ATEN.index, ATEN.index_put, ATEN.index_put_) and any(
            tensor.dtype == torch.bool for tensor in tensors_in(args[1])
        )
        if packet in READS or masked:
            self.waits.note(packet.__name__, tensors)
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """What is called from Python: it knows which tensors are on the host."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", str(func))
        tensors = tensors_in(args, kwargs)
        if name in COPIED_OUT:
            self.waits.note(name, tensors)
        if name == "to" and any(isinstance(value, torch.device) for value in (*args, *kwargs.values())):
            if is_host(tensors[0]) and not kwargs.get("non_blocking"):
                self.waits.now["copy to the device"] += 1
            moved = func(*args, **kwargs)
            return moved.detach().clone() if is_host(tensors[0]) else moved
        if name in ("tensor", "as_tensor") and kwargs.get("device") is not None:
            self.waits.now["copy to the device"] += 1
        result = func(*args, **kwargs)
        makes_host = kwargs.get("device") is None if not tensors else all(map(is_host, tensors))
        for tensor in tensors_in(result):
            if makes_host or name == "cpu":
                tensor._on_host = True
            elif not hasattr(tensor, "_made_in"):
                tensor._made_in = self.waits.step
        return result


def count_training(train: Callable[[], object], first: int = 2) -> tuple[float, float, Counter[str]]:
    """Waits per step of a training: (for the present step, for an earlier one, by what waited), from step `first` on.

    Steps only: neither the loader's thread, nor checkpoints, nor validation.
    """
    from vidxfer.stages.learning.trainer import Trainer

    waits, steps = HostWaits(), 0
    step, after = Trainer._step, Trainer._agree_to_stop
    block: list[Any] = []

    def begun(self: Any, raw: Any, *more: Any) -> Any:
        nonlocal steps
        waits.step += 1
        if self.place.global_step + 1 == first:
            waits.now.clear()
            waits.late.clear()
        steps += self.place.global_step + 1 >= first
        mark_host(raw)
        for (
            state
        ) in self.optimiser.state.values():  # where AdamW is fused they are on the device, and nobody reads them
            mark_host(state["step"])
        block.append(waits.counting())
        block[-1].__enter__()
        return step(self, raw, *more)

    def ended(self: Any) -> bool:
        if block:
            block.pop().__exit__(None, None, None)
        return after(self)

    Trainer._step, Trainer._agree_to_stop = begun, ended  # type: ignore[method-assign]
    try:
        train()
    finally:
        Trainer._step, Trainer._agree_to_stop = step, after  # type: ignore[method-assign]
    return waits.now.total() / steps, waits.late.total() / steps, waits.now


SETTINGS = {"evl-toy": ["head.blocks=2"], "side4video": ["head.side_channels=64"], "tds": ["head.side_channels=64"]}
"""What a small cache needs."""


def recipes() -> list[str]:
    """A recipe of every family: that for the toy, else the first one for any CLIP."""
    from vidxfer.pipeline.heads import FAMILIES

    return [
        next((one.name for one in family.recipes if one.name.endswith("-toy")), None)
        or next(one.name for one in family.recipes if one.clip is None)
        for family in FAMILIES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="of small pictures, with three blocks")
    parser.add_argument("--root", type=Path, required=True, help="folder of its videos")
    chosen = parser.parse_args()
    from vidxfer.pipeline.training.recipes import named, with_settings
    from vidxfer.stages.learning.train import TrainRequest, train

    for name in recipes():
        for more in ([], ["mixing.kind=tokens"]):
            sets = ["epochs=1", "warmup_epochs=0", "batch_clips=4", *SETTINGS.get(name, []), *more]
            with tempfile.TemporaryDirectory() as folder:
                request = TrainRequest(
                    recipe=with_settings(named(name), sets), cache=chosen.cache, root=chosen.root,
                    run=Path(folder) / "run", device="cpu",
                )  # fmt: skip
                now, late, what = count_training(lambda request=request: train(request))
            told = ", ".join(f"{what} {count}" for what, count in what.most_common())
            print(
                f"{name:18} {' '.join(more):20} {now:5.1f} in the step, {late:4.1f} of the one before   {told}",
                flush=True,
            )


if __name__ == "__main__":
    main()
