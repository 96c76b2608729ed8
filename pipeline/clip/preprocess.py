"""What a tower expects of its pictures: mean, std, and how they are resized.

    open_clip's preprocess_cfg    open_clip's own default resizing (bicubic, shortest): as DiST's authors did
                                  anything else                                       : taken at its word
    timm's pretrained_cfg         taken at its word

Pillow smooths whatever it makes smaller, so a word of both libraries means antialias too. Views are cut by the rules of
video/views.py: a share of the picture that a library would cut out of its middle (crop_pct) is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidxfer.pipeline.clip.activation import CONFIG, MOST_CONFIG_BYTES
from vidxfer.pipeline.errors import ClipError
from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.resize import AS_DIST, Resize

PICTURE_KEYS = ("mean", "std", "interpolation", "resize_mode")
MODES = {"shortest": "shortest", "squash": "squash", "center": "shortest"}
"""open_clip's and timm's word for the mode, and ours."""


def resize_of_open_clip(preprocess: Mapping[str, Any], *, is_clip: bool) -> Resize:
    """How a tower of open_clip resizes.

    Args:
        preprocess: the visual tower's `preprocess_cfg`.
        is_clip: it is open_clip's own vision transformer.

    Raises:
        ClipError: a mode that is not known here.
    """
    word, mode = str(preprocess["interpolation"]), str(preprocess["resize_mode"])
    if is_clip and mode == "shortest" and word != "bilinear":
        return AS_DIST
    return _resize(word, mode)


def resize_of_timm(config: Mapping[str, Any]) -> Resize:
    """How a model of timm resizes, by its `pretrained_cfg`; a ClipError for a mode that is not known here."""
    return _resize(str(config.get("interpolation") or "bicubic"), str(config.get("crop_mode") or "center"))


def _resize(word: str, mode: str) -> Resize:
    if mode not in MODES:
        raise ClipError(
            f"the tower's pictures are resized by {mode!r}, with a border around them; known are shortest and squash"
        )
    chosen = "bilinear" if word == "bilinear" else "bicubic"  # both libraries take "random" as bicubic where they test
    return Resize(interpolation=chosen, antialias=True, resize_mode=MODES[mode])  # type: ignore[arg-type]  # two words


def preprocess_of_file(name: str, path: Path) -> dict[str, Any] | None:
    """What weights in a local file expect: what the config beside it says, else what all tags of their model agree on.

    open_clip itself takes CLIP's own mean and std for any file.

    Args:
        name: of the model.
        path: of the weights.

    Returns:
        None: nothing is known, or tags differ.
    """
    beside = path.parent / CONFIG
    if beside.is_file():
        config = read_json(beside, most=MOST_CONFIG_BYTES)
        settings = config.get("preprocess_cfg") if isinstance(config, dict) else None
        return {key: settings[key] for key in PICTURE_KEYS if key in settings} if isinstance(settings, dict) else None
    return preprocess_of_tags(name)


def preprocess_of_tags(name: str) -> dict[str, Any] | None:
    """What all tags of a model agree on; None: there are none, or they differ."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    said = [get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    told = [{key: config[key] for key in PICTURE_KEYS if config.get(key) is not None} for config in said]
    return told[0] if told and all(settings == told[0] for settings in told) else None
