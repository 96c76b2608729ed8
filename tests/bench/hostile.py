"""The hostile list: file by file what a user sees, in how many seconds, at what peak of memory.

    python tests/bench/hostile.py --out docs/hostile.md

Reads files that were broken on purpose (made here, and broken/ of VIDXFER_FIXTURES), each in a child process of its own
so that its memory is its own; then a few thousand files with random bytes changed; then the cost of the child processes
beside threads, in turn, on the same videos. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "video")]

from hostile_files import hostile, millions, moving  # noqa: E402
from measure import machine  # noqa: E402

from vidxfer.pipeline.errors import VideoError, VideoReason  # noqa: E402
from vidxfer.pipeline.shapes import Video  # noqa: E402
from vidxfer.pipeline.video.examine import examine  # noqa: E402
from vidxfer.pipeline.video.guard import Guard, GuardLimits  # noqa: E402
from vidxfer.pipeline.video.writer import write_video  # noqa: E402

FIXTURES = Path(os.environ.get("VIDXFER_FIXTURES", HERE.parents[2] / "shared" / "fixtures"))
LARGEST_PX, MOST_DECLARED = 16_000, 88_000_000


def video_of(path: Path) -> Video:
    return Video(id=path.name, path=path, label=None, split="val")


def once(
    path: Path, function: Callable[..., Any], *args: Any, limits: GuardLimits | None = None
) -> tuple[str, float, int]:
    """What a user sees, seconds, and peak bytes of the process; starting the process is not counted."""
    with Guard(1, limits) as guard:
        guard.submit(path, exec, "import av, vidxfer.pipeline.video.examine").result()
        began = time.perf_counter()
        try:
            found = guard.submit(path, function, *args).result()
            said = f"read: {found.frame_count} frames by {found.decoder}"
        except VideoError as error:
            said = f"`{error.reason.value}`: {error.detail}"
        return said, time.perf_counter() - began, guard.peak_bytes


def table_of_files(folder: Path) -> list[str]:
    """A row per file."""
    lines = ["| file | what it is | what the user sees | seconds | peak MB |", "|---|---|---|---|---|"]

    def add(name: str, what: str, found: tuple[str, float, int]) -> None:
        said = found[0].replace("|", "\\|").replace(str(folder), "…")
        lines.append(f"| {name} | {what} | {said} | {found[1]:.2f} | {found[2] / 1e6:.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)

    cases = hostile(folder / "made", large_px=LARGEST_PX)
    for case in cases:
        add(case.path.name, case.what, once(case.path, examine, video_of(case.path)))
    declared = folder / "88 million.mp4"
    declared.write_bytes(millions(cases[0].path.read_bytes(), MOST_DECLARED))
    add(declared.name, f"{MOST_DECLARED:,} frames declared, 50 there", once(declared, examine, video_of(declared)))
    for path in [*sorted((FIXTURES / "broken").glob("*.mp4")), FIXTURES / "videos/decord__corrupted.mp4"]:
        if path.exists():
            add(f"fixtures: {path.name}", "see its NOTES", once(path, examine, video_of(path)))
    short = GuardLimits(seconds=5.0)
    add("(stand-in)", "a decoder that hangs, limit 5 s", once(Path("x.mp4"), time.sleep, 3600, limits=short))
    add("(stand-in)", "a decoder that asks for 1 TB", once(Path("x.mp4"), bytearray, 2**40))
    add("(stand-in)", "a decoder that fills 5 GB", once(Path("x.mp4"), np.full, 5 * 2**30, 7, np.uint8))
    add("(stand-in)", "a decoder that crashes", once(Path("x.mp4"), os.abort))
    return lines


def table_of_changes(folder: Path, trials: int) -> list[str]:
    """Outcomes of files with four random bytes changed, by kind."""
    lines = ["| kind | files | read | refused, by reason | slowest, seconds | peak MB |", "|---|---|---|---|---|---|"]
    for name, codec in {
        "h264.mp4": "libx264",
        "vp9.webm": "libvpx-vp9",
        "mpeg4.avi": "mpeg4",
        "hevc.mkv": "libx265",
    }.items():
        path, rng = folder / name, np.random.default_rng(0)
        write_video(path, moving(), fps=25, codec=codec)
        good, outcomes, slowest = path.read_bytes(), Counter[str](), 0.0
        with Guard(1) as guard:
            for _ in range(trials):
                data = bytearray(good)
                for at in rng.integers(0, len(good), 4):
                    data[at] = rng.integers(256)
                path.write_bytes(data)
                began = time.perf_counter()
                try:
                    guard.submit(path, examine, video_of(path)).result()
                    outcomes["read"] += 1
                except VideoError as error:
                    outcomes[error.reason.value] += 1
                slowest = max(slowest, time.perf_counter() - began)
            peak = guard.peak_bytes
        read = outcomes.pop("read", 0)
        refused = ", ".join(f"{reason} {count}" for reason, count in outcomes.most_common())
        lines.append(f"| {name} | {trials} | {read} | {refused} | {slowest:.2f} | {peak / 1e6:.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
        bad = {VideoReason.CRASHED.value, VideoReason.TOO_SLOW.value, VideoReason.OUT_OF_MEMORY.value} & set(outcomes)
        if bad:
            print(f"{name}: {bad}: look at these", file=sys.stderr)
    return lines


def table_of_costs(folder: Path, rounds: int) -> list[str]:
    """Videos per second of extraction's decoding, in threads and in processes, in turn."""
    from vidxfer.pipeline.cache.spec import CacheSpec
    from vidxfer.pipeline.cache.store import open_split
    from vidxfer.stages.shards.encode import prepare_all

    spec: CacheSpec = open_split(HERE.parent / "cache/format1/int8", "train").spec
    sets = {"340 x 256 px, 300 frames, h264": (24, 300, 256, 340, "libx264", ".mp4"),
            "96 x 64 px, 24 frames, VP9": (200, 24, 64, 96, "libvpx-vp9", ".webm")}  # fmt: skip
    lines = ["| videos | decode in | videos per second: median (of each round) |", "|---|---|---|"]
    for title, (count, frames, height, width, codec, suffix) in sets.items():
        videos = []
        for number in range(count):
            path = folder / f"{width}-{number}{suffix}"
            write_video(path, np.roll(moving(frames, height, width), number, axis=2), fps=25, codec=codec)
            videos.append(video_of(path))
        rates: dict[str, list[float]] = {"threads": [], "processes": []}
        for turn in range(rounds + 1):
            for where, done in rates.items():
                began = time.perf_counter()
                refused = [
                    one for one in prepare_all(videos, spec, threads=2, decode_in=where) if isinstance(one, VideoError)
                ]
                assert not refused, refused[0]
                done += [count / (time.perf_counter() - began)] if turn else []
        for where, done in rates.items():
            each = ", ".join(f"{rate:.1f}" for rate in done)
            lines.append(f"| {count} of {title} | {where} | {np.median(done):.1f} ({each}) |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/hostile.md"))
    parser.add_argument("--trials", type=int, default=500, help="changed files per kind")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, changes, costs = (
            table_of_files(folder),
            table_of_changes(folder, chosen.trials),
            table_of_costs(folder, chosen.rounds),
        )
    chosen.out.write_text(DOCUMENT.format(
        machine=before, files="\n".join(files), changes="\n".join(changes), costs="\n".join(costs),
        limits=GuardLimits(),
    ), encoding="utf-8")  # fmt: skip


DOCUMENT = """# Hostile files

Written by `python tests/bench/hostile.py --out docs/hostile.md` on: {machine}.

Rules. A video is read frame-exactly or refused with a typed reason; its row of the cache says so, and the run goes on.
One bad packet refuses the video, even where 49 good ones surround it: which frames a decoder then shows is a guess.
Nothing but regular files and folders of pictures is opened. Videos are decoded in child processes
(`--decode-in processes`, the default); one that takes longer than {limits.seconds:g} seconds or more than
{limits.memory_bytes:,} bytes of memory is ended and named. One that crashes is named, too. Before
that, limits inside the process name the cause: 60 seconds for opening and for each reading, 33,177,600 pixels per
picture, 500,000 frames.

"Seconds" and "peak MB" are of the process that read the file, whose libraries take about 60 MB; starting it, about 0.2
seconds once for thousands of videos, is not counted.

{files}

## Random changes

Four random bytes of a good file changed, so many times. "Read" includes damage that no decoder notices.

{changes}

## What the child processes cost

Decoding as extraction does it, two videos at a time, in turn.

{costs}
"""

if __name__ == "__main__":
    main()
