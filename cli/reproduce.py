"""`vidxfer reproduction`."""

from __future__ import annotations

from pathlib import Path

from vidxfer.cli import options as o
from vidxfer.cli.choices import know_heads


def reproduction(
    run: o.RunOption, head: o.HeadsOption = None, cache: o.CacheOption = Path("zarr"), json: o.JsonOption = False
) -> None:
    """Compare an evaluated run with the published result of its recipe: difference, coverage, causes of a gap.

    Example: vidxfer reproduction --run runs/dist-k400-b16-8f --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import reproduce as stage

    know_heads(head)
    report = stage.reproduction(run, cache)
    if json:
        show.print_json(report)
        return
    row = report.published
    rows = [
        [
            name,
            "-" if published is None else f"{published:.1f}",
            f"{obtained:.1f}",
            "-" if published is None else f"{obtained - published:+.1f}",
        ]
        for name, published, obtained in (
            ("top-1, %", None if row is None else row.top1, report.top1),
            ("top-5, %", None if row is None else row.top5, report.top5),
        )
    ]
    show.table(f"{report.recipe}, {run}", ["", "published", "obtained", "difference"], rows)
    if row is None:
        show.say(f"published: nothing for {report.recipe}")
    else:
        show.say(f"published: {row.data}; {row.views}")
    show.say(f"obtained:  {report.views} temporal view{'s' * (report.views > 1)} x {report.crops} crop"
          f"{'s' * (report.crops > 1)}, {report.scored:,} scored / {report.listed:,} listed; with every missing video "
          f"counted as wrong {report.top1_of_listed:.1f}")  # fmt: skip
    show.say("known causes of a gap:")
    for cause in report.causes:
        show.say(f"  - {cause}")
