"""The toy world on disk, in the layout of a real data set, so that demos walk the real road.

    ssv2    toy.part.json ──▶ labels/*.json ─────▶ 20bn-something-something-v2/<id>.webm … ──▶ toy.part.json becomes
    k400    toy.part.json ──▶ annotations/*.csv ─▶ {train,val}/<youtube id>_<start>_<end>.mp4   toy.json: all is there
    folder  toy.part.json ───────────────────────▶ {train,val}/<class>/<id>.mp4
            settings first                         kept after a kill, one by one

class_factors.json says what each class is made of. Consequence: a second call with the same settings writes only what
is missing; with other settings it is refused before a byte is written, so no folder ever holds a mixture. Pixels depend
on (design, seed, id) alone.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.datasets.factors import FACTORS_FILE, by_class
from vidxfer.pipeline.datasets.ssv2 import VIDEO_FOLDERS
from vidxfer.pipeline.datasets.toy import FPS, ToyDesign, draw_clip
from vidxfer.pipeline.errors import DatasetError, UsageError
from vidxfer.pipeline.reading import read_json
from vidxfer.pipeline.writing import make_folder, rename, write_text

DRAWING = 2
"""Raised whenever the drawing changes, so that an older folder is not taken for this one's."""

CODEC_OF_LAYOUT = {"ssv2": "libvpx-vp9", "k400": "libx264", "folder": "libx264"}
"""Layouts, and the codec that the real data set has in it."""

CRF = 12
CLIP_SECONDS = 10
"""Length that Kinetics' list gives each clip; the toy clips themselves are shorter."""
FIRST_TRAIN_ID, FIRST_VAL_ID = 100_001, 200_001
"""Ids do not depend on how many videos there are: video 100001 of seed 0 is the same in every world of one design."""

TOY_SPLITS = ("train", "val")
_MARK, _UNFINISHED = "toy.json", "toy.part.json"


@dataclass(frozen=True, kw_only=True)
class ToyWorld:
    """What `write_toy` left on disk.

    Attributes:
        root: give this to `load_dataset(layout, root, …)`.
        written, reused: number of videos encoded now, and found from an earlier call.
    """

    root: Path
    written: int
    reused: int

    def __str__(self) -> str:
        if not self.written:
            return f"{self.root}: all {self.reused} toy videos are there already"
        return f"{self.root}: {self.written} toy videos written, {self.reused} reused"


def write_toy(
    root: Path,
    *,
    layout: str = "ssv2",
    train_videos: int = 320,
    val_videos: int = 80,
    seed: int = 0,
    design: ToyDesign | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ToyWorld:
    """Write the toy world, or what is missing of it.

    Args:
        root: folder of its own; made if it is not there.
        layout: "ssv2" (VP9 in webm), "k400" or "folder" (h264 in mp4). The pictures are the same.
        train_videos, val_videos: per split, spread evenly over the classes.
        seed: of the drawing.
        design: appearances, difficulty, size of the frames, barcodes.
        progress: called with (videos done, videos in all) after each video, from the calling thread.

    Raises:
        UsageError: an unknown layout, or a count below 1.
        DatasetError: the folder holds a toy world of other settings, or another data set.
    """
    design = design or ToyDesign()
    if layout not in CODEC_OF_LAYOUT:
        raise UsageError(f"unknown layout {layout!r} of the toy world. Known: {', '.join(CODEC_OF_LAYOUT)}.")
    if min(train_videos, val_videos) < 1:
        raise UsageError(f"a toy world needs videos in both splits, not {train_videos} and {val_videos}")
    if seed < 0:
        raise UsageError(f"a seed must be at least 0, not {seed}")
    chosen = {name: value for name, value in asdict(design).items() if name != "things"}
    counts = {"train_videos": train_videos, "val_videos": val_videos}
    settings = {"format": DRAWING, "layout": layout, "seed": seed, **counts, **chosen, "crf": CRF}
    ids = {
        "train": range(FIRST_TRAIN_ID, FIRST_TRAIN_ID + train_videos),
        "val": range(FIRST_VAL_ID, FIRST_VAL_ID + val_videos),
    }
    _claim(root, settings)
    _write_json(root / FACTORS_FILE, by_class(design.factors, design.class_names))
    if layout == "ssv2":
        _write_labels(root / "labels", ids, design)
    elif layout == "k400":
        _write_lists(root / "annotations", ids, design)
    paths = {id_: root / _file_of(layout, split, id_, design) for split in ids for id_ in ids[split]}
    world = _write_videos(root, paths, seed, design, progress)
    if (root / _UNFINISHED).exists():
        rename(root / _UNFINISHED, root / _MARK)
    return world


def class_of_id(id_: int, design: ToyDesign | None = None) -> int:
    """Classes take turns, so every count is spread evenly."""
    return (id_ - 1) % len((design or ToyDesign()).class_names)


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Make the folder this world's, or refuse it."""
    for mark in (root / _MARK, root / _UNFINISHED):
        if mark.is_file():
            stored = _settings_in(mark)
            other = [
                f"  {key}: the folder has {stored.get(key)!r}, asked for {value!r}"
                for key, value in settings.items()
                if stored.get(key) != value
            ]
            if other:
                raise DatasetError(
                    f"{root}: holds a toy world of other settings:\n" + "\n".join(other) + "\n"
                    "Write into another folder, or delete this one."
                )
            return
    taken = [name for name in ("labels", *VIDEO_FOLDERS[:-1], "annotations", *TOY_SPLITS) if (root / name).exists()]
    if taken:
        raise DatasetError(f"{root}: holds {', '.join(taken)} that no toy world wrote; write into another folder")
    make_folder(root)
    _write_json(root / _UNFINISHED, settings)


def _settings_in(mark: Path) -> dict[str, Any]:
    try:
        stored = read_json(mark, most=1 << 20, error=DatasetError)
    except ValueError as error:
        raise DatasetError(f"{mark}: not JSON: {error}. Delete the folder and write the toy world anew.") from error
    return stored if isinstance(stored, dict) else {}


def _write_labels(folder: Path, ids: dict[str, range], design: ToyDesign) -> None:
    make_folder(folder, below=folder.parent)
    _write_json(folder / "labels.json", {name: str(label) for label, name in enumerate(design.class_names)})
    for split, stem in zip(TOY_SPLITS, ("train", "validation"), strict=True):
        _write_json(folder / f"{stem}.json", [_entry(id_, design) for id_ in ids[split]])


def _write_lists(folder: Path, ids: dict[str, range], design: ToyDesign) -> None:
    make_folder(folder, below=folder.parent)
    for split, ids_of_split in ids.items():
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("label", "youtube_id", "time_start", "time_end", "split", "is_cc"))
        for id_ in ids_of_split:
            youtube_id, start = clip_of_id(id_)
            word = {"val": "validate"}.get(split, split)
            name = design.class_names[class_of_id(id_, design)]
            rows.writerow((name, youtube_id, start, start + CLIP_SECONDS, word, 0))
        write_text(folder / f"{split}.csv", text.getvalue())


