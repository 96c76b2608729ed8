"""What reading a video costs by each decoder: extraction (8 frames, damage sought) and a training read (16 frames).

    real clips ──▶ h264 340 x 256, 10 s (as K400)  ──┐   pyav     what `--decoder auto` does: one pass by PyAV
                   VP9 426 x 240, 2–6 s (as SSv2)  ──┴──▶ decord   what `--decoder decord` does: the gate, then decord
                                                          alone    decord without the gate: other pixels, unnoticed

Run by `make bench`: `python tests/bench/bench_decoders.py [--rounds 7] [--write docs/frames.md]`. All ways in turn, in
wall and core-seconds. Then the decoder that `auto` should be, by the rule: the least sum over both kinds of file, and
PyAV where it is within 5 %. Clips come from the folder VIDXFER_CLIPS, or are generated where it is not given.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from bench_frames import KINDS, Videos, pictures
from measure import machine, write_block

from vidxfer.pipeline.video.backends import read_with
from vidxfer.pipeline.video.reader import open_video

CLIPS = Path(os.environ.get("VIDXFER_CLIPS", Path(__file__).parents[3] / "shared" / "real" / "clips"))
NEAR = 1.05
"""Within it PyAV is taken."""

LONGEST = 320


@dataclass(frozen=True)
class Cost:
    """Milliseconds per video of one round."""

    wall: float
    cores: float


def footage(number: int, kind: Videos) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [frame height width rgb]: a clip at the kind's size, back and forth where it is short."""
    found = sorted(CLIPS.glob("*.m*"))
    if not found:
        return pictures(kind, number)
    frames = []
    with av.open(str(found[number % len(found)])) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24", width=kind.width_px, height=kind.height_px))
            if len(frames) == LONGEST:
                break
    shortest, longest = kind.frames
    count = shortest + (13 * number) % (longest - shortest + 1)
    there = np.arange(count) % (2 * len(frames))
    return np.stack(frames)[np.where(there < len(frames), there, 2 * len(frames) - 1 - there)]


def files_of(folder: Path, kind: Videos, videos: int) -> list[Path]:
    """Encode so many clips, with key frames as the encoder places them."""
    made = []
    for number in range(videos):
        path = folder / f"{number}.{kind.suffix}"
        frames = footage(number, kind)
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(kind.codec, rate=30 if kind.suffix == "mp4" else 12)
            stream.width, stream.height, stream.pix_fmt = kind.width_px, kind.height_px, "yuv420p"
            stream.options = {**kind.options, "b": "0"} if kind.suffix == "webm" else kind.options
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        made.append(path)
    return made


def ours(decoder: str, frames: int, known_good: bool) -> Callable[[Path], None]:
    """Open and read evenly spaced frames, as extraction or training does."""

    def read(path: Path) -> None:
        with open_video(path, decoder=decoder, known_good=known_good) as source:  # type: ignore[arg-type]
            source.read([source.frame_count * place // frames for place in range(frames)])
            assert source.decoder.startswith(decoder), source.why

    return read


def alone(frames: int, counts: dict[Path, int]) -> Callable[[Path], object]:
    """The same frames by decord, whatever they show."""
    return lambda path: read_with("decord", path, [counts[path] * place // frames for place in range(frames)])


def measured(files: list[Path], rounds: int) -> dict[str, dict[str, Cost]]:
    """use -> way -> median cost per video, all in turn."""
    counts = {}
    for path in files:
        with open_video(path) as source:
            counts[path] = source.frame_count
    work: dict[str, dict[str, Callable[[Path], object]]] = {
        "extraction": {"pyav": ours("pyav", 8, False), "decord": ours("decord", 8, False), "alone": alone(8, counts)},
        "training": {"pyav": ours("pyav", 16, True), "decord": ours("decord", 16, True), "alone": alone(16, counts)},
    }
    taken: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds + 1):
        for use, ways in work.items():
            for name, read in ways.items():
                wall, cores = time.perf_counter(), time.process_time()
                for path in files:
                    read(path)
                scale = 1e3 / len(files)
                cost = Cost(scale * (time.perf_counter() - wall), scale * (time.process_time() - cores))
                if number:  # the first round is not counted
                    taken.setdefault((use, name), []).append(cost)
    return {
        use: {
            name: Cost(
                statistics.median(cost.wall for cost in taken[use, name]),
                statistics.median(cost.cores for cost in taken[use, name]),
            )
            for name in ways
        }
        for use, ways in work.items()
    }


HEADER = (
    "| use | files | PyAV: wall | cores | decord behind the gate: wall | cores | decord alone: wall | cores |\n"
    "|---|---|---|---|---|---|---|---|"
)


def rows(rounds: int, videos: int) -> Iterator[str]:
    """The table, the sums, and what `auto` should be."""
    costs: dict[str, list[dict[str, Cost]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            (place := Path(folder) / kind.suffix).mkdir()
            for use, found in measured(files_of(place, kind, videos), rounds).items():
                costs.setdefault(use, []).append(found)
                yield line(use, kind.name, found)
    for use, found in costs.items():
        sums = {
            way: Cost(sum(one[way].wall for one in found), sum(one[way].cores for one in found)) for way in found[0]
        }
        chosen = "PyAV" if sums["pyav"].wall <= NEAR * sums["decord"].wall else "decord"
        yield line(f"**{use}**", f"**both: `auto` is {chosen}**", sums)


def line(use: str, files: str, found: dict[str, Cost]) -> str:
    """One row, in milliseconds per video."""
    cells = " | ".join(f"{found[way].wall:.1f} | {found[way].cores:.1f}" for way in ("pyav", "decord", "alone"))
    return f"| {use} | {files} | {cells} |"


def main() -> None:
    """Measure, print and, where asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (7)")
    parser.add_argument("--videos", type=int, default=8, help="per kind (8)")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    footage_is = "real clips, encoded anew" if any(CLIPS.glob("*.m*")) else "generated clips"
    where = f"{machine()}; {footage_is}, {asked.videos} of each kind, medians of {asked.rounds} rounds, ms per video"
    print(where, HEADER, sep="\n\n", flush=True)
    found = []
    for row in rows(asked.rounds, asked.videos):
        found.append(row)
        print(row, flush=True)
    if asked.write:
        command = f"`python tests/bench/bench_decoders.py --rounds {asked.rounds} --videos {asked.videos}`"
        write_block(asked.write, "decoders", "\n".join([f"{command} on: {where}.\n", HEADER, *found]))


if __name__ == "__main__":
    sys.exit(main())
