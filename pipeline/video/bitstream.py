"""What a packet says about itself before it is decoded: is decoding safe from here, and does it show a picture?

h264     length | NAL …     key frame = IDR slice (type 5)          a recovery point is not one: its picture leans
hevc     length | NAL …     key frame = IDR slice (types 19, 20)     on frames before it
vp8      3-byte frame tag                                             bit 4 of byte 0: shown
vp9      frame header (… superframe index)                            hidden frames ride in the packet of a shown one
"""

from __future__ import annotations

from collections.abc import Iterator

IDR = {"h264": {5}, "hevc": {19, 20}}
RANDOM_ACCESS = {"h264": {5}, "hevc": set(range(16, 22))}
"""hevc forbids frames that follow such a picture in both orders to lean on earlier ones; h264 has no such type."""

SLICES = {"h264": range(1, 6), "hevc": range(0, 32)}


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length in front of each NAL unit; 0 where units are parted by start codes (Annex B)."""
    if not extradata or extradata[0] != 1:
        return 0
    offset = 4 if codec == "h264" else 21
    return (extradata[offset] & 3) + 1 if len(extradata) > offset else 0


def slice_types(codec: str, packet: bytes, length_bytes: int) -> set[int]:
    """NAL unit types of the slices in an h264 or hevc packet; compare with IDR and RANDOM_ACCESS."""
    mask, shift = (0x1F, 0) if codec == "h264" else (0x3F, 1)
    kinds = {(unit[0] >> shift) & mask for unit in _units(packet, length_bytes) if unit}
    return kinds & set(SLICES[codec])


def sequence_headers(codec: str, packet: bytes, length_bytes: int) -> tuple[bytes, ...]:
    """The sequence parameter sets in an h264 or hevc packet: size, colours and cropping of what follows."""
    mask, shift, kind = (0x1F, 0, 7) if codec == "h264" else (0x3F, 1, 33)
    return tuple(unit for unit in _units(packet, length_bytes) if unit and (unit[0] >> shift) & mask == kind)


def _units(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units, without what parts them."""
    if not length_bytes:
        offset = packet.find(b"\0\0\1")
        while 0 <= offset < len(packet) - 3:
            after = packet.find(b"\0\0\1", offset + 3)
            yield packet[offset + 3 : after if after > 0 else len(packet)].rstrip(b"\0")
            offset = after
        return
    offset = 0
    while offset + length_bytes < len(packet):
        unit_bytes = int.from_bytes(packet[offset : offset + length_bytes], "big")
        yield packet[offset + length_bytes : offset + length_bytes + max(1, unit_bytes)]
        offset += length_bytes + unit_bytes


def shown_pictures(codec: str, packet: bytes) -> int:
    """How many pictures a VP8 or VP9 packet shows (0 or 1 in sound files); 1 for every other codec."""
    if not packet:
        return 0
    if codec == "vp8":
        return (packet[0] >> 4) & 1
    if codec == "vp9":
        return sum(_vp9_shows(frame) for frame in _vp9_frames(packet))
    return 1


def _vp9_frames(packet: bytes) -> list[bytes]:
    """The frames of a packet: one, or as many as its superframe index lists."""
    last = packet[-1]
    if last & 0xE0 != 0xC0:
        return [packet]
    size_bytes, count = ((last >> 3) & 3) + 1, (last & 7) + 1
    index_bytes = 2 + size_bytes * count
    if len(packet) < index_bytes or packet[-index_bytes] != last:
        return [packet]
    sizes = packet[-index_bytes + 1 : -1]
    frames, offset = [], 0
    for number in range(count):
        frame_bytes = int.from_bytes(sizes[number * size_bytes : (number + 1) * size_bytes], "little")
        frames.append(packet[offset : offset + frame_bytes])
        offset += frame_bytes
    return frames


def _vp9_shows(frame: bytes) -> bool:
    """show_existing_frame or show_frame of a header: marker (2 bits), profile (2), [reserved], existing, type, show."""
    if not frame:
        return False
    bits = int.from_bytes(frame[:2].ljust(2, b"\0"), "big")
    first_bit = 5 if (bits >> 12) & 3 == 3 else 4
    existing, show = (bits >> (15 - first_bit)) & 1, (bits >> (13 - first_bit)) & 1
    return bool(existing or show)
