"""Frames of stored views as small pictures: what a head would see of them, from the cache's JPEGs or from the videos.

(row, view) ─▶ the loader of the training ─▶ grey, mirrored, cut as the view says ─▶ at most 8 pictures
                  └▶ VideoError, no such file ─▶ no picture, and the reason
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.errors import CacheError, UsageError, VideoError
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.training.ahead import AheadLoader
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.video.thumbnails import png, thumbnails
from vidxfer.stages.learning.sources import Source

MOST_FRAMES = 8
FRAMES_SEEN = Needs(layers=(), pixels="sparse")
"""A head that sees the frames that CLIP saw, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Some frames of one stored view, in order.

    Attributes:
        pictures: as addresses of an `img`; none where they could not be had.
        places: of each among the frames that CLIP saw.
        why: there is no picture.
    """

    pictures: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    why: str | None = None


class Strips:
    """Reads strips of a source, one by one: memory is that of one clip."""

    def __init__(self, source: Source, loader: AheadLoader | None, why: str | None) -> None:
        self._source, self._loader, self._why = source, loader, why
        self._assemble: Assembler | None = None
        if loader is not None:
            self._assemble = source.assembler(FRAMES_SEEN, torch.device("cpu"))
        self._stored = set(source.stored_rows())

    def strip(self, row: int, view: int = 0, most: int = MOST_FRAMES) -> Strip:
        """At most `most` frames of a view, evenly spread; or why there are none."""
        try:
            frames = self.frames(row, view)
        except (VideoError, CacheError, UsageError) as error:
            return Strip(why=str(error))
        places = spread(len(frames), most)
        return Strip(pictures=tuple(map(jpeg_uri, thumbnails(frames[list(places)]))), places=places)

    def frames(self, row: int, view: int = 0) -> Tensor:
        """What CLIP saw of a view: float32 0 … 1 [frame rgb height width].

        Raises:
            VideoError, CacheError, UsageError: the frames cannot be had.
        """
        if row not in self._stored:
            name = self._source.split.video_ids[row]
            raise UsageError(self._source.reasons().get(name, "it is not stored in the cache"))
        if self._loader is None or self._assemble is None:
            raise UsageError(self._why or "no frames")
        pixels = self._assemble.pixels(self._loader.load([(row, view)]))
        assert pixels is not None, "FRAMES_SEEN asks for them"
        spec = self._source.split.spec
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (spec.pixel_mean, spec.pixel_std))
        return pixels[0].float() * std + mean


@contextmanager
def opened_strips(source: Source) -> Iterator[Strips]:
    """Strips of a source; where the videos are not to be found, each says so."""
    try:
        loader = source.loader(FRAMES_SEEN, decode_threads=1, read_threads=1)
    except UsageError as error:  # DatasetError too: the folder of the videos has moved
        yield Strips(source, None, str(error))
        return
    with loader:
        yield Strips(source, loader, None)


def spread(count: int, most: int) -> tuple[int, ...]:
    """At most `most` of the numbers below `count`, evenly spread, the first and the last among them."""
    if count <= most:
        return tuple(range(count))
    return tuple(int(number) for number in np.linspace(0, count - 1, most).round())


def jpeg_uri(file: bytes) -> str:
    """A picture inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(file).decode("ascii")


def png_uri(pixels: Pixels) -> str:
    """The same of uint8 [height width rgb], lossless."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
