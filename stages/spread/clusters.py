"""A dask cluster to extract on: made here with one worker per GPU, found at an address, or made of Slurm jobs.

    --workers N           scheduler in this process ─▶ N worker processes, each with its own CUDA_VISIBLE_DEVICES;
                          all on loopback, with a key made for this run (private.py)
    --scheduler ADDRESS   whatever workers have joined there with --resources GPU=1
    --slurm JOBS          scheduler in this process ─▶ sbatch × JOBS, one worker each; ended jobs are submitted again

A worker has one thread and the resource GPU = 1, on a CPU too: it names the right to run one shard, not a device.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from vidxfer.pipeline.errors import ClusterError, UsageError
from vidxfer.stages import signals
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.progress import Progress
from vidxfer.stages.signals import exit_on_request, interrupts_held
from vidxfer.stages.spread.slurm import slurm_cluster

RESOURCES = {"GPU": 1}
CONNECT_SECONDS = 30.0
LOOK_SECONDS, REMIND_SECONDS = 2.0, 60.0

SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # who tries again is decided in spread.py, after the first death
    "distributed.comm.timeouts.connect": "60s",  # shared file systems stall
    "distributed.comm.timeouts.tcp": "120s",
}


class Cluster:
    """A client of a cluster and what is worth knowing about it.

    Attributes:
        client: `distributed.Client`.
        address: of the scheduler.
    """

    def __init__(self, client: Any, shown: Progress, *, refill: Callable[[], None] = lambda: None) -> None:
        self.client, self.address = client, str(client.scheduler.address)
        self._shown, self._refill = shown, refill
        self._workers, self._looked, self._reminded = 0, 0.0, time.monotonic() - REMIND_SECONDS / 2

    def workers(self) -> int:
        """Workers that can run shards; asked for every two seconds at most."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                all_workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            except (OSError, TimeoutError) as error:
                raise self.lost() from error
            self._workers = sum(1 for worker in all_workers if worker["resources"].get("GPU", 0) >= 1)
        return self._workers

    def look_after(self) -> None:
        """Check, while nothing happens, that the scheduler answers and that there are workers.

        Raises:
            ClusterError: the scheduler is gone.
        """
        if self.client.status != "running":
            raise self.lost()
        self._refill()
        if self.workers() == 0 and time.monotonic() - self._reminded > REMIND_SECONDS:
            self._reminded = time.monotonic()
            self._shown.line(f"waiting for workers. On each machine, once per GPU:\n{worker_command(self.address)}")

    def lost(self) -> ClusterError:
        """What to say when the scheduler does not answer any more."""
        return ClusterError(
            f"the scheduler at {self.address} is gone. Finished shards are safe. "
            "Start it again, and run the same command: it goes on."
        )


def worker_command(address: str) -> str:
    """The line that starts a worker which fits."""
    key = " --tls-ca-file CA.pem --tls-cert CERT.pem --tls-key KEY.pem" if address.startswith("tls://") else ""
    return (
        f"  CUDA_VISIBLE_DEVICES=0 dask worker {address}{key} --nthreads 1 --resources GPU=1 --memory-limit 0 "
        "--no-dashboard --dashboard-address 127.0.0.1:0"
    )


@contextmanager
def connected(choice: EngineChoice, device: str, shown: Progress) -> Iterator[Cluster]:
    """The cluster that `choice` names. What was started for it ends with the block.

    Args:
        device: of local workers: "auto", "cpu" or "cuda".

    Raises:
        UsageError: more workers than GPUs, or no dask-jobqueue. ClusterError: no scheduler answers.
    """
    import dask
    from distributed import Client

    from vidxfer.stages.spread.private import of_files, warning_of

    security = of_files(choice.tls)
    with exit_on_request(), dask.config.set(SETTINGS), _quiet():
        if choice.name == "scheduler":
            with _client_at(Client, choice, security) as client:
                if warning := warning_of(client.scheduler.address):
                    shown.line(warning)
                yield Cluster(client, shown)
        elif choice.name == "slurm":
            assert choice.slurm is not None
            started_jobs = slurm_cluster(choice.slurm, security)
            with started_jobs as jobs, Client(jobs.cluster, timeout=CONNECT_SECONDS) as client:
                if warning := warning_of(client.scheduler.address):
                    shown.line(warning)
                shown.line(f"scheduler at {client.scheduler.address}; {choice.slurm.jobs} jobs submitted")
                yield Cluster(client, shown, refill=jobs.refill)
        else:
            assert choice.workers is not None
            with ExitStack() as started:
                with interrupts_held():
                    cluster = started.enter_context(_local(choice.workers, device))
                    client = started.enter_context(Client(cluster))
                yield Cluster(client, shown)


