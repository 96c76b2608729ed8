"""A cluster is nobody else's: no code runs in it for whoever lacks its key, and nothing of it listens to the world."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vidxfer.pipeline.errors import ClusterError, UsageError
from vidxfer.stages.engine import EngineChoice, SlurmChoice, TlsFiles
from vidxfer.stages.progress import Silent
from vidxfer.stages.spread.clusters import Cluster, connected, worker_command
from vidxfer.stages.spread.private import of_files

STRANGER = """
import sys
from pathlib import Path
from distributed import Client
from distributed.security import Security

address, how, note = sys.argv[1:]
security = Security.temporary() if how == "tls" else Security()
with Client(f"{how}://{address}", timeout=3, security=security) as client:
    client.run_on_scheduler(lambda: Path(note).write_text("run"))
"""
"""Another process of this machine, which knows the address and not the key."""


def stranger(address: str, how: str, note: Path) -> str:
    """Run it; what it said on standard error."""
    asked = [sys.executable, "-c", STRANGER, address.partition("://")[2], how, str(note)]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60).stderr


@dataclass(frozen=True)
class Local:
    """A cluster of this machine while it runs."""

    cluster: Cluster
    processes: tuple[psutil.Process, ...]

    @property
    def listening(self) -> list[tuple[str, int]]:
        """Address and port of every open port of the cluster's processes."""
        found = [one for process in self.processes for one in process.net_connections(kind="inet")]
        return sorted({(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN})


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    """One worker, as `--workers 1 --device cpu` starts it."""
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    with connected(EngineChoice(workers=1), "cpu", Silent()) as cluster:
        cluster.client.wait_for_workers(1, timeout=60)
        own = psutil.Process()
        started = [one for one in own.children(recursive=True) if one.pid not in before]
        yield Local(cluster, (own, *started))


def test_nothing_listens_beyond_loopback_and_nothing_but_dask_listens(local: Local) -> None:
    assert len(local.processes) > 1
    assert {ip for ip, _ in local.listening} == {"127.0.0.1"}
    info = local.cluster.client.scheduler_info(n_workers=-1)
    (worker,) = info["workers"].values()
    dask = [local.cluster.address, worker["id"] if "://" in str(worker["id"]) else next(iter(info["workers"]))]
    dask.append(worker["nanny"])
    assert [port for _, port in local.listening] == sorted(int(address.rpartition(":")[2]) for address in dask)
    assert all(address.startswith("tls://127.0.0.1:") for address in dask)


@pytest.mark.parametrize("how", ["tcp", "tls"])
def test_another_process_without_the_key_runs_no_code(local: Local, how: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    assert re.search("CommClosedError|Timed out", stranger(local.cluster.address, how, note))
    assert not note.exists()
    assert local.cluster.client.run_on_scheduler(os.getpid) == os.getpid()  # while whoever has the key still does


def test_the_key_is_neither_on_a_command_line_nor_in_an_environment(local: Local) -> None:
    key = local.cluster.client.security.tls_client_key
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n")
    secret = key.splitlines()[3]
    shown = [" ".join([*one.cmdline(), *one.environ().values()]) for one in local.processes]
    assert [text for text in shown if secret in text or "PRIVATE KEY" in text] == []


def test_every_run_has_a_key_of_its_own(local: Local) -> None:
    from vidxfer.stages.spread.private import made_for_this_run

    assert made_for_this_run().tls_client_key != local.cluster.client.security.tls_client_key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate that signs itself, as a person's administrator would hand it out."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(secret)
    (folder / "locked.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    return TlsFiles(ca=folder / "cert.pem", cert=folder / "cert.pem", key=folder / "key.pem")


class Lines(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def scheduler(files: TlsFiles, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A scheduler as a person starts it, with the lab's key or without any; its file."""
    file = tmp_path / "scheduler.json"
    words = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    if request.param == "tls":
        words += ["--protocol", "tls", "--tls-ca-file", str(files.ca)]
        words += ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
    started = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        while not file.is_file():
            assert started.poll() is None
        yield file
    finally:
        started.kill()
        started.wait()


@pytest.mark.parametrize("scheduler", ["tls"], indirect=True)
def test_a_scheduler_with_a_key_is_joined_with_the_files_and_not_without(files: TlsFiles, scheduler: Path) -> None:
    shown = Lines()
    with connected(EngineChoice(scheduler_file=scheduler, tls=files), "cpu", shown) as cluster:
        assert cluster.client.run_on_scheduler(os.getpid) != os.getpid()
        assert "--tls-cert CERT.pem" in worker_command(cluster.address)
    assert shown.said == []
    refused = pytest.raises(ClusterError, match="needs --tls-ca, --tls-cert and --tls-key")
    with refused, connected(EngineChoice(scheduler_file=scheduler), "cpu", shown):
        pass


@pytest.mark.parametrize("scheduler", ["tcp"], indirect=True)
def test_of_a_scheduler_without_a_key_the_risk_is_said_once(files: TlsFiles, scheduler: Path, tmp_path: Path) -> None:
    shown = Lines()
    with connected(EngineChoice(scheduler_file=scheduler), "cpu", shown) as cluster:
        stranger(cluster.address, "tcp", tmp_path / "note")
    assert (tmp_path / "note").read_text() == "run"  # what is said is so
    assert len(shown.said) == 1
    assert "asks for no key: everybody who reaches this port can run code as you" in shown.said[0]
    refused = pytest.raises(ClusterError, match="encryption required")
    with refused, connected(EngineChoice(scheduler_file=scheduler, tls=files), "cpu", shown):
        pass


def test_jobs_get_the_paths_of_the_files_and_the_worker_without_web(files: TlsFiles) -> None:
    from vidxfer.stages.spread.slurm import job_script

    script = job_script(SlurmChoice(jobs=2), of_files(files))
    assert f"--tls-key {files.key}" in script
    assert "tls://" in script
    assert "--worker-class vidxfer.stages.spread.private.WorkerAlone" in script
    assert "PRIVATE" not in script
    assert "--tls-key" not in job_script(SlurmChoice(jobs=2))


def test_files_that_cannot_be_meant_are_refused_before_anything_starts(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"key": tmp_path / "none"}, r"--tls-key .*none: no such file"),
        ({"key": tmp_path / "text"}, "cannot be used together"),
        ({"ca": tmp_path / "text"}, "cannot be used together"),
        ({"cert": files.key}, "cannot be used together"),
        ({"key": files.key.with_name("locked.pem")}, "asks for a password"),
    ]
    for changes, said in wrong:
        with pytest.raises(UsageError, match=said):
            of_files(replace(files, **changes))
    for engine in (EngineChoice(workers=1, tls=files), EngineChoice(tls=files)):
        with pytest.raises(UsageError, match="workers of this machine are given a key"):
            print(engine.name)
    with pytest.raises(UsageError, match="begins with tls://"):
        print(EngineChoice(scheduler="tcp://127.0.0.1:1", tls=files).name)
