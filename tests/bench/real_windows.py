"""Windows of real videos, each played forward and backward, at speed 1 and 2: four classes out of the same pixels.

    a video, its stretch of one split ─▶ windows in which most moves
    ├─ speed 2   every second step of 15 ──────┬─▶ forward
    └─ speed 1   the 8 steps in their middle ──┴─▶ backward: the same pictures, last one first

A source frame is decoded once and written once, without loss. A clip is a folder of numbered links to such pictures, so
the classes differ in the order of their frames and in nothing else: no encoder has seen them. A step is about 0.04
seconds, less where a video is short. On an empty road nothing moves, and no head could tell what is forward; so of all
windows those are kept in which neighbouring frames differ most. All four clips share a window.

Each frame has four links in a row, because DiST's rule takes one of each four: frame i of 8, in training at times frame
i + 1. The backward clip has its links at `32 - place` instead of `31 - place`. With that both directions draw from the
same frames with the same probability. CLIP sees every second frame: of forward clips the even, of backward clips the
odd ones. Windows begin an odd number of frames apart, so over the windows both are the same frames.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from vidxfer.pipeline.video.reader import open_video

FRAMES, LINKS, SPEEDS = 8, 4, (1, 2)
STEPS = (FRAMES - 1) * max(SPEEDS) + 1
"""Steps that a window reaches over."""

STEP_SECONDS, MOST_OF_STRETCH = 0.04, 2 / 3
APART = 3
"""Source frames between two windows; odd, see above."""

SHORT_SIDE_PX = 224
CLASSES = tuple(f"{direction} x{speed}" for direction in ("forward", "backward") for speed in SPEEDS)
REVERSE = {name: name.translate({}).replace("forward", "F").replace("backward", "forward").replace("F", "backward")
           for name in CLASSES}  # fmt: skip
"""Class -> the class of the same frames in the other order."""

VIDEO_ENDINGS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"}


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What one split has of a source video; seconds, None: from its beginning, to its end."""

    path: str
    split: str
    start: float | None
    end: float | None


