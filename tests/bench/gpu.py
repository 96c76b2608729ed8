"""What the GPU says: proofs and figures of everything that runs on a device, part by part, in order of value.

    python tests/bench/gpu.py --minutes 5 --out gpu [--small] [--parts dist,goldens]        (or: make gpu)

    part ─ a process of its own, with a limit ─▶ rows ─▶ results.jsonl, gpu.md, rates.json      written after every part

A part that fails or takes longer than its limit is a result, not an end. Works from the source tree: nothing of vidxfer
need be installed, and what is missing lies in wheels/ (gpu_wheels.py). All weights, frames and tokens are random.
Without a CUDA device the parts run on the CPU, where they mean something; --small: sizes for that.
Exit code: 0, or 1 where a proof failed or a part did not end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_page import page
from gpu_wheels import unpacked

HERE = Path(__file__).resolve().parent
SOURCE = [HERE.parents[1] / ".typings", HERE, HERE.parent, HERE.parent / "heads"]
"""The package from the tree, and the tests whose readers of golden files are used."""
LAST_LINES = 6
LEAST_SECONDS = 8.0
"""With less time left, a part is not begun."""


@dataclass(frozen=True)
class Part:
    """Where a part is written, and how long it may take: seconds of five minutes. More minutes give it more."""

    module: str
    limit_s: float


PARTS = {
    "machine": Part("gpu_figures", 25),
    "dist": Part("gpu_figures", 75),
    "recipes": Part("gpu_proofs", 60),
    "goldens": Part("gpu_goldens", 40),
    "codecs": Part("gpu_codecs", 50),
    "epochs": Part("gpu_epochs", 90),
    "extraction": Part("gpu_epochs", 60),
    "transfer": Part("gpu_codecs", 40),
    "taps": Part("gpu_proofs", 30),
    "heads": Part("gpu_figures", 50),
    "resume": Part("gpu_runs", 50),
    "ranks": Part("gpu_runs", 40),
    "compiled": Part("gpu_proofs", 150),
    "tests": Part("gpu_runs", 60),
    "large": Part("gpu_figures", 50),
}
"""In order of value: where time runs out, the last ones are missing."""


def rows_of(name: str, *, small: bool) -> Iterator[dict[str, Any]]:
    """Run one part in this process."""
    with tempfile.TemporaryDirectory(prefix="vidxfer-gpu-") as folder:
        yield from getattr(importlib.import_module(PARTS[name].module), name)(Path(folder), small)


def child(name: str, *, small: bool) -> None:
    """Print the rows of one part, each as a line of JSON as soon as it is known."""
    for row in rows_of(name, small=small):
        print(json.dumps(row), flush=True)


def ended(name: str, limit_s: float, words: Sequence[str], folder: Path, compiled: Path) -> dict[str, Any]:
    """Run one part in a process of its own: its rows, how it ended, and how long it took.

    `compiled` is where torch.compile keeps what it makes.
    """
    out, err, began = folder / "out", folder / "err", time.monotonic()
    command = [sys.executable, str(HERE / "gpu.py"), "--child", name, *words]
    with out.open("wb") as rows, err.open("wb") as said:
        own = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compiled)}
        process = subprocess.Popen(command, stdout=rows, stderr=said, start_new_session=True, env=own)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # what the part itself has started ends with it, also on Ctrl-C
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    why = "" if code == 0 else f"failed with exit code {code}"
    if code is None:
        why = f"took longer than its {limit_s:.0f} s"
    last = err.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
    return {"part": name, "rows": whole_lines(out), "failed": "\n".join([why, *last]) if why else "",
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """The rows that a part has printed; one that was cut off by its end, and what libraries print, is left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def run(names: Sequence[str], out: Path, *, minutes: float, small: bool) -> list[dict[str, Any]]:
    """Every part in turn while there is time; files are written after each."""
    out.mkdir(parents=True, exist_ok=True)
    end, results, late = time.monotonic() + 60 * minutes, [], 0
    (out / "results.jsonl").write_text("")
    with tempfile.TemporaryDirectory(prefix="vidxfer-gpu-compiled-") as compiled:
        for name in names:
            left = end - time.monotonic()
            result = {"part": name, "rows": [], "failed": "not begun: no time was left", "seconds": 0.0}
            if left > LEAST_SECONDS:
                limit = min(left, PARTS[name].limit_s * max(1.0, minutes / 5))
                with tempfile.TemporaryDirectory() as folder:
                    # A compiler that is killed leaves half a file, on which every later part would fail.
                    result = ended(name, limit, ["--small"] * small, Path(folder), Path(compiled, str(late)))
                    late += "took longer" in result["failed"]
            results.append(result)
            with (out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            write(out, results)
            print(said(result), flush=True)
    return results


def write(out: Path, results: list[dict[str, Any]]) -> None:
    """The page, and the rates for `vidxfer plan --rates`."""
    (out / "gpu.md").write_text(page(results, " ".join(sys.argv[1:])), encoding="utf-8")
    rates: dict[str, float] = {}
    for result in results:
        for row in result["rows"]:
            rates |= row.get("rates", {})
    (out / "rates.json").write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")


def said(result: dict[str, Any]) -> str:
    """One line about a part, and the lines about what is wrong in it."""
    wrong = [f"  NOT SO: {row}" for row in result["rows"] if row.get("holds") is False]
    state = f"FAILED: {result['failed']}" if result["failed"] else f"{len(result['rows'])} rows"
    return "\n".join([f"{result['part']}: {state} ({result['seconds']} s)", *wrong])


def is_good(results: list[dict[str, Any]]) -> bool:
    """Whether every part ended and every proof holds."""
    return not any(result["failed"] or any(row.get("holds") is False for row in result["rows"]) for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all parts together (5)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results (gpu)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--parts", default=",".join(PARTS), help="with commas (all)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, small=asked.small)
        return 0
    names = asked.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    paths = [*SOURCE, *unpacked(), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if str(path))
    return 0 if is_good(run(names, asked.out, minutes=asked.minutes, small=asked.small)) else 1


if __name__ == "__main__":
    sys.exit(main())
