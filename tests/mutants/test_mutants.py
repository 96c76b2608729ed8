"""The lists of small changes are current: each old text stands once in its file, and the tests named exist."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def runner() -> Any:
    spec = importlib.util.spec_from_file_location("mutants_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_listed_change_applies_once_and_changes_something() -> None:
    for mutant in runner().listed():
        text = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert mutant.applied(text) != text, mutant.why


def test_every_test_that_must_notice_exists() -> None:
    for mutant in runner().listed():
        assert mutant.tests, mutant.why
        for name in mutant.tests:
            file, _, function = name.partition("::")
            assert (ROOT / file).exists(), name
            if function:
                assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), name
