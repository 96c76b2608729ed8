"""What a run remembers of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vidxfer.stages import versions


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_root_is_that_of_the_checkout() -> None:
    assert (versions.ROOT / "stages" / "versions.py").resolve() == Path(versions.__file__).resolve()


def test_the_commit_and_whether_tracked_files_were_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.code_version() == "installed"
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert versions.code_version() == commit
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "untracked").touch()
    assert versions.code_version() == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert versions.code_version() == f"{commit}+changes"


def test_a_checkout_without_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.code_version() == "unknown (git does not answer)"


def test_each_library_has_a_version() -> None:
    found = versions.library_versions()
    assert found["torch"].split(".")[0].isdigit()
    assert set(found) == set(versions.VERSIONS_OF)
