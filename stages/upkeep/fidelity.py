"""What does a codec lose? CLIP computes the tokens of a few videos again; they are compared with those of the cache.

    k stored videos ─▶ CLIP ─▶ truth ─┬───────────────────────────▶ compare, per layer ─▶ what is stored
    cache ─▶ codes ─▶ decode ─────────┘                                 ▲
    other videos ─▶ fit codec A, B … ─▶ quantise and decode the truth ──┘ codecs that are only tried: nothing is written

A codec that is tried is fitted on other videos than it is measured on. With a float16 cache the truth may come from the
cache itself: no CLIP, no videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.codecs.closeness import Closeness, LayerCloseness
from vidxfer.pipeline.cache.codecs.fit import Fitted, Fitting
from vidxfer.pipeline.cache.codecs.form import codec_form
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.load import choose_device
from vidxfer.pipeline.errors import UsageError, VideoError
from vidxfer.pipeline.training.same import NO_IDENTITIES, expect_same_file, expect_same_pictures
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.remembered import dense_videos, remembered_clip, tower_of_caches
from vidxfer.stages.shards.encode import Prepared, encode_all, prepare_all
from vidxfer.stages.upkeep.stored import decoded, even_rows, read_row

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
        calibration_videos: other videos that tried codecs are fitted on.
        root: of the videos, if they have moved.
        device, batch_frames, decode_threads: as for extraction.
    """

    cache: Path
    split: str = "train"
    videos: int = 8
    codecs: tuple[str, ...] = ()
    truth: str = "pixels"
    calibration_videos: int = 16
    root: Path | None = None
    device: str = "auto"
    batch_frames: int = 128
    decode_threads: int = 2


@dataclass(frozen=True, kw_only=True)
class CodecFidelity:
    """One codec: as it is stored, or tried. Bytes per view over all arrays, then every layer."""

    codec: str
    stored: bool
    bytes_per_view: int
    layers: tuple[LayerCloseness, ...]


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """What was found.

    Attributes:
        videos: ids that were measured.
        fitted_on: videos that tried codecs were fitted on.
        overlap: those are the measured ones, because the split has no others: figures are too good.
        refused: id -> reason of videos that could not be read any more.
        codecs: the stored one first, if measured.
    """

    cache: Path
    split: str
    truth: str
    videos: tuple[str, ...]
    fitted_on: int
    overlap: bool
    refused: dict[str, str] = field(default_factory=dict)
    codecs: tuple[CodecFidelity, ...] = ()


def fidelity(request: FidelityRequest, progress: Progress | None = None) -> FidelityReport:
    """Measure; write nothing.

    Raises:
        UsageError: no such codec, or the cache's own tokens are no truth. CacheError: no such cache.
        CacheMismatch: the CLIP found is not the one the cache was made with. DatasetError: the videos are not there.
    """
    shown = progress or Silent()
    split = open_split(request.cache, request.split)
    specs = tried_specs(split.spec, request.codecs)
    expect_truth(request, split)
    with open_reader(split) as reader:
        rows = reader.stored_rows()
        if not len(rows):
            raise UsageError(f"{split.path} has no stored video to measure. `vidxfer extract` stores them.")
        measured = even_rows(rows, request.videos)
        others = even_rows(rows[[int(row) not in measured for row in rows]], request.calibration_videos)
        truth = Truth(request, reader, shown)
        fitting = Fitting([spec.form for spec in specs], len(others or measured))
        for _, tokens in truth.tokens(others or measured, "fit on"):
            fitting.update(tokens)
        mean, std = (values.to(truth.device) for values in fitting.statistics())
        tried = [Tried(spec, fitting.finish(spec.form, truth.device), truth.device) for spec in specs]
        close = [Closeness(spec.layers, bytes_per_layer(spec), mean, std) for spec in (*specs, split.spec)]
        for row, tokens in truth.tokens(measured, "measure"):
            for codec, closeness in zip(tried, close, strict=False):
                closeness.update(tokens, codec(tokens))
            if request.truth == "pixels":
                close[-1].update(tokens, truth.as_stored(row))
    done = [(split.spec, True, close[-1])] if request.truth == "pixels" else []
    done += [(spec, False, closeness) for spec, closeness in zip(specs, close, strict=False)]
    return FidelityReport(
        cache=request.cache,
        split=request.split,
        truth=request.truth,
        videos=tuple(split.video_ids[row] for row in measured if split.video_ids[row] not in truth.refused),
        fitted_on=len(others or measured),
        overlap=not others,
        refused=truth.refused,
        codecs=tuple(
            CodecFidelity(
                codec=spec.codec, stored=stored, bytes_per_view=spec.bytes_per_view, layers=closeness.finish()
            )
            for spec, stored, closeness in done
        ),
    )


