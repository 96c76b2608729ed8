"""The page of gpu.py: what was measured where, and one table per part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABOUT = {
    "machine": "The machine, and what it does at most",
    "dist": "DiST, one training step: forward, backward, AdamW",
    "recipes": "Every recipe at its defaults on random clips",
    "goldens": "Official numbers of every head",
    "codecs": "Codecs: decoded on the device against the CPU, and how fast",
    "epochs": "Whole epochs of DiST",
    "extraction": "CLIP with taps, and extraction from frames in memory to tokens on the disk",
    "transfer": "Host to device, pinned buffers, JPEG",
    "taps": "Taps of a tower on the device against the CPU",
    "heads": "Every head with two forms, one training step",
    "resume": "A run that was stopped and goes on, against one that was not",
    "ranks": "Two processes on one device over gloo, against one",
    "compiled": "torch.compile against eager",
    "tests": "Tests marked gpu",
    "large": "ViT-L/14",
}
HIDDEN = ("rates",)


def shown(value: Any) -> str:
    """A cell: numbers with three digits, truth as words."""
    if isinstance(value, bool):
        return "yes" if value else "**NO**"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; a column for every key, in the order in which they first come."""
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in HIDDEN]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(shown(row.get(key)) for key in columns)} |" for row in rows])


def section(result: Mapping[str, Any]) -> str:
    """One part: its heading, its table, and how it failed."""
    parts = [f"## {ABOUT[result['part']]}", f"Part `{result['part']}`, {result['seconds']} s."]
    if result["rows"]:
        parts.append(table(result["rows"]))
    if result["failed"]:
        parts.append(f"Not ended. Its last words:\n\n```\n{result['failed']}\n```")
    return "\n\n".join(parts)


def page(results: Sequence[Mapping[str, Any]], words: str) -> str:
    """The whole page."""
    proofs = [row["holds"] for result in results for row in result["rows"] if row.get("holds") is not None]
    begun = sum(not result["failed"] for result in results)
    head = (
        f"`python tests/bench/gpu.py {words}`: {begun} of {len(results)} parts ended; "
        f"{sum(proofs)} of {len(proofs)} proofs hold."
    )
    return "\n\n".join(["# What the device says", head, *map(section, results)]) + "\n"
