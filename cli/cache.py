"""`vidxfer cache …`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidxfer.cli import codecs
from vidxfer.cli import options as o

if TYPE_CHECKING:
    from vidxfer.stages.upkeep.verify import VerifyReport

app = typer.Typer(no_args_is_help=True, help="Look at a cache, and check it.", rich_markup_mode=None)
app.command("fidelity")(codecs.fidelity)
app.command("recode")(codecs.recode)


@app.command("info")
def info(cache: o.CacheOption = Path("zarr"), json: o.JsonOption = False) -> None:
    """Show what a cache holds: settings, shapes, bytes, how many videos are stored, and why the others are not.

    Example: vidxfer cache info --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.pipeline.cache.read.summary import summary
    from vidxfer.pipeline.cache.store import open_split
    from vidxfer.stages.candidates import CODEC_CHOICE, choice_of

    summaries = summary(cache)
    if json:
        show.print_json(summaries)
        return
    for name, split in summaries.items():
        spec, noted = split["spec"], split["notes"]
        reasons = Counter(noted.get("why", {}))
        shape = " ".join(f"{axis}={length:,}" for axis, length in split["shape"].items())
        rows = [
            ["tokens", shape],
            ["patches", patches_of(spec)],
            ["codec", f"{split['codec']}: {split['bytes_per_token']:,} bytes per token, "
                      f"{split['times_smaller_than_float16']:.3g}x smaller than float16; "
                      f"{show.size(split['bytes_per_view'])} per view"],
            ["CLIP", f"{spec['clip_model']}, {spec['clip_precision']}, weights {spec['clip_weights_sha256'][:12]}"],
            ["layers", ", ".join(str(layer) for layer in split["layers"])],
            ["views", f"{spec['view_kind']}: {spec['views']} x {spec['crops']} crop(s), "
                      f"{spec['sampling']['dense_frames']} dense frames, alpha {spec['sampling']['alpha']}"
                      f"{later_views(split)}"],
            ["videos", f"{split['stored']:,} stored, {split['failed']:,} refused, {split['pending']:,} pending"],
            ["refused", ", ".join(f"{why} {count}" for why, count in split["reasons"].items()) or "none"],
            ["decoded by", counts(noted.get("decoder", {}))],
            ["versions", counts(noted.get("decoder version", {}))],
            ["pixels not square", counts(noted.get("pixel aspect", {}))],
            ["why", "; ".join(f"{why} ({count:,})" for why, count in reasons.most_common(4)) or "-"],
            ["shards", f"{split['shards_finished']:,} of {split['shards']:,}, {split['shard_videos']} videos each"],
            ["dense frames", dense_frames(split)],
            ["CLIP's own weights", "not kept" if split["frozen"] is None else split["frozen"]["file"]],
            ["bytes", f"{show.size(split['bytes_on_disk'])} of {show.size(split['bytes_when_finished'])}"],
            ["data set", f"{spec['dataset']}, fingerprint {spec['dataset_fingerprint']}, {split['classes']} classes"],
            ["fingerprint", f"{split['fingerprint']} (of the tokens alone: {split['tokens_fingerprint']})"],
        ]  # fmt: skip
        show.facts(f"{cache}/{name}", rows)
        passport = split["passport"]
        show.facts("changes tokens: other values are another cache", flat_rows(passport["tokens"]))
        informs = {name: value for name, value in passport["informs"].items() if name != CODEC_CHOICE}
        informs = {**passport["videos"], **informs}
        show.facts("informs: which videos, and what made them; tokens do not depend on it", flat_rows(informs))
        codecs.show_choice(choice_of(open_split(cache, name)))


def patches_of(spec: dict[str, Any]) -> str:
    """What a stored patch is the mean of; `spec`: as a cache keeps it, which leaves out a pool of 1."""
    pool = spec.get("pool", 1)
    return f"means over {pool} x {pool} of the tower's" if pool > 1 else "the tower's own"


