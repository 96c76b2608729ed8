"""Tokens that a cache holds already, row by row, on a device: what recode and fidelity start from.

    rows, evenly spread ─▶ reader ─▶ codes, scales ─▶ decode on the device ─▶ tokens [view layer frame token channel]
                                                                         └─▶ fit a codec on them

One row at a time: memory is that of one video, whatever the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted, Fitting
from vidxfer.pipeline.cache.read.batch import Codes, TokenReader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.grid import pooled
from vidxfer.stages.progress import Progress


def even_rows(rows: np.ndarray[Any, Any], count: int) -> list[int]:
    """`count` of the rows, evenly spread; all of them when there are no more."""
    if len(rows) <= count:
        return [int(row) for row in rows]
    return [int(rows[int(place)]) for place in np.linspace(0, len(rows) - 1, count).round()]


def fit_on_cache(reader: TokenReader, spec: CacheSpec, device: torch.device, shown: Progress) -> Fitted:
    """Fit the codec of `spec` on the tokens of an even sample of the stored rows."""
    rows = even_rows(reader.stored_rows(), max(1, spec.calibration_videos))
    decode = Dequantiser.of(reader.split, layers=spec.layers).to(device)
    fitting = Fitting([spec.form], len(rows))
    with shown.bar(f"fit {spec.codec} on {spec.split}", len(rows), "videos") as bar:
        for row in rows:
            tokens = decoded(decode, read_row(reader, row, spec.layers))
            fitting.update(pooled(tokens, spec.pool // reader.split.spec.pool))
            bar.advance()
    return fitting.finish(spec.form, device)


def read_row(reader: TokenReader, row: int, layers: tuple[int, ...]) -> Codes:
    """All stored views of one row: codes and scales [view layer frame token …]."""
    views = range(reader.split.spec.stored_views)
    return reader.read([row] * len(views), views, layers)


def decoded(decode: Dequantiser, codes: Codes) -> Tensor:
    """Float tokens on the decoder's device."""
    device = decode.mean.device
    scale = None if codes.scale is None else codes.scale.to(device)
    with torch.no_grad():
        tokens: Tensor = decode(codes.codes.to(device), scale)
    return tokens
