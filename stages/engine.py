"""Where extraction runs, as a person chooses it: in this process, in workers of this machine, or on a cluster.

nothing given ─▶ inline      --workers N ─▶ local      --scheduler ADDRESS ─▶ scheduler      --slurm JOBS ─▶ slurm
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.errors import UsageError

ENGINES = ("inline", "local", "scheduler", "slurm")


@dataclass(frozen=True, kw_only=True)
class SlurmChoice:
    """Jobs of a batch system, one worker with one device each.

    Attributes:
        jobs: how many.
        partition, account: as the cluster names them; None: its defaults.
        walltime: of a job, hours:minutes:seconds.
        cpus, memory: of a job.
        gres: the device a job asks for; "": none.
        directives: more `#SBATCH` options.
        setup: lines of shell before the worker starts.
        log_folder: for the jobs' output.
    """

    jobs: int
    partition: str | None = None
    account: str | None = None
    walltime: str = "04:00:00"
    cpus: int = 8
    memory: str = "32GB"
    gres: str = "gpu:1"
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    log_folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """What a cluster with a key is joined with, in PEM form.

    Attributes:
        ca: certificate that signed those of all processes.
        cert, key: this person's own.
    """

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Where shards are extracted.

    Attributes:
        engine: one of `ENGINES`; None: what the other fields say.
        workers: processes on this machine, one per GPU; 0: one for every GPU there is. None: no local workers.
        scheduler, scheduler_file: of a running dask cluster: its address, or the file it writes it to.
        slurm: jobs to submit.
        tls: of a scheduler that asks for a key, or for that of the jobs; local workers have a key of their own.
        losses_most: how often a shard is given to another worker after its worker died or failed.
    """

    engine: str | None = None
    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: Path | None = None
    slurm: SlurmChoice | None = None
    tls: TlsFiles | None = None
    losses_most: int = 3

    @property
    def name(self) -> str:
        """The engine that is meant.

        Raises:
            UsageError: the fields mean two of them, or another one than `engine` says.
        """
        meant = {
            "local": self.workers is not None,
            "scheduler": self.scheduler is not None or self.scheduler_file is not None,
            "slurm": self.slurm is not None,
        }
        named = [engine for engine, given in meant.items() if given]
        if len(named) > 1 or (self.scheduler is not None and self.scheduler_file is not None):
            raise UsageError("give one of --workers, --scheduler, --scheduler-file and --slurm, not several")
        if self.tls is not None and named in ([], ["local"]):
            raise UsageError(
                "--tls-ca, --tls-cert and --tls-key are for --scheduler, --scheduler-file and --slurm; workers of this "
                "machine are given a key that is made for the run"
            )
        if self.tls is not None and (self.scheduler or "").startswith("tcp://"):
            raise UsageError(f"--scheduler {self.scheduler} with --tls-…: an address with a key begins with tls://")
        if self.engine is not None and self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine!r} is none of {', '.join(ENGINES)}")
        if self.engine is not None and [self.engine] != (named or ["inline"]):
            needs = {"local": "--workers N", "scheduler": "--scheduler ADDRESS", "slurm": "--slurm JOBS"}
            wanted = needs.get(self.engine, "neither --workers, --scheduler nor --slurm")
            raise UsageError(f"--engine {self.engine} goes with {wanted}")
        return named[0] if named else "inline"
