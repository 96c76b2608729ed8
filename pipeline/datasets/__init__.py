"""Which videos exist: one file per layout on disk, and the toy world.

`load_dataset` is the way in; `Dataset` is what comes out. Nothing here opens a video.
"""

from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.datasets.load import KINDS, load_dataset

__all__ = ["KINDS", "Dataset", "load_dataset"]
