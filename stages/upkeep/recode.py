"""From one codec to another without CLIP and videos: the tokens of a finished cache are decoded and stored anew.

    SRC/train ─▶ sample of rows ─▶ fit the codec ─▶ DST/train, every row pending
       │                                                │
       └─ shard by shard: codes ─ decode ─ quantise ─▶ tokens, scale; every other array is copied as it is
                                                        └─▶ ledger line

Rows and shards keep their numbers, so whatever else a cache holds is taken over byte for byte. Ended at any moment, the
same command goes on with the shards that have no ledger line. What a lossy codec lost stays lost. The new cache
remembers the codec that it was made from.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted
from vidxfer.pipeline.cache.codecs.form import codec_form
from vidxfer.pipeline.cache.layout import STORED
from vidxfer.pipeline.cache.read.batch import Codes, TokenReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import new_cache_id, open_split, splits, write_new
from vidxfer.pipeline.cache.write.frozen import copy_frozen
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.clip.load import choose_device
from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError
from vidxfer.pipeline.grid import expect_pool, grid_of, pooled
from vidxfer.stages.candidates import AUTO_CODEC, CODEC_CHOICE, EXACT, CodecChoice, choice_of, expect_loss, informed
from vidxfer.stages.codecs.choose import chosen_before
from vidxfer.stages.progress import Bar, Progress, Silent, say
from vidxfer.stages.upkeep.choose import choose_for_cache, split_to_measure
from vidxfer.stages.upkeep.made_of import RECODED_FROM, open_sources, origin, to_write
from vidxfer.stages.upkeep.rewrite import as_they_are, fail_rows, rewrite_shard
from vidxfer.stages.upkeep.stored import decoded, fit_on_cache, read_row
from vidxfer.stages.versions import library_versions


@dataclass(frozen=True, kw_only=True)
class RecodeRequest:
    """What to recode.

    Attributes:
        source: folder of the finished cache.
        target: folder of the new one; may hold a part of it already.
        codec: as `cache/codecs/form.py` spells it; "auto"; None: as the source has it, whose codes are then copied.
        loss: most that "auto" may lose; None: `candidates.LOSS`.
        layers: which to keep; None: all.
        pool: side of the squares of the tower's patches that are averaged; None: as the source has it.
        splits: which; None: all that are there.
        calibration_videos: sample that the codec is fitted on.
        device: where tokens are decoded and quantised.
    """

    source: Path
    target: Path
    codec: str | None = None
    layers: tuple[int, ...] | None = None
    pool: int | None = None
    splits: tuple[str, ...] | None = None
    calibration_videos: int = 64
    device: str = "auto"
    loss: float | None = None

    def __post_init__(self) -> None:
        expect_loss(self.codec, self.loss)


@dataclass(frozen=True, kw_only=True)
class RecodeReport:
    """How one split went.

    Attributes:
        source_codec, codec, layers: of the two caches.
        source_pool, pool: side of the squares of patches that a stored one is the mean of.
        stored: videos.
        resumed: of those, stored before this run.
        bytes_before, bytes_after: on disk.
        source_is_exact: False: the source had lost something already.
        seconds: of this run.
        codec_choice: how "auto" chose the codec.
    """

    split: str
    source_codec: str
    codec: str
    source_pool: int
    pool: int
    layers: tuple[int, ...]
    stored: int
    resumed: int
    bytes_before: int
    bytes_after: int
    source_is_exact: bool
    seconds: float
    codec_choice: CodecChoice | None = None


def recode(request: RecodeRequest, progress: Progress | None = None) -> tuple[RecodeReport, ...]:
    """Recode every asked split; go on where an earlier run ended.

    Raises:
        UsageError: no such codec, or source and target are one. CacheIncomplete: the source has pending shards.
        CacheMismatch: the target was made from something else. CacheFull: the disk is too small.
    """
    shown = progress or Silent()
    request, choice = _with_codec(request, shown)
    pairs = open_sources(request.source, request.target, request.splits, lambda source: new_spec(source.spec, request))
    device = choose_device(request.device)
    return tuple(recode_split(request, source, spec, choice, device, shown) for source, spec in pairs)


def _with_codec(request: RecodeRequest, shown: Progress) -> tuple[RecodeRequest, CodecChoice | None]:
    """The request with the codec by name, and how it was chosen: as the target says, or measured on the source."""
    if request.codec != AUTO_CODEC:
        return request, None
    choice = chosen_before(request.target, request.loss)
    if choice is None:
        source = split_to_measure(open_splits(request.source, request.splits))
        spec, videos = new_spec(source.spec, replace(request, codec=EXACT, loss=None)), request.calibration_videos
        choice = choose_for_cache(source, spec, loss=request.loss, videos=videos, device=request.device, shown=shown)
    return replace(request, codec=choice.codec, loss=None), choice


def new_spec(spec: CacheSpec, request: RecodeRequest) -> CacheSpec:
    """The settings of the new split.

    Raises:
        UsageError: no such codec, a layer that is not stored, or patches that cannot be averaged so.
    """
    pool = request.pool or spec.pool
    if pool != spec.pool:
        expect_pool(pool, grid_of(spec.tower_tokens), stored=spec.pool)
    try:
        form = codec_form(request.codec or spec.codec)
        spec.layer_positions(request.layers)
        videos = 0 if form.is_exact else request.calibration_videos
        return replace(
            spec,
            pool=pool,
            tokens=1 + (spec.tokens - 1) * spec.pool**2 // pool**2,
            codec=form.name,
            layers=spec.layers if request.layers is None else tuple(sorted(set(request.layers))),
            calibration_videos=spec.calibration_videos if (form.name, pool) == (spec.codec, spec.pool) else videos,
        )
    except (ValueError, CacheError) as error:
        raise UsageError(str(error)) from error


def recode_split(
    request: RecodeRequest,
    source: Split,
    spec: CacheSpec,
    choice: CodecChoice | None,
    device: torch.device,
    shown: Progress,
) -> RecodeReport:
    """Recode one split, shard by shard."""
    began, exact = time.monotonic(), source.spec.form.is_exact
    if not exact and not _keeps_codes(source.spec, spec):
        shown.line(
            f"{spec.split}: {source.path} holds {source.spec.codec}, not float16: what that lost stays lost, and "
            f"{spec.codec} loses its own on top. The new cache remembers it."
        )
    with open_reader(source, threads=2) as reader:
        target = open_target(request, source, spec, reader, shown, choice)
        say(shown, target.led_elsewhere)
        with SplitWriter(target) as writer:
            pending, finished = to_write(source, writer), target.ledger.finished()
            resumed = sum(record.stored for shard, record in finished.items() if shard not in pending)
            waiting = sum(len(target.layout.rows(shard)) for shard in pending)
            total = target.video_count
            with shown.bar(f"recode {spec.split}", total, "videos", total - waiting) as bar:
                for shard in pending:
                    recode_shard(reader, target, writer, shard, device, bar)
    return RecodeReport(
        split=spec.split,
        source_codec=source.spec.codec,
        codec=spec.codec,
        source_pool=source.spec.pool,
        pool=spec.pool,
        layers=spec.layers,
        stored=sum(record.stored for record in target.ledger.finished().values()),
        resumed=resumed,
        bytes_before=held_bytes(source),
        bytes_after=held_bytes(target),
        source_is_exact=exact,
        seconds=time.monotonic() - began,
        codec_choice=choice_of(target),
    )


def _keeps_codes(source: CacheSpec, target: CacheSpec) -> bool:
    """Whether codes are copied as they are."""
    return (source.codec, source.pool) == (target.codec, target.pool)


def open_target(
    request: RecodeRequest,
    source: Split,
    spec: CacheSpec,
    reader: TokenReader,
    shown: Progress,
    choice: CodecChoice | None = None,
) -> Split:
    """The new split: the one that is there, if it was made from this source, or a new one with every row pending.

    Raises:
        CacheMismatch: it was made from another cache, or with another codec or layers.
    """
    if spec.split in splits(request.target):
        target = open_split(request.target, spec.split)
        target.spec.expect_same(spec, target.path)
        made_from = target.informs.get(RECODED_FROM, {}).get("cache_id")
        if made_from != source.cache_id:
            raise CacheMismatch(target.path, {"the cache it was made from": (made_from, source.cache_id)})
        return target
    if _keeps_codes(source.spec, spec):
        places = source.spec.layer_positions(spec.layers)
        fitted = Fitted(
            mean=torch.from_numpy(source.channel_mean[places]),
            std=torch.from_numpy(source.channel_std[places]),
            arrays={name: torch.from_numpy(values[places]) for name, values in source.fitted.items()},
        )
    else:
        fitted = fit_on_cache(reader, spec, choose_device(request.device), shown)
    same = spec.codec == source.spec.codec  # else how the source's codec was chosen says nothing of this one
    informs = {name: value for name, value in source.informs.items() if same or name != CODEC_CHOICE}
    target = replace(
        source,
        path=request.target.absolute() / spec.split,
        spec=spec,
        cache_id=new_cache_id(),
        **fitted.as_arrays(),
        informs={**informs, **informed(choice), **library_versions(), RECODED_FROM: origin(source)},
        more_views=(),
        more=(),
    )
    copy_frozen(source, request.target)
    write_new(target)
    return target


def recode_shard(
    reader: TokenReader, target: Split, writer: SplitWriter, shard: int, device: torch.device, bar: Bar
) -> None:
    """Write one shard of the new split; the next row is read while one is quantised."""
    source, layers, record = reader.split, target.spec.layers, reader.split.record_of(shard)
    stored = [row for row in target.layout.rows(shard) if reader.state[row] == STORED]
    decode = Dequantiser.of(source, layers=layers).to(device)
    quantise = Quantiser.of(target).to(device)

    def anew(read: Codes) -> tuple[Tensor, Tensor | None]:
        codes, scale = quantise(pooled(decoded(decode, read), target.spec.pool // source.spec.pool))
        return codes.cpu(), None if scale is None else scale.cpu()

    stored_as = as_they_are if _keeps_codes(source.spec, target.spec) else anew
    with writer.shard(shard) as shard_writer, ThreadPoolExecutor(1) as ahead:
        if source.more:  # no file of it holds all views
            rewrite_shard(reader, target, shard_writer, bar, stored_as)
            return
        shard_writer.copy(stored, record, tokens_apart_from=source)
        fail_rows(reader, shard_writer, record, bar)
        waiting = ahead.submit(read_row, reader, stored[0], layers) if stored else None
        for row, following in zip(stored, [*stored[1:], None], strict=False):  # none stored: nothing follows either
            assert waiting is not None
            read = waiting.result()
            waiting = None if following is None else ahead.submit(read_row, reader, following, layers)
            shard_writer.add_tokens(row, *stored_as(read))
            bar.advance()
