"""What a codec learns from the calibration sample, once per split.

    tokens of the sample ─┬─▶ Calibration: mean, std per (layer, channel)            every codec but float16
                          └─▶ TokenSample: at most `SAMPLE_TOKENS` tokens per layer
                                 └─ normalised ─▶ rotation, component_std            rotate+ and pcaK+
                                                └─▶ codebook                         pq

Memory is bounded whatever the size of the calibration: the sums have one number per layer and channel, the sample is
float16 and at most `SAMPLE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codecs.fit_klt import TrackSample, directions, fit_klt
from vidxfer.pipeline.cache.codecs.form import Form
from vidxfer.pipeline.cache.codecs.pq import fit_codebook
from vidxfer.pipeline.errors import ClipError

STD_FLOOR = 1e-3  # share of the layer's median std: a channel that was constant must not blow up when it once moves
COMPONENT_FLOOR = 0.05  # share of the root mean square over components: weak directions are noise in a small sample
SAMPLE_TOKENS = 16_384
SAMPLE_BYTES = 400_000_000
CLS_SHARE = 16  # one of so many sampled tokens is a CLS token, though 1 in 197 tokens is: heads lean on it
SAMPLE_MOST = 60_000.0


class Calibration:
    """Running mean and standard deviation per (layer, channel), summed in float64 on the tokens' device."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._square_sum: Tensor | None = None

    def update(self, tokens: Tensor) -> None:
        """Take in tokens [... layer frame token channel]."""
        layer_first = tokens.detach().movedim(-4, 0).flatten(1, -2)
        self._count += layer_first.shape[1]
        # One layer at a time: the float64 copy of all layers of a batch would be eight times the tokens.
        sums = torch.stack([layer.sum(0, dtype=torch.float64) for layer in layer_first])
        squares = torch.stack([layer.double().square_().sum(0) for layer in layer_first])
        self._sum = sums if self._sum is None else self._sum + sums
        self._square_sum = squares if self._square_sum is None else self._square_sum + squares

    def finish(self) -> tuple[Tensor, Tensor]:
        """Mean and std, float32 [layer channel], on the CPU; std is floored and never zero.

        Raises:
            ClipError: no tokens were seen, or they were not finite.
        """
        if self._sum is None or self._square_sum is None or not self._count:
            raise ClipError("no tokens to calibrate on: not one video of the calibration sample could be encoded")
        mean = self._sum / self._count
        std = (self._square_sum / self._count - mean.square()).clamp_min(0).sqrt()
        if not bool(torch.isfinite(std).all()):
            raise ClipError(
                "CLIP tokens of the calibration sample are not finite; extract with --precision bf16 or fp32"
            )
        return mean.float().cpu(), _floored(std).float().cpu()


def _floored(std: Tensor) -> Tensor:
    """Std with a floor per layer: a share of the layer's median non-zero std, or 1 where every channel is constant."""
    floors = []
    for layer in std:
        # Rounding in the sums leaves constant channels a hair above zero: they are not "moving".
        moving = layer[layer > layer.max() * 1e-6]
        floors.append(moving.median() * STD_FLOOR if moving.numel() else torch.ones_like(layer[0]))
    return torch.maximum(std, torch.stack(floors).unsqueeze(-1))


