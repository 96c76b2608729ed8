"""Frame exactness over all readable fixtures and generated kinds: frames tried, wrong ones, which path, and time.

    python tests/bench/frame_exactness.py --out docs/frames.md

The reference is a sequential decode by PyAV of the best video stream, turned upright. For each file, sets of indices
are read through `open_video` as extraction does, as training does, with decord asked for, and by plain decord without
the gate; every pixel is compared. Times are of opening a file and reading 8 evenly spaced frames, each way in turn.
Then one hour of video is written, and segments of it are read by time. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from measure import machine  # noqa: E402
from video.conftest import FRAMES, KINDS, barcoded, decoded_in_sequence, encode  # noqa: E402

from vidxfer.pipeline.errors import VideoError  # noqa: E402
from vidxfer.pipeline.video.backends import read_with  # noqa: E402
from vidxfer.pipeline.video.reader import open_video  # noqa: E402

CLIPS = Path(os.environ.get("VIDXFER_CLIPS", HERE.parents[2] / "shared" / "real" / "clips"))
FIXTURES = Path(os.environ.get("VIDXFER_FIXTURES", HERE.parents[2] / "shared" / "fixtures"))
WAYS = (("auto", False), ("auto", True), ("decord", False))
"""As extraction reads, as training reads, and where decord is asked for: decoder and `known_good`."""

LONGEST_FRAMES = 1_000
"""Of longer files the reference keeps only the frames that are compared."""

HOUR_SECONDS, HOUR_FPS = 3_600, 25


@dataclass(kw_only=True)
class Row:
    """What was found of one file."""

    name: str
    frames: int
    paths: list[str] = field(default_factory=list)
    why: str = ""
    sets: int = 0
    tried: int = 0
    wrong: int = 0
    decord: str = ""
    milliseconds: dict[str, float] = field(default_factory=dict)


def index_sets(count: int, rng: np.random.Generator) -> list[list[int]]:
    """Which frames to ask for: one, the ends, even, sorted and unsorted draws, repeats, backwards, neighbours."""
    even = [count * place // 8 for place in range(8)]
    start = int(rng.integers(0, count))
    return [
        [start], [0], [count - 1], [count - 1, 0], even, even[::-1],
        *(sorted(rng.integers(0, count, size).tolist()) for size in (2, 8, 16, 32)),
        *(rng.integers(0, count, size).tolist() for size in (3, 8, 16)),
        list(range(start, min(count, start + 16))),
        [start] * 4,
    ]  # fmt: skip


def examine(path: Path, name: str, rng: np.random.Generator) -> Row | str:
    """Compare one file; the reason as text where it is refused."""
    row, sets, reference = Row(name=name, frames=0), [], {}
    try:
        for decoder, known_good in WAYS:
            with open_video(path, decoder=decoder, known_good=known_good) as source:
                if not row.sets:
                    row.frames, sets = source.frame_count, index_sets(source.frame_count, rng)
                    source.read([0])  # what is refused is refused here
                    row.sets, reference = len(sets), reference_of(path, row.frames, sets)
                for indices in sets:
                    found = source.read(indices).pixels
                    row.tried += len(indices)
                    row.wrong += sum(not np.array_equal(a, reference[i]) for a, i in zip(found, indices, strict=True))
                row.paths.append(source.decoder)
                row.why = source.why  # of the last way, with decord asked for
    except VideoError as error:
        return f"`{error.reason.value}`: {error.detail}"
    row.decord = by_decord(path, row, sets, reference)
    return row


def reference_of(path: Path, count: int, sets: list[list[int]]) -> dict[int, np.ndarray]:
    """Frame number -> pixels, by sequential decode."""
    if count <= LONGEST_FRAMES:
        return dict(enumerate(decoded_in_sequence(path)))
    wanted, found = {index for indices in sets for index in indices}, {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(container.streams.best("video"))):
            if number in wanted:
                found[number] = np.rot90(frame.to_ndarray(format="rgb24"), (int(frame.rotation) // 90) % 4)
    return found


def by_decord(path: Path, row: Row, sets: list[list[int]], reference: dict[int, np.ndarray]) -> str:
    """How plain decord does on the same index sets: wrong frames of how many, or why it cannot."""
    wrong = tried = 0
    for indices in sets:
        asked = sorted(set(indices))
        try:
            found = read_with("decord", path, asked)
        except VideoError as error:
            return "cannot: " + error.detail.split("] ")[-1].split(": ", 1)[-1][:60].replace("|", "/")
        tried += len(asked)
        wrong += sum(not np.array_equal(a, reference[i]) for a, i in zip(found, asked, strict=True))
    return f"{wrong} of {tried} wrong"


def timed(path: Path, row: Row, rounds: int) -> None:
    """Median milliseconds of opening and reading 8 frames, the ways in turn."""
    asked = sorted({row.frames * place // 8 for place in range(8)})

    def ours(known_good: bool) -> Callable[[], object]:
        def read() -> object:
            with open_video(path, known_good=known_good) as source:
                return source.read(asked)

        return read

    ways: dict[str, Callable[[], object]] = {
        "first": ours(False),
        "again": ours(True),
        "sequence": lambda: read_with("pyav-sequential", path, asked),
    }
    if not row.decord.startswith("cannot"):
        ways["decord"] = lambda: read_with("decord", path, asked)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            began = time.perf_counter()
            read()
            took[name].append(1e3 * (time.perf_counter() - began))
    row.milliseconds = {name: statistics.median(each) for name, each in took.items()}


def table(rows: list[Row]) -> list[str]:
    """The rows, and their sum."""
    lines = [
        "| file | frames | index sets | frames tried | wrong | extraction, training, decord asked for | plain decord "
        "| ms: first | again | decord | PyAV in sequence |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = {name: f"{row.milliseconds[name]:.0f}" if name in row.milliseconds else "-"
              for name in ("first", "again", "decord", "sequence")}  # fmt: skip
        lines.append(
            f"| {row.name} | {row.frames} | {row.sets} | {row.tried} | {row.wrong} | {', '.join(row.paths)} "
            f"| {row.decord} | {ms['first']} | {ms['again']} | {ms['decord']} | {ms['sequence']} |"
        )
    both = [row for row in rows if "decord" in row.milliseconds]
    sums = {name: sum(row.milliseconds[name] for row in both) for name in ("first", "again", "decord", "sequence")}
    lines.append(
        f"| **all** | {sum(row.frames for row in rows)} | {sum(row.sets for row in rows)} "
        f"| {sum(row.tried for row in rows)} | **{sum(row.wrong for row in rows)}** | "
        f"| | {sums['first']:.0f} | {sums['again']:.0f} | {sums['decord']:.0f} | {sums['sequence']:.0f} |"
    )
    return lines


def hour(folder: Path, seconds: int) -> list[str]:
    """A long video, and segments of it read by time."""
    path, count = folder / "hour.mp4", seconds * HOUR_FPS
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=HOUR_FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "250", "bf": "2", "crf": "28"}
        patterns = barcoded(256)
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(patterns[number % 256], format="rgb24")))
        container.mux(stream.encode(None))
    lines = ["| seconds | frames | wrong | path | ms to open | ms to read 8 frames |", "|---|---|---|---|---|---|"]
    for start in (0.5, seconds / 2 + 0.13, seconds - 3.0):
        began = time.perf_counter()
        with open_video(path, start_seconds=start, end_seconds=start + 2.0) as source:
            opened = time.perf_counter()
            asked = [source.frame_count * place // 8 for place in range(8)]
            frames = source.read(asked)
            done = time.perf_counter()
            first = -int(-start * HOUR_FPS // 1)  # the first frame shown at or after the start
            expected = [(first + index) % 256 for index in asked]
            wrong = sum(a != b for a, b in zip(numbers_of(frames.pixels), expected, strict=True))
            lines.append(
                f"| {start:.2f} to {start + 2:.2f} | {source.frame_count} | {wrong} | {source.decoder} "
                f"| {1e3 * (opened - began):.0f} | {1e3 * (done - opened):.0f} |"
            )
    began = time.perf_counter()
    with open_video(path, decoder="pyav") as source:
        assert source.frame_count == count
        source.read([count - 3])
    took = 1e3 * (time.perf_counter() - began)
    lines.append(f"| the whole file, one frame near its end | {count} | - | pyav-pts | {took:.0f} in all | |")
    return lines


def numbers_of(pixels: np.ndarray) -> list[int]:
    """The numbers of barcoded frames."""
    from video.conftest import numbers_of as read

    return read(pixels)


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/frames.md"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hour", type=int, default=HOUR_SECONDS, help="seconds of the long video")
    chosen = parser.parse_args()
    before, rng = machine(), np.random.default_rng(0)
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {f"fixtures: {path.name}": path for path in sorted(FIXTURES.glob("videos/*"))}
        files |= {f"clips: {path.name}": path for path in sorted(CLIPS.glob("*.m*"))}
        for number, (kind, (codec, suffix, options)) in enumerate(KINDS.items()):
            path = folder / f"{number}{suffix}"
            files[f"generated: {kind}"] = encode(path, barcoded(FRAMES), codec=codec, options=options)
        for title, path in files.items():
            found = examine(path, title, rng)
            if isinstance(found, str):
                refused.append(f"| {title} | {found} |")
                continue
            timed(path, found, chosen.rounds)
            rows.append(found)
            print(found, file=sys.stderr, flush=True)
        long = hour(folder, chosen.hour)
    whys = [f"| {row.name} | {row.paths[-1]} | {row.why} |" for row in rows]
    _, kept, rest = chosen.out.read_text(encoding="utf-8").partition(KEPT) if chosen.out.exists() else ("", "", "")
    chosen.out.write_text(DOCUMENT.format(
        machine=before, table="\n".join(table(rows)), refused="\n".join(refused), whys="\n".join(whys),
        long="\n".join(long), hour=chosen.hour, fps=HOUR_FPS, files=len(rows),
    ) + kept + rest, encoding="utf-8")  # fmt: skip


KEPT = "## Which decoder"
"""From here on the document is written by hand, and by `bench_decoders.py`."""

DOCUMENT = """# Frame exactness

