"""Which image towers of open_clip are not supported, why, and which one to take instead.

vision configuration ─▶ why_not ─▶ None, or a reason   (nothing is built)      ─▶ Refusal ─▶ ClipError
a model that is there ─▶ why_not_model ─▶ the same, of what was built          ┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidxfer.pipeline.clip.trunk import LIKE_VIT, why_no_file, why_no_trunk
from vidxfer.pipeline.errors import ClipError


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A tower that does not work.

    Attributes:
        model: its name.
        reason: why, in a line: its group, a colon, and a sentence.
        nearest: one that works and is most like it, as --model takes it.
    """

    model: str
    reason: str
    nearest: str

    @property
    def group(self) -> str:
        """What it is refused for, in a word or two: "convolutional trunk"."""
        return self.reason.partition(":")[0]

    def error(self) -> ClipError:
        """It as an error."""
        return ClipError(
            f"--model {self.model} is not supported: {self.reason}. Nearest that works: --model {self.nearest}"
        )


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why a configuration of open_clip is refused, before anything is built; None: nothing speaks against it."""
    vision = config.get("vision_cfg", {})
    if "multimodal_cfg" in config:
        return "CoCa: its encoders normalise what they say, and its text tower is half a decoder"
    if name := vision.get("timm_model_name"):
        return why_not_name(str(name).partition(".")[0])
    if isinstance(vision.get("layers"), list | tuple):
        return "convolutional trunk: ModifiedResNet has no tokens"
    if vision.get("attentional_pool"):
        return "attention pooling: that of open_clip was made for CoCa"
    size = vision.get("image_size", 224)
    if isinstance(size, list | tuple) and size[0] != size[1]:
        return f"not square: it sees pictures of {size[0]} x {size[1]} px (height x width), and views are square"
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        return f"no embedding: pool_type={vision['pool_type']!r} hands on all tokens"
    return None


def why_not_model(model: Any) -> str | None:
    """Why a built model of open_clip is refused; None: its taps are known."""
    from open_clip import CoCa

    return why_not({"multimodal_cfg": {}}) if isinstance(model, CoCa) else why_no_visual(model.visual)


def why_no_visual(visual: Any) -> str | None:
    """The same of its image tower alone."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, TimmModel):
        return why_no_trunk(visual.trunk)
    if not isinstance(visual, VisionTransformer):
        return why_not({"vision_cfg": {"layers": ()}})
    pooling = "" if visual.attn_pool is None else "attention"
    return why_not(
        {"vision_cfg": {"attentional_pool": pooling, "image_size": visual.image_size, "pool_type": visual.pool_type}}
    )


def why_not_name(name: str) -> str | None:
    """Why an architecture of timm is refused, by the file that it stands in."""
    import timm
    from timm.models import is_model_in_modules

    if not timm.is_model(name):
        return f"unknown: timm {timm.__version__} has no architecture {name!r}"
    if is_model_in_modules(name, LIKE_VIT):
        return None
    file = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    return why_no_file(file, name)


NEAREST = (
    (("coca_ViT-L", "L-14", "large", "xlarge", "xxlarge", "RN50x64", "xl"), "ViT-L-14"),
    (("coca_ViT-B-32", "coca_roberta", "RN50", "RN101", "tiny", "small"), "ViT-B-32"),
)
"""Parts of names, and a plain CLIP of about that size."""


def nearest(name: str) -> str:
    """A tower that works and is most like the one of that name.

    Args:
        name: as --model takes it.
    """
    if "MobileCLIP" in name or "fastvit_mci" in name:
        return "MobileCLIP2-B" if "2" in name.partition("-")[0] else "MobileCLIP-B"
    if name.startswith("timm:"):
        return "timm:vit_base_patch16_dinov3" if "siglip" not in name else "timm:vit_base_patch16_siglip_224"
    plain = next((model for parts, model in NEAREST if any(part in name for part in parts)), "ViT-B-16")
    return plain + "-quickgelu" * name.startswith("RN")
