"""`vidxfer cache …`."""

from __future__ import annotations

from pathlib import Path

import typer

from vidxfer.cli import options as o

app = typer.Typer(no_args_is_help=True, help="Look at a cache.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `info` a command of its own while it is the only one."""


@app.command("info")
def info(cache: o.CacheOption = Path("zarr"), json: o.JsonOption = False) -> None:
    """What a cache holds: settings, shapes, bytes, how many videos are stored, and why the others are not.

    Example: vidxfer cache info --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.pipeline.cache.summary import summary

    found = summary(cache)
    if json:
        show.print_json(found)
        return
    for name, split in found.items():
        spec = split["spec"]
        shape = " ".join(f"{axis}={length:,}" for axis, length in split["shape"].items())
        rows = [
            ["tokens", shape],
            ["codec", split["codec"]],
            ["CLIP", f"{spec['clip_model']}, {spec['clip_precision']}, weights {spec['clip_weights_sha256'][:12]}"],
            ["layers", ", ".join(str(layer) for layer in split["layers"])],
            ["views", f"{spec['view_kind']}: {spec['views']} x {spec['crops']} crop(s), "
                      f"{spec['sampling']['dense_frames']} dense frames, alpha {spec['sampling']['alpha']}"],
            ["videos", f"{split['stored']:,} stored, {split['failed']:,} refused, {split['pending']:,} pending"],
            ["refused", ", ".join(f"{why} {count}" for why, count in split["reasons"].items()) or "none"],
            ["decoded by", ", ".join(f"{d} {n:,}" for d, n in split["notes"].get("decoder", {}).items()) or "-"],
            ["shards", f"{split['shards_finished']:,} of {split['shards']:,}, {split['shard_videos']} videos each"],
            ["bytes", f"{show.size(split['bytes_on_disk'])} of {show.size(split['bytes_when_finished'])}"],
            ["data set", f"{spec['dataset']}, fingerprint {spec['dataset_fingerprint']}, {split['classes']} classes"],
            ["fingerprint", split["fingerprint"]],
        ]  # fmt: skip
        show.facts(f"{cache}/{name}", rows)
