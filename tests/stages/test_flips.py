"""Views are mirrored where class names can say left and right; where classes are numbers, only if that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.tower import TowerInfo
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.mirror import say_sides
from vidxfer.pipeline.video.sampling import Sampling
from vidxfer.pipeline.video.views import train_view
from vidxfer.stages.describe import describe_split, notes_of_spec
from vidxfer.stages.extract import extract
from vidxfer.stages.settings import CacheChoice, DataSource

TOWER = TowerInfo(
    model="x", weights_sha256="0" * 64, precision="fp32", channels=64, tokens=17, embed=32, blocks=3, image_px=32,
    pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5), logit_scale=1.0,
)  # fmt: skip


def dataset_of(names: tuple[str, ...], split: str = "train") -> Dataset:
    videos = tuple(
        Video(id=str(at), path=Path(f"/v/{at}.mp4"), label=at % len(names), split=split) for at in range(len(names))
    )
    return Dataset(name="csv", root=Path("/v"), split=split, videos=videos, class_names=names)


@pytest.mark.parametrize(
    ("names", "say"),
    [
        (("0", "1", "2"), False),
        (("007", "1.0", "-3"), False),
        ((), False),
        (("0", "left"), True),
        (("class 0", "class 1"), True),
        (("从左到右", "1"), True),
        (("Turning left", "Turning right"), True),
    ],
)
def test_numbers_say_no_sides(names: tuple[str, ...], say: bool) -> None:
    assert say_sides(names) == say


@pytest.mark.parametrize(
    ("names", "flips", "share"),
    [
        (("0", "1"), None, 0.0),
        (("0", "1"), True, 0.5),
        (("0", "1"), False, 0.0),
        (("open", "close"), None, 0.5),
        (("open", "close"), False, 0.0),
        (("open", "close"), True, 0.5),
    ],
)
def test_flips_follow_the_names_unless_asked_for(names: tuple[str, ...], flips: bool | None, share: float) -> None:
    choice = CacheChoice(flips=flips)
    spec = describe_split(choice, TOWER, dataset_of(names))
    assert spec.sampling.flip_probability == share
    told = [note for note in notes_of_spec(spec, choice) if "--flips" in note]
    assert len(told) == (flips is None and share == 0.0)
    assert notes_of_spec(describe_split(choice, TOWER, dataset_of(names, "val")), choice) == (), "said once"


def test_views_of_named_classes_are_those_of_before_and_without_flips_only_the_flip_differs() -> None:
    import numpy as np

    named = describe_split(CacheChoice(), TOWER, dataset_of(("open", "close"))).sampling
    assert named == Sampling(dense_frames=16, alpha=2, image_px=32)
    numbers = describe_split(CacheChoice(), TOWER, dataset_of(("0", "1"))).sampling
    mirrored = 0
    for seed in range(40):
        one, other = (
            train_view(50, 60, 80, sampling=sampling, rng=np.random.default_rng(seed)) for sampling in (named, numbers)
        )
        assert replace(one, flip=False) == other
        mirrored += one.flip
    assert 10 < mirrored < 30


def test_numbers_are_extracted_unmirrored_and_an_older_cache_names_the_option(
    toy: Any, invoke: Any, tmp_path: Path
) -> None:
    files = sorted(toy.videos.glob("*.webm"))[:4]
    (tmp_path / "list.csv").write_text(
        "path,label,split\n"
        + "".join(f"{file},{at % 2},{'val' if at == 3 else 'train'}\n" for at, file in enumerate(files))
    )
    (tmp_path / "list.csv").write_text((tmp_path / "list.csv").read_text().replace(f"{toy.videos}/", ""))
    data = DataSource(kind="csv", root=toy.videos, labels=tmp_path / "list.csv")
    request = replace(toy.request(tmp_path / "zarr", train_views=8, splits=("train",)), data=data)
    (report,) = extract(request)
    assert report.stored == 3
    split = open_split(tmp_path / "zarr", "train")
    assert (split.class_names, split.spec.sampling.flip_probability) == (("0", "1"), 0.0)
    import zarr

    assert not zarr.open_group(split.path, mode="r")["flip"][:].any()
    asked = replace(request, cache=tmp_path / "mirrored", store=replace(request.store, flips=True))
    extract(asked)
    assert zarr.open_group(tmp_path / "mirrored/train", mode="r")["flip"][:].any()
    with pytest.raises(
        CacheMismatch, match=r"flip_probability: cache has 0\.5, run needs 0\.0(.|\n)*--flips is the cache's"
    ):
        extract(replace(asked, store=request.store))  # as a cache of before would be gone on with
    extract(asked)
    words = ["--dataset", "csv", "--root", toy.videos, "--labels", tmp_path / "list.csv", "--model", toy.clip]
    for option, noted in (("--flips", False), ("--no-flips", False), (None, True)):
        done = invoke("plan", *words, *([option] if option else []), "--no-measure", "--cache", tmp_path / "plan")
        assert done.exit_code == 0, done.stderr
        assert ("views are not mirrored" in " ".join(done.stdout.split())) == noted
