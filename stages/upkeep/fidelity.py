"""What does a codec lose? CLIP computes the tokens of a few videos again; they are compared with those of the cache.

    k stored videos ─▶ truth (truth.py) ─┬────────────────────────────▶ compare, per layer ─▶ what is stored
    cache ─▶ codes ─▶ decode ────────────┘                                 ▲
    other videos ─▶ fit codec A, B … ─▶ quantise and decode the truth ─────┘ codecs that are only tried

Compared at the tower's end, which goes on from either (through.py), and token by token (closeness.py). A codec that is
tried is fitted on other videos than it is measured on. With a float16 cache the truth may come from the cache itself:
no videos, and no CLIP but to go on from the tokens. Nothing is written.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from vidxfer.pipeline.cache.codecs.closeness import Closeness, LayerCloseness
from vidxfer.pipeline.cache.codecs.fit import Fitting
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.stages.codecs.through import Ending, EndSums, ThroughTower
from vidxfer.stages.codecs.tried import Tried, bytes_per_layer, tried_specs
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.upkeep.stored import even_rows
from vidxfer.stages.upkeep.truth import TRUTHS, FidelityRequest, Truth, tower_of_split

__all__ = ["CodecFidelity", "FidelityReport", "FidelityRequest", "fidelity"]


@dataclass(frozen=True, kw_only=True)
class CodecFidelity:
    """One codec: as it is stored, or tried.

    Attributes:
        codec, stored: its name, and whether the cache is stored so.
        bytes_per_view: over all arrays, of the measured layers.
        bits_per_value: of its codes and scales.
        through: at the tower's end; None: not measured.
        layers: token by token.
    """

    codec: str
    stored: bool
    bytes_per_view: int
    bits_per_value: float
    through: ThroughTower | None
    layers: tuple[LayerCloseness, ...]


@dataclass(frozen=True, kw_only=True)
class FidelityReport:
    """What was found.

    Attributes:
        videos: ids that were measured.
        fitted_in, fitted_on: split, and how many of its videos tried codecs were fitted on.
        overlap: those are the measured ones, because there are no others: figures are too good.
        refused: id -> reason of videos that could not be read any more.
        codecs: the stored one first, if measured.
    """

    cache: Path
    split: str
    truth: str
    videos: tuple[str, ...]
    fitted_in: str
    fitted_on: int
    overlap: bool
    refused: dict[str, str] = field(default_factory=dict)
    codecs: tuple[CodecFidelity, ...] = ()


def fidelity(request: FidelityRequest, progress: Progress | None = None) -> FidelityReport:
    """Measure; write nothing.

    Raises:
        UsageError: no such codec, layer or split, the cache's own tokens are no truth, or the tower cannot go on from
            them. CacheError: no such cache. CacheMismatch: the CLIP found is not the one the cache was made with.
        DatasetError: the videos are not there.
    """
    shown = progress or Silent()
    split = open_split(request.cache, request.split)
    fit_split = _fit_split(request, split)
    spec = _spec_of(split.spec, request.layers)
    specs = tried_specs(spec, request.codecs)
    expect_truth(request, split)
    expect_truth(request, fit_split)
    with ExitStack() as stack:
        reader, fit_reader = [stack.enter_context(open_reader(which)) for which in (split, fit_split)]
        measured, others = _rows(request, reader, fit_reader)
        tower = tower_of_split(split, request.device) if request.through or request.truth == "pixels" else None
        ending = Ending(tower, spec.layers, request.batch_frames) if tower is not None and request.through else None
        if ending is not None and request.truth == "stored":
            ending.expect_no_left_out()
        truth, fit_truth = [
            Truth(request, opened, shown, tower=tower, layers=spec.layers) for opened in (reader, fit_reader)
        ]
        fitting = Fitting([tried_spec.form for tried_spec in specs], len(others or measured))
        for seen in fit_truth.seen(others or measured, "fit on"):
            fitting.update(seen.tokens)
        statistics = [values.to(truth.device) for values in fitting.statistics()]
        frames = len(measured) * spec.stored_views * spec.sparse_frames
        judged = [_Judged(spec, None, statistics, frames)] * (request.truth == "pixels")
        judged += [
            _Judged(tried, Tried(tried, fitting.finish(tried.form, truth.device), truth.device), statistics, frames)
            for tried in specs
        ]
        for seen in truth.seen(measured, "measure"):
            ends = None if ending is None else ending.ends(seen.tokens, seen.left_out)
            for codec in judged:
                left = truth.as_stored(seen.row) if codec.tried is None else codec.tried(seen.tokens)
                codec.close.update(seen.tokens, left)
                if ending is not None and ends is not None:
                    codec.ends.update(ends, ending.ends(left, seen.left_out))
    return FidelityReport(
        cache=request.cache,
        split=request.split,
        truth=request.truth,
        videos=tuple(split.video_ids[row] for row in measured if split.video_ids[row] not in truth.refused),
        fitted_in=fit_split.spec.split,
        fitted_on=len(others or measured),
        overlap=not others,
        refused=fit_truth.refused | truth.refused,
        codecs=tuple(codec.finish() for codec in judged),
    )


def _fit_split(request: FidelityRequest, split: Split) -> Split:
    """The split that tried codecs are fitted on.

    Raises:
        UsageError: there is no such one, or it holds tokens of another kind.
    """
    there = splits(request.cache)
    if request.fit_on is None:
        name = "train" if "train" in there else split.spec.split
    elif request.fit_on in there:
        name = request.fit_on
    else:
        raise UsageError(f"--fit-on {request.fit_on}: {request.cache} holds {', '.join(there)}")
    if name == split.spec.split:
        return split
    other = open_split(request.cache, name)
    same = ("layers", "channels", "tokens", "clip_weights_sha256")
    if any(getattr(other.spec, field) != getattr(split.spec, field) for field in same):
        raise UsageError(
            f"{other.path} and {split.path} hold other layers or another CLIP: add --fit-on {request.split}"
        )
    return other


def _rows(request: FidelityRequest, reader: TokenReader, fit_reader: TokenReader) -> tuple[list[int], list[int]]:
    """Rows to measure, and other rows to fit on; none where there are no others.

    Raises:
        UsageError: nothing is stored.
    """
    stored = reader.stored_rows()
    for opened in (reader, fit_reader):
        if not len(opened.stored_rows()):
            raise UsageError(f"{opened.split.path} has no stored video to measure. `vidxfer extract` stores them.")
    measured = even_rows(stored, request.videos)
    if fit_reader.split.spec.split != reader.split.spec.split:
        return measured, even_rows(fit_reader.stored_rows(), request.calibration_videos)
    return measured, even_rows(stored[[int(row) not in measured for row in stored]], request.calibration_videos)


def _spec_of(spec: CacheSpec, layers: tuple[int, ...] | None) -> CacheSpec:
    try:
        spec.layer_positions(layers)
    except CacheError as error:
        raise UsageError(f"--layers: {error}") from error
    return spec if layers is None else replace(spec, layers=tuple(sorted(set(layers))))


class _Judged:
    """A codec while it is measured.

    Args:
        spec: the cache's settings with it.
        tried: tokens through it and back; None: what is stored is measured.
        statistics: mean and std [layer channel] of tokens.
        frames: how many will come at most.
    """

    def __init__(self, spec: CacheSpec, tried: Tried | None, statistics: list[Tensor], frames: int) -> None:
        self._spec, self.tried = spec, tried
        self.close = Closeness(spec.layers, bytes_per_layer(spec), *statistics)
        self.ends = EndSums(spec.layers, frames)

    def finish(self) -> CodecFidelity:
        """What was found."""
        ends = self.ends.finish()
        return CodecFidelity(
            codec=self._spec.codec,
            stored=self.tried is None,
            bytes_per_view=self._spec.bytes_per_view,
            bits_per_value=8
            * sum(self._spec.form.frame_bytes(self._spec.tokens, self._spec.channels))
            / (self._spec.channels * self._spec.tokens),
            through=ThroughTower.of(ends) if ends else None,
            layers=self.close.finish(),
        )


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
