"""Which code made a cache or a run: versions of the libraries, and the commit of the checkout."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Of the checkout; of an installed package the folder that holds it."""

VERSIONS_OF = ("vidxfer", "torch", "open_clip_torch", "timm", "zarr", "av", "decord", "numpy")


def library_versions() -> dict[str, str]:
    """Versions of what made a cache or a run; decord may be absent where it has no wheels."""
    versions = {}
    for name in VERSIONS_OF:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def code_version() -> str:
    """The commit of the checkout with "+changes" if tracked files were edited, or "installed" outside a checkout."""
    if not (ROOT / ".git").exists():
        return "installed"
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown (git does not answer)"
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
