"""`vidxfer doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vidxfer.cli import options as o

if TYPE_CHECKING:
    from vidxfer.stages.doctor import DoctorReport


def doctor(json: o.JsonOption = False) -> None:
    """Try every way to read videos, every library and the device, and say what to install.

    Reads small files that come with vidxfer, whose frames show their own numbers. Exits with 0 when extraction and
    training can run here, with 1 when something that they need is missing or wrong.

    Example: vidxfer doctor
    """
    from vidxfer.cli import show
    from vidxfer.stages.doctor import doctor as examine

    report = examine()
    if json:
        show.print_json(report)
    else:
        show_report(report)
    if not report.well:
        raise typer.Exit(1)


def show_report(report: DoctorReport) -> None:
    """Two tables, then what to do."""
    from vidxfer.cli import show

    def cell(text: str) -> str:
        return text.replace("wrong frames", "wrong") if text == "right" or text.startswith("wrong") else "cannot"

    show.table(
        "Videos: frames 2, 5, 9 and 11 of each sample",
        ["sample", "read by", "frames", "decord alone", "pyav-pts", "pyav-sequential"],
        [
            [sample.name, sample.used, "right" if sample.right else "WRONG", cell(sample.by["decord"]),
             cell(sample.by["pyav-pts"]), cell(sample.by["pyav-sequential"])]
            for sample in report.samples
        ],
    )  # fmt: skip
    show.table(
        "Libraries",
        ["library", "version", "for", "needed"],
        [
            [library.name, library.version or "-", library.purpose, "yes" if library.needed else "no"]
            for library in report.libraries
        ],
    )
    show.say(f"machine: {report.machine}", f"device: {report.device}", f"frames kept as JPEG: {report.jpeg}")
    for sample in report.samples:
        if not sample.right:
            show.say(f"wrong: {sample.name}: {sample.by['auto']}; read by {sample.used}: {sample.why}")
    for library in report.libraries:
        if library.problem:
            kind = "missing" if library.needed else "not needed"
            show.say(f"{kind}: {library.name}: {library.problem}", f"  {library.remedy}")
    show.say("All that is needed works here." if report.well else "Something that is needed does not work here.")
