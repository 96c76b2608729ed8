"""What the words in a column's name mean: "startTime_ms" is a start, in milliseconds.

    name ─▶ words in any order: a side (start, end, …), a unit (s, ms, frame, …), words that say nothing (clip, …)

Consequence: a column is understood whole or not at all. One that looks as if it spoke of time is told of.
"""

from __future__ import annotations

import re

_SIDES = {
    **dict.fromkeys(
        ("start", "starts", "starting", "begin", "begins", "beginning", "onset", "offset", "from"), "start"
    ),
    **dict.fromkeys(("end", "ends", "ending", "stop", "stops", "finish", "until", "to"), "end"),
    **dict.fromkeys(("duration", "dur", "length"), "duration"),
    "tstart": "start",
    "tend": "end",
}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "time", "timestamp", "ts", "t", "timecode"), "seconds"),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "milliseconds"),
    **dict.fromkeys(("us", "usec", "microsecond", "microseconds"), "microseconds"),
    **dict.fromkeys(("frame", "frames", "idx", "index", "no", "number", "num"), "frames"),
}
_SILENT = {"clip", "segment", "seg", "action", "event", "activity", "in", "at"}
_FIRST_HALVES = {
    "start", "begin", "end", "stop", "offset", "duration", "frame", "time", "timestamp", "clip", "segment",
}  # fmt: skip
RATES = {"fps", "videofps", "framerate", "framespersecond", "clipfps"}
_LOADED = re.compile(r"start|end|stop|begin|time|frame|fps|offset|duration")
"""How a column begins that may change what a row means."""


def words_of(name: str) -> list[str]:
    """ "startTime_sec" -> ["start", "time", "sec"]; "start (s)" -> ["start", "s"]."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [word for part in parts for word in _parted(part.lower())]


def _parted(word: str) -> list[str]:
    """ "starttime" -> ["start", "time"]: where two known words are written as one."""
    if word in _SIDES or word in _UNITS or word in _SILENT:
        return [word]
    for place in range(2, len(word) - 1):
        head, tail = word[:place], word[place:]
        if head in _FIRST_HALVES:
            rest = _parted(tail)
            if all(part in _SIDES or part in _UNITS or part in _SILENT for part in rest):
                return [head, *rest]
    return [word]


def meaning_of(name: str) -> tuple[str, str] | None:
    """The side and unit that a column's name says; None where a word of it says something else."""
    words = words_of(name)
    sides = [_SIDES[word] for word in words if word in _SIDES]
    units = {_UNITS[word] for word in words if word in _UNITS}
    known = all(word in _SIDES or word in _UNITS or word in _SILENT for word in words)
    if not known or not sides:
        return None
    side = "start" if sides == ["start", "start"] else sides[0] if len(sides) == 1 else None  # start_offset
    units.discard("seconds" if len(units) > 1 else "")  # start_time_ms
    return None if side is None or len(units) > 1 else (side, next(iter(units), "seconds"))


def speaks_of_time(name: str, half: bool) -> bool:
    """Whether a column may change what a row means; `half`: the row has a start and no end yet."""
    words = words_of(name)
    sided = any(word in ("start", "begin", "end", "stop", "fps") for word in words)
    counts = half and any(word in ("frames", "length", "duration", "count", "len", "dur") for word in words)
    return bool(words) and (_LOADED.match(words[0]) is not None or sided or counts)
