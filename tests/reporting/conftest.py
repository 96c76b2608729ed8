"""Pages of a small world whose class names come from a stranger, made once for the tests of this folder."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.extract import ExtractRequest, extract
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.reporting.report import PageMade, ReportRequest, report
from vidxfer.stages.reporting.view import ViewRequest, view
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource

SCRIPT = "</script><script>document.title='taken'</script>"
NAMES = (
    SCRIPT,
    "\"><img src=x onerror=\"document.title='taken'\"> & 'quotes'",
    "left\u202egnp.evil\u2066 to \u200fright",
    "x" * 10_000,
    "{{ 7 * 7 }}{% raw %}$\\frac{1}{2}$",
    "\u05dc\u05e4\u05ea\u05d5\u05d7 \u062d\u0631\u0643\u0629 \u52a8\u4f5c",
)
"""Class names that a page must show and not obey."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What was made.

    Attributes:
        cache, runs, root: of a world of 12 training and 12 validation videos; two probes.
        names: of the classes.
        report, view: pages. made: what the stage said of the report.
    """

    cache: Path
    runs: tuple[Path, ...]
    names: tuple[str, ...]
    root: Path
    report: Path
    view: Path
    made: PageMade


@pytest.fixture(scope="session")
def pages(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("pages")
    root, cache = folder / "world", folder / "zarr"
    root.mkdir()
    files = sorted(toy.videos.glob("*.webm"))
    for split, some in (("train", files[:12]), ("val", files[12:24])):
        with (root / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "label"])
            for number, file in enumerate(some):
                shutil.copyfile(file, root / f"{split} {number} <b>&amp;.webm")
                writer.writerow([f"{split} {number} <b>&amp;.webm", NAMES[number % len(NAMES)]])
    data = DataSource(kind="csv", root=root)
    store = CacheChoice(dense_frames=8, shard_videos=6, with_frames=True, codec="float16")
    extract(ExtractRequest(data=data, clip=ClipChoice(model=str(toy.clip)), store=store, cache=cache, batch_frames=32))
    runs = tuple(folder / f"run <i>{seed}</i>" for seed in range(2))
    for seed, run in enumerate(runs):
        recipe = with_settings(named("probe"), ["epochs=2", "warmup_epochs=0", "batch_clips=6", f"seed={seed}"])
        train(TrainRequest(recipe=recipe, cache=cache, run=run, device="cpu"))
    made = report(ReportRequest(runs=runs, cache=cache, out=folder / "report.html", plots=folder / "plots"))
    view(ViewRequest(cache=cache, out=folder / "view.html", videos=12, codec="int4", device="cpu"))
    shown = {"report": folder / "report.html", "view": folder / "view.html"}
    return Pages(cache=cache, runs=runs, names=NAMES, root=root, made=made, **shown)
