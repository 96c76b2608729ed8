"""What an epoch costs, three ways and a half: arithmetic only, nothing is measured or opened here.

    way                    disk reads          CPU                      device
    cached                 codes               decode frames            head
    online                 -                   decode frames            CLIP + head
    frames cached          JPEG                JPEG to pixels           CLIP + head
    tokens and frames      codes + JPEG        JPEG to pixels           head

Codes are those that the head reads, and frames those that it sees: a head without pixels decodes none, and online those
that CLIP sees. Without a head, all that a cache would hold is counted. The JPEGs of a view lie in one chunk, which is
read whole: those that the head does not see too.

Disk, CPU and device work at the same time, so a clip takes as long as the slowest of the three. What is not known
(None) is not counted, and `Epoch.not_counted` says so. The video files' own bytes, the optimiser, augmentation and
evaluation are never counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.reading import read_json

RATES_BYTES_MOST = 1 << 16
"""Of a file of rates."""

WAYS = ("cached", "online", "frames cached, CLIP online", "tokens and frames cached")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What this machine does, measured or given; None: not known.

    Attributes:
        disk_read_gb_per_second: cold random reads of chunks as long as the cache's.
        disk_write_gb_per_second: written and made durable.
        clip_frames_per_second: the tower's forward with all taps, on the device.
        decode_videos_per_second: as extraction decodes: the frames CLIP sees, of all stored views of a video.
        dense_clips_per_second: as training decodes: the frames of one view that the head sees, or else CLIP.
        jpeg_frames_per_second: JPEG to pixels, of the size CLIP sees.
        head_clips_per_second: forward and backward of the recipe's head, on the device.
    """

    disk_read_gb_per_second: float | None = None
    disk_write_gb_per_second: float | None = None
    clip_frames_per_second: float | None = None
    decode_videos_per_second: float | None = None
    dense_clips_per_second: float | None = None
    jpeg_frames_per_second: float | None = None
    head_clips_per_second: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0")


def rates_in(file: Path) -> dict[str, float]:
    """Rates by name from a JSON file, as the measurement of a device writes it; some may lack.

    Raises:
        UsageError: it cannot be read, is no table of numbers, or names a rate that there is not.
    """
    names = list(Rates.__dataclass_fields__)
    expected = f"Expected a JSON table of {', '.join(names)}, as make gpu writes it."
    try:
        stored = read_json(file, most=RATES_BYTES_MOST, error=UsageError)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--rates {file} is no JSON file: {error}. {expected}") from error
    if not isinstance(stored, dict):
        raise UsageError(f"--rates {file} holds {str(stored)[:80]}. {expected}")
    for name, value in stored.items():
        if name not in names:
            raise UsageError(f"--rates {file} has {name!r}, which is no rate. Expected some of {', '.join(names)}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"--rates {file}: {name} is {value!r}, expected a number")
    return {name: float(value) for name, value in stored.items()}


@dataclass(frozen=True, kw_only=True)
class ClipCost:
    """What one clip of an epoch needs.

    Attributes:
        token_bytes: that the head reads of one stored view.
        frame_bytes: of the JPEG of one frame.
        sparse_frames: that CLIP sees.
        seen_frames: that the head sees as pixels.
        kept_frames: whose JPEGs lie in one chunk with those that are seen, themselves counted; 0: no others.
    """

    token_bytes: int
    frame_bytes: float
    sparse_frames: int
    seen_frames: int
    kept_frames: int = 0


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One way to run an epoch.

    Attributes:
        way: one of `WAYS`.
        seconds: of the epoch; None: nothing of it is known.
        bound_by: "disk", "CPU" or "device", whichever takes longest.
        not_counted: rates that were not known.
    """

    way: str
    seconds: float | None
    bound_by: str
    not_counted: tuple[str, ...]


def epochs(clip: ClipCost, rates: Rates, clips: int) -> tuple[Epoch, ...]:
    """An epoch of `clips` clips, each of `WAYS`."""
    return tuple(_epoch(way, clip, rates, clips) for way in WAYS)


def _epoch(way: str, clip: ClipCost, rates: Rates, clips: int) -> Epoch:
    parts = _seconds_per_clip(way, clip, rates)
    missing = tuple(name for named in parts.values() for name, seconds in named.items() if seconds is None)
    known = {
        part: sum(seconds for seconds in named.values() if seconds is not None)
        for part, named in parts.items()
        if any(seconds is not None for seconds in named.values())
    }
    slowest = max(known, key=lambda part: known[part], default="nothing known")
    seconds = known[slowest] * clips if known else None
    return Epoch(way=way, seconds=seconds, bound_by=slowest, not_counted=missing)


def _seconds_per_clip(way: str, clip: ClipCost, rates: Rates) -> Mapping[str, Mapping[str, float | None]]:
    """Part -> rate -> seconds of one clip; None where the rate is not known."""
    online, stored_frames = way in (WAYS[1], WAYS[2]), way in (WAYS[2], WAYS[3])
    decoded = clip.seen_frames or (clip.sparse_frames if online else 0)
    jpegs = max(decoded, clip.kept_frames) if decoded and stored_frames else 0
    read_bytes = (0.0 if online else clip.token_bytes) + jpegs * clip.frame_bytes
    reads = {"disk_read_gb_per_second": _over(read_bytes / 1e9, rates.disk_read_gb_per_second)} if read_bytes else {}
    pixels: dict[str, float | None] = {}
    if decoded and stored_frames:
        pixels = {"jpeg_frames_per_second": _over(decoded, rates.jpeg_frames_per_second)}
    elif decoded:
        pixels = {"dense_clips_per_second": _over(1, rates.dense_clips_per_second)}
    forward = {"clip_frames_per_second": _over(clip.sparse_frames, rates.clip_frames_per_second)} if online else {}
    head = {"head_clips_per_second": _over(1, rates.head_clips_per_second)}
    return {"disk": reads, "CPU": pixels, "device": {**forward, **head}}


def _over(amount: float, rate: float | None) -> float | None:
    return None if rate is None else amount / rate


def break_even_gb_per_second(clip: ClipCost, rates: Rates) -> float | None:
    """The rate of reading at which a cached epoch takes as long as an online one. On a slower disk, online is faster.

    None if CLIP's rate is not known. None too if no disk is fast enough, because decoding or the head alone takes as
    long as an online clip.
    """
    if rates.clip_frames_per_second is None:
        return None
    online = _epoch(WAYS[1], clip, rates, 1).seconds or 0.0
    others = _seconds_per_clip(WAYS[0], clip, rates)
    without_disk = max(sum(s for s in others[part].values() if s is not None) for part in ("CPU", "device"))
    return None if without_disk >= online else clip.token_bytes / 1e9 / online


def extract_seconds(*, videos: int, frames: int, total_bytes: int, rates: Rates) -> float | None:
    """Seconds of an extraction: the slowest of decoding, CLIP and writing, which overlap; None: CLIP is not known."""
    if rates.clip_frames_per_second is None:
        return None
    decode = _over(videos, rates.decode_videos_per_second) or 0.0
    write = _over(total_bytes / 1e9, rates.disk_write_gb_per_second) or 0.0
    return max(frames / rates.clip_frames_per_second, decode, write)


def epochs_until_it_paid(extract: float | None, ways: tuple[Epoch, ...]) -> float | None:
    """Epochs after which extraction has been earned back by cached ones; None: never, or not known."""
    cached, online = ways[0].seconds, ways[1].seconds
    if extract is None or cached is None or online is None or cached >= online:
        return None
    return extract / (online - cached)
