"""The protocol of a head: settings that say what it reads, and a module from a batch to logits.

    HeadConfig ─ needs(offer) ─▶ Needs ─▶ the loader fetches exactly that ─▶ ClipBatch ─┐
        └────── build(offer) ─▶ Head ───────────────────────────────────────────────────┴─▶ logits [clip class]

`Offer` is what a cache or the online path delivers. A head is told once, when it is built; it never opens anything.
What must be known before a head exists (does it score any class names? does it fit one number of frames alone? does DDP
have to look for parameters without a gradient?) is asked of its settings, everything else of the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.shapes import ClipBatch, WindowEnds

PixelKind = Literal["none", "sparse", "dense", "window"]
"""Which frames of a view a head sees as pixels: those CLIP sees, all dense ones, or some source frames around each."""

BatchStatistics = Literal["none", "device", "devices"]
"""Over which clips a head takes statistics in training: none, those of one device, or those of all devices."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a head reads per clip; the loader fetches exactly this.

    Attributes:
        layers: tapped CLIP layers, in the order of the layer axis; empty: no tokens. -1 is the stem.
        embedding: the projected CLIP image embedding of every sparse frame.
        sparse_frames: sparse frames per clip; 0: all that a view holds. A cache may hold a multiple (training/bank.py).
        text: class-name embeddings.
        pixels: which frames as normalised pixels.
        window_frames: with pixels="window": source frames per sparse frame, an odd number; the sparse one is in the
            middle.
        window_ends: what such a window has beyond the ends of the video; see `WindowEnds`.
        frozen: names of CLIP parameters (open_clip's) that must lie beside the tokens.
        through_clip: gradients flow through this many last blocks of CLIP; 0: CLIP is behind the tokens.

    Raises:
        ValueError: a window without a middle, or a number of its frames without a window.
    """

    layers: tuple[int, ...] = ()
    embedding: bool = False
    sparse_frames: int = 0
    text: bool = False
    pixels: PixelKind = "none"
    window_frames: int = 0
    window_ends: WindowEnds = "clamp"
    frozen: tuple[str, ...] = ()
    through_clip: int = 0

    def __post_init__(self) -> None:
        if self.pixels not in get_args(PixelKind):
            raise ValueError(f"pixels={self.pixels!r} is none of {', '.join(get_args(PixelKind))}")
        if (self.pixels == "window") != (self.window_frames % 2 == 1):
            raise ValueError(
                f"pixels={self.pixels!r} with window_frames={self.window_frames}: windows have an odd number"
            )
        if self.window_ends not in get_args(WindowEnds):
            raise ValueError(f"window_ends={self.window_ends!r} is none of {', '.join(get_args(WindowEnds))}")

    def pixel_frames(self, sparse_frames: int, alpha: int) -> int:
        """Frames of a clip that the head sees as pixels, of a view of that many sparse frames."""
        per_sparse = {"none": 0, "sparse": 1, "dense": alpha, "window": self.window_frames}[self.pixels]
        return (self.sparse_frames or sparse_frames) * per_sparse


@dataclass(frozen=True, kw_only=True, eq=False)
class Offer:
    """What a cache (or the online path) delivers.

    Attributes:
        layers: the layers on offer.
        sparse_frames, alpha: frames CLIP saw per view, and dense frames per sparse frame.
        grid: patches along the (height, width) of the picture.
        patch_px: side of one patch.
        channels: CLIP width.
        embed: joint space.
        classes: number of class names.
        image_px: side of the picture.
        text: raw text embeddings [class embed]; None: nobody asked for them.
        logit_scale: CLIP's, exponentiated.
        logit_bias: what a tower trained with a sigmoid adds to scaled cosines; None: it was trained otherwise.
        textless: the tower has no text: there are no embeddings of class names.
        model: the tower's name, for messages.
        frozen: CLIP's parameters by name, as far as they are at hand.
        clip_heads: attention heads of CLIP's blocks; None: nothing says it.
        tower: CLIP itself; None: its tokens are cached.
        sizes_only: nothing is computed with what is built of it: only its sizes, or its weights, are asked for.
    """

    layers: tuple[int, ...]
    sparse_frames: int
    alpha: int
    grid: tuple[int, int]
    channels: int
    embed: int
    classes: int
    image_px: int
    text: Tensor | None = None
    logit_scale: float = 1.0
    logit_bias: float | None = None
    textless: bool = False
    model: str = "CLIP"
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    clip_heads: int | None = None
    tower: Any = None
    sizes_only: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per frame, CLS included."""
        return 1 + self.grid[0] * self.grid[1]

    @property
    def patch_px(self) -> int:
        """Side of one CLIP patch in pixels."""
        return self.image_px // self.grid[0]

    def class_text(self) -> Tensor:
        """The text embeddings [class embed].

        Raises:
            CacheError: there are none.
        """
        if self.text is None:
            raise CacheError("the head scores against the class names' text embeddings, and none were given to it")
        return self.text

    def for_sizes(self, needs: Needs) -> Offer:
        """The same for a head that never computes anything real: zeros for the frozen parameters of its needs.

        Raises:
            ValueError: a name of which it is not known how its size follows from CLIP's width.
        """
        width = self.channels
        sizes = {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
        }
        shapes = {
            name: next((s for end, s in sizes.items() if name.endswith(f".{end}")), None) for name in needs.frozen
        }
        if unknown := [name for name, shape in shapes.items() if shape is None]:
            raise ValueError(
                f"how large CLIP's parameters {unknown} are is not known here; add them to Offer.for_sizes"
            )
        made = {name: torch.zeros(shape) for name, shape in shapes.items() if shape is not None}
        return replace(self, frozen=made, sizes_only=True)

    def fake_batch(
        self, needs: Needs, clips: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ClipBatch:
        """A batch of random numbers in the shapes a loader would deliver to a head of these needs.

        Args:
            needs: the head's.
            clips: in the batch.
            device: "meta" for shapes alone.
            dtype: of the tokens.

        Returns:
            What is not needed is None, as the loader has it; every label is class 0.
        """
        frames = needs.sparse_frames or self.sparse_frames
        shown = needs.pixel_frames(frames, self.alpha)

        def some(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.randn(clips, *shape, device=device, dtype=dtype)

        return ClipBatch(
            tokens=some(len(needs.layers), frames, self.tokens, self.channels, dtype=dtype) if needs.layers else None,
            embedding=some(frames, self.embed) if needs.embedding else None,
            dense=some(shown, 3, self.image_px, self.image_px) if shown else None,
            targets=None,
            labels=torch.zeros(clips, dtype=torch.int64, device=device),
            ids=tuple(map(str, range(clips))),
        )


class Head(nn.Module, ABC):
    """A temporal head: `needs` declares its input, `forward` maps a batch to logits [clip class]."""

    needs: Needs

    @abstractmethod
    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class] in float32 or the autocast type."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [clip class] of these logits, float32: what the views of a video are summed in."""
        return logits.float().softmax(dim=-1)

    def undecayed(self) -> frozenset[str]:
        """Names of the parameters that weight decay leaves alone: here the vectors, which are biases and norms."""
        return frozenset(name for name, parameter in self.named_parameters() if parameter.ndim == 1)


class HeadConfig(ABC):
    """Settings of one family of heads: a frozen dataclass that checks itself.

    Attributes:
        kind: what a recipe calls the family.
        unused_parameters: some parameters never get a gradient: DDP has to look for them in every step.
    """

    kind: ClassVar[str]
    unused_parameters: ClassVar[bool] = False

    @property
    def any_classes(self) -> bool:
        """Whether it scores any label set of the same CLIP, through its text embeddings."""
        return False

    @property
    def fixed_frames(self) -> bool:
        """Whether trained weights fit one number of sparse frames alone."""
        return False

    @property
    def batch_statistics(self) -> BatchStatistics:
        """Over which clips batch norms take statistics; where they do, one clip alone cannot be learned from."""
        return "none"

    def settled(self, offer: Offer) -> HeadConfig:
        """The same settings with what they leave to the tower decided for this one; a run folder keeps those."""
        return self

    @abstractmethod
    def needs(self, offer: Offer) -> Needs:
        """What the head reads of an offer; nothing is built.

        Raises:
            CacheError: the offer lacks it.
        """

    @abstractmethod
    def build(self, offer: Offer) -> Head:
        """A freshly initialised head.

        Raises:
            CacheError: the offer lacks what the head needs.
        """

    def to_dict(self) -> dict[str, Any]:
        """As a run folder keeps it: the kind, then every field."""
        assert is_dataclass(self)
        return {"kind": self.kind, **asdict(self)}


def expect_block_numbers(layers: object) -> None:
    """Check the setting of the CLIP layers that a head reads; None: every block.

    Raises:
        UsageError: it is neither that nor some numbers.
    """
    if layers is not None and (
        not layers or not isinstance(layers, tuple) or not all(isinstance(layer, int) for layer in layers)
    ):
        raise UsageError(f"head.layers={layers!r} must be block numbers like [3, 7, 11], or null")
