"""What "klt" fits: means per place, the class row's statistics, and on a sample of tracks all that klt.py names.

    tokens of a video ─┬─▶ sums per place                          place_mean, shrunk where few videos speak for it
                       ├─▶ squares of the class row                class_std
                       └─▶ tracks: some places in all frames       wild, rotation, bits or deviations and codewords

Memory is bounded: the sums have one number per layer, place and channel; the sample holds as many tokens as that of the
other codecs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.codecs.form import BLOCK_KINDS, Form, block_frames
from vidxfer.pipeline.cache.codecs.klt import GAIN_STEPS, dct, kinds_of
from vidxfer.pipeline.cache.codecs.parts import fit_codewords, share_parts
from vidxfer.pipeline.cache.codecs.planes import share_bits
from vidxfer.pipeline.errors import ClipError

WILD_SHARE = 100  # the wild direction is that of the largest token in so many
KIND_ROUNDS = 8
KIND_PRIOR = 8  # tracks: a kind's deviations are mixed with those of all tracks as if it had seen so many more
SMALLEST = 1e-6  # of a block's size, and of a deviation where their mean square is about 1


class TrackSample:
    """Means per place, and tokens of the same place in all frames of a view, drawn evenly from every video.

    Args:
        videos: how many will come.
        tokens_most: tokens per layer that may be kept.
        bytes_most: of the sample, which is kept as float16.
    """

    def __init__(self, videos: int, *, tokens_most: int, bytes_most: int) -> None:
        self._videos, self._tokens_most, self._bytes_most = max(1, videos), tokens_most, bytes_most
        self._draw = torch.Generator().manual_seed(0)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._seen = 0
        self._sum: Tensor | None = None

    def update(self, tokens: Tensor) -> None:
        """Take in one video's tokens [… layer frame token channel]."""
        views = tokens.detach().movedim(-4, 0).flatten(1, -4)  # [layer view frame token channel]
        layers, count, frames, places, channels = views.shape
        mean = torch.stack([layer.mean((0, 1), dtype=torch.float64) for layer in views])
        square = mean.square().sum(-1)
        class_rows = views[:, :, :, 0].double()
        class_square = class_rows.square().mean((1, 2))
        if self._sum is None:
            self._sum, self._square, self._class_square = mean, square, class_square
            self._centre, self._step = mean.float(), self._first_step(views)
        else:
            self._sum, self._square = self._sum + mean, self._square + square
            self._class_square = self._class_square + class_square
        self._seen += 1
        self.frames = frames
        most = min(self._tokens_most, self._bytes_most // (2 * layers * channels))
        wanted = min(max(1, most // self._videos // frames), count * (places - 1))
        drawn = torch.randperm(count * (places - 1), generator=self._draw)[:wanted]
        view, place = drawn // (places - 1), drawn % (places - 1) + 1
        tracks = views[:, view.to(views.device), :, place.to(views.device)]  # [track layer frame channel]: both index
        normal = (tracks.movedim(1, 0) - self._centre[:, place.to(views.device), None]) / self._step[:, None, None]
        self._kept.append((normal.clamp_(-60_000, 60_000).half().cpu(), place))

    def _first_step(self, views: Tensor) -> Tensor:
        """A provisional deviation per channel [layer channel], so that float16 holds every channel to 11 bits."""
        spread = torch.stack([layer.double().std((0, 1, 2), correction=0) for layer in views])
        return spread.clamp_min(spread.mean() * 1e-3 + torch.finfo(torch.float32).tiny).float()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """place_mean float32 [layer token channel] and class_std [layer channel].

        A place's mean is drawn towards the mean of all patches as far as videos disagree about it.

        Raises:
            ClipError: no tokens were seen, or they were not finite.
        """
        if self._sum is None:
            raise ClipError("no tokens to calibrate on: not one video of the calibration sample could be encoded")
        mean = self._sum / self._seen
        if not bool(torch.isfinite(self._square).all()):
            raise ClipError(
                "CLIP tokens of the calibration sample are not finite; extract with --precision bf16 or fp32"
            )
        everywhere = mean[:, 1:].mean(1, keepdim=True)
        distance = (mean - everywhere).square().sum(-1)
        error = (self._square / self._seen - mean.square().sum(-1)).clamp_min(0) / max(1, self._seen - 1)
        trust = (1 - error / distance.clamp_min(1e-30)).clamp(0, 1) if self._seen > 1 else torch.zeros_like(distance)
        shrunk = everywhere + trust.unsqueeze(-1) * (mean - everywhere)
        shrunk[:, 0] = mean[:, 0]
        class_std = (self._class_square / self._seen - mean[:, 0].square()).clamp_min(0).sqrt()
        floor = class_std.mean(1, keepdim=True) * 1e-2
        floor = torch.where(floor > 0, floor, torch.ones_like(floor))
        return shrunk.float(), torch.maximum(class_std, floor).float()

    def tracks(self, i: int, place_mean: Tensor) -> Tensor:
        """The sample of the i-th layer without its places' means, float32 [track frame channel]."""
        tracks = [
            normal[i].to(place_mean.device).float() * self._step[i].to(place_mean.device)
            + (self._centre[i].to(place_mean.device) - place_mean)[place.to(place_mean.device), None]
            for normal, place in self._kept
        ]
        return torch.cat(tracks)


def fit_klt(form: Form, tracks: Tensor, seed: int) -> dict[str, Tensor]:
    """The arrays of one layer but for place_mean and class_std, of tracks [track frame channel]."""
    channels = tracks.shape[-1]
    wild = wild_direction(tracks.flatten(0, 1))
    rest = tracks - (tracks @ wild).unsqueeze(-1) * wild
    if form.joins_frames:
        rest = rest.reshape(-1, block_frames(tracks.shape[1]), channels)
    else:
        rest = rest.flatten(0, 1).unsqueeze(1)
    size = rest.square().mean(dim=(1, 2)).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    gain = torch.where(size.median() > SMALLEST, size.median(), 1.0)
    size = gain * torch.exp2(((size / gain).log2() * GAIN_STEPS).round() / GAIN_STEPS)
    normal = rest / size[:, None, None]
    rotation, _ = directions(normal.flatten(0, 1), form.values(channels))
    arrays = {"wild": wild, "rotation": rotation}
    components = normal @ rotation.T
    if not form.joins_frames:
        variance = components.square().mean(dim=(0, 1))
        bits = share_bits(variance, form.code_width(channels))
        return {**arrays, "component_bits": torch.tensor(bits, dtype=torch.float32)}
    coefficients = (dct(rest.shape[1]).to(rest.device) @ components).flatten(1)
    deviations, kinds = fit_kinds(coefficients)
    counts = torch.bincount(kinds, minlength=BLOCK_KINDS).to(coefficients) / len(kinds)
    falling = deviations.square().sort(dim=1, descending=True).values
    parts = rest.shape[1] * form.code_width(channels) - 2
    sizes = share_parts(counts @ falling, parts)
    order = deviations.cpu().argsort(dim=1, descending=True, stable=True).to(kinds.device)
    values = (coefficients / deviations[kinds]).gather(1, order[kinds])
    filled = torch.zeros(parts)
    filled[: len(sizes)] = torch.tensor(sizes, dtype=torch.float32)
    return {
        **arrays,
        "gain": gain,
        "coefficient_std": deviations,
        "part_sizes": filled,
        "codewords": fit_codewords(values, sizes, seed),
    }


def wild_direction(tokens: Tensor) -> Tensor:
    """The direction [channel] in which the largest of the tokens [token channel] lie."""
    largest = tokens.square().sum(1).topk(max(1, len(tokens) // WILD_SHARE)).indices
    return directions(tokens[largest], 1)[0][0]


def directions(values: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Where values [token channel] are largest: float32 [component channel] at right angles, the largest first.

    Returns:
        the first `kept` directions, and the mean square along every direction, float64 [channel].
    """
    wide = values.double()
    variance, vectors = torch.linalg.eigh(wide.T @ wide / len(wide))
    chosen = vectors.flip(1)[:, :kept].T
    # An eigenvector may point either way: the largest entry is made positive, so that a repeat gives the same.
    largest = chosen.gather(1, chosen.abs().argmax(1, keepdim=True))
    signed: Tensor = chosen * torch.where(largest < 0, -1.0, 1.0)
    return signed.float(), variance.flip(0)


def fit_kinds(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations [kind coefficient] of kinds of tracks [track coefficient], and the kind int64 [track] of each.

    The beginning is how much of a track lies outside the strongest quarter of the coefficients.
    """
    overall = coefficients.square().mean(0)
    weak = overall.argsort(descending=True, stable=True)[len(overall) // 4 :]
    activity = coefficients[:, weak].square().sum(1)
    kinds = (activity.argsort(stable=True).argsort() * BLOCK_KINDS // len(activity)).long()
    for _ in range(KIND_ROUNDS):
        variances = []
        for kind in range(BLOCK_KINDS):
            members = coefficients[kinds == kind]
            variances.append((members.square().sum(0) + KIND_PRIOR * overall) / (len(members) + KIND_PRIOR))
        deviations = torch.stack(variances).sqrt().clamp_min(SMALLEST)
        kinds = kinds_of(coefficients, deviations)
    return deviations, kinds
