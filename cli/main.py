"""`vidxfer`: arguments in, one stage call, lines and tables out. Heavy libraries load inside the commands.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 done with some videos refused, 75 stopped by a signal in good order (the
same command goes on), 130 ended by Ctrl-C.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import typer

from vidxfer.cli import (
    cache,
    cache_life,
    compare,
    data,
    doctor,
    pages,
    plan,
    recipes,
    reproduce,
    stage_one,
    stage_two,
    towers,
    weights,
)
from vidxfer.pipeline.errors import Stopped, UsageError, VidxferError
from vidxfer.stages.signals import STOPPED, Ended, exit_on_request

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130


_Misused: Any = typer.BadParameter.__mro__[1]
"""Base of what typer raises on a command line it cannot take apart."""


class _Commands(typer.core.TyperGroup):
    """Turns errors that were raised on purpose into a message and an exit code; any other keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        from vidxfer.cli import show

        show.take_over()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # paths need not be UTF-8
        try:
            with exit_on_request():
                return super().invoke(ctx)
        except VidxferError as error:
            show.complain(f"{type(error).__name__}: {error}")
            codes = {UsageError: USAGE, Stopped: STOPPED}
            raise SystemExit(next((codes[kind] for kind in codes if isinstance(error, kind)), FAILED)) from error
        except Ended as ended:
            show.complain(f"Stopped by {ended.name}.{_kept(ctx)}")
            raise SystemExit(STOPPED) from ended
        except _Misused as error:  # typer shows it, with words of the command line in it
            error.message = show.harmless(error.message)
            raise
        except KeyboardInterrupt as stopped:
            show.complain(f"Interrupted.{_kept(ctx)}")
            raise SystemExit(INTERRUPTED) from stopped


def _kept(ctx: Any) -> str:
    return " Finished shards are kept: the same command goes on." if ctx.invoked_subcommand == "extract" else ""


app = typer.Typer(
    name="vidxfer",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Teach frozen image models to understand video: compute CLIP tokens once, train only a light temporal head.",
    epilog="Example: vidxfer plan --dataset ssv2 --root ./ssv2   then extract, train, evaluate, predict.",
)

app.command("plan")(plan.plan)
app.command("extract")(stage_one.extract)
app.command("train")(stage_two.train)
app.command("evaluate")(stage_two.evaluate)
app.command("predict")(stage_two.predict)
app.command("compare")(compare.compare)
app.command("report")(pages.report)
app.command("view")(pages.view)
app.command("recipes")(recipes.recipes)
app.command("towers")(towers.towers)
app.command("import")(weights.import_weights)
app.command("export")(weights.export_weights)
app.command("reproduction")(reproduce.reproduction)
app.command("doctor")(doctor.doctor)
cache.app.command("add")(cache_life.add)
cache.app.command("parity")(cache_life.parity)
cache.app.command("prune")(cache_life.prune)
cache.app.command("export")(cache_life.export)
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