def tried_specs(spec: CacheSpec, codecs: tuple[str, ...]) -> list[CacheSpec]:
    """The settings with each codec in turn.

    Raises:
        UsageError: no such codec.
    """
    try:
        return [replace(spec, codec=codec_form(codec).name) for codec in codecs]
    except ValueError as error:
        raise UsageError(str(error)) from error


def expect_truth(request: FidelityRequest, split: Split) -> None:
    """Raise UsageError if the request cannot be measured."""
    if request.truth not in TRUTHS:
        raise UsageError(f"--truth {request.truth!r} is none of {', '.join(TRUTHS)}")
    if request.truth == "stored" and not split.spec.form.is_exact:
        raise UsageError(
            f"{split.path} holds {split.spec.codec}, which is no truth to compare with. Leave --truth at pixels, or "
            "give a cache made with --codec float16."
        )
    if request.truth == "stored" and not request.codecs:
        raise UsageError("with --truth stored there is nothing to compare: name codecs to try, as --codec int4")


def bytes_per_layer(spec: CacheSpec) -> int:
    """Bytes that codes and scales of one layer take per view, checksums and index left out."""
    return sum(spec.form.frame_bytes(spec.tokens, spec.channels)) * spec.sparse_frames


class Tried:
    """A codec that is only tried: tokens through it and back."""

    def __init__(self, spec: CacheSpec, fitted: Fitted, device: torch.device) -> None:
        layers = range(len(spec.layers))
        self._quantise = Quantiser(spec.form, fitted.mean, fitted.std, fitted.arrays, layers).to(device)
        self._decode = Dequantiser(spec, fitted.mean, fitted.std, fitted=fitted.arrays).to(device)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Float tokens [view layer frame token channel], and what is left of them."""
        with torch.no_grad():
            given_back: Tensor = self._decode(*self._quantise(tokens))
        return given_back


class Truth:
    """Tokens of stored rows, from pixels or from a float16 cache; remembers which videos could not be read."""

    def __init__(self, request: FidelityRequest, reader: TokenReader, shown: Progress) -> None:
        self._request, self._reader, self._shown = request, reader, shown
        self.device = choose_device(request.device)
        self.refused: dict[str, str] = {}
        split = reader.split
        self._decode = Dequantiser.of(split).to(self.device)
        if request.truth == "pixels":
            self._videos = dense_videos(split, request.root)
            clip = remembered_clip(split.informs["clip"], split.spec.clip_precision, device=request.device)
            self._tower = tower_of_caches([split], clip)

    def as_stored(self, row: int) -> Tensor:
        """What the cache gives back for a row: float tokens [view layer frame token channel]."""
        return decoded(self._decode, read_row(self._reader, row, self._reader.split.spec.layers))

    def tokens(self, rows: list[int], why: str) -> Iterator[tuple[int, Tensor]]:
        """(row, float tokens [view layer frame token channel]) of the rows that can be read."""
        split = self._reader.split
        with self._shown.bar(f"{why} {split.spec.split}", len(rows), "videos") as bar:
            if self._request.truth == "stored":
                for row in rows:
                    yield row, self.as_stored(row)
                    bar.advance()
                return
            if not split.identities:
                self._shown.line(f"{split.spec.split}: {NO_IDENTITIES}")
            videos = [self._videos[split.video_ids[row]] for row in rows]
            ready = prepare_all(videos, split.spec, threads=self._request.decode_threads)
            encoded_videos = encode_all(ready, split.spec, self._tower, batch_frames=self._request.batch_frames)
            for row, encoded in zip(rows, encoded_videos, strict=True):
                bar.advance()
                if isinstance(encoded, VideoError):
                    self.refused[split.video_ids[row]] = f"{encoded.reason}: {encoded.detail}"
                else:
                    self._expect_same(row, encoded.prepared)
                    yield row, encoded.tokens.float()

    def _expect_same(self, row: int, now: Prepared) -> None:
        """Raise CacheError unless a video that was read again is the one of a stored row."""
        video, (frames, *size_px) = self._videos[self._reader.split.video_ids[row]], self._reader.source_of(row)
        source_px = (size_px[0], size_px[1]) if all(size_px) else None
        expect_same_pictures(video, frame_count=(frames, now.frame_count), source_px=(source_px, now.source_px))
        expect_same_file(video, self._reader.file_of(row))
