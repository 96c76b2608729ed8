"""The golden table: every file of official numbers, the largest deviation from it, and the tolerance there.

    python tests/golden_table.py        (or: make golden, for pass and fail only)

It runs the tests that are given the folder of golden numbers, and listens to each comparison of tensors. A deviation
is shown where it comes nearest to what its test allows. Files that are compared by equality or by pytest.approx have
no deviation to show: their tests say what they allow.
"""

from __future__ import annotations

import builtins
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

HERE = Path(__file__).parent
FILES = re.compile(r"((?:dist|vjepa2_probe)_\w+\.(?:safetensors|json)|sampling\.json)$")


class Listener:
    """Notes which golden files a test opens, and how near its comparisons come to their limits.

    Attributes:
        tests: file -> names of tests that opened it. worst: file -> (used share, deviation, allowed, test).
        failed: names of tests that failed.
    """

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = defaultdict(set)
        self.worst: dict[str, tuple[float, float, float, str]] = {}
        self.failed: list[str] = []
        self._by_module: dict[str, set[str]] = defaultdict(set)
        self._open: set[str] = set()
        self._module = self._test = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Only tests that are given the folder of golden numbers."""
        items[:] = [item for item in items if "golden_dir" in getattr(item, "fixturenames", ())]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Around setup, call and teardown of one test; fixtures of a module are opened in its first test only."""
        self._open, self._test, self._module = set(), item.name, item.nodeid.split("::")[0]
        done = yield
        for file in self._meant():
            self.tests[file].add(item.name)
        return done

    def _meant(self) -> set[str]:
        """The files this test opened; else the one its module has opened for all its tests."""
        known = self._by_module[self._module]
        return self._open or (known if len(known) == 1 else set())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed."""
        if report.failed:
            self.failed.append(report.nodeid)

    def opened(self, path: Any) -> None:
        """A file was opened."""
        if found := FILES.search(str(path)):
            self._open.add(found[1])
            self._by_module[self._module].add(found[1])

    def compared(self, actual: Any, expected: Any, rtol: float | None, atol: float | None) -> None:
        """Two tensors were compared."""
        if not (isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor) and actual.numel()):
            return
        if actual.shape != expected.shape:
            return  # the comparison itself will say so
        rtol, atol = (1.3e-6, 1e-5) if atol is None or rtol is None else (rtol, atol)
        deviation = (actual.detach().double() - expected.detach().double()).abs().flatten()
        allowed = (atol + rtol * expected.detach().double().abs()).expand_as(expected).flatten()
        share = torch.where(deviation == 0, 0.0, deviation / allowed)
        at = int(share.argmax())
        entry = (float(share[at]), float(deviation[at]), float(allowed[at]), self._test)
        for file in self._meant():
            self.worst[file] = max(self.worst.get(file, (-1.0, 0.0, 0.0, "")), entry)


def listen(to: Listener) -> None:
    """Wrap what tests open files and compare tensors with; must run before any of them is imported."""
    safe_open, compare, read_text = safetensors.safe_open, torch.testing.assert_close, Path.read_text
    ask = torch.allclose

    def opening(path: Any, *rest: Any, **named: Any) -> Any:
        to.opened(path)
        return safe_open(path, *rest, **named)

    def comparing(actual: Any, expected: Any, **named: Any) -> None:
        to.compared(actual, expected, named.get("rtol"), named.get("atol"))
        compare(actual, expected, **named)

    def asking(actual: Any, expected: Any, **named: Any) -> bool:
        to.compared(actual, expected, named.get("rtol", 1e-5), named.get("atol", 1e-8))
        return ask(actual, expected, **named)

    def reading(path: Path, *rest: Any, **named: Any) -> str:
        to.opened(path)
        return read_text(path, *rest, **named)

    safetensors.safe_open = opening
    torch.testing.assert_close = comparing
    torch.allclose = asking
    Path.read_text = reading  # type: ignore[method-assign, assignment]
    safetensors.torch.safe_open = opening


def table(heard: Listener) -> str:
    """One line per file."""
    lines = [f"{'file':<30}{'tests':>6}  {'largest deviation':>18}  {'allowed there':>14}"]
    for file in sorted(heard.tests):
        share, deviation, allowed, _ = heard.worst.get(file, (-1.0, 0.0, 0.0, ""))
        shown = ("by equality", "") if share < 0 else (f"{deviation:.1e}" if deviation else "0", f"{allowed:.1e}")
        shown = (shown[0], "exact") if share >= 0 and allowed == 0 else shown
        lines.append(f"{file:<30}{len(heard.tests[file]):>6}  {shown[0]:>18}  {shown[1]:>14}")
    return "\n".join(lines)


if __name__ == "__main__":
    heard = Listener()
    listen(heard)
    code = pytest.main(["-q", "-p", "no:cacheprovider", str(HERE)], plugins=[heard])
    builtins.print(table(heard))
    sys.exit(int(code))
