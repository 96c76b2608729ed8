"""Does the cache hold what CLIP computes today? The tokens of a few videos are computed again and compared.

    stored views ─▶ the same frames and crops, decoded now ─▶ same CLIP ─▶ x ─▶ encode, decode ─▶ y
    stored codes ─▶ decode ─▶ c         c − x: what the cache is off by      y − x: what the codec makes of it

Errors are lengths over the channels of a token, in units of the codec's std, relative to the token's own length. A
cache holds what it should while |c − x| is at most twice |y − x| plus what other batches and devices change in the
sums of CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.draw import sparse
from vidxfer.pipeline.errors import CacheIncomplete, VideoError
from vidxfer.pipeline.grid import pooled
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.training.dense import dense_frames
from vidxfer.pipeline.training.same import NO_IDENTITIES, expect_same_file
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.remembered import dense_videos, remembered_clip, tower_of_caches
from vidxfer.stages.upkeep.stored import decoded, even_rows, read_row

SLACK = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 3e-2}
"""Share of a token's length that CLIP's own arithmetic may differ by, between batches and devices."""


@dataclass(frozen=True, kw_only=True)
class ParityRequest:
    """What to compare.

    Attributes:
        cache: its folder.
        splits: which; None: all that are there.
        videos: per split, evenly spread.
        root: of the videos, if they have moved.
        model, pretrained: CLIP, if it has moved.
        device: of the tower.
    """

    cache: Path
    splits: tuple[str, ...] | None = None
    videos: int = 8
    root: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class LayerParity:
    """One layer.

    Attributes:
        largest_error: of a value, in CLIP's units.
        error: largest of a token, relative;
        codec_error: what the codec alone makes of the same tokens.
        beyond: tokens beyond their limit.
        worst: where the limit is passed most.
    """

    layer: int
    largest_error: float
    error: float
    codec_error: float
    beyond: int
    worst: str


@dataclass(frozen=True, kw_only=True)
class SplitParity:
    """One split: videos compared, tokens of each, every layer, and videos that cannot be read any more, with why."""

    split: str
    videos: int
    tokens: int
    layers: tuple[LayerParity, ...]
    unreadable: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether no token is beyond its limit."""
        return not any(layer.beyond for layer in self.layers)


def parity(request: ParityRequest, progress: Progress | None = None) -> tuple[SplitParity, ...]:
    """Compare a few videos of every asked split; change nothing.

    Raises:
        CacheError: no cache there, or a video is another file now. CacheMismatch: the tower is not the cache's.
        CacheIncomplete: nothing is stored. UsageError, DatasetError: no such split, or the videos are elsewhere.
    """
    opened = open_splits(request.cache, request.splits)
    clip = remembered_clip(
        opened[0].informs["clip"],
        opened[0].spec.clip_precision,
        device=request.device,
        model=request.model,
        pretrained=request.pretrained,
    )
    tower = tower_of_caches(opened, clip)
    parities = []
    for split in opened:
        with open_reader(split) as reader:
            parities.append(_of_split(reader, tower, request, progress or Silent()))
    return tuple(parities)


def _of_split(reader: TokenReader, tower: Tower, request: ParityRequest, shown: Progress) -> SplitParity:
    split, rows = reader.split, even_rows(reader.stored_rows(), max(1, request.videos))
    if not rows:
        raise CacheIncomplete(f"{split.path}: not one video is stored; there is nothing to compare")
    videos = dense_videos(split, request.root)
    compare = _Comparison(split, tower)
    unreadable: dict[str, str] = {}
    if not split.identities:
        shown.line(f"{split.spec.split}: {NO_IDENTITIES}")
    with shown.bar(f"parity {split.spec.split}", len(rows), "videos") as bar:
        for row in rows:
            name = split.video_ids[row]
            try:
                fresh = taps_of(reader, row, videos[name], tower)
            except VideoError as error:
                unreadable[name] = f"{error.reason.value}: {error.detail}"
            else:
                compare(name, fresh, read_row(reader, row, split.spec.layers))
            bar.advance()
    return SplitParity(
        split=split.spec.split,
        videos=len(rows) - len(unreadable),
        tokens=split.spec.stored_views * split.spec.sparse_frames * split.spec.tokens,
        layers=compare.layers(),
        unreadable=unreadable,
    )


def taps_of(reader: TokenReader, row: int, video: Video, tower: Tower) -> Tensor:
    """CLIP's tokens of the stored views of a row, computed now: float32 [view layer frame token channel].

    Raises:
        VideoError: the video cannot be read. CacheError: it is another one than when the cache was made.
    """
    spec, frames = reader.split.spec, reader.source_of(row)[0]
    views = [
        pooled(tower.taps(dense_frames(video, sparse(view, spec), spec, frames), spec.layers).tokens, spec.pool).float()
        for view in reader.views_of(row)
    ]
    expect_same_file(video, reader.file_of(row))
    return torch.stack(views)


class _Comparison:
    """Largest errors so far, per layer."""

    def __init__(self, split: Split, tower: Tower) -> None:
        self._split, self._slack = split, SLACK[split.spec.clip_precision]
        self._quantise = Quantiser.of(split).to(tower.device)
        self._decode = Dequantiser.of(split).to(tower.device)
        self._std = torch.from_numpy(split.channel_std).to(tower.device)[:, None, None, :]
        self._mean = torch.from_numpy(split.channel_mean).to(tower.device)[:, None, None, :]
        layers = len(split.spec.layers)
        self._largest, self._error, self._codec, self._worst = ([0.0] * layers for _ in range(4))
        self._beyond, self._where = [0] * layers, ["-"] * layers

    def __call__(self, name: str, fresh: Tensor, stored: object) -> None:
        """Take in one video."""
        codes, scale = self._quantise(fresh)
        with torch.no_grad():
            again = self._decode(codes, scale)
        cached = decoded(self._decode, stored)  # type: ignore[arg-type]  # Codes
        length = ((fresh - self._mean) / self._std).norm(dim=-1).clamp_min(1e-6)
        error = ((cached - fresh) / self._std).norm(dim=-1) / length
        of_codec = ((again - fresh) / self._std).norm(dim=-1) / length
        over = error / (2 * of_codec + self._slack)  # [view layer frame token]
        for place in range(fresh.shape[1]):
            self._largest[place] = max(self._largest[place], float((cached - fresh)[:, place].abs().max()))
            self._error[place] = max(self._error[place], float(error[:, place].max()))
            self._codec[place] = max(self._codec[place], float(of_codec[:, place].max()))
            self._beyond[place] += int((~(over[:, place] <= 1)).sum())  # so that nan counts
            most = float(over[:, place].nan_to_num(nan=float("inf")).max())
            if most > self._worst[place]:
                self._worst[place] = most
                flat_index = int(over[:, place].nan_to_num(nan=float("inf")).argmax())
                view, frame, token = (
                    int(index) for index in torch.unravel_index(torch.tensor(flat_index), over[:, place].shape)
                )
                self._where[place] = f"video {name}, view {view}, frame {frame}, token {token}"

    def layers(self) -> tuple[LayerParity, ...]:
        """What was found."""
        return tuple(
            LayerParity(
                layer=layer,
                largest_error=self._largest[place],
                error=self._error[place],
                codec_error=self._codec[place],
                beyond=self._beyond[place],
                worst=self._where[place],
            )
            for place, layer in enumerate(self._split.spec.layers)
        )
