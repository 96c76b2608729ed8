"""Settings of a cache as options of `vidxfer plan` and `vidxfer extract`: what a person types to have such a cache.

{"sampling.dense_frames": 8, "sampling.alpha": 1, "layers": [-1, 0]}   ─▶   --dense-frames 8 --alpha 1 --layers 0 --stem
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

OPTIONS = {
    "clip_model": "--model",
    "clip_precision": "--precision",
    "layers": "--layers",
    "codec": "--codec",
    "pool": "--pool",
    "calibration_videos": "--calibration-videos",
    "crops": "--test-crops",
    "square_pixels": "--square-pixels",
    "sampling.dense_frames": "--dense-frames",
    "sampling.alpha": "--alpha",
    "sampling.seed": "--seed",
    "sampling.rule": "--sampling",
    "frames.quality": "--frame-quality",
    "frames.subsampling": "--frame-subsampling",
    "frames.window": "--window",
    "frames.window_ends": "--window-ends",
}
"""Field of a cache's settings -> the option that says it. A field that is not here follows from others."""

STEM_LAYER = -1
"""As `STEM` of shapes.py, which loads torch; errors do not."""


def dotted(settings: Mapping[str, Any]) -> dict[str, object]:
    """Nested settings under dotted names: {"sampling": {"alpha": 2}} becomes {"sampling.alpha": 2}."""
    tables = {name: value if isinstance(value, Mapping) else {"": value} for name, value in settings.items()}
    return {f"{name}.{key}".rstrip("."): value for name, table in tables.items() for key, value in table.items()}


def spelled(settings: Mapping[str, object]) -> str:
    """The options that give these settings, as one line for a shell; "" where none of them has an option.

    Args:
        settings: dotted name of a field -> its value; None: not known, so not said.
    """
    words = []
    for name, value in settings.items():
        option = OPTIONS.get(name)
        if option is None or value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif name == "layers" and isinstance(value, list | tuple):
            blocks = [str(layer) for layer in value if layer != STEM_LAYER]
            words += [f"{option} {','.join(blocks)}"] * bool(blocks) + ["--stem"] * (STEM_LAYER in value)
        else:
            words.append(f"{option} {shlex.quote(str(value))}")
    return " ".join(words)


def spelled_side(fields: Mapping[str, tuple[object, object]], side: int) -> str:
    """The options of one side of differing fields, as ` (--codec int8)` for the middle of a sentence; "" without any.

    Args:
        fields: dotted name -> (value of the cache, value that is wanted).
        side: 0 for the values of the cache, 1 for those that are wanted.
    """
    options = spelled({name: values[side] for name, values in fields.items()})
    return f" ({options})" if options else ""
