"""vidxfer as a library: the names of `__all__`; everything else may move. docs/python.md shows how they are used.

    import vidxfer           loads nothing but this file
    vidxfer.train            loads what it needs, torch too, when it is first asked for

A function prints nothing: give it a `progress`, as `vidxfer.Lines(print)`. What is raised on purpose is a VidxferError.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidxfer.pipeline.errors import (
        CacheBusy,
        CacheCorrupt,
        CacheError,
        CacheFull,
        CacheIncomplete,
        CacheMismatch,
        ClipError,
        ClusterError,
        DatasetError,
        PathError,
        RunError,
        Stopped,
        UnforeseenError,
        UsageError,
        VideoError,
        VideoReason,
        VidxferError,
        WeightsError,
    )
    from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
    from vidxfer.pipeline.heads.recipe import Mixing, Optimiser, Recipe
    from vidxfer.pipeline.shapes import ClipBatch, View
    from vidxfer.pipeline.training.metrics import Score
    from vidxfer.pipeline.training.own_heads import add_head
    from vidxfer.pipeline.training.recipes import recipe
    from vidxfer.stages.extract import SplitReport, extract
    from vidxfer.stages.learning.evaluate import EvaluateReport, EvaluateRequest, evaluate
    from vidxfer.stages.learning.predict import Prediction, TrainedRun, load_run
    from vidxfer.stages.learning.train import train
    from vidxfer.stages.library.clips import CachedClips
    from vidxfer.stages.library.opened import OpenSplit, open_cache
    from vidxfer.stages.progress import Lines, Progress
    from vidxfer.stages.settings import (
        CacheChoice,
        ClipChoice,
        DataSource,
        ExtractRequest,
        TrainReport,
        TrainRequest,
    )

__all__ = [
    "CacheBusy", "CacheChoice", "CacheCorrupt", "CacheError", "CacheFull", "CacheIncomplete", "CacheMismatch",
    "CachedClips", "ClipBatch", "ClipChoice", "ClipError", "ClusterError", "DataSource", "DatasetError",
    "EvaluateReport", "EvaluateRequest", "ExtractRequest", "Head", "HeadConfig", "Lines", "Mixing", "Needs",
    "Offer", "OpenSplit", "Optimiser", "PathError", "Prediction", "Progress", "Recipe", "RunError", "Score",
    "SplitReport", "Stopped", "TrainReport", "TrainRequest", "TrainedRun", "UnforeseenError", "UsageError",
    "VideoError",
    "VideoReason", "VidxferError", "View", "WeightsError", "add_head", "evaluate", "extract", "load_run",
    "open_cache", "recipe", "train",
]  # fmt: skip

_FROM = {
    "vidxfer.pipeline.errors": (
        "CacheBusy", "CacheCorrupt", "CacheError", "CacheFull", "CacheIncomplete", "CacheMismatch", "ClipError",
        "ClusterError", "DatasetError", "PathError", "RunError", "Stopped", "UnforeseenError", "UsageError",
        "VideoError",
        "VideoReason", "VidxferError", "WeightsError",
    ),
    "vidxfer.pipeline.heads.base": ("Head", "HeadConfig", "Needs", "Offer"),
    "vidxfer.pipeline.heads.recipe": ("Mixing", "Optimiser", "Recipe"),
    "vidxfer.pipeline.shapes": ("ClipBatch", "View"),
    "vidxfer.pipeline.training.metrics": ("Score",),
    "vidxfer.pipeline.training.own_heads": ("add_head",),
    "vidxfer.pipeline.training.recipes": ("recipe",),
    "vidxfer.stages.extract": ("SplitReport", "extract"),
    "vidxfer.stages.learning.evaluate": ("EvaluateReport", "EvaluateRequest", "evaluate"),
    "vidxfer.stages.learning.predict": ("Prediction", "TrainedRun", "load_run"),
    "vidxfer.stages.learning.train": ("train",),
    "vidxfer.stages.library.clips": ("CachedClips",),
    "vidxfer.stages.library.opened": ("OpenSplit", "open_cache"),
    "vidxfer.stages.progress": ("Lines", "Progress"),
    "vidxfer.stages.settings": (
        "CacheChoice", "ClipChoice", "DataSource", "ExtractRequest", "TrainReport", "TrainRequest",
    ),
}  # fmt: skip
"""Module -> what is taken from it; the same as above, for the program."""

_WHERE = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'vidxfer' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