def clip_of_id(id_: int) -> tuple[str, int]:
    """What Kinetics would call a clip: eleven letters like YouTube's, and the second it starts at.

    Every fifth begins with -, every seventh holds _, and every eighth is cut from the same video as the one before it.
    """
    source = id_ - (id_ % 8 == 0)
    letters = base64.urlsafe_b64encode(hashlib.sha256(f"toy world {source}".encode()).digest()).decode()[:11]
    letters = "-" + letters[1:] if source % 5 == 0 else letters
    letters = letters[:4] + "_" + letters[5:] if source % 7 == 0 else letters
    return letters, source % 300 + (id_ - source) * CLIP_SECONDS


def _file_of(layout: str, split: str, id_: int, design: ToyDesign) -> str:
    """Path of a video below the root."""
    if layout == "ssv2":
        return f"{VIDEO_FOLDERS[0]}/{id_}.webm"
    if layout == "folder":
        return f"{split}/{design.class_names[class_of_id(id_, design)]}/{id_}.mp4"
    youtube_id, start = clip_of_id(id_)
    return f"{split}/{youtube_id}_{start:06d}_{start + CLIP_SECONDS:06d}.mp4"


def _entry(id_: int, design: ToyDesign) -> dict[str, Any]:
    label = class_of_id(id_, design)
    template = design.templates[label]
    return {
        "id": str(id_),
        "label": design.class_names[label].lower(),
        "template": template,
        "placeholders": [template[template.index("[") + 1 : template.index("]")]],
    }


def _write_videos(
    root: Path, paths: dict[int, Path], seed: int, design: ToyDesign, progress: Callable[[int, int], None] | None
) -> ToyWorld:
    for folder in {path.parent for path in paths.values()}:
        make_folder(folder, below=root)
    missing = [id_ for id_, path in paths.items() if not path.is_file()]
    reused = len(paths) - len(missing)
    if progress is not None and reused:
        progress(reused, len(paths))
    with ThreadPoolExecutor(2) as pool:  # the encoder lets go of the interpreter lock
        tasks = [pool.submit(_write_video, paths[id_], id_, seed, design) for id_ in missing]
        try:
            for done, task in enumerate(as_completed(tasks), start=reused + 1):
                task.result()
                if progress is not None:
                    progress(done, len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return ToyWorld(root=root, written=len(missing), reused=reused)


def _write_video(path: Path, id_: int, seed: int, design: ToyDesign) -> None:
    from vidxfer.pipeline.video.writer import write_video  # here, because it loads PyAV

    clip = draw_clip(class_of_id(id_, design), np.random.default_rng([seed, id_]), design)
    codec = CODEC_OF_LAYOUT["ssv2" if path.suffix == ".webm" else "k400"]
    write_video(path, clip, fps=FPS, codec=codec, crf=CRF)


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
