"""Options that come in groups reach the command as one object, and are the same wherever the group is taken."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from vidxfer.cli.main import app
from vidxfer.cli.taking import taking


def size(
    width: Annotated[int, typer.Option("--width")] = 3, deep: Annotated[bool, typer.Option("--deep")] = False
) -> Any:
    return (width, deep)


def test_a_group_becomes_one_argument_and_its_options_stand_where_it_stood() -> None:
    seen: list[Any] = []

    @taking(measured=size)
    def command(name: str, measured: Any = None, last: Annotated[int, typer.Option("--last")] = 0) -> None:
        """Does nothing."""
        seen.append((name, measured, last))

    own = typer.Typer()
    own.command()(command)
    assert CliRunner().invoke(own, ["a", "--width", "7", "--deep", "--last", "2"]).exit_code == 0
    assert CliRunner().invoke(own, ["b"]).exit_code == 0
    assert seen == [("a", (7, True), 2), ("b", (3, False), 0)]
    help_text = CliRunner().invoke(own, ["--help"]).stdout
    assert "Does nothing." in help_text
    assert help_text.index("--width") < help_text.index("--deep") < help_text.index("--last")


def test_plan_takes_every_option_that_decides_what_extract_stores() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    planned, extracted = ({p.name: p.default for p in commands[name].params} for name in ("plan", "extract"))
    for option in (
        "dataset",
        "root",
        "limit",
        "dense_frames",
        "alpha",
        "layers",
        "views",
        "seed",
        "codec",
        "with_frames",
    ):
        assert planned[option] == extracted[option]
