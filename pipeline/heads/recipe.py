"""What a recipe is: every setting of a training run as one typed, frozen value; variations by `replace`.

    Recipe ── head: HeadConfig      which head, and its sizes
           ── clip: ClipShape       the CLIP it is for; None: any
           ── optimiser: Optimiser  how the rate moves, what decays
           ── mixing: Mixing        of the clips of a batch
           └─ epochs, batch_clips, learning_rate …

A family of heads brings its recipes with it (`Family`); all of them are in `pipeline.heads`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import HeadConfig

MIXINGS = ("none", "published", "pixels", "tokens")
Decay = Literal["head", "all"]
Schedule = Literal["cosine", "cosine-after-warmup"]


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """A CLIP image tower.

    Attributes:
        model: what open_clip calls it. Told where a cache's differs, and not compared: a folder may have any name.
        width: channels of a token.
        blocks: transformer blocks.
        patch_px, image_px: side of a patch and of the picture.
        embed: joint space.
    """

    model: str
    width: int
    blocks: int
    patch_px: int
    image_px: int
    embed: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the (height, width) of the picture."""
        return (self.image_px // self.patch_px,) * 2

    @property
    def tokens(self) -> int:
        """Tokens per frame, CLS included."""
        return 1 + self.grid[0] * self.grid[1]


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW and how its rate moves: what papers differ in.

    Attributes:
        betas, eps: of AdamW.
        decay: "head": weight decay acts on all parameters but those that the head names; "all": on every one.
        schedule: "cosine": half a cosine over all epochs, its beginning replaced by the warm-up; "cosine-after-warmup":
            the warm-up reaches the full rate, and half a cosine begins there.
        warmup_from: rate at which the linear warm-up begins.
        refresh_steps: the rate is set anew in the first step of an epoch, and in every so many-th; 1: in each.

    Raises:
        UsageError: a word there is not, or a number that no run can use.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: Decay = "head"
    schedule: Schedule = "cosine"
    warmup_from: float = 8e-7
    refresh_steps: int = 1

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(isinstance(beta, float) and 0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optimiser.betas={list(self.betas)} must be two numbers in [0, 1), like 0.9")
        for name in ("eps", "warmup_from"):
            _expect_number(f"optimiser.{name}", getattr(self, name))
        for name, words in (("decay", get_args(Decay)), ("schedule", get_args(Schedule))):
            if getattr(self, name) not in words:
                raise UsageError(f"optimiser.{name}={getattr(self, name)!r} is none of {', '.join(words)}")
        if self.refresh_steps < 1:
            raise UsageError(f"optimiser.refresh_steps={self.refresh_steps} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """What is mixed, and how strongly (training/mixing.py); the numbers are the published ones.

    Attributes:
        kind: "none", "pixels" (before CLIP, online only), "tokens" (cached tokens and dense frames alike), or
            "published": pixels on the online path and none with a cache, which cannot have them.
        mixup_alpha, cutmix_alpha: of the Beta distributions of λ; 0 turns that way of mixing off.
        cutmix_share: share of the steps that use CutMix, where both are on.

    Raises:
        UsageError: a kind there is not, or numbers that mix nothing.
    """

    kind: str = "none"
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    cutmix_share: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in MIXINGS:
            raise UsageError(f"mixing.kind={self.kind!r} is none of {', '.join(MIXINGS)}")
        for name in ("mixup_alpha", "cutmix_alpha"):
            _expect_number(f"mixing.{name}", getattr(self, name))
        if not 0 <= self.cutmix_share <= 1:
            raise UsageError(f"mixing.cutmix_share={self.cutmix_share} must be in [0, 1]")
        if self.kind != "none" and not (self.mixup_alpha or self.cutmix_alpha):
            raise UsageError(f"mixing.kind={self.kind} with both alphas 0 mixes nothing: use mixing.kind=none")

    def resolved(self, *, online: bool) -> Mixing:
        """The same with "published" replaced by what it means on this path."""
        return replace(self, kind="pixels" if online else "none") if self.kind == "published" else self


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        name: of the recipe.
        head: which head, and its sizes.
        optimiser, mixing: see their classes.
        clip: the image tower the cache must come from; None: any.
        dense_frames, sparse_frames: what the cache must hold per view; None: any number.
        epochs, warmup_epochs: passes over the training split; the warm-up is linear, then half a cosine to zero.
        batch_clips: clips per optimiser step over all devices together.
        learning_rate: peak of the cosine, before warm-up cuts it.
        weight_decay: of the parameters that `optimiser.decay` says.
        label_smoothing: share of the target spread over all classes.
        seed: of initialisation, order, view draws, and of what is random inside the head.
        evaluate_every_epochs: how often the validation split is scored; the last epoch always is.
        checkpoint_seconds: at most this much work is lost in a crash.

    Raises:
        UsageError: a number that no run can use.
    """

    name: str
    head: HeadConfig
    optimiser: Optimiser = field(default_factory=Optimiser)
    mixing: Mixing = field(default_factory=Mixing)
    clip: ClipShape | None = None
    dense_frames: int | None = None
    sparse_frames: int | None = None
    epochs: int = 36
    warmup_epochs: float = 6.0
    batch_clips: int = 256
    learning_rate: float = 3.2e-4
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    seed: int = 0
    evaluate_every_epochs: int = 4
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_clips", "evaluate_every_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"recipe {self.name}: {name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"recipe {self.name}: warmup_epochs={self.warmup_epochs} must be in [0, epochs={self.epochs})"
            )
        for name in ("learning_rate", "weight_decay", "checkpoint_seconds", "seed"):
            _expect_number(f"recipe {self.name}: {name}", getattr(self, name))
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"recipe {self.name}: label_smoothing={self.label_smoothing} must be in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """Every setting as a run folder keeps it, the kind of the head among them."""
        return {**asdict(self), "head": self.head.to_dict()}


def _expect_number(name: str, value: float) -> None:
    if not 0 <= value < math.inf:  # false for NaN too
        raise UsageError(f"{name}={value} must be a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One configuration and its published result.

    Attributes:
        recipe: the recipe of that configuration.
        data: data set.
        clip: image tower.
        sparse_frames, alpha: frames CLIP sees per view, and dense frames per sparse frame.
        top1, top5: percent, as printed by the authors; None: not printed.
        train_videos, val_videos: of the data set.
        views: of the published result.
        note: what else must be known.
        ours: top-1 obtained with vidxfer.
        gpu_hours: measured; None: not run.
    """

    recipe: str
    data: str
    clip: ClipShape
    sparse_frames: int
    alpha: int
    top1: float
    top5: float | None
    train_videos: int
    val_videos: int
    views: str
    note: str = ""
    ours: float | None = None
    gpu_hours: float | None = None

    @property
    def dense_frames(self) -> int:
        """Dense frames per view."""
        return self.sparse_frames * self.alpha
