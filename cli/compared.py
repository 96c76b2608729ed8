"""A table in Markdown, where a cell of data cannot end its cell."""

from __future__ import annotations

from vidxfer.cli import show


def markdown(columns: list[str], rows: list[list[str]]) -> None:
    """A table in Markdown on standard output."""
    cells = [
        [show.harmless(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in (columns, *rows)
    ]
    ruled = [cells[0], ["---", *["---:"] * (len(columns) - 1)], *cells[1:]]
    show.say(*(f"| {' | '.join(row)} |" for row in ruled))