def counts(videos_of: dict[str, int]) -> str:
    """Names with their numbers of videos, as `pyav 12, decord 3`; "-" where there are none."""
    return ", ".join(f"{name} {count:,}" for name, count in videos_of.items()) or "-"


def flat_rows(values: dict[str, Any]) -> list[list[str]]:
    """Names and values for `show.facts`; tables inside become dotted names."""
    rows: list[list[str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += flat_rows({f"{name}.{inner}": part for inner, part in value.items()})
        else:
            rows.append([name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)])
    return rows


def later_views(split: dict[str, Any]) -> str:
    """Which views were added later, and which are being added."""
    from vidxfer.cli import show

    parts, begun = split["views_in_parts"], split["views_being_added"]
    words = f"; in parts: {', '.join(parts)}" if len(parts) > 1 else ""
    if begun is None:
        return words
    return (
        f"{words}; views {begun['views']} are being added: {begun['shards_finished']:,} of {split['shards']:,} shards "
        f"({show.size(begun['bytes_on_disk'])}); `vidxfer cache add` with the same --views goes on"
    )


def dense_frames(split: dict[str, Any]) -> str:
    """How a split keeps dense frames, and how many videos had to take a lower quality."""
    kept = split["frames"]
    if kept is None:
        return "not kept; training decodes the videos"
    lowered = sum(split["notes"].get("frames lowered", {}).values())
    more = f"; lower for {lowered:,} videos, to fit" if lowered else ""
    windows = (
        f"; windows of {kept['window']}, {kept.get('window_ends', 'clamp')} at the ends" if "window" in kept else ""
    )
    return f"JPEG, quality {kept['quality']}, {kept['subsampling']}{windows}{more}"


@app.command("verify")
def verify(
    cache: o.CacheOption = Path("zarr"),
    split: Annotated[list[str] | None, typer.Option("--split", help="train or val; all by default.")] = None,
    drop_damaged: Annotated[bool, typer.Option(help="Take damaged shards back: extract makes them again.")] = False,
    allow_incomplete: Annotated[bool, typer.Option(help="Exit with 0 although shards are pending.")] = False,
    json: o.JsonOption = False,
) -> None:
    """Read every byte of every finished shard and compare it with its checksum.

    Exits with 0 when the cache is whole, with 1 when something is damaged or still pending.

    Example: vidxfer cache verify --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages.upkeep import verify as stage

    reports = stage.verify(
        stage.VerifyRequest(cache=cache, splits=tuple(split) if split else None, drop_damaged=drop_damaged),
        show.Shown(),
    )
    if json:
        show.print_json(reports)
    else:
        show_checks(cache, reports)
    if any(report.damage or (report.pending and not allow_incomplete) for report in reports):
        raise typer.Exit(1)


def show_checks(cache: Path, reports: tuple[VerifyReport, ...]) -> None:
    """The table of a check, every damage, and what to do."""
    from vidxfer.cli import show

    show.table(
        f"Cache {cache}",
        ["split", "shards checked", "damaged", "pending", "videos", "refused", "bytes", "seconds"],
        [
            [report.split, f"{report.checked:,} of {report.shards:,}", f"{len(report.damage):,}", f"{report.pending:,}",
             f"{report.stored:,}", f"{report.failed:,}", show.size(report.bytes), f"{report.seconds:.1f}"]
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        for damage in report.damage:
            for line in damage.found:
                show.say(f"damaged: {report.split} shard {damage.shard}: {line}")
    damaged = [damage for report in reports for damage in report.damage]
    pending = sum(report.pending for report in reports)
    if damaged and not all(damage.dropped for damage in damaged):
        show.say(
            f"{len(damaged)} damaged shards: take them back with --drop-damaged, then run `vidxfer extract` again."
        )
    elif damaged:
        show.say(
            f"{len(damaged)} damaged shards were taken back: `vidxfer extract` with the same options makes them again."
        )
    if pending:
        show.say(
            f"{pending} shards are pending: `vidxfer extract` goes on with them. If `cache add` began them, it goes on."
        )
    if not damaged and not pending:
        show.say("The cache is whole: every stored byte is as it was written.")
