"""Text becomes HTML here and nowhere else: every value of every template is made harmless, shortened and escaped.

values ─▶ harmless (direction marks, controls spelled out) ─▶ at most 300 characters ─▶ escaped ─▶ templates/*.html

A page is one file: its styles, its script and its pictures lie in it, and its own policy forbids the browser to load or
to run anything else. So a class name that gets past all this still cannot fetch or do a thing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from vidxfer.pipeline.disk import disk_errors, expect_writable_folder
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.reading import read_bytes
from vidxfer.pipeline.visible import duration, harmless, size
from vidxfer.pipeline.writing import whole_file
from vidxfer.stages.reporting.drawing import Plot

TEMPLATES = Path(__file__).parent / "templates"
MOST_CHARACTERS = 300
"""Of a text from elsewhere; whole texts, such as the command to repeat a page, may have more."""

MOST_WHOLE_CHARACTERS, MOST_OWN_BYTES = 20_000, 1 << 20
PICTURE = re.compile(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+=*")


def shown(value: object) -> object:
    """What a template prints of a value: markup and numbers as they are, anything else harmless and shortened."""
    if isinstance(value, Markup) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return harmless(value, MOST_CHARACTERS)


def whole(value: object) -> Markup:
    """A text that is not shortened."""
    return escape(harmless(value, MOST_WHOLE_CHARACTERS))


def as_json(value: object) -> Markup:
    """Data inside a script element: nothing in it ends the element or begins a comment."""
    return htmlsafe_json_dumps(value, ensure_ascii=True, allow_nan=False)


def render(template: str, **values: Any) -> str:
    """A page: a template of templates/ with its values.

    Raises:
        jinja2.UndefinedError: the template asks for a value that was not given.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "whole": whole, "as_json": as_json, "size": size, "duration": duration, "percent": percent, "signed": signed,
        "probability": probability, "svg": svg, "picture": picture,
    }  # fmt: skip
    script = _own("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return made.get_template(template).render(script=script, script_hash=digest, style=_own("page.css"), **values)


def svg(plot: Plot) -> Markup:
    """A plot inside the page: matplotlib has escaped what is text in it."""
    return Markup(plot.svg)


def picture(address: str) -> Markup:
    """The address of a picture that lies in the page itself.

    Raises:
        ValueError: it is another address.
    """
    if not PICTURE.fullmatch(address):
        raise ValueError(f"{address[:80]!r} is no picture inside the page")
    return Markup(address)


def percent(share: float | None) -> str:
    """A share of one; "-" where there is none."""
    return "-" if share is None else f"{share:.1%}"


def signed(share: float) -> str:
    """A difference of shares, in points."""
    return f"{100 * share:+.1f}"


def probability(p: float) -> str:
    """A p, so that a small one does not read as 0."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def expect_page_file(option: str, file: Path) -> None:
    """Check, before the work, that a page can be written there.

    Raises:
        UsageError: another kind of file, a folder, no such folder, or one in which no file can be made.
    """
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{option} {file}: a page is a file that ends in .html")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}. Make it, or name another file.")
    expect_writable_folder(option, file.absolute().parent)
    if file.is_dir():
        raise UsageError(f"{option} {file}: this is a folder. Name a file, as {file / 'page.html'}")


def write_page(file: Path, page: str) -> int:
    """Write a page whole or not at all; returns its bytes. Raises as `disk_errors`."""
    data = page.encode("utf-8", "backslashreplace")
    with disk_errors(file, len(data), "--out"), whole_file(file) as stream:
        stream.write(data)
    return len(data)


def table_rows(settings: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    """Names and values as texts, lists joined."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in settings
    ]


def _own(name: str) -> Markup:
    """A file of ours that a page holds as it is."""
    return Markup(read_bytes(TEMPLATES / name, most=MOST_OWN_BYTES).decode("utf-8"))
