"""What a person asks of a stage, as typed, frozen values with one default each; the command line fills them in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidxfer.pipeline.clip.load import load_tower, whole_name
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.datasets.load import layout_of, load_dataset, resolve_kind
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.metrics import Score
from vidxfer.pipeline.typed import checked
from vidxfer.stages.candidates import expect_loss
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.paths import WithPaths

VIEW_KIND = {"train": "train", "val": "test", "test": "test"}
"""Which views a split gets: random draws to train on, fixed ones to score."""

REMEMBERED = {
    "kind": str, "root": str | None, "labels": str | None, "val_fraction": float, "limit": int | None,
    "fold": int | None,
}  # fmt: skip
"""What a cache and a run remember of a data set."""


@dataclass(frozen=True, kw_only=True)
class DataSource(WithPaths):
    """Where the videos are.

    Attributes:
        kind: one of `pipeline.datasets.KINDS`, or "auto".
        root: the data set's folder.
        labels: see `load_dataset`.
        val_fraction: of data sets without splits.
        limit: at most this many videos per split.
        fold: 1, 2 or 3 of UCF101 and HMDB51; None: 1.
    """

    kind: str
    root: Path | None
    labels: Path | None = None
    val_fraction: float = 0.2
    limit: int | None = None
    fold: int | None = None

    def load(self, split: str) -> Dataset:
        """The split's videos.

        Raises:
            UsageError: no root; DatasetError: not that layout.
        """
        if self.root is None:
            raise UsageError(
                f"where is the data set ({self.kind})? Give its folder with --root, or set the variable VIDXFER_DATA. "
                f"It should hold:\n{layout_of(self.kind)}"
            )
        dataset = load_dataset(
            self.kind, self.root, split, labels=self.labels, val_fraction=self.val_fraction, fold=self.fold
        )
        return dataset if self.limit is None else dataset.take(self.limit)

    def to_dict(self) -> dict[str, Any]:
        """As it is remembered in a cache, so that training finds the videos without being told."""
        return {
            "kind": resolve_kind(self.kind, self.root, self.labels) if self.root else self.kind,
            "root": str(self.root.expanduser().absolute()) if self.root else None,
            "labels": str(self.labels.expanduser().absolute()) if self.labels else None,
            "val_fraction": self.val_fraction,
            "limit": self.limit,
            "fold": self.fold,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any], root: Path | None = None) -> DataSource:
        """The inverse of `to_dict`; `root` replaces the remembered folder (the videos have moved).

        Raises:
            UsageError: a value is missing or of another type.
        """
        try:
            typed = {name: checked(stored.get(name), kind, f"data.{name}") for name, kind in REMEMBERED.items()}
        except ValueError as error:
            raise UsageError(f"where the videos are is not said as it should be: {error}. Extract again.") from error
        stored = {**stored, **typed}
        labels = stored["labels"]
        return cls(
            kind=stored["kind"],
            root=root or (Path(stored["root"]) if stored["root"] else None),
            labels=Path(labels) if labels else None,
            val_fraction=stored["val_fraction"],
            limit=stored["limit"],
            fold=stored.get("fold"),  # caches made before there were folds
        )


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """Which tower, where and in which arithmetic; see `load_tower`."""

    model: str = "ViT-B-16-quickgelu"
    pretrained: str | None = None
    device: str = "auto"
    precision: str = "auto"
    resize: str | None = None
    activation: str | None = None

    def load(self) -> Tower:
        """The tower itself; what it raises, `load_tower` says."""
        return load_tower(**vars(self))

    def to_dict(self) -> dict[str, str | None]:
        """As it is remembered: a folder or file by its whole path, so that it is found from anywhere."""
        weights = Path(self.pretrained or "")
        pretrained = str(weights.absolute()) if weights.is_file() else self.pretrained
        how = {"resize": self.resize, "activation": self.activation}
        return {"model": whole_name(self.model), "pretrained": pretrained, **how}


@dataclass(frozen=True, kw_only=True)
class CacheChoice:
    """What to store.

    Attributes:
        dense_frames, alpha: dense frames per view, and how many of them share one sparse frame.
        bank_frames: sparse frames to store per training view, a multiple of dense_frames / alpha; each epoch draws its
            own among them (training/bank.py). None: as many as a head uses.
        layers: CLIP blocks to tap; None: all of them.
        stem: also the tokens before the first block.
        train_views: random views per training video.
        test_views, test_crops: fixed views per validation video.
        codec: as `cache/codecs/form.py` spells it: int8, float16, int4, pca64+int8 …; or "auto" (candidates.py).
        loss: most that "auto" may lose; None: `candidates.LOSS`.
        pool: side of the squares of patches that are averaged into one; 1: every patch is stored.
        seed: of the random views.
        calibration_videos: sample behind the codec's statistics; float16 has none.
        shard_videos: videos per shard; None: about 1 GB, at most 64 videos.
        flips: mirror half of the training views; None: where class names can say left and right (video/mirror.py).
        sampling: rule by which frames are taken (video/sampling.py): "segment" or a published rule.
        square_pixels: resize pictures whose pixels are not square; published: as they are stored.
        templates: prompts around class names; several are averaged. Published: the bare name.
        with_frames: also keep the dense frames of every view as JPEGs of `frame_quality` (1 to 100) and
            `frame_subsampling` ("4:4:4", "4:2:2", "4:2:0"): training then opens no video.
        window, window_ends: beside them, source frames around each sparse frame; see `FrameStore`.
    """

    dense_frames: int = 16
    alpha: int = 2
    bank_frames: int | None = None
    layers: tuple[int, ...] | None = None
    stem: bool = False
    train_views: int = 1
    test_views: int = 1
    test_crops: int = 1
    codec: str = "int8"
    pool: int = 1
    seed: int = 0
    calibration_videos: int = 64
    shard_videos: int | None = None
    templates: tuple[str, ...] = ("{}",)
    with_frames: bool = False
    frame_quality: int = 90
    frame_subsampling: str = "4:4:4"
    window: int = 0
    window_ends: str = "clamp"
    square_pixels: bool = False
    sampling: str = "segment"
    flips: bool | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        expect_loss(self.codec, self.loss)


@dataclass(frozen=True, kw_only=True)
class ExtractRequest(WithPaths):
    """What to extract, with what, and where to.

    Attributes:
        data, clip, store: see their classes.
        cache: the cache's folder.
        splits: which to extract.
        batch_frames: frames CLIP sees at once.
        decode_threads: videos decoded at the same time.
        decoder: "auto", "decord" or "pyav".
        decode_in: "processes" (what a bad video hangs or crashes is ended and named) or "threads"; see video/guard.py.
        engine: where shards are extracted.
        retry_failed: try the refused videos of finished shards again; the other videos keep their bytes.
    """

    data: DataSource
    clip: ClipChoice
    store: CacheChoice
    cache: Path
    engine: EngineChoice = field(default_factory=EngineChoice)
    retry_failed: bool = False
    splits: tuple[str, ...] = ("train", "val")
    batch_frames: int = 128
    decode_threads: int = 2
    decoder: str = "auto"
    decode_in: str = "processes"


@dataclass(frozen=True, kw_only=True)
class TrainRequest(WithPaths):
    """What to train, on which cache, and where to keep it.

    Attributes:
        more_caches: folders of further caches, read as one with `cache` under the classes of `labels_as` ("k710").
        recipe: resolved.
        cache: folder.
        run: folder.
        root: of the videos, if they have moved since extraction.
        device: "auto", "cpu", "cuda".
        devices: how many; 0: all there are (one on a CPU).
        precision: "auto" (bf16 autocast where the device has it), "fp32" or "bf16".
        decode_threads, read_threads: of the loader.
        log_every_steps: steps per line of metrics.jsonl.
        allow_incomplete: train although the extraction has not finished.
        frames_from: "auto" (dense frames from the cache, where it keeps what the head sees), "cache" or "videos".
        init_from: a run whose weights a new run begins with (a transfer, as from K710 to K400).
        online: CLIP computes the tokens of freshly drawn views in every step; cached tokens are not read.
        data, clip, store: what the online path sees, as for extraction; data None: the cache's own data set and CLIP.
    """

    recipe: Recipe
    cache: Path
    run: Path
    root: Path | None = None
    device: str = "auto"
    devices: int = 0
    precision: str = "auto"
    decode_threads: int = 2
    read_threads: int = 2
    log_every_steps: int = 1
    allow_incomplete: bool = False
    frames_from: str = "auto"
    init_from: Path | None = None
    more_caches: tuple[Path, ...] = ()
    labels_as: str | None = None
    online: bool = False
    data: DataSource | None = None
    clip: ClipChoice = field(default_factory=ClipChoice)
    store: CacheChoice = field(default_factory=CacheChoice)


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a run stands.

    Attributes:
        run: its folder.
        finished: all epochs are done.
        global_step: steps done.
        loss: mean of the last logged steps.
        score: of the validation split after the last epoch, if there is one.
        epoch_seconds: median over the epochs this process did whole, evaluation not counted; None if none was whole.
        data_wait_share: share of the training time spent waiting for data.
    """

    run: Path
    finished: bool
    global_step: int
    loss: float
    score: Score | None
    epoch_seconds: float | None
    data_wait_share: float

    def to_dict(self) -> dict[str, Any]:
        """As it is kept in the run folder."""
        return {**asdict(self), "run": str(self.run)}