@contextmanager
def _client_at(client: Any, choice: EngineChoice, security: Any) -> Iterator[Any]:
    where = choice.scheduler or choice.scheduler_file
    if choice.scheduler_file is not None and not choice.scheduler_file.is_file():
        raise ClusterError(f"{choice.scheduler_file}: no such file. `dask scheduler --scheduler-file FILE` writes it.")
    given = {"address": choice.scheduler} if choice.scheduler else {"scheduler_file": str(choice.scheduler_file)}
    try:
        made = client(**given, timeout=CONNECT_SECONDS, security=security)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:  # the last two: tls:// without a key
        raise ClusterError(
            f"no dask scheduler answers at {where} ({error}). Start one with `dask scheduler`, and workers with\n"
            + worker_command(str(choice.scheduler or "--scheduler-file FILE"))
            + "\nOne whose address begins with tls:// needs --tls-ca, --tls-cert and --tls-key."
        ) from error
    with made:
        yield made


@contextmanager
def _local(workers: int, device: str) -> Iterator[Any]:
    """A scheduler here and one worker process per GPU; on a CPU the cores are divided among them."""
    from distributed import Nanny, SpecCluster

    from vidxfer.stages.spread.private import SchedulerAlone, WorkerAlone, made_for_this_run

    security = made_for_this_run()
    private = {"host": "127.0.0.1", "protocol": "tls://", "security": security, "dashboard": False}
    environments = worker_environments(workers, device, os.environ)
    options = {**private, "nthreads": 1, "resources": RESOURCES, "memory_limit": 0, "worker_class": WorkerAlone,
               "silence_logs": logging.CRITICAL, "preload": [signals.__name__]}  # fmt: skip
    spec = {
        number: {"cls": Nanny, "options": {**options, "env": environment}}
        for number, environment in enumerate(environments)
    }
    scheduler = {"cls": SchedulerAlone, "options": {**private, "port": 0}}
    with SpecCluster(workers=spec, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL) as cluster:
        yield cluster


def worker_environments(workers: int, device: str, outer: Mapping[str, str]) -> list[dict[str, str]]:
    """What each worker's environment says before torch is imported there.

    Args:
        workers: how many; 0: one per GPU.
        device: "auto", "cpu" or "cuda".
        outer: this process's environment.

    Raises:
        UsageError: there are fewer GPUs, or `device` names one by its number.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {device} with --workers: choose GPUs with CUDA_VISIBLE_DEVICES; each worker has one"
        )
    gpus = [] if device == "cpu" else visible_gpus(outer)
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda: torch sees no GPU here")
    if not gpus:
        count = max(1, workers)
        return [{"CUDA_VISIBLE_DEVICES": "", **_threads(count)} for _ in range(count)]
    if workers > len(gpus):
        raise UsageError(
            f"--workers {workers}, but {len(gpus)} GPUs are visible ({', '.join(gpus)}); each worker needs its own. "
            "0 means one worker per GPU; --device cpu uses none."
        )
    chosen = gpus[: workers or len(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": gpu, **_threads(len(chosen))} for gpu in chosen]


def visible_gpus(outer: Mapping[str, str]) -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs of GPUs and MIG slices."""
    named = outer.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        import torch

        return [str(number) for number in range(torch.cuda.device_count())]
    gpus: list[str] = []
    for name in (part.strip() for part in named.split(",")):
        if not name or name.startswith("-"):  # CUDA ignores an invalid name and all that follow
            break
        gpus.append(name)
    return gpus


def _threads(workers: int) -> dict[str, str]:
    """The cores of this machine, divided; an outer OMP_NUM_THREADS stands."""
    cores = len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // workers))}


@contextmanager
def _quiet() -> Iterator[None]:
    """Deaths and reconnections are told by us, once; dask's log lines about them stay off the terminal."""
    known = [name for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application", *known)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