def stretches(footage: Path) -> list[Stretch]:
    """Of list.csv, a row's part after the other joined; without a list every second video is for validation.

    Raises:
        SystemExit: no list and no videos.
    """
    if (footage / "list.csv").is_file():
        with (footage / "list.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            found.setdefault((row["path"], row["split"]), []).append(row)
        return [
            Stretch(path=path, split=split, start=_least(parts), end=_most(parts))
            for (path, split), parts in found.items()
        ]
    videos = sorted(path.name for path in footage.iterdir() if path.suffix.lower() in VIDEO_ENDINGS)
    if len(videos) < 2:
        raise SystemExit(
            f"{footage}: neither a list (list.csv: path,label,start,end,split) nor two videos. Name another folder."
        )
    return [
        Stretch(path=name, split=("train", "val")[place % 2], start=None, end=None) for place, name in enumerate(videos)
    ]


def _least(parts: list[dict[str, str]]) -> float | None:
    return min(float(part["start"]) for part in parts) if all(part.get("start") for part in parts) else None


def _most(parts: list[dict[str, str]]) -> float | None:
    return max(float(part["end"]) for part in parts) if all(part.get("end") for part in parts) else None


def step_of(frame_count: int, fps: float) -> int:
    """Source frames of a step: 0.1 seconds, or fewer where a window would take over two thirds of the stretch."""
    return max(1, min(round(fps * STEP_SECONDS), int(frame_count * MOST_OF_STRETCH) // STEPS))


def starts(moved: Sequence[float], step: int, most: int) -> list[int]:
    """Where windows begin: those in which most moves, in the order of the video.

    Args:
        moved: of each frame but the first: how much it differs from the frame before.
        step: source frames of a step.
        most: windows at most.
    """
    span = (STEPS - 1) * step
    whole = [sum(moved[begin : begin + span]) for begin in range(0, len(moved) - span + 1, APART)]
    best = sorted(range(len(whole)), key=lambda place: (-whole[place], place))[:most]
    return [APART * place for place in sorted(best)]


def orders(start: int, step: int) -> dict[str, list[int]]:
    """Class -> the source frame of each of its links."""
    found = {}
    for speed in SPEEDS:
        begin = start + step * ((STEPS - ((FRAMES - 1) * speed + 1)) // 2)
        forward = [begin + step * speed * (place // LINKS) for place in range(FRAMES * LINKS)]
        last = len(forward)
        found[f"forward x{speed}"] = forward
        found[f"backward x{speed}"] = [forward[min(last - place, last - 1)] for place in range(last)]
    return found


def write_windows(footage: Path, folder: Path, most: int) -> dict[str, str]:
    """All clips and `folder`/list.csv; a repeat keeps what is there.

    Args:
        footage: folder of videos.
        most: windows of one video and split.

    Returns:
        id of a clip -> its source video.

    Raises:
        SystemExit: the folder holds windows of something else.
    """
    made_from = {"footage": str(footage.resolve()), "most": most, "frames": FRAMES, "links": LINKS,
                 "step_seconds": STEP_SECONDS, "apart": APART}  # fmt: skip
    mark = folder / "windows.json"
    if mark.is_file():
        made = json.loads(mark.read_text(encoding="utf-8"))
        if made["made_from"] != made_from:
            raise SystemExit(
                f"{folder} holds windows of {made['made_from']}, asked for {made_from}. Name another --work."
            )
        kept: dict[str, str] = made["sources"]
        return kept
    rows, sources = [], {}
    for stretch in stretches(footage):
        for clip, label in _clips_of(footage, stretch, folder, most):
            sources[clip] = stretch.path
            rows.append({"path": f"clips/{clip}", "label": label, "split": stretch.split, "id": clip})
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=["path", "label", "split", "id"])
        table.writeheader()
        table.writerows(rows)
    mark.write_text(json.dumps({"made_from": made_from, "sources": sources}), encoding="utf-8")
    return sources


def _clips_of(footage: Path, stretch: Stretch, folder: Path, most: int) -> Iterator[tuple[str, str]]:
    """Write the pictures of a stretch and the links of its clips; id and label of each."""
    stem = f"{Path(stretch.path).stem}_{stretch.split}"
    pictures = folder / "pictures" / stem
    pictures.mkdir(parents=True, exist_ok=True)
    with open_video(footage / stretch.path, start_seconds=stretch.start, end_seconds=stretch.end) as video:
        count, moved, before = video.frame_count, [], None
        first, last = video.read([0, count - 1]).pts_seconds
        for at in range(0, count, 64):
            numbers = list(range(at, min(count, at + 64)))
            for frame, pixels in zip(numbers, video.read(numbers).pixels, strict=True):
                small = _reduced(pixels)
                _write_picture(pictures / f"{frame:05d}.png", small)
                if before is not None:
                    moved.append(float(np.abs(small[::4, ::4].astype(np.int16) - before).mean()))
                before = small[::4, ::4].astype(np.int16)
    step = step_of(count, (count - 1) / (last - first) if last > first else 1 / STEP_SECONDS)
    for begin in starts(moved, step, most):
        for label, order in orders(begin, step).items():
            clip = f"{stem}_{begin:05d}_{label.replace(' ', '_')}"
            place = folder / "clips" / clip
            place.mkdir(parents=True, exist_ok=True)
            for number, frame in enumerate(order):
                link = place / f"{number:05d}.png"
                if not link.exists():
                    os.link(pictures / f"{frame:05d}.png", link)
            yield clip, label


def _reduced(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A frame [height width rgb] at the reduced size."""
    height, width = pixels.shape[:2]
    scale = SHORT_SIDE_PX / min(height, width)
    moved = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    small = interpolate(moved, (round(height * scale), round(width * scale)), mode="bilinear", antialias=True)
    reduced: np.ndarray[Any, np.dtype[np.uint8]] = small[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return reduced


def _write_picture(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Without loss, whole or not at all."""
    from PIL import Image

    if not path.exists():
        part = path.with_suffix(".part")
        Image.fromarray(pixels).save(part, format="png", compress_level=1)
        part.replace(path)
