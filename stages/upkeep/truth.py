"""The tokens that a codec is judged by: of CLIP, which runs again on the videos, or of a float16 cache itself.

    rows ─┬─ "pixels": videos ─ decode ─ CLIP ─▶ tokens, and those that a cache leaves out ─┐
          └─ "stored": float16 cache ─▶ tokens ─────────────────────────────────────────────┴▶ Seen, a row at a time

What is stored of a row can be had beside it, so that the two are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.load import choose_device
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.training.same import NO_IDENTITIES, expect_same_file, expect_same_pictures
from vidxfer.stages.codecs.through import Seen
from vidxfer.stages.progress import Progress
from vidxfer.stages.remembered import dense_videos, remembered_clip, tower_of_caches
from vidxfer.stages.shards.encode import Prepared, encode_all, left_out_of, prepare_all
from vidxfer.stages.upkeep.stored import decoded, read_row

TRUTHS = ("pixels", "stored")


@dataclass(frozen=True, kw_only=True)
class FidelityRequest:
    """What to measure.

    Attributes:
        cache: folder.
        split: which.
        videos: how many stored videos, evenly spread.
        codecs: to try on the same tokens, as `cache/codecs/form.py` spells them.
        truth: "pixels" (CLIP again) or "stored" (the cache's own tokens, which must be float16).
        through: also compare at the tower's end.
        layers: which to measure; None: all that are stored.
        fit_on: split whose videos tried codecs are fitted on; None: "train" where another one is measured and that is
            there, else other videos of the same.
        calibration_videos: how many of them.
        root: of the videos, if they have moved.
        device, batch_frames, decode_threads: as for extraction.
    """

    cache: Path
    split: str = "train"
    videos: int = 8
    codecs: tuple[str, ...] = ()
    truth: str = "pixels"
    through: bool = False
    layers: tuple[int, ...] | None = None
    fit_on: str | None = None
    calibration_videos: int = 16
    root: Path | None = None
    device: str = "auto"
    batch_frames: int = 128
    decode_threads: int = 2


def tower_of_split(split: Split, device: str) -> Tower:
    """The tower that a split remembers.

    Raises:
        ClipError: it cannot be loaded. CacheMismatch: it is another one.
    """
    clip = remembered_clip(split.informs["clip"], split.spec.clip_precision, device=device)
    return tower_of_caches([split], clip)


class Truth:
    """Tokens of stored rows, from pixels or from a float16 cache; remembers which videos could not be read.

    Args:
        request: what is measured; its `truth` says where tokens come from.
        reader: of the split.
        shown: for bars.
        tower: of the split; None: it is loaded where pixels are the truth.
        layers: of the cache; None: all.
    """

    def __init__(
        self,
        request: FidelityRequest,
        reader: TokenReader,
        shown: Progress,
        *,
        tower: Tower | None = None,
        layers: tuple[int, ...] | None = None,
    ) -> None:
        self._request, self._reader, self._shown, self._tower = request, reader, shown, tower
        self.device = choose_device(request.device)
        self.refused: dict[str, str] = {}
        split = reader.split
        self.spec = split.spec if layers is None else replace(split.spec, layers=layers)
        self._decode = Dequantiser.of(split, layers=self.spec.layers).to(self.device)
        if request.truth == "pixels":
            self._videos = dense_videos(split, request.root)
            if tower is None:
                self._tower = tower_of_split(split, request.device)

    def as_stored(self, row: int) -> Tensor:
        """What the cache gives back for a row: float tokens [view layer frame token channel]."""
        return decoded(self._decode, read_row(self._reader, row, self.spec.layers))

    def seen(self, rows: list[int], why: str) -> Iterator[Seen]:
        """The rows that can be read, in their order."""
        split = self._reader.split
        with self._shown.bar(f"{why} {split.spec.split}", len(rows), "videos") as bar:
            if self._request.truth == "stored":
                for row in rows:
                    yield Seen(row=row, tokens=self.as_stored(row))
                    bar.advance()
                return
            assert self._tower is not None, "pixels are the truth"
            if not split.identities:
                self._shown.line(f"{split.spec.split}: {NO_IDENTITIES}")
            videos = [self._videos[split.video_ids[row]] for row in rows]
            ready = prepare_all(videos, self.spec, threads=self._request.decode_threads)
            encoded_videos = encode_all(ready, self.spec, self._tower, batch_frames=self._request.batch_frames)
            for row, encoded in zip(rows, encoded_videos, strict=True):
                bar.advance()
                if isinstance(encoded, VideoError):
                    self.refused[split.video_ids[row]] = f"{encoded.reason}: {encoded.detail}"
                else:
                    self._expect_same(row, encoded.prepared)
                    others = left_out_of(self._tower, encoded, self.spec.layers) if self._request.through else None
                    yield Seen(row=row, tokens=encoded.tokens.float(), left_out=others)

    def _expect_same(self, row: int, now: Prepared) -> None:
        """Raise CacheError unless a video that was read again is the one of a stored row."""
        video, (frames, *size_px) = self._videos[self._reader.split.video_ids[row]], self._reader.source_of(row)
        source_px = (size_px[0], size_px[1]) if all(size_px) else None
        expect_same_pictures(video, frame_count=(frames, now.frame_count), source_px=(source_px, now.source_px))
        expect_same_file(video, self._reader.file_of(row))
