"""gpu.py's proofs of whole runs: exact resume, two processes on one device, and the tests that are marked gpu."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gpu_caches import empty, filled, spec_for
from gpu_codecs import tower_of
from gpu_device import CUDA, DEVICE, NEEDS_A_CARD, Row, offer_for, with_targets
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.recipe import B16
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.optimise import soft_cross_entropy
from vidxfer.pipeline.training.recipes import named
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.learning.trainer import Trainer

TESTS = Path(__file__).resolve().parents[1]
VIDEOS, CLIPS, STOP_AT = 16, 4, 5
"""Two epochs of four steps; a run is stopped in the middle of the second one."""
SAME = 1e-4
"""Largest difference of two processes' gradients from one process's, as a share of the largest of each tensor."""
SMALL = 1e-3
"""Share of the largest gradient of all below which a tensor's gradient is rounding alone, as that of a key's bias."""


def resume(folder: Path, small: bool) -> Iterator[Row]:
    """Stopped behind a step and gone on with: the same bytes under deterministic algorithms; without, how far off."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if importlib.util.find_spec("tensorboard") is None:  # not carried, and no part of what is proved here
        sys.modules["torch.utils.tensorboard"] = mock.MagicMock()
    tower = tower_of(folder, True, "cpu", "fp32")
    filled(empty(folder / "zarr", spec_for(tower, small=True), VIDEOS, frames=True))
    for name in ("dist-toy", "attentive-probe", "frame-transformer"):
        for deterministic in (True, False):
            torch.use_deterministic_algorithms(deterministic)
            kind = f"{name}-{deterministic}"
            whole = weights(folder, name, f"{kind}-whole", stops=False)
            again = weights(folder, name, f"{kind}-again", stops=False)
            broken = weights(folder, name, f"{kind}-broken", stops=True)
            off = largest(whole, broken)
            yield {
                "recipe": name, "deterministic algorithms": "asked for" if deterministic else "not asked for",
                "two runs differ by": largest(whole, again), "stopped and gone on, by": off,
                "holds": off == 0 if deterministic else None,
            }  # fmt: skip
    torch.use_deterministic_algorithms(False)


def weights(folder: Path, name: str, run: str, *, stops: bool) -> dict[str, torch.Tensor]:
    """Of a finished run; `stops`: it was stopped after some steps, and gone on with."""
    recipe = replace(named(name), epochs=2, warmup_epochs=0.0, batch_clips=CLIPS, dense_frames=None, clip=None)
    request = TrainRequest(recipe=recipe, cache=folder / "zarr", run=folder / run, devices=1)
    if stops:

        def stop(trainer: Trainer) -> bool:
            trainer.stopping = trainer.place.global_step >= STOP_AT
            return trainer.stopping

        with mock.patch.object(Trainer, "_agree_to_stop", stop):
            report = train(request)
        if report is None or report.finished or report.global_step != STOP_AT:
            raise SystemExit(f"{run} was to stop behind step {STOP_AT}: {report}")
    report = train(request)
    if report is None or not report.finished:
        raise SystemExit(f"{run} did not end: {report}")
    return load_file(str(folder / run / "checkpoint" / "weights.safetensors"))


def largest(weights_of: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The largest difference of two runs' weights."""
    if weights_of.keys() != others.keys():
        raise SystemExit(f"two runs have other weights: {sorted(weights_of.keys() ^ others.keys())}")
    return max(float((value.double() - others[name].double()).abs().max()) for name, value in weights_of.items())


def ranks(folder: Path, small: bool) -> Iterator[Row]:
    """Gradients of two processes over gloo, half of the batch each, against one process with all of it."""
    mp.spawn(half, args=(str(folder / "meet"), str(folder / "gradients.pt"), small), nprocs=2)
    net, batch = head_and_batch(small)
    soft_cross_entropy(net(batch), batch.targets).backward()
    together = torch.load(folder / "gradients.pt", weights_only=True)
    gradients = {name: one.grad.float().cpu() for name, one in net.named_parameters() if one.grad is not None}
    floor = SMALL * max(float(value.abs().max()) for value in gradients.values())
    shares = [
        float((together[name] - value).abs().max() / value.abs().max().clamp_min(floor))
        for name, value in gradients.items()
    ]
    where = f"{DEVICE}, gloo"
    yield {"head": "DiST", "processes": 2, "where": where, "gradients, share of the largest": max(shares),
           "holds": max(shares) <= SAME}  # fmt: skip


def head_and_batch(small: bool) -> tuple[torch.nn.Module, ClipBatch]:
    """The same in every process: made on the CPU, and moved."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    offer = offer_for(B16, alpha=2, small=True)
    net = DistConfig(integration_channels=64, temporal_channels=32, pooling_layers=1).build(offer)
    torch.manual_seed(0)
    batch = with_targets(offer, net, CLIPS)
    return net.to(DEVICE), batch


def half(rank: int, meet: str, out: str, small: bool) -> None:
    """One of two processes: forward and backward of its half."""
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    net, batch = head_and_batch(small)
    own = slice(rank * CLIPS // 2, (rank + 1) * CLIPS // 2)
    values: dict[str, Any] = {name: None if value is None else value[own] for name, value in vars(batch).items()}
    both = DistributedDataParallel(net, find_unused_parameters=DistConfig.unused_parameters)  # as `train` does
    soft_cross_entropy(both(ClipBatch(**values)), values["targets"]).backward()
    if rank == 0:
        grads = {name: one.grad.float().cpu() for name, one in net.named_parameters() if one.grad is not None}
        torch.save(grads, out)
    dist.barrier()
    dist.destroy_process_group()


def tests(folder: Path, small: bool) -> Iterator[Row]:
    """The tests marked gpu; on a card, one that is skipped fails."""
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    marked = [path for path in files if path.parent.name != "bench"]
    if not CUDA:
        yield {"files": ", ".join(path.name for path in marked), "said": NEEDS_A_CARD}
        return
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, marked)]
    done = subprocess.run(words, env={**os.environ, "VIDXFER_EXPECT_GPU": "1"}, capture_output=True, text=True,
                          cwd=TESTS.parent, check=False)  # fmt: skip
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1]
    yield {"files": ", ".join(path.name for path in marked), "said": last,
           "holds": done.returncode == 0 and not re.search(r"skipped|no tests ran", last)}  # fmt: skip
