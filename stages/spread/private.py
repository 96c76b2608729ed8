"""Who may talk to the processes of a cluster? Only processes that have its key. No web server runs beside them.

    --workers                  a key made for this run ─▶ memory of the scheduler; through a pipe to its workers
    --tls-ca, -cert, -key      a person's files        ─▶ the client; with --slurm the scheduler and the jobs too
    neither                    what dask's own configuration says (distributed.comm.tls), else nothing: said once

Whoever can send a message to a scheduler or a worker can run code in it: that is what dask is for. A port on loopback
is no protection: every user of a machine reaches it. dask opens a web server beside each, even with its dashboard off.
"""

from __future__ import annotations

import ssl

from distributed import Scheduler, Worker
from distributed.security import Security

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.reading import read_bytes
from vidxfer.stages.engine import TlsFiles

MOST_KEY_BYTES = 1 << 20
ROLES = ("client", "scheduler", "worker")


class _NoWeb:
    """What dask asks for when it starts: a web server on a port of its own."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Nothing is started."""


class SchedulerAlone(_NoWeb, Scheduler):  # type: ignore[misc]  # dask has no types
    """A scheduler that listens for dask's messages only."""


class WorkerAlone(_NoWeb, Worker):  # type: ignore[misc]
    """A worker that listens for dask's messages only."""


WORKER_CLASS = f"{WorkerAlone.__module__}.{WorkerAlone.__qualname__}"
"""For `dask worker --worker-class`."""


def made_for_this_run() -> Security:
    """A key and its certificate that exist in memory only; both sides of every connection must have them."""
    return Security.temporary()


def of_files(files: TlsFiles | None) -> Security | None:
    """A person's key and certificates; None where none were given: dask's own configuration then holds.

    Raises:
        UsageError: a file is not there, or the three do not fit together.
    """
    if files is None:
        return None
    for option, path in (("--tls-ca", files.ca), ("--tls-cert", files.cert), ("--tls-key", files.key)):
        if not path.is_file():
            raise UsageError(f"{option} {path}: no such file; a certificate or key in PEM form is expected")
    if b"ENCRYPTED" in read_bytes(files.key, most=MOST_KEY_BYTES):
        raise UsageError(
            f"--tls-key {files.key} asks for a password, and nobody can type one in a job. Store the key without it."
        )
    ca, cert, key = (str(path.absolute()) for path in (files.ca, files.cert, files.key))
    roles = {f"tls_{role}_{file}": path for role in ROLES for file, path in (("cert", cert), ("key", key))}
    made = Security(require_encryption=True, tls_ca_file=ca, **roles)
    try:
        made.get_connection_args("client")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"--tls-ca {ca}, --tls-cert {cert} and --tls-key {key} cannot be used together: {error}. Expected: three "
            "PEM files, the key being that of the certificate, and the certificate signed by the CA."
        ) from error
    return made


def warning_of(address: str) -> str | None:
    """What a person must know of a scheduler at this address; None: it asks for a key."""
    if address.startswith("tls://"):
        return None
    return (
        f"{address} asks for no key: everybody who reaches this port can run code as you, here and on the workers. "
        "Use it in a network you trust only, or see docs/clusters.md: --tls-ca, --tls-cert, --tls-key."
    )
