"""`vidxfer recipes`."""

from __future__ import annotations

from vidxfer.cli import options as o


def recipes(json: o.JsonOption = False) -> None:
    """Every named recipe: the published result, ours, and what a view costs on disk.

    Parameters and bytes are computed; "not run" means that nobody has run it on that data with vidxfer.

    Example: vidxfer recipes
    """
    from vidxfer.cli import show
    from vidxfer.stages.planning.recipes import catalogue

    entries = catalogue()
    if json:
        show.print_json(entries)
        return
    rows = []
    for entry in entries:
        row = entry.published
        if row is None or entry.trainable_parameters is None or entry.int8_bytes_per_view is None:
            rows.append([entry.recipe.name, *["-"] * 6])
            continue
        rows.append([
            entry.recipe.name,
            row.clip.model.removesuffix("-quickgelu"),
            f"{row.sparse_frames}+{row.dense_frames}" if row.alpha > 1 else f"{row.sparse_frames}",
            f"{row.top1:.1f} / " + ("-" if row.top5 is None else f"{row.top5:.1f}"),
            "not run" if row.ours is None else f"{row.ours:.1f}",
            f"{entry.trainable_parameters / 1e6:.1f} M",
            show.size(entry.int8_bytes_per_view),
        ])  # fmt: skip
    columns = ["recipe", "CLIP", "frames", "published", "ours", "trains", "per view"]
    show.table("Recipes: sparse+dense frames, published top-1 / top-5, bytes with int8", columns, rows)
    hours = [f"{e.recipe.name} {e.published.gpu_hours:g}" for e in entries if e.published and e.published.gpu_hours]
    show.say(f"GPU-hours: {', '.join(hours) or 'not measured'}")
    for text in dict.fromkeys(entry.published.views for entry in entries if entry.published):
        show.say(f"views: {text}")
    for entry in entries:
        if entry.published and entry.published.note:
            show.say(f"{entry.recipe.name}: {entry.published.note}")
