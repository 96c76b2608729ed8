"""Converts tokens to codes and back, on the device of the tokens.

    z = (x - mean) / std          static, per (layer, channel), from a calibration sample: tames outlier channels
    u = rotation z / component_std  only after rotate+ and pcaK+: the directions of the sample, most variance first
    q, scale                      of u: int8 in plain.py, 4 and 6 bits in pack.py, codewords in pq.py
    x' = mean + std · rotationᵀ (component_std · u')     on the device that trains: few bytes on disk and over the bus

From u' to x' everything is linear, so a head's first linear layer can take it in: `Dequantiser.fold`. "klt" goes
another way (klt.py), and its tokens are decoded whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vidxfer.pipeline.cache.codecs.form import BITS, Form, codec_form
from vidxfer.pipeline.cache.codecs.klt import KltLayer
from vidxfer.pipeline.cache.codecs.pack import decode_grouped, encode_grouped
from vidxfer.pipeline.cache.codecs.plain import encode_float16, encode_normal_int8, expect_finite
from vidxfer.pipeline.cache.codecs.pq import FLOAT16_MOST, decode_pq, encode_pq
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.shapes import expect


class _Layers(nn.Module):
    """The fitted arrays of a codec, for the wanted layers. Base class of both directions.

    Args:
        form: the codec.
        mean, std: channel_mean and channel_std, float32 [layer channel], of all stored layers.
        fitted: what else the codec has, of all stored layers; see `Form.fitted_shapes`.
        positions: positions of the wanted layers, in the wanted order.
    """

    mean: Tensor
    std: Tensor
    rotation: Tensor | None
    component_std: Tensor | None
    codebook: Tensor | None

    def __init__(
        self, form: Form, mean: Tensor, std: Tensor, fitted: Mapping[str, Tensor], positions: Sequence[int]
    ) -> None:
        super().__init__()
        self.form, self.channels, self.layer_count = form, mean.shape[1], len(positions)
        expect("std", std, "layer channel", layer=len(mean), channel=self.channels)
        arrays = {"mean": mean, "std": std}
        for name, (axes, shape) in fitted_shapes(form, len(mean), self.channels, fitted).items():
            if name not in fitted:
                raise ValueError(f"codec {form.name} needs {name} [{axes}], which was not given")
            expect(name, fitted[name], axes, **dict(zip(axes.split(), shape, strict=True)))
            arrays[name] = fitted[name]
        for name in ("mean", "std", "rotation", "component_std", "codebook"):
            array = arrays[name][list(positions)].float().clone() if name in arrays else None
            # Not persistent: they belong to the cache, and a head's checkpoint must not bring another cache's.
            self.register_buffer(name, None if form.is_klt else array, persistent=False)
        of_layer = [{name: fitted[name][position] for name in fitted} for position in positions if form.is_klt]
        self._klt = nn.ModuleList([KltLayer(form, arrays) for arrays in of_layer])

    def klt(self, i: int) -> KltLayer:
        """The i-th layer of a "klt" codec."""
        layer = self._klt[i]
        assert isinstance(layer, KltLayer), "made so"
        return layer


def fitted_shapes(
    form: Form, layers: int, channels: int, fitted: Mapping[str, Tensor]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """As `Form.fitted_shapes`; tokens and frames are those that the given arrays were fitted for."""
    tokens, frames = 0, 1
    if form.is_klt and "place_mean" in fitted:
        tokens = fitted["place_mean"].shape[1]
        if "coefficient_std" in fitted:
            frames = fitted["coefficient_std"].shape[-1] // form.values(channels)
    return form.fitted_shapes(layers, channels, tokens, frames)


class Quantiser(_Layers):
    """Float tokens to what is stored, on the device of the tokens; one layer at a time, so memory stays bounded."""

    @classmethod
    def of(cls, split: Split) -> Quantiser:
        """With the codec and the statistics of a split."""
        mean, std, fitted = arrays_of(split)
        return cls(codec_form(split.spec.codec), mean, std, fitted, range(len(mean)))

    @torch.no_grad()
    def forward(self, tokens: Tensor, out: tuple[Tensor, Tensor | None] | None = None) -> tuple[Tensor, Tensor | None]:
        """tokens [... layer frame token channel] → codes [... layer frame token code], scales (none for float16).

        Scales are float16 [... layer frame token], or [... layer frame token group] of int6 and int4.

        Args:
            out: tensors of these shapes to write into, on any device; None: new tensors on the device of the tokens.

        Raises:
            ClipError: a token is not finite, or too large to be stored.
        """
        expect("tokens", tokens[(0,) * (tokens.ndim - 4)], "layer frame token channel", layer=self.layer_count,
               channel=self.channels)  # fmt: skip
        layer_axis, shape = tokens.ndim - 4, (*tokens.shape[:-4], self.layer_count)
        for i in range(self.layer_count):
            code, scale = self._layer(tokens.select(-4, i), i)
            if out is None:  # made once and not stacked from layers: one copy of the codes, not two
                codes = code.new_empty((*shape, *code.shape[layer_axis:]))
                out = codes, None if scale is None else scale.new_empty((*shape, *scale.shape[layer_axis:]))
            out[0].select(layer_axis, i).copy_(code)
            if scale is not None:
                assert out[1] is not None, f"{self.form.name} has scales"
                out[1].select(layer_axis, i).copy_(scale)
        assert out is not None, "a split stores at least one layer"
        return out

    def _layer(self, tokens: Tensor, i: int) -> tuple[Tensor, Tensor | None]:
        if self.form.is_exact:
            return encode_float16(tokens), None
        if self.form.is_klt:
            expect_finite(tokens.abs().amax(), FLOAT16_MOST)
            outer = tokens.shape[:-3]
            codes, scales = self.klt(i).encode(tokens.reshape(-1, *tokens.shape[-3:]))
            return codes.view(*outer, *codes.shape[1:]), scales.view(*outer, *scales.shape[1:])
        values = (tokens.float() - self.mean[i]).div_(self.std[i])
        if self.rotation is not None:
            assert self.component_std is not None, "stored together"
            values = values @ self.rotation[i].T / self.component_std[i]
        if self.form.quantiser == "float16":
            return encode_float16(values), None
        if self.form.quantiser == "int8":
            return encode_normal_int8(values)
        expect_finite(values.abs().amax(), FLOAT16_MOST)
        if self.codebook is not None:
            return encode_pq(values, self.codebook[i])
        return encode_grouped(values, bits=BITS[self.form.quantiser], group=self.form.group)


class Dequantiser(_Layers):
    """Converts codes, as read from the cache, to the tokens that a head reads.

    Args:
        spec: the cache's settings.
        mean, std: the cache's channel_mean and channel_std, float32 [layer channel] over all stored layers.
        fitted: the codec's other arrays, of all stored layers; see `Form.fitted_shapes`.
        layers: the layer numbers that were read, in that order; None for all.
        dtype: type of the tokens handed out; the arithmetic is float32.
        product: in what "klt" turns values back into channels, as bfloat16 for a head that reads tokens in it; None:
            float32. A product costs 2 · channels operations for every number, far more than the rest.
    """

    matrix: Tensor | None

    def __init__(
        self,
        spec: CacheSpec,
        mean: Tensor,
        std: Tensor,
        *,
        fitted: Mapping[str, Tensor] | None = None,
        layers: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        product: torch.dtype | None = None,
    ) -> None:
        expect("mean", mean, "layer channel", layer=len(spec.layers), channel=spec.channels)
        positions = spec.layer_positions(layers)
        super().__init__(codec_form(spec.codec), mean, std, fitted or {}, positions)
        self.dtype, self.product = dtype, product
        self.layers = tuple(spec.layers[position] for position in positions)
        matrix = None
        if self.rotation is not None and self.component_std is not None:
            matrix = self.component_std.unsqueeze(-1) * self.rotation * self.std.unsqueeze(1)
        self.register_buffer("matrix", matrix, persistent=False)

    @classmethod
    def of(
        cls,
        split: Split,
        *,
        layers: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        product: torch.dtype | None = None,
    ) -> Dequantiser:
        """With the codec and the statistics of a split."""
        mean, std, fitted = arrays_of(split)
        return cls(split.spec, mean, std, fitted=fitted, layers=layers, dtype=dtype, product=product)

    def forward(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """codes [clip layer frame token code], scale of the same clips or None → [clip layer frame token channel]."""
        expect("codes", codes, "clip layer frame token code", layer=self.layer_count)
        if self.form.is_exact:
            return codes.to(self.dtype)
        if scale is None and self.form.quantiser != "float16":
            raise ValueError(f"{self.form.name} codes need their scale")
        token_count = self.klt(0).tokens if self.form.is_klt else codes.shape[3]
        shape = (*codes.shape[:3], token_count, self.channels)
        tokens = torch.empty(shape, dtype=self.dtype, device=codes.device)
        # One layer at a time: the float32 intermediate is then a fraction of the result, not twice as large.
        for i in range(self.layer_count):
            if self.form.is_klt and scale is not None:
                tokens[:, i] = self.klt(i).decode(codes[:, i], scale[:, i], self.product)
                continue
            values = self.values(codes[:, i], None if scale is None else scale[:, i], i)
            if self.matrix is None:
                tokens[:, i] = torch.addcmul(self.mean[i], values, self.std[i])
            else:
                tokens[:, i] = self.mean[i] + values @ self.matrix[i]
        return tokens

    def values(self, codes: Tensor, scale: Tensor | None, i: int) -> Tensor:
        """The quantised values of the i-th layer, before the affine map to channels: [... value].

        codes [... code], scale [...] or [... group], of one layer.
        """
        self._expect_linear()
        form, dtype = self.form, self.mean.dtype
        if form.quantiser == "float16" or scale is None:
            return codes.to(dtype)
        if form.quantiser == "int8":
            return codes.to(dtype).mul_(scale.to(dtype).unsqueeze(-1))
        count = form.values(self.channels)
        if self.codebook is not None:
            return decode_pq(codes, scale, self.codebook[i], count=count)
        return decode_grouped(codes, scale.to(dtype), bits=BITS[form.quantiser], group=form.group, count=count)

    def fold(self, weight: Tensor, bias: Tensor | None, i: int) -> tuple[Tensor, Tensor]:
        """Take the affine map of the i-th layer into a linear layer that follows; gradients flow to its weights.

        Args:
            weight, bias: [out channel] and [out] of a linear layer on tokens.
            i: position among `layers`.

        Returns:
            weight [out value] and bias [out], so that weight' values + bias' equals weight tokens + bias. With pcaK the
            product has K instead of all channels to go through, and the tokens are never made.
        """
        self._expect_linear()
        shift = weight @ self.mean[i].to(weight.dtype)
        if self.form.is_exact:
            return weight, torch.zeros_like(shift) if bias is None else bias
        folded = weight * self.std[i] if self.matrix is None else weight @ self.matrix[i].to(weight.dtype).T
        return folded, shift if bias is None else bias + shift

    def _expect_linear(self) -> None:
        if self.form.is_klt:
            raise ValueError(f"{self.form.name} has a mean per place: its tokens are decoded whole, none is folded")

    def fold_codebook(self, weight: Tensor, bias: Tensor | None, i: int) -> tuple[Tensor, Tensor]:
        """The linear layer of every codeword of a pq codec, worked out beforehand.

        Returns:
            tables [part codeword out] and bias [out]: the product with a token is
            scale · Σ over parts of tables[part, code of the part] + bias. Reading a table costs `out` additions per
            part instead of `out · part` multiplications, which pays where memory is faster than arithmetic.
        """
        assert self.codebook is not None, "only pq codecs have a codebook"
        folded, shift = self.fold(weight, bias, i)
        parts, _, size = self.codebook[i].shape
        padded = nn.functional.pad(folded, (0, parts * size - folded.shape[1])).view(-1, parts, size)
        return torch.einsum("ops,pcs->pco", padded, self.codebook[i].to(weight.dtype)), shift


def arrays_of(split: Split) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """channel_mean, channel_std and the codec's fitted arrays of a split, as tensors on the CPU."""
    fitted = {name: torch.from_numpy(values) for name, values in split.fitted.items()}
    return torch.from_numpy(split.channel_mean), torch.from_numpy(split.channel_std), fitted
