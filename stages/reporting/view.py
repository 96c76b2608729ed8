"""A cache as a page: are the right frames, crops and labels in there, and what do its tokens look like?

cache ─▶ a few rows, drawn or named ─┬▶ stored views ─▶ film strips, crop boxes, flags, labels ─┐
                                     └▶ tokens ─▶ colours, lengths, what a codec loses ─────────┴▶ templates/view.html
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.summary import summary
from vidxfer.pipeline.errors import CacheIncomplete, UsageError
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.thumbnails import thumbnails
from vidxfer.stages.comparing.seeds import flat
from vidxfer.stages.learning.sources import CachedSource, cached_source
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.reporting.codec_maps import codec_maps, request_of
from vidxfer.stages.reporting.drawing import Plotter
from vidxfer.stages.reporting.maps import Scale
from vidxfer.stages.reporting.page import expect_page_file, render, table_rows, write_page
from vidxfer.stages.reporting.report import PageMade
from vidxfer.stages.reporting.strips import Strips, jpeg_uri, opened_strips, spread

MOST_VIEWS, MOST_LAYERS, FRAMES_WITH_MAPS = 4, 4, 2


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """What to show.

    Attributes:
        cache: folder.
        out: the page.
        split: which.
        videos: how many, drawn at random.
        seed: of the draw.
        ids: these videos instead.
        codec: also what this codec loses; None: nothing is compared.
        root: of the videos, if they have moved.
        frames_from, device: as in training.
    """

    cache: Path
    out: Path
    split: str = "train"
    videos: int = 8
    seed: int = 0
    ids: tuple[str, ...] = ()
    codec: str | None = None
    root: Path | None = None
    frames_from: str = "auto"
    device: str = "auto"


def view(request: ViewRequest, progress: Progress | None = None) -> PageMade:
    """Write the page; the cache stays as it is.

    Raises:
        UsageError: no page can be written there, no such video, or no such codec. CacheError: no such split.
        CacheIncomplete: no video of the split is stored.
    """
    shown = progress or Silent()
    expect_page_file("--out", request.out)
    Plotter()  # the colours of lengths are matplotlib's
    source = cached_source(request.cache, request.split, request.root, request.frames_from)
    split = source.split
    with open_reader(split) as reader:
        rows = _rows(request, source)
        layers = tuple(split.spec.layers[place] for place in spread(len(split.spec.layers), MOST_LAYERS))
        codec = None
        if request.codec is not None:  # first: what it refuses is said before the work
            asked = request_of(request.cache, request.split, request.codec, request.root, request.device)
            codec = codec_maps(asked, reader, rows, layers, shown)
        tokens = _tokens(reader, rows, layers)
        scales = [
            Scale.of(torch.cat([of_video[place].flatten(0, 1) for of_video in tokens])) for place in range(len(layers))
        ]
        with opened_strips(source) as strips, shown.bar("film strips", len(rows), "videos") as bar:
            cards = []
            for row, of_video in zip(rows, tokens, strict=True):
                cards.append(_card(reader, row, of_video, scales, strips))
                bar.advance()
    known = summary(request.cache)[request.split]
    page = render(
        "view.html",
        title=f"vidxfer: what is in {request.cache}, {request.split}",
        version=version("vidxfer"),
        known=known,
        drawn=f"drawn with seed {request.seed}" if not request.ids else "as named",
        cards=cards,
        layers=[
            {"layer": layer, "low": scale.norms[0], "median": scale.norms[1], "high": scale.norms[2]}
            for layer, scale in zip(layers, scales, strict=True)
        ],
        codec=codec,
        codec_layers=layers,
        tokens=table_rows(flat(known["passport"]["tokens"]).items()),
        informs=table_rows(flat({**known["passport"]["videos"], **known["passport"]["informs"]}).items()),
        command=_command(request),
    )
    return PageMade(
        out=request.out,
        bytes=write_page(request.out, page),
        videos=len(rows),
        without_frames=sum(any(shown_view["strip"].why is not None for shown_view in card["views"]) for card in cards),
    )


def _rows(request: ViewRequest, source: CachedSource) -> list[int]:
    """The rows to show: named ones, or drawn among those that are stored."""
    split, stored = source.split, source.stored_rows()
    if not stored:
        raise CacheIncomplete(f"{split.path} has no stored video to show. `vidxfer extract` stores them.")
    if not request.ids:
        count = min(request.videos, len(stored))
        return sorted(int(row) for row in np.random.default_rng(request.seed).choice(stored, count, replace=False))
    place, reasons = {id_: row for row, id_ in enumerate(split.video_ids)}, source.reasons()
    rows = []
    for id_ in dict.fromkeys(request.ids):
        if id_ not in place:
            raise UsageError(f"--video {id_}: {split.path} has no such video; its first is {split.video_ids[0]!r}")
        if place[id_] not in set(stored):
            raise UsageError(f"--video {id_}: it is not stored: {reasons.get(id_, 'not extracted')}")
        rows.append(place[id_])
    return rows


def _tokens(reader: TokenReader, rows: list[int], layers: tuple[int, ...]) -> list[Tensor]:
    """Per row, float32 patch tokens [layer frame patch channel] of a few frames of its first view."""
    decode = Dequantiser.of(reader.split, layers=layers)
    frames = spread(reader.split.spec.sparse_frames, FRAMES_WITH_MAPS)
    tokens = []
    for row in rows:
        codes = reader.read([row], [0], layers)
        with torch.no_grad():
            tokens.append(decode(codes.codes, codes.scale)[0][:, list(frames), 1:].float().clone())
    return tokens


def _card(reader: TokenReader, row: int, tokens: Tensor, scales: list[Scale], strips: Strips) -> dict[str, Any]:
    """What the page shows of one video."""
    split = reader.split
    alpha, frames, height_px, width_px = split.spec.sampling.alpha, *reader.source_of(row)
    label = int(split.labels[row])
    views = [
        _view(number, reader.view(row, number), alpha) for number in range(min(MOST_VIEWS, split.spec.stored_views))
    ]
    for number, shown_view in enumerate(views):
        shown_view["strip"] = strips.strip(row, number)
        shown_view["numbers"] = [shown_view["sparse"][place] for place in shown_view["strip"].places]
    return {
        "id": split.video_ids[row],
        "label": split.class_names[label] if label >= 0 else "no label",
        "mirrored": split.class_names[split.flip_pairs[label]] if label in split.flip_pairs else None,
        "frames": frames,
        "size": f"{width_px} × {height_px}" if height_px else "size not known",
        "views": views,
        "more_views": split.spec.stored_views - len(views),
        "maps": _maps(row, tokens, scales, strips, reader.view(row, 0), alpha),
    }


def _view(number: int, stored: View, alpha: int) -> dict[str, Any]:
    top, left, height, width = stored.crop
    return {
        "number": number,
        "flip": stored.flip,
        "grey": stored.grey,
        "sparse": stored.indices[::alpha],
        "source_px": stored.source_px,
        "box": {"top": top, "left": left, "height": height, "width": width},
    }


def _maps(
    row: int, tokens: Tensor, scales: list[Scale], strips: Strips, first: View, alpha: int
) -> list[dict[str, Any]]:
    """For a few frames of the first view: the frame, and per layer its two pictures."""
    places = spread(len(first.indices[::alpha]), FRAMES_WITH_MAPS)
    pictures: list[str | None] = [None] * len(places)
    if strips.strip(row, 0, 1).why is None:
        pictures = [jpeg_uri(file) for file in thumbnails(strips.frames(row, 0)[list(places)])]
    return [
        {
            "number": first.indices[::alpha][place],
            "picture": pictures[number],
            "layers": [
                {"colour": scale.colour(tokens[layer, number]), "length": scale.length(tokens[layer, number])}
                for layer, scale in enumerate(scales)
            ],
        }
        for number, place in enumerate(places)
    ]


def _command(request: ViewRequest) -> str:
    words = ["vidxfer", "view", "--cache", str(request.cache), "--split", request.split, "--out", str(request.out)]
    words += [word for id_ in request.ids for word in ("--video", id_)]
    if not request.ids:
        words += ["--videos", str(request.videos), "--seed", str(request.seed)]
    frames_from = None if request.frames_from == "auto" else request.frames_from
    options = {"--codec": request.codec, "--root": request.root, "--frames-from": frames_from}
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(words)
