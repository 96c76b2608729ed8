"""What a codec does to tokens, picture by picture: the truth in float, what is left of it, and how far they are apart.

float16 cache: its own tokens ─┐                    ┌▶ the cache's own codec: what is stored
any other: CLIP again ─────────┴▶ truth ─▶ codec ───┴▶ another: fitted on other videos, tried, nothing is written
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codecs.closeness import Closeness, LayerCloseness
from vidxfer.pipeline.cache.codecs.fit import Fitting
from vidxfer.pipeline.cache.read.batch import TokenReader
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.codecs.tried import Tried, bytes_per_layer, tried_specs
from vidxfer.stages.progress import Progress
from vidxfer.stages.reporting.maps import Scale, error_picture, relative_errors
from vidxfer.stages.upkeep.fidelity import FidelityRequest
from vidxfer.stages.upkeep.stored import even_rows
from vidxfer.stages.upkeep.truth import Truth

CALIBRATION_VIDEOS = 16


@dataclass(frozen=True, kw_only=True)
class CodecMaps:
    """One codec on some videos.

    Attributes:
        codec: its name.
        truth: where the tokens come from that it is compared with, in words.
        layers: how close it is, per layer of the cache.
        shown: a table per video and frame: truth, what is left, and the error, as addresses of pictures.
        most_error: what is brightest in the error pictures.
        refused: id -> reason of videos that could not be read any more.
    """

    codec: str
    truth: str
    layers: tuple[LayerCloseness, ...]
    shown: tuple[dict[str, Any], ...]
    most_error: float
    refused: dict[str, str]


def codec_maps(
    request: FidelityRequest, reader: TokenReader, rows: list[int], layers: tuple[int, ...], shown: Progress
) -> CodecMaps:
    """Compare one codec with the truth on some rows.

    Args:
        request: names the cache, the split, one codec, and the folder of the videos if they have moved.
        reader: of the split.
        rows: stored ones.
        layers: of which there are pictures.

    Raises:
        UsageError: no such codec, it is float16 itself, or not one video can be read. DatasetError, CacheMismatch:
            CLIP or the videos are not those of the cache.
    """
    split = reader.split
    (spec,) = tried_specs(split.spec, request.codecs)
    exact = split.spec.form.is_exact
    if exact and spec.codec == split.spec.codec:
        raise UsageError(f"--codec {spec.codec}: the cache holds exactly that. Name a codec to try, as --codec int8")
    truth = Truth(replace(request, truth="stored" if exact else "pixels"), reader, shown)
    others = [int(row) for row in reader.stored_rows() if int(row) not in set(rows)] or rows
    chosen = even_rows(torch.tensor(others).numpy(), CALIBRATION_VIDEOS)
    fitting = Fitting([spec.form], len(chosen))
    for seen in truth.seen(chosen, "fit on"):
        fitting.update(seen.tokens)
    mean, std = (statistic.to(truth.device) for statistic in fitting.statistics())
    stored = spec.codec == split.spec.codec
    tried = None if stored else Tried(spec, fitting.finish(spec.form, truth.device), truth.device)
    closeness = Closeness(spec.layers, bytes_per_layer(spec), mean, std)
    pairs: list[tuple[int, Tensor, Tensor]] = []
    positions = split.spec.layer_positions(layers)
    for seen in truth.seen(rows, "compare"):
        row, tokens = seen.row, seen.tokens
        left = truth.as_stored(row) if tried is None else tried(tokens)
        closeness.update(tokens, left)
        middle = tokens.shape[2] // 2
        pairs.append((row, tokens[0, positions, middle, 1:].cpu(), left[0, positions, middle, 1:].float().cpu()))
    if not pairs:
        raise UsageError(f"--codec {spec.codec}: not one of the videos can be read: {list(truth.refused.values())[:1]}")
    most = max(float(relative_errors(tokens, left).max()) for _, tokens, left in pairs)
    return CodecMaps(
        codec=spec.codec,
        truth="the cache's own float16 tokens" if exact else "CLIP, run again on the videos",
        layers=closeness.finish(),
        shown=tuple(_shown(split.video_ids, pairs, most)),
        most_error=most,
        refused=truth.refused,
    )


def _shown(ids: tuple[str, ...], pairs: list[tuple[int, Tensor, Tensor]], most: float) -> list[dict[str, Any]]:
    scales = [Scale.of(torch.cat([tokens[layer] for _, tokens, _ in pairs])) for layer in range(len(pairs[0][1]))]
    return [
        {
            "id": ids[row],
            "layers": [
                {
                    "truth": scale.colour(tokens[layer]),
                    "left": scale.colour(left[layer]),
                    "error": error_picture(tokens[layer], left[layer], most),
                }
                for layer, scale in enumerate(scales)
            ],
        }
        for row, tokens, left in pairs
    ]


def request_of(cache: Path, split: str, codec: str, root: Path | None, device: str) -> FidelityRequest:
    """What `codec_maps` asks of fidelity's own parts."""
    return FidelityRequest(cache=cache, split=split, codecs=(codec,), root=root, device=device)
