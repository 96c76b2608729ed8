"""`--codec auto` before anything is stored: CLIP runs over a sample of the data set, and every candidate is measured.

data set ─ even sample ─ halves that share no file ─▶ CLIP ─▶ codecs/choose.py ─▶ CodecChoice
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.candidates import CodecChoice
from vidxfer.stages.codecs.choose import choose, in_halves
from vidxfer.stages.codecs.through import Ending, Seen
from vidxfer.stages.progress import Progress
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.encode import Encoded, encode_videos, left_out_of


def choose_for_videos(
    request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: Tower, shown: Progress
) -> CodecChoice:
    """Measure on an even sample of a data set, before anything of it is stored.

    Raises:
        UsageError: fewer than two videos, or those of a half cannot be read.
    """
    sample = dataset.take(min(len(dataset), request.store.calibration_videos)).videos
    halves = in_halves([(video.path, video) for video in sample], dataset.split)

    def seen(videos: Sequence[Video], why: str) -> Iterator[Seen]:
        with shown.bar(f"{why} {dataset.split}", len(videos), "videos") as bar:
            for row, encoded in enumerate(encode_videos(videos, spec, tower, request)):
                if isinstance(encoded, Encoded):
                    others = left_out_of(tower, encoded, spec.layers)
                    yield Seen(row=row, tokens=encoded.tokens.float(), left_out=others)
                bar.advance()

    apart = len({video.path for video in sample}) > 1
    return choose(
        spec, request.store.loss, halves, seen, Ending(tower, spec.layers, request.batch_frames), apart, shown
    )
