"""gpu.py's proof that every head on the device gives the official numbers: float32 first, then TF32 and bf16.

    golden file ─▶ the case that the head's own test makes of it ─▶ forward, backward on the device ─▶ deviations

Files are those of tests/golden, or of shared/golden beside the tree. Allowed in float32 is what the tests allow on a
CPU, four times over: a device adds up in another order. What TF32 and bf16 give is reported, not judged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import test_dist_golden as dist_golden
import test_evl_golden as evl_golden
import test_pooler_golden as pooler_golden
import test_side_golden as side_golden
import torch
import torch.nn.functional as F
from conftest import Golden, Keys
from gpu_device import CUDA, DEVICE, NEEDS_A_CARD, Row, moved, tf32
from safetensors import safe_open
from torch import Tensor, nn

from vidxfer.pipeline.heads.dist.head import FORMS
from vidxfer.pipeline.precision import autocast
from vidxfer.pipeline.training.optimise import soft_cross_entropy, soft_targets

ALLOWED = {"outputs": 8e-5, "gradients": 2e-3}
"""In float32: of outputs as they are, of gradients as a share of the largest of each tensor."""

SMALLEST = 1e-6
"""Official gradients below this are noise around zero; nothing is a share of them."""


@dataclass(kw_only=True)
class Case:
    """A head with the golden weights.

    Attributes:
        net: the head. forward: what it gives for the golden input on a device, by name, and the number to derive.
        outputs: official, by name. gradients: official, by parameter, whole or as a norm.
    """

    name: str
    net: nn.Module
    forward: Callable[[nn.Module, torch.device], tuple[dict[str, Tensor], Tensor]]
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def golden(name: str) -> Golden:
    """A golden file."""
    tree = Path(__file__).resolve().parents[2]
    places = [tree / "tests" / "golden", tree / "shared" / "golden", tree.parent / "shared" / "golden"]
    path = next(place / name for place in places if (place / name).is_file())
    with safe_open(str(path), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Golden(tensors=Keys(tensors, name), told=Keys(file.metadata() or {}, name))


def cases() -> Iterator[Case]:
    """Every head with official numbers in tests/golden, in both forms."""
    for form in ("fast", "plain"):
        for name in dist_golden.FILES:
            yield dist_case(name, form)
        yield evl_case("evl_tiny.safetensors", form)
        for name in ("tds_tiny", "side4video_tiny"):
            yield side_case(name, form)
        for name in pooler_golden.FILES:
            yield pooler_case(name, form)


def dist_case(name: str, form: str) -> Case:
    file = golden(name)
    net = dist_golden.build(file.config)
    file.load_into(net, "param.")
    numbers = file.below("")

    def forward(net: Any, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        video = FORMS[form](net, *(given.to(device) for given in dist_golden.inputs_of(file.config, numbers)))
        return {"cls_x": video}, (video.float() * numbers["input.grad_probe"].to(device)).sum()

    return Case(name=f"{name}, {form}", net=net, forward=forward, outputs={"cls_x": numbers["output.cls_x"]},
                gradients=dict(file.below("gradnorm.")))  # fmt: skip


def evl_case(name: str, form: str) -> Case:
    file = golden(name)
    offer, config = evl_golden.sizes_of(file)
    config = type(config)(**{**vars(config), "form": form})
    head = config.build(offer).eval()
    evl_golden.fill(head, file)
    case = evl_golden.Case(golden=file, offer=offer, config=config, head=head,
                           tokens=evl_golden.tokens_of(file, head.needs.layers))  # fmt: skip
    return labelled(f"{name}, {form}", head, case.batch(), file, dict(file.below("grad.")))


def pooler_case(name: str, form: str) -> Case:
    file = golden(name)
    batch = pooler_golden.batch(file.tensors["input.tokens"])
    batch = type(batch)(**{**vars(batch), "labels": file.tensors["input.labels"]})
    return labelled(f"{name}, {form}", pooler_golden.loaded(file, form), batch, file, dict(file.below("grad.")))


def labelled(name: str, head: nn.Module, batch: Any, file: Golden, gradients: dict[str, Tensor]) -> Case:
    """A case of logits and their cross-entropy."""

    def forward(net: Any, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        given = moved(batch, device)
        logits = net(given)
        return {"logits": logits}, F.cross_entropy(logits.float(), given.labels)

    return Case(name=name, net=head, forward=forward, outputs={"logits": file.below("output.")["logits"]},
                gradients=gradients)  # fmt: skip


def side_case(name: str, form: str) -> Case:
    made = side_golden.made(lambda wanted: golden(wanted), name, form)

    def forward(net: Any, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        given = moved(made.batch, device)
        logits = net.train()(given)
        targets = soft_targets(given.labels, logits.shape[1], side_golden.SMOOTHING)
        return {"train.logits": logits}, soft_cross_entropy(logits, targets)

    return Case(
        name=f"{name}, {form}", net=made.head, forward=forward,
        outputs={"train.logits": made.file.below("output.")["train.logits"]},
        gradients=dict(golden(f"{name}_grads.safetensors").below("grad.")),
    )  # fmt: skip


def goldens(folder: Path, small: bool) -> Iterator[Row]:
    """Every case in float32, TF32 and bf16."""
    for case in cases():
        row: Row = {"file": case.name}
        for arithmetic in ("fp32", "TF32", "bf16"):
            if arithmetic == "TF32" and not CUDA:
                row["TF32 outputs"] = row["TF32 gradients"] = NEEDS_A_CARD
                continue
            found = deviations(case, arithmetic)
            row |= {f"{arithmetic} {kind}": value for kind, value in found.items()}
            if arithmetic == "fp32":
                row["holds"] = all(found[kind] <= most for kind, most in ALLOWED.items())
        yield row


def deviations(case: Case, arithmetic: str) -> dict[str, float]:
    """The largest of the outputs, and of the gradients as a share of the largest of each tensor."""
    net = copy.deepcopy(case.net).to(DEVICE)
    with tf32(arithmetic == "TF32"), autocast(DEVICE, "bf16") if arithmetic == "bf16" else nullcontext():
        outputs, number = case.forward(net, DEVICE)
    number.backward()
    off = max(float((outputs[name].detach().float().cpu() - case.outputs[name]).abs().max()) for name in case.outputs)
    shares = []
    parameters = dict(net.named_parameters())
    for name, official in case.gradients.items():
        gradient = parameters[name].grad
        own = torch.zeros_like(parameters[name]) if gradient is None else gradient
        if official.numel() == 1 and own.numel() != 1:
            own = own.norm()
        most = float(official.abs().max())
        wrong = float((own.detach().float().cpu().reshape(official.shape) - official).abs().max())
        shares.append(wrong / most if most > SMALLEST else wrong)
    return {"outputs": off, "gradients": max(shares)}
