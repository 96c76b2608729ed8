"""Small semantic changes, put into the code one at a time: do the tests that should notice them fail?

    python tests/mutants/run.py [WORD …] [--seconds 240]        (or: make mutants)

    *.toml ─▶ change ─▶ in a scratch copy: old text ─▶ new text ─▶ its tests ─▶ noticed, SURVIVED, or does not apply

Each entry of the lists has `file`, `old` (which stands there exactly once), `new`, `tests` (what pytest
is told) and `why` (what would be wrong for a user). Words choose entries whose file or `why` holds one. The exit
code is 0 when every change was noticed. It is no part of `make test`: one change takes seconds to a minute.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change and who must notice it.

    Attributes:
        file: to change, from the top of the checkout.
        old: its text, exactly once there.
        new: what stands there instead.
        tests: words for pytest.
        why: what would be wrong.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str

    def applied(self, text: str) -> str:
        """The changed text of the file.

        Raises:
            ValueError: the old text does not stand there exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.old!r} stands there {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


def listed() -> list[Mutant]:
    """All changes of all lists."""
    return [
        Mutant(**{**entry, "tests": tuple(entry["tests"])})
        for path in sorted(HERE.glob("*.toml"))
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    ]


def copy_tracked(target: Path) -> None:
    """A copy of what git tracks, links as links."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\0")):
        source, place = ROOT / name, target / name
        if source.is_symlink() or source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)


def run_tests(tree: Path, tests: tuple[str, ...], seconds: float) -> int | None:
    """pytest's exit code in a tree; None when it took longer than `seconds`."""
    shared = ROOT.parent / "shared"
    folders = {f"VIDXFER_{name.upper()}": shared / name for name in ("golden", "fixtures", "spec", "real")}
    named = {key: str(path) for key, path in folders.items() if path.is_dir() and key not in os.environ}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, **named, "PYTHONPATH": str(tree / ".typings"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def verdict(mutant: Mutant, tree: Path, seconds: float) -> str:
    """Apply, ask the tests, take back. Only a failed test (exit code 1) or the time limit count as noticed."""
    file = tree / mutant.file
    text = file.read_text(encoding="utf-8")
    file.write_text(mutant.applied(text), encoding="utf-8")
    try:
        code = run_tests(tree, mutant.tests, seconds)
    finally:
        file.write_text(text, encoding="utf-8")
    return {None: "noticed (time limit)", 1: "noticed", 0: "SURVIVED"}.get(code, f"NOT RUN (pytest ended with {code})")


def main() -> int:
    """Run the chosen changes and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seconds", type=float, default=240)
    asked = parser.parse_args()
    chosen = [m for m in listed() if not asked.words or any(w in m.file or w in m.why for w in asked.words)]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="vidxfer-mutants-") as folder:
        tree = Path(folder) / "tree"
        copy_tracked(tree)
        sound = run_tests(tree, tuple(sorted({test for m in chosen for test in m.tests})), asked.seconds * 10)
        if sound != 0:
            print(f"unchanged, the tests named by the lists end with {sound}: nothing can be said")
            return 2
        for number, mutant in enumerate(chosen, 1):
            begun = time.monotonic()
            said = verdict(mutant, tree, asked.seconds)
            bad += not said.startswith("noticed")
            print(
                f"{number}/{len(chosen)} {said:<10} {time.monotonic() - begun:4.0f} s  {mutant.file}: {mutant.why}",
                flush=True,
            )
    print(f"{len(chosen) - bad} of {len(chosen)} changes noticed")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