class TokenSample:
    """Tokens drawn evenly from every video of the calibration sample, the same places in all layers.

    Kept as float16 after a provisional normalisation with the first video's statistics, which keeps 11 bits of every
    channel whatever its offset.

    Args:
        videos: how many will come.
    """

    def __init__(self, videos: int) -> None:
        self._videos = max(1, videos)
        self._draw = torch.Generator().manual_seed(0)
        self._kept: list[Tensor] = []
        self._shift: Tensor | None = None
        self._step: Tensor | None = None

    def update(self, tokens: Tensor) -> None:
        """Take in one video's tokens [... layer frame token channel]."""
        frames = tokens.detach().movedim(-4, 0).flatten(1, -3)  # layer (… frame) token channel
        layers, images, places, channels = frames.shape
        if self._shift is None or self._step is None:
            first = Calibration()
            first.update(tokens)
            self._shift, self._step = (statistic.to(tokens.device)[:, None] for statistic in first.finish())
        most = min(SAMPLE_TOKENS, SAMPLE_BYTES // (2 * layers * channels))
        wanted = min(max(1, most // self._videos), images * places)
        cls = torch.randperm(images, generator=self._draw)[: wanted // CLS_SHARE] * places
        rest = torch.randperm(images * places, generator=self._draw)[: wanted - len(cls)]
        chosen = frames.flatten(1, 2)[:, torch.cat([cls, rest]).to(tokens.device)].float()
        kept = ((chosen - self._shift) / self._step).clamp_(-SAMPLE_MOST, SAMPLE_MOST)
        self._kept.append(kept.half().cpu())

    def layer(self, i: int, mean: Tensor, std: Tensor) -> Tensor:
        """The sample of the i-th layer, float32 [token channel], normalised with mean and std [channel] there."""
        assert self._shift is not None, "fitted after the first video"
        assert self._step is not None
        drawn = torch.cat([sample[i] for sample in self._kept]).to(mean.device).float()
        return (drawn * self._step[i].to(mean.device) + self._shift[i].to(mean.device) - mean) / std


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a codec knows of a split: mean and std, float32 [layer channel], and the arrays of `Form.fitted_shapes`."""

    mean: Tensor
    std: Tensor
    arrays: Mapping[str, Tensor]

    def as_arrays(self) -> dict[str, Any]:
        """As `create_split` takes them."""
        fitted = {name: values.numpy() for name, values in self.arrays.items()}
        return {"channel_mean": self.mean.numpy(), "channel_std": self.std.numpy(), "fitted": fitted}


class Fitting:
    """Takes in the calibration sample video by video, then fits as many codecs as are asked for.

    Args:
        forms: the codecs.
        videos: how many will come.
    """

    def __init__(self, forms: Sequence[Form], videos: int) -> None:
        self._sums = Calibration()
        needed = any(form.transform or form.part for form in forms)
        self._sample = TokenSample(videos) if needed else None
        self._tracks = None
        if any(form.is_klt for form in forms):
            self._tracks = TrackSample(videos, tokens_most=SAMPLE_TOKENS, bytes_most=SAMPLE_BYTES)

    def update(self, tokens: Tensor) -> None:
        """Take in one video's tokens [... layer frame token channel]."""
        self._sums.update(tokens)
        if self._sample is not None:
            self._sample.update(tokens)
        if self._tracks is not None:
            self._tracks.update(tokens)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std, float32 [layer channel], whatever the codec needs of them."""
        return self._sums.finish()

    def finish(self, form: Form, device: torch.device) -> Fitted:
        """Fit one codec on `device`; what is handed out is on the CPU.

        Raises:
            ClipError: no tokens were seen, or they were not finite.
        """
        mean, std = self._sums.finish()
        if form.is_exact:  # nothing is normalised
            return Fitted(mean=torch.zeros_like(mean), std=torch.ones_like(std), arrays={})
        if form.is_klt:
            return Fitted(mean=mean, std=std, arrays=self._finish_klt(form, device))
        made: dict[str, list[Tensor]] = {}
        for i in range(len(mean) if form.transform or form.part else 0):
            assert self._sample is not None, "this codec was not announced"
            values = self._sample.layer(i, mean[i].to(device), std[i].to(device))
            if form.transform:
                rotation, component_std = fit_rotation(values, form.values(values.shape[1]), spread=form.part)
                values = values @ rotation.T / component_std
                made.setdefault("rotation", []).append(rotation.cpu())
                made.setdefault("component_std", []).append(component_std.cpu())
            if form.part:
                made.setdefault("codebook", []).append(fit_codebook(values, form.part, seed=i).cpu())
        return Fitted(mean=mean, std=std, arrays={name: torch.stack(layers) for name, layers in made.items()})

    def _finish_klt(self, form: Form, device: torch.device) -> dict[str, Tensor]:
        assert self._tracks is not None, "this codec was not announced"
        place_mean, class_std = self._tracks.statistics()
        made: dict[str, list[Tensor]] = {}
        for i in range(len(place_mean)):
            tracks = self._tracks.tracks(i, place_mean[i].to(device))
            for name, values in fit_klt(form, tracks, seed=i).items():
                made.setdefault(name, []).append(values.cpu())
        layers = {name: torch.stack(values) for name, values in made.items()}
        return {"place_mean": place_mean.cpu(), "class_std": class_std.cpu(), **layers}


def fit_rotation(values: Tensor, kept: int, *, spread: int) -> tuple[Tensor, Tensor]:
    """Directions of a sample [token channel] by falling variance: rotation [component channel] and std [component].

    Args:
        kept: how many directions.
        spread: values per codeword: then each part gets strong and weak directions alike, and std is 1, because a
            codebook finds the spread within a part itself. 0: no codewords follow.
    """
    rotation, variance = directions(values, kept)
    if spread:
        return rotation[dealt(kept, spread).to(rotation.device)], torch.ones(kept, device=values.device)
    std = variance[:kept].clamp_min(0).sqrt()
    floor = (variance.clamp_min(0).mean().sqrt() * COMPONENT_FLOOR).clamp_min(torch.finfo(torch.float32).tiny)
    return rotation, torch.maximum(std, floor).float()


def dealt(count: int, part: int) -> Tensor:
    """An order of 0 … count - 1 in which they are dealt to parts of `part` like cards, to and fro.

    Only the last part may be short, and gets the weakest.
    """
    parts = count // part
    hands = torch.arange(parts * part).view(part, parts)
    hands[1::2] = hands[1::2].flip(1)
    return torch.cat([hands.T.flatten(), torch.arange(parts * part, count)])
