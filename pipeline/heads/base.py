"""The protocol of a head: settings that say what it reads, and a module from a batch to logits.

    HeadConfig ─ needs(offer) ─▶ Needs ─▶ the loader fetches exactly that ─▶ ClipBatch ─┐
        └────── build(offer) ─▶ Head ───────────────────────────────────────────────────┴─▶ logits [clip class]

`Offer` is what a cache or the online path delivers. A head gets it once, when it is built. A head opens no file.
The settings answer what must be known before a head exists: Does it score any class names? Does it fit only one number
of frames? Must DDP look for parameters without a gradient? The module answers everything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.shapes import ClipBatch, WindowEnds

PixelKind = Literal["none", "sparse", "dense", "window"]
"""Which frames of a view a head sees as pixels: none, the sparse ones, all dense ones, or a window of source frames
around each sparse one."""

BatchStatistics = Literal["none", "device", "devices"]
"""Over which clips a head's batch norms take statistics in training: none, one device's, or those of all devices."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a head reads per clip; the loader fetches exactly this.

    Attributes:
        layers: tapped CLIP layers, in the order of the layer axis; empty: no tokens. -1 is the stem.
        embedding: the projected CLIP image embedding of every sparse frame.
        sparse_frames: sparse frames per clip; 0: all that a view holds. A cache may hold a multiple (training/bank.py).
        text: class-name embeddings.
        pixels: which frames the head reads as normalised pixels.
        window_frames: source frames per sparse frame, for pixels="window". It is an odd number: the sparse frame is in
            the middle.
        window_ends: how such a window is filled beyond the ends of the video; see `WindowEnds`.
        frozen: names of CLIP parameters (open_clip's) that must lie beside the tokens.
        through_clip: number of last CLIP blocks that gradients flow through; 0: no gradient enters CLIP.
        pool: side of the squares of the tower's patches that are averaged; 0: as the cache holds them. A recipe and
            its cache decide this, so `build_head` sets it.

    Raises:
        ValueError: the number of window frames is even, or it is given without pixels="window".
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
    pool: int = 0

    def __post_init__(self) -> None:
        if self.pixels not in get_args(PixelKind):
            raise ValueError(f"pixels={self.pixels!r} is none of {', '.join(get_args(PixelKind))}")
        if (self.pixels == "window") != (self.window_frames % 2 == 1):
            raise ValueError(
                f"pixels={self.pixels!r} with window_frames={self.window_frames}: expected an odd number "
                "with pixels='window', and 0 with any other pixels"
            )
        if self.window_ends not in get_args(WindowEnds):
            raise ValueError(f"window_ends={self.window_ends!r} is none of {', '.join(get_args(WindowEnds))}")

    def pixel_frames(self, sparse_frames: int, alpha: int) -> int:
        """Number of frames per clip that the head sees as pixels, for a view with `sparse_frames` sparse frames."""
        per_sparse = {"none": 0, "sparse": 1, "dense": alpha, "window": self.window_frames}[self.pixels]
        return (self.sparse_frames or sparse_frames) * per_sparse


@dataclass(frozen=True, kw_only=True, eq=False)
class Offer:
    """What a cache (or the online path) delivers.

    Attributes:
        layers: the layers on offer.
        sparse_frames: frames per view that CLIP saw.
        alpha: dense frames per sparse frame.
        grid: patches along the (height, width) of the picture, as the head sees them.
        pool: side of the squares of the tower's patches that each of them is the mean of; 1: they are the tower's.
        patch_px: side of one patch.
        channels: CLIP width.
        embed: width of the joint space.
        classes: number of class names.
        image_px: side of the picture.
        text: raw text embeddings [class embed]; None: they were not asked for.
        logit_scale: CLIP's logit scale, exponentiated.
        logit_bias: a number that towers trained with a sigmoid add to scaled cosines; None: the tower has none.
        textless: the tower has no text tower, so there are no embeddings of class names.
        model: the tower's name, for messages.
        blocks_of: "clip" where its blocks are those of CLIP (open_clip's VisionTransformer), else "timm".
        frozen: CLIP's parameters by name, those that are available.
        clip_heads: attention heads of CLIP's blocks; None: not known.
        tower: CLIP itself; None: its tokens come from a cache.
        sizes_only: the head will compute nothing; only its sizes or its weights are read.
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
    blocks_of: str = "clip"
    model: str = "CLIP"
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    clip_heads: int | None = None
    tower: Any = None
    pool: int = 1
    sizes_only: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per frame, CLS included."""
        return 1 + self.grid[0] * self.grid[1]

    @property
    def patch_px(self) -> int:
        """Side in pixels of one patch of the grid: CLIP's, or of a square of them."""
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
        """The same offer for a head that computes nothing: the frozen parameters that it needs are zeros.

        Raises:
            ValueError: a frozen parameter whose size cannot be derived from CLIP's width.
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
                f"the sizes of CLIP's parameters {unknown} are not known here. Add them to Offer.for_sizes."
            )
        made = {name: torch.zeros(shape) for name, shape in shapes.items() if shape is not None}
        return replace(self, frozen=made, sizes_only=True)

    def fake_batch(
        self, needs: Needs, clips: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ClipBatch:
        """A batch of random numbers in the shapes a loader would deliver to a head of these needs.

        Args:
            needs: what the head reads.
            clips: number of clips in the batch.
            device: where the tensors lie; "meta" allocates nothing.
            dtype: type of the tokens.

        Returns:
            A batch in which everything that is not needed is None, as in the loader's; every label is class 0.
        """
        frames = needs.sparse_frames or self.sparse_frames
        shown = needs.pixel_frames(frames, self.alpha)

        def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.randn(clips, *shape, device=device, dtype=dtype)

        return ClipBatch(
            tokens=random(len(needs.layers), frames, self.tokens, self.channels, dtype=dtype) if needs.layers else None,
            embedding=random(frames, self.embed) if needs.embedding else None,
            dense=random(shown, 3, self.image_px, self.image_px) if shown else None,
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
        """Names of the parameters without weight decay. By default the vectors, which are biases and norms."""
        return frozenset(name for name, parameter in self.named_parameters() if parameter.ndim == 1)


class HeadConfig(ABC):
    """Settings of one family of heads: a frozen dataclass that checks itself.

    Attributes:
        kind: what a recipe calls the family.
        unused_parameters: some parameters never get a gradient, so DDP must look for them in every step.
    """

    kind: ClassVar[str]
    unused_parameters: ClassVar[bool] = False

    @property
    def any_classes(self) -> bool:
        """Whether it scores any label set of the same CLIP, through its text embeddings."""
        return False

    @property
    def fixed_frames(self) -> bool:
        """Whether trained weights fit only one number of sparse frames."""
        return False

    @property
    def batch_statistics(self) -> BatchStatistics:
        """Over which clips batch norms take statistics. With batch norms, a batch needs two clips."""
        return "none"

    @property
    def takes_pooled(self) -> bool:
        """Whether a recipe for a named CLIP trains this head on averaged patches too. Other recipes always do."""
        return True

    def settled(self, offer: Offer) -> HeadConfig:
        """The same settings with what they leave to the tower decided for this one; a run folder keeps those."""
        return self

    @abstractmethod
    def needs(self, offer: Offer) -> Needs:
        """What the head reads of an offer. Nothing is built.

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
        """The settings as a run folder stores them: the kind, then every field."""
        assert is_dataclass(self)
        return {"kind": self.kind, **asdict(self)}
