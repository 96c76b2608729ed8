"""Small videos whose count and shape of frames tell nothing: what is odd is how a picture is to be shown.

    x264 ─▶ base.mp4 ─▶ packets through a bitstream filter, all of them, the first ones or the later ones ─▶ odd.mp4

Every one is made by PyAV from the same moving colours, so that a turned, shifted or otherwise coloured frame is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition

COUNT, HEIGHT, WIDTH = 40, 96, 128
X264 = {"preset": "veryfast", "g": "8", "bf": "2", "crf": "20"}
ALL = slice(None)
Change = Callable[[Any], None]


def colours(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """uint8 [frame height width rgb]: saturated waves and blocks that move, alike under no turn or mirror."""
    at, y, x = np.ogrid[:count, :height, :width]
    waves = [np.sin(x / (5 + c + seed) + y / (9 - c) + at / 3 + 2 * c) * 0.5 + 0.5 for c in range(3)]
    frames = (np.stack(waves, axis=-1) * 235 + 10).astype(np.uint8)
    for number in range(count):
        left = (5 * number + 7 * seed) % (width - 24)
        frames[number, 8:25, left : left + 19] = [(250, 10, 10), (10, 10, 250), (10, 240, 10)][number % 3]
    return frames


def made(path: Path, frames: np.ndarray, *, codec: str = "libx264", options: dict[str, str] = X264,
         change: Change | None = None, pix_fmt: str = "yuv420p", fps: int = 25) -> Path:  # fmt: skip
    """Encode into the container of the suffix; `change` is shown the stream before the first frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt, stream.options = *frames.shape[1:3], pix_fmt, options
        stream.codec_context.thread_count = 1
        if change is not None:
            change(stream)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def filtered(source: Path, target: Path, what: str, *, which: slice = ALL, change: Change | None = None) -> Path:
    """Copy packets; those in the slice, by number, go through a bitstream filter. Headers are rewritten with all."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        whole = which == ALL
        chain = BitStreamFilterContext(what, stream, copy if whole else None)
        if change is not None:
            change(copy)
        packets = [packet for packet in old.demux(stream) if packet.size]
        chosen = set(range(len(packets))[which])
        for number, packet in enumerate(packets):
            for out in chain.filter(packet) if number in chosen else [packet]:
                out.stream = copy
                new.mux(out)
    return target


def together(target: Path, sources: list[Path], dispositions: list[Disposition]) -> Path:
    """Several video streams in one file."""
    with av.open(str(target), "w") as new:
        inputs = [av.open(str(path)) for path in sources]
        copies = [new.add_stream_from_template(one.streams.video[0]) for one in inputs]
        for copy, disposition in zip(copies, dispositions, strict=True):
            copy.disposition = disposition
        for one, copy in zip(inputs, copies, strict=True):
            for packet in one.demux(one.streams.video[0]):
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
            one.close()
    return target


def turned(degrees: float, **mirror: bool) -> Change:
    return lambda stream: stream.set_display_rotation(degrees, **mirror)


VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "8", "auto-alt-ref": "0"}
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=0:keyint=8:min-keyint=8:bframes=2"}

ORIENTATION = {"h264": b"\x06\x2f\x03\x10\x00\x09\x80", "hevc": b"\x4e\x01\x2f\x03\x10\x00\x18\x80"}
"""NAL units with the message "display orientation": turned by 180 degrees, until the next one."""


def with_sei(source: Path, target: Path, message: bytes, numbers: set[int]) -> Path:
    """Copy packets, those of these numbers (in decoding order) with a NAL unit in front."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        for number, packet in enumerate(packets):
            more = len(message).to_bytes(4, "big") + message + bytes(packet)
            mux(new, copy, packet, more if number in numbers else bytes(packet))
    return target


def joined(target: Path, parts: list[tuple[Path, int]]) -> Path:
    """Packets 0 … of each file up to the next one's first, in one stream: key frames carry their parameter sets along.

    Args:
        parts: (file, packets taken from it); all begin where the one before ended, so sums must be key frames.
    """
    total = 0
    with av.open(str(target), "w") as new:
        copy = None
        for path, count in parts:
            with av.open(str(path)) as old:
                stream = old.streams.video[0]
                copy = copy or new.add_stream_from_template(stream)
                packets = [packet for packet in old.demux(stream) if packet.size][total:][:count]
                for packet in packets:
                    data = bytes(packet)
                    mux(new, copy, packet, parameter_sets(stream) + data if packet.is_keyframe else data)
                total += len(packets)
    return target


def parameter_sets(stream: Any) -> bytes:
    """SPS and PPS of an h264 stream's header (avcC), as NAL units behind four bytes of length."""
    data, at, found = bytes(stream.codec_context.extradata), 5, b""
    for mask in (0x1F, 0xFF):
        count, at = data[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "big")
            found += size.to_bytes(4, "big") + data[at + 2 : at + 2 + size]
            at += 2 + size
    return found


def mux(container: Any, stream: Any, packet: Any, data: bytes) -> None:
    """Write a packet's times with other bytes."""
    copy = av.Packet(data)
    copy.pts, copy.dts, copy.time_base, copy.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
    container.mux(copy)
