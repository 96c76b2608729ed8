"""Where extraction runs, as options: this process, workers of this machine, a dask cluster, or Slurm jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidxfer.pipeline.errors import UsageError

SPREAD, SLURM = "Where it runs", "Slurm (with --slurm)"


def engine(
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="inline, local, scheduler or slurm; default: by the options below.",
            rich_help_panel=SPREAD,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, help="Workers on this machine, one per GPU; 0: all GPUs.", rich_help_panel=SPREAD
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="Address of a dask scheduler, tcp://host:8786.", rich_help_panel=SPREAD),
    ] = None,
    scheduler_file: Annotated[
        Path | None,
        typer.Option("--scheduler-file", help="The file that the scheduler wrote.", rich_help_panel=SPREAD),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option("--tls-ca", help="CA certificate (PEM) of a cluster with a key.", rich_help_panel=SPREAD),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Your certificate for that cluster.", rich_help_panel=SPREAD)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="The key of that certificate.", rich_help_panel=SPREAD)
    ] = None,
    losses_most: Annotated[
        int,
        typer.Option(
            "--worker-losses",
            min=0,
            help="How often a shard is given to another worker after its worker died.",
            rich_help_panel=SPREAD,
        ),
    ] = 3,
    slurm: Annotated[
        int | None,
        typer.Option("--slurm", min=1, help="Submit this many Slurm jobs, one worker each.", rich_help_panel=SPREAD),
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--slurm-partition", help="Queue of the jobs.", rich_help_panel=SLURM)
    ] = None,
    account: Annotated[
        str | None, typer.Option("--slurm-account", help="Account that is charged.", rich_help_panel=SLURM)
    ] = None,
    walltime: Annotated[str, typer.Option("--slurm-walltime", help="Time limit.", rich_help_panel=SLURM)] = "04:00:00",
    cpus: Annotated[int, typer.Option("--slurm-cpus", min=1, help="CPU cores of a job.", rich_help_panel=SLURM)] = 8,
    memory: Annotated[str, typer.Option("--slurm-memory", help="Memory of a job.", rich_help_panel=SLURM)] = "32GB",
    gres: Annotated[str, typer.Option("--slurm-gres", help="Device of a job.", rich_help_panel=SLURM)] = "gpu:1",
    directive: Annotated[
        list[str] | None,
        typer.Option("--slurm-directive", help="One more #SBATCH option, as --qos=long.", rich_help_panel=SLURM),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option("--slurm-setup", help="A line of shell before the worker starts.", rich_help_panel=SLURM),
    ] = None,
    logs: Annotated[
        Path | None, typer.Option("--slurm-logs", help="Folder for the jobs' output.", rich_help_panel=SLURM)
    ] = None,
) -> Any:
    """An `EngineChoice`.

    Raises:
        UsageError: an option that would do nothing.
    """
    from vidxfer.stages.engine import EngineChoice, SlurmChoice, TlsFiles

    jobs = None
    named = {"partition": partition, "account": account, "directive": directive, "setup": setup, "logs": logs}
    if slurm is None and (useless := [name for name, value in named.items() if value]):
        raise UsageError(f"--slurm-{useless[0]} is about Slurm jobs: add --slurm JOBS")
    if slurm is not None:
        jobs = SlurmChoice(
            jobs=slurm,
            partition=partition,
            account=account,
            walltime=walltime,
            cpus=cpus,
            memory=memory,
            gres=gres,
            directives=tuple(directive or ()),
            setup=tuple(setup or ()),
            log_folder=logs,
        )
    tls = None
    if tls_ca or tls_cert or tls_key:
        if not (tls_ca and tls_cert and tls_key):
            raise UsageError("a cluster with a key needs all of --tls-ca, --tls-cert and --tls-key")
        tls = TlsFiles(ca=tls_ca, cert=tls_cert, key=tls_key)
    return EngineChoice(
        engine=engine,
        workers=workers,
        scheduler=scheduler,
        scheduler_file=scheduler_file,
        slurm=jobs,
        tls=tls,
        losses_most=losses_most,
    )
