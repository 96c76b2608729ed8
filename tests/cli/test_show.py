"""What reaches a terminal is visible characters: data neither obeys nor forges anything there."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vidxfer.cli import show
from vidxfer.pipeline.errors import RunError

NASTY = {
    "\x1b[2J\x1b]0;OWNED\x07": r"\x1b[2J\x1b]0;OWNED\x07",
    "a\rb\x08c\x00": r"a\rb\x08c\x00",
    "\x9b31m": r"\x9b31m",
    "\x85": r"\x85",
    "one\ntwo\tthree": r"one\ntwo\tthree",
    "abc\u202egpj.exe": r"abc\u202egpj.exe",
    "\u2066x\u2069\u200e\u200f": r"\u2066x\u2069\u200e\u200f",
    "zero\u200bwidth\ufeff\u2060\u00ad": r"zero\u200bwidth\ufeff\u2060\xad",
    "tag\U000e0041\U000e007f": r"tag\U000e0041\U000e007f",
    "line\u2028paragraph\u2029": r"line\u2028paragraph\u2029",
    "surrogate\udc80": r"surrogate\udc80",
    "filler\u3164\ufe00": r"filler\u3164\ufe00",
}

PLAIN = [
    "[something] moves",
    "or [/x]",
    "[red]x[/red]",
    ":smile: :thumbs_up:",
    "Tir à l’arc\u00a0!",
    "跳舞",
    "हिन्दी",
    "{task}",
    "100%",
]


@pytest.mark.parametrize("text", NASTY)
def test_what_is_no_visible_character_is_spelled_out(text: str) -> None:
    assert show.harmless(text) == NASTY[text]


@pytest.mark.parametrize("text", PLAIN)
def test_what_people_write_stays(text: str) -> None:
    assert show.harmless(text) == text


@given(st.text(max_size=60))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = show.harmless(text)
    assert [one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")] == []
    assert len(show.harmless(text, 20)) <= 20


def test_tables_keep_brackets_and_names_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    names = [*PLAIN, "plain", "x" * 10_000]
    show.table("[b]title[/b]", ["[i]name", "n"], [[name, "7"] for name in names])
    out = capsys.readouterr().out
    assert "[b]title[/b]" in out
    assert "[i]name" in out
    assert [name for name in PLAIN if name not in out] == []
    assert "x" * 10_000 not in out.replace("\n", "")
    assert out.count("x" * 50) < 10
    assert "…" in out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    widths = {sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in row)
              for row in rows if "हि" not in row}  # fmt: skip
    assert len(widths) == 1  # wide characters take two columns, and the frame stays straight


@pytest.mark.parametrize("text", NASTY)
def test_every_way_to_the_terminal_is_guarded(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.table(text, [text, "n"], [[text, text]])
    show.facts(text, [[text, text]])
    show.say(text, f"refused: {text}")
    show.complain(text)
    shown = show.Shown()
    shown.line(text)
    with shown.bar(text, 3, "videos") as bar:
        bar.advance(1, text)
    show.print_json({text: [text]})
    out, err = capsys.readouterr()
    left = [one for one in out + err if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") and one != "\n"]
    assert left == []
    assert set(out + err) & set("\u3164\ufe00") == set()


@pytest.mark.parametrize("text", [*NASTY, *PLAIN])
def test_a_moving_bar_shows_data_as_it_is_and_no_more(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Console(force_terminal=True, width=200, file=(sink := __import__("io").StringIO()), color_system=None)
    monkeypatch.setattr(show, "console", lambda stderr=False: drawn)
    with show.Shown().bar(text, 3, "videos") as bar:
        bar.advance(1, f"note {text}")
    assert f"note {show.harmless(text)}" in sink.getvalue()


def test_json_holds_the_exact_data(capsys: pytest.CaptureFixture[str]) -> None:
    report = {text: [text] for text in [*NASTY, *PLAIN, "\x7f", '"\\"', "x" * 10_000]}
    show.print_json(report)
    out = capsys.readouterr().out
    assert json.loads(out) == report
    assert "跳舞" in out


def test_data_adds_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    show.say("refused: train/a\nThe cache is whole: b", "next")
    assert capsys.readouterr().out == "refused: train/a\\nThe cache is whole: b\nnext\n"


def test_errors_warnings_logs_and_tracebacks_are_guarded(invoke: Any, tmp_path: Path) -> None:
    done = invoke("cache", "info", "--cache", str(tmp_path / "\x1b[31mred"))
    assert done.exit_code == 1
    assert "\x1b" not in done.stderr
    assert r"\x1b[31mred" in done.stderr
    done = invoke("\x1b[31mred")
    assert done.exit_code == 2
    assert r"\x1b[31mred" in done.stderr
    assert "\x1b" not in done.stderr


def test_what_python_says_is_guarded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    assert logging.lastResort is not None
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    show.take_over()
    error = RunError("\x1b[2Jtext")
    sys.excepthook(RunError, error, None)
    warnings.showwarning("\x1b[2Jtext", UserWarning, "file.py", 3)
    record = logging.LogRecord("x", logging.ERROR, "file.py", 3, "\x1b[2Jtext", None, None)
    show.say(logging.lastResort.format(record))
    out, err = capsys.readouterr()
    assert err.count(r"\x1b[2Jtext") == 2
    assert r"\x1b[2Jtext" in out
    assert "\x1b" not in out + err
