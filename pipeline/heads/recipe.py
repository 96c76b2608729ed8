"""A recipe: every setting of a training run as one typed, frozen value. `replace` makes variations.

    Recipe ── head: HeadConfig      which head, and its sizes
           ── clip: ClipShape       the CLIP it is for; None: any
           ── optimiser: Optimiser  schedule of the learning rate, weight decay
           ── mixing: Mixing        how the clips of a batch are mixed
           └─ epochs, batch_clips, learning_rate …

Each family of heads defines its own recipes (`Family`). `pipeline.heads` lists all of them.
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
        model: open_clip's name. A difference is reported and never an error, because a folder may have any name.
        width: channels of a token.
        blocks: number of transformer blocks.
        patch_px: side of a patch.
        image_px: side of the picture.
        embed: width of the joint space.
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


B16 = ClipShape(model="ViT-B-16-quickgelu", width=768, blocks=12, patch_px=16, image_px=224, embed=512)
L14 = ClipShape(model="ViT-L-14-quickgelu", width=1024, blocks=24, patch_px=14, image_px=224, embed=768)
"""The two towers that papers use."""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW and the schedule of its learning rate. Papers differ in these.

    Attributes:
        betas: AdamW's betas.
        eps: AdamW's eps.
        decay: "head": weight decay acts on all parameters except those in `Head.undecayed`; "all": on every parameter.
        schedule: "cosine": half a cosine over all epochs, and the warm-up replaces its beginning;
            "cosine-after-warmup": the warm-up reaches the full rate, and half a cosine begins there.
        warmup_from: learning rate at which the linear warm-up begins.
        refresh_steps: the rate is set in the first step of an epoch and then in every `refresh_steps`-th; 1: in each.

    Raises:
        UsageError: an unknown word, or a number that no run can use.
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
    """What is mixed, and how strongly (training/mixing.py). The default numbers are the published ones.

    Attributes:
        kind: "none", "pixels" (before CLIP, online only), "tokens" (cached tokens and dense frames together), or
            "published": "pixels" on the online path, and "none" with a cache, which cannot mix pixels before CLIP.
        mixup_alpha: parameter of the Beta distribution of λ for mixup; 0 switches mixup off.
        cutmix_alpha: the same for CutMix; 0 switches CutMix off.
        cutmix_share: share of the steps that use CutMix, if both are on.

    Raises:
        UsageError: an unknown kind, or numbers that mix nothing.
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
        name: name of the recipe.
        head: which head, and its sizes.
        optimiser: see `Optimiser`.
        mixing: see `Mixing`.
        clip: the image tower that the cache must come from; None: any.
        dense_frames: dense frames that the cache must hold per view; None: any number.
        sparse_frames: sparse frames that the cache must hold per view; None: any number.
        pool: side of the squares of CLIP's patches that the head sees the mean of; None: as the cache holds them.
        epochs: passes over the training split.
        warmup_epochs: the first of these epochs, in which the learning rate grows linearly.
        batch_clips: clips per optimiser step over all devices together.
        learning_rate: peak of the cosine. The warm-up may end below it.
        weight_decay: of the parameters that `optimiser.decay` selects.
        label_smoothing: share of the target spread over all classes.
        seed: of the initialisation, the order of clips, the draws of views, and random operations inside the head.
        evaluate_every_epochs: how often the validation split is scored; the last epoch always is.
        checkpoint_seconds: at most this much work is lost in a crash.
        micro_batch: clips per forward and backward; a device's part of a batch is cut into as many of these as it
            takes, and their gradients are added. 0: the whole part at once.
        ema: share of the moving average of the weights that a step keeps; the average is scored, exported and used in
            place of the last weights. 0: no average.
        compile: the head goes through torch.compile.

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
    pool: int | None = None
    epochs: int = 36
    warmup_epochs: float = 6.0
    batch_clips: int = 256
    learning_rate: float = 3.2e-4
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    seed: int = 0
    evaluate_every_epochs: int = 4
    checkpoint_seconds: float = 300.0
    micro_batch: int = 0
    ema: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_clips", "evaluate_every_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"recipe {self.name}: {name}={getattr(self, name)} must be at least 1")
        if self.pool is not None and (type(self.pool) is not int or self.pool < 1):
            raise UsageError(f"recipe {self.name}: pool={self.pool!r} must be a whole number of at least 1, or null")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"recipe {self.name}: warmup_epochs={self.warmup_epochs} must be in [0, epochs={self.epochs})"
            )
        for name in ("learning_rate", "weight_decay", "checkpoint_seconds", "seed"):
            _expect_number(f"recipe {self.name}: {name}", getattr(self, name))
        for name in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"recipe {self.name}: {name}={getattr(self, name)} must be in [0, 1)")
        if self.micro_batch < 0:
            raise UsageError(f"recipe {self.name}: micro_batch={self.micro_batch} must be a number of clips, or 0")

    def to_dict(self) -> dict[str, Any]:
        """Every setting as a run folder stores it, the kind of the head included."""
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
        sparse_frames: frames that CLIP sees per view.
        alpha: dense frames per sparse frame.
        top1: percent, as printed by the authors.
        top5: percent, as printed by the authors; None: they printed none.
        train_videos: training videos of the data set.
        val_videos: validation videos of the data set.
        views: test views of the published result, in words.
        test_views: temporal views and crops that the release tests with.
        classes: classes of the data set; 1 for a head that scores any class names.
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
    test_views: tuple[int, int] = (3, 1)
    classes: int = 1
    note: str = ""
    ours: float | None = None
    gpu_hours: float | None = None

    @property
    def dense_frames(self) -> int:
        """Dense frames per view."""
        return self.sparse_frames * self.alpha
