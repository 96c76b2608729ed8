"""Slurm jobs as dask workers, through dask-jobqueue (extra `slurm`).

    SlurmChoice ─▶ a job script (`--slurm-dry-run` prints it) ─▶ sbatch × jobs ─▶ each job: one worker, one GPU

A job that reaches its wall time is not submitted again by dask-jobqueue; `refill` does that while there is work.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidxfer.pipeline.errors import ClusterError, UsageError
from vidxfer.stages.engine import SlurmChoice

REFILL_SECONDS = 30.0


class SlurmJobs:
    """A cluster of jobs that is kept at its size.

    Attributes:
        cluster: `dask_jobqueue.SLURMCluster`.
    """

    def __init__(self, cluster: Any, jobs: int) -> None:
        self.cluster, self._jobs, self._filled = cluster, jobs, time.monotonic()
        cluster.scale(jobs=jobs)

    def refill(self) -> None:
        """Submit again what has ended."""
        if time.monotonic() - self._filled > REFILL_SECONDS:
            self._filled = time.monotonic()
            self.cluster.scale(jobs=self._jobs)


@contextmanager
def slurm_cluster(choice: SlurmChoice, security: Any = None) -> Iterator[SlurmJobs]:
    """Submit the jobs; they are cancelled when the block ends.

    Args:
        security: key and certificates of scheduler and jobs, a `distributed.Security`; None: they have none.

    Raises:
        UsageError: dask-jobqueue is not installed. ClusterError: this machine has no `sbatch`.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "--slurm: there is no `sbatch` here. Run this on a node that submits jobs, or start workers yourself and "
            "use --scheduler. `--slurm-dry-run` prints the job script anywhere."
        )
    with _made(choice, security) as cluster:
        yield SlurmJobs(cluster, choice.jobs)


def job_script(choice: SlurmChoice, security: Any = None) -> str:
    """The script that would be submitted; `security` as for `slurm_cluster`.

    Raises:
        UsageError: dask-jobqueue is not installed.
    """
    with _made(choice, security) as cluster:
        return str(cluster.job_script())


@contextmanager
def _made(choice: SlurmChoice, security: Any) -> Iterator[Any]:
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise UsageError('--slurm needs dask-jobqueue: pip install "vidxfer[slurm]"') from error
    signal.signal(signal.SIGINT, interrupt)  # the import makes Ctrl-C a silent exit with code 0
    from vidxfer.stages.spread.private import WORKER_CLASS, SchedulerAlone

    extra = ["--resources", "GPU=1", "--no-dashboard", "--worker-class", WORKER_CLASS, "--memory-limit", "0"]
    directives = [*([f"--gres={choice.gres}"] if choice.gres else []), *choice.directives]
    with SLURMCluster(
        queue=choice.partition,
        account=choice.account,
        walltime=choice.walltime,
        cores=1,
        processes=1,
        job_cpu=choice.cpus,
        memory=choice.memory,
        worker_extra_args=extra,  # Slurm watches memory
        job_name="vidxfer",
        job_extra_directives=directives,
        job_script_prologue=list(choice.setup),
        log_directory=None if choice.log_folder is None else str(choice.log_folder),
        security=security,
        scheduler_cls=SchedulerAlone,
        scheduler_options={"dashboard": False, "port": 0},
    ) as cluster:
        yield cluster
