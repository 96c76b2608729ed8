"""`vidxfer reproduction`."""

from __future__ import annotations

from pathlib import Path

from vidxfer.cli import options as o
from vidxfer.cli.choices import know_heads


def reproduction(
    run: o.RunOption, head: o.HeadsOption = None, cache: o.CacheOption = Path("zarr"), json: o.JsonOption = False
) -> None:
    """A trained and evaluated run beside the published result of its recipe: difference, coverage, causes of a gap.

    Example: vidxfer reproduction --run runs/dist-k400-b16-8f --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import reproduce as stage

    know_heads(head)
    found = stage.reproduction(run, cache)
    if json:
        show.print_json(found)
        return
    row = found.published
    rows = [
        [name, "-" if said is None else f"{said:.1f}", f"{ours:.1f}", "-" if said is None else f"{ours - said:+.1f}"]
        for name, said, ours in (
            ("top-1, %", None if row is None else row.top1, found.top1),
            ("top-5, %", None if row is None else row.top5, found.top5),
        )
    ]
    show.table(f"{found.recipe}, {run}", ["", "published", "obtained", "difference"], rows)
    if row is None:
        show.say(f"published: nothing for {found.recipe}")
    else:
        show.say(f"published: {row.data}; {row.views}")
    show.say(f"obtained:  {found.views} temporal view{'s' * (found.views > 1)} x {found.crops} crop"
          f"{'s' * (found.crops > 1)}, {found.scored:,} scored / {found.listed:,} listed; with every missing video "
          f"counted as wrong {found.top1_of_listed:.1f}")  # fmt: skip
    show.say("known causes of a gap:")
    for cause in found.causes:
        show.say(f"  - {cause}")