Written by `python tests/bench/frame_exactness.py --out docs/frames.md` on: {machine}.

Frame i is the i-th frame of a sequential decode in presentation order, turned upright, or the video is refused. Below,
{files} files (fixtures and real clips that can be read, and one of each kind that the tests generate), with
the same sets of indices read three times: as extraction does, as training does, and with `--decoder decord`. A frame is
wrong when any of its pixels differs from the reference. "Plain decord" is `get_batch` without the gate, on the same
indices, sorted and without repeats.

"Frames tried" counts all three. Of the 10-bit file decord's frames are the right ones in slightly other colours.

Milliseconds are medians of opening the file and reading 8 frames: "first" decodes the whole file, in search of damage;
"again" is what reading costs once a file is known to be good, as in training. The last row adds up the files that
decord opens.

{table}

## Which path where decord is asked for, and why

| file | path | why |
|---|---|---|
{whys}

## Refused

| file | what the user sees |
|---|---|
{refused}

## Segments of a long video

One file of {hour} seconds at {fps} frames per second, h264 with B-frames, a key frame every ten seconds: a segment is
found by seeking to the key frame before it and counting by time stamps.

{long}

## Colours, and where a file ends

Colour matrices that FFmpeg 8 does not convert (YCgCo, BT.2020 of constant luminance, and those of H.273 from 11 on) are
read as older FFmpeg and decord read them: constant luminance with the numbers of BT.2020, the others as files without a
tag. The frames of both decoders, whole or of a segment, are then equal. Primaries and transfer change no pixel. Any
other frame that FFmpeg cannot turn into rgb refuses its video with `decode_failed`.

An mp4 or mov is cut off where one of its samples ends behind the file, as its tables say; the text names the picture.
A box that states too many bytes is no reason: an mdat of any size, and the end of a moov that lists no samples. A
Matroska file and an AVI may state up to 64 bytes too many.
"""

if __name__ == "__main__":
    main()
