"""`kltB`: what is known beforehand of a token is taken away, and what remains is turned so that few numbers matter.

    x ─ place_mean ─▶ r ─ w · wild ─▶ r' ─ rotation ─▶ u ─┬─ B ≥ 3: bit planes, one step per token     (planes.py)
                           │                              └─ B < 3: DCT over a block of frames, / gain, / the deviations
                           ▼                                        of its kind, then codewords          (parts.py)
                     float16 per token

* place_mean: the mean of every place of the grid. In a residual stream much of a token is where it stands.
* wild: the direction of the massive tokens (about 2 in 100; one channel up to 100 times larger than all others). Its
  share w is kept as float16 for every token. So there is no largest number of massive tokens, and they spoil nothing.
* rotation: the Karhunen-Loève transform of what remains, every token divided by its own size beforehand.
* The class row is stored as int8 with its own statistics. It takes as many places of the token axis as its bytes fill.
* gain, kind: of a block, one byte each. A block is one place in several frames. Still blocks keep most of their bits
  for what does not change; moving ones share them out otherwise. The kind says which deviations hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.cache.codecs.form import BLOCK_KINDS, Form
from vidxfer.pipeline.cache.codecs.parts import decode_parts, encode_parts
from vidxfer.pipeline.cache.codecs.plain import encode_normal_int8
from vidxfer.pipeline.cache.codecs.planes import decode_planes, encode_planes, plane_table

GAIN_STEPS = 8  # codes per doubling of the gain
GAIN_ZERO = 128


class KltLayer(nn.Module):
    """One layer of a "klt" codec.

    Args:
        form: the codec.
        arrays: of this layer, by their names in `Form.fitted_shapes` without the layer axis.
    """

    place_mean: Tensor
    class_std: Tensor
    wild: Tensor
    rotation: Tensor
    table: Tensor
    gain: Tensor
    coefficient_std: Tensor
    codewords: Tensor
    order: Tensor
    position: Tensor
    dct: Tensor

    def __init__(self, form: Form, arrays: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.form = form
        self.tokens, self.channels = arrays["place_mean"].shape
        self.width = form.code_width(self.channels)
        self.class_places = form.code_tokens(1, self.channels)
        if form.joins_frames:
            self.sizes = [int(size) for size in arrays["part_sizes"] if size > 0]
            self.block = arrays["coefficient_std"].shape[1] // len(arrays["rotation"])
            # Which coefficient is the n-th strongest of a kind, and the other way round; the last place holds a zero.
            order = arrays["coefficient_std"].cpu().argsort(dim=1, descending=True, stable=True)[:, : sum(self.sizes)]
            position = torch.full(arrays["coefficient_std"].shape, order.shape[1])
            position.scatter_(1, order, torch.arange(order.shape[1]).expand(BLOCK_KINDS, -1))
            made = {"order": order, "position": position, "dct": dct(self.block)}
        else:
            self.bits = [int(bits) for bits in arrays["component_bits"]]
            made = {"table": plane_table()}
        for name, array in {**arrays, **made}.items():
            kept = array.clone() if array.dtype == torch.long else array.float().clone()
            self.register_buffer(name, kept, persistent=False)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Finite tokens [clip frame token channel] to codes uint8 [clip frame place byte] and scales float16.

        Scales are [clip frame place 2] with bit planes, else [clip frame place].
        """
        classes = (tokens[:, :, 0].float() - self.place_mean[0]) / self.class_std
        class_codes, class_scale = encode_normal_int8(classes)
        spare = self.class_places * self.width - self.channels
        filled = F.pad(class_codes, (0, spare)).view(torch.uint8)
        class_bytes = filled.view(*filled.shape[:2], self.class_places, self.width)
        rest = tokens[:, :, 1:].float() - self.place_mean[1:]
        share = rest @ self.wild
        values = (rest - share.unsqueeze(-1) * self.wild) @ self.rotation.T
        if self.form.joins_frames:
            codes, scale = self._encode_blocks(values), share.half()
            class_scales = F.pad(class_scale.unsqueeze(-1), (0, self.class_places - 1))
        else:
            codes, step = encode_planes(values, self.bits, self.width)
            scale = torch.stack([step, share.half()], dim=-1)
            class_scales = F.pad(class_scale[..., None, None], (0, 1, 0, self.class_places - 1))
        return torch.cat([class_bytes, codes], dim=2), torch.cat([class_scales, scale], dim=2)

    def decode(self, codes: Tensor, scale: Tensor, product: torch.dtype | None = None) -> Tensor:
        """The inverse: float32 [clip frame token channel], or float64 where the buffers are.

        `product` is the type in which values are turned back into channels, None the same. The wild direction is added
        afterwards, so massive tokens spoil nothing there either.
        """
        places, dtype = self.class_places, self.place_mean.dtype
        class_codes = codes[:, :, :places].flatten(-2)[..., : self.channels].contiguous().view(torch.int8)
        class_scale = scale[:, :, 0] if self.form.joins_frames else scale[:, :, 0, 0]
        classes = class_codes.to(dtype) * class_scale.to(dtype).unsqueeze(-1)
        patches = codes[:, :, places:]
        if self.form.joins_frames:
            values, share = self._decode_blocks(patches), scale[:, :, places:]
        else:
            step, share = scale[:, :, places:].unbind(-1)
            values = decode_planes(patches, step, self.bits, self.table, count=len(self.rotation))
        product = product or dtype
        turned = (values.to(product) @ self.rotation.to(product)).to(dtype)
        rest = turned.addcmul_(share.to(dtype).unsqueeze(-1), self.wild)
        return torch.cat([(classes * self.class_std).unsqueeze(2), rest], dim=2).add_(self.place_mean)

    def _encode_blocks(self, values: Tensor) -> Tensor:
        """values [clip frame patch component] to bytes [clip frame patch byte]; a block's are dealt to its frames."""
        clips, patches = len(values), values.shape[2]
        tracks = rearrange(values, "clip (block frame) patch component -> (clip block patch) frame component",
                           frame=self.block)  # fmt: skip
        size = tracks.square().mean(dim=(1, 2)).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        steps = ((size / self.gain).log2() * GAIN_STEPS).round().clamp(-GAIN_ZERO, 255 - GAIN_ZERO)
        coefficients = (self.dct @ tracks).flatten(1) / self._gain(steps).unsqueeze(-1)
        kinds = kinds_of(coefficients, self.coefficient_std)
        normal = (coefficients / self.coefficient_std[kinds]).gather(1, self.order[kinds])
        chosen = encode_parts(normal, self.sizes, self.codewords)
        head = torch.stack([(steps + GAIN_ZERO), kinds.float()], dim=1).to(torch.uint8)
        codes = torch.cat([head, chosen], dim=1)
        filled = F.pad(codes, (0, self.block * self.width - codes.shape[1]))
        return rearrange(filled, "(clip block patch) (frame byte) -> clip (block frame) patch byte",
                         clip=clips, patch=patches, frame=self.block)  # fmt: skip

    def _decode_blocks(self, codes: Tensor) -> Tensor:
        clips, frames, patches, _ = codes.shape
        if frames % self.block:
            raise ValueError(f"{self.form.name} decodes frames in blocks of {self.block}; got {frames} of them")
        rows = rearrange(codes, "clip (block frame) patch byte -> (clip block patch) (frame byte)", frame=self.block)
        # Tracks come last from here on: a kind's order then moves whole rows of them, and not single numbers.
        chosen = F.pad(decode_parts(rows[:, 2:], self.sizes, self.codewords).T, (0, 0, 0, 1))
        kinds, gain = rows[:, 1], self._gain(rows[:, 0].to(chosen.dtype) - GAIN_ZERO)
        coefficients = chosen.new_zeros(self.position.shape[1], len(rows))
        of_kind = torch.empty_like(coefficients)
        for kind in range(BLOCK_KINDS):  # a table per track would take 8 bytes for every number
            torch.index_select(chosen, 0, self.position[kind], out=of_kind)
            of_kind.mul_(self.coefficient_std[kind].unsqueeze(-1))
            coefficients.addcmul_(of_kind, torch.where(kinds == kind, gain, 0))
        tracks = (self.dct.T @ coefficients.view(self.block, -1)).view(self.block, -1, len(rows))
        values: Tensor = rearrange(tracks, "frame component (clip block patch) -> clip (block frame) patch component",
                                   clip=clips, patch=patches)  # fmt: skip
        return values

    def _gain(self, steps: Tensor) -> Tensor:
        return self.gain * torch.exp2(steps / GAIN_STEPS)


def kinds_of(coefficients: Tensor, deviations: Tensor) -> Tensor:
    """The kind int64 [track] that makes coefficients [track coefficient] likeliest; deviations [kind coefficient]."""
    unlikely = coefficients.square() @ deviations.square().reciprocal().T + 2 * deviations.log().sum(1)
    return unlikely.argmin(1)


def dct(frames: int) -> Tensor:
    """The orthonormal discrete cosine transform over frames, float32 [frequency frame] (DCT-II)."""
    places = torch.arange(frames, dtype=torch.float64)
    waves = torch.cos(math.pi * (places + 0.5) * places.unsqueeze(-1) / frames) * math.sqrt(2 / frames)
    waves[0] /= math.sqrt(2)
    return waves.float()
