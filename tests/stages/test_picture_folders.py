"""Folders of pictures through extraction and training: the tokens of the same video as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.video.reader import open_video
from vidxfer.stages.extract import extract


@pytest.fixture
def root(toy: Any, tmp_path: Path) -> Path:
    """One class of two training videos as PNG folders, one of them a part of a longer folder, listed with offsets."""
    from PIL import Image

    lines = []
    for number, video in enumerate(sorted(toy.videos.iterdir())[:2]):
        with open_video(video) as source:
            pixels = source.read(range(source.frame_count)).pixels
        folder = tmp_path / "frames" / f"v{number}"
        folder.mkdir(parents=True)
        before = [pixels[-1]] * (3 * number)
        for place, picture in enumerate([*before, *pixels]):
            Image.fromarray(picture).save(folder / f"img_{place + 1:05d}.png")
        lines.append(f"v{number} {3 * number} {len(pixels)} 0\n")
    (tmp_path / "frames/train.txt").write_text("".join(lines))
    return tmp_path / "frames"


def test_pictures_give_the_tokens_of_their_video(root: Path, toy: Any, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    lines = []
    for number, video in enumerate(sorted(toy.videos.iterdir())[:2]):
        (files / f"v{number}.webm").write_bytes(video.read_bytes())
        with open_video(video) as source:
            lines.append(
                f"v{number}.webm,0,v{number}@{3 * number}+{source.frame_count}\n"
            )  # the same ids: the same views
    (files / "train.csv").write_text("path,label,id\n" + "".join(lines))
    found = []
    for name, data in (("a", root), ("b", files)):
        request = toy.request(
            tmp_path / name, root=data, kind="csv", codec="float16", decode_in="threads", splits=("train",)
        )
        (report,) = extract(request)
        assert report.stored == 2
        assert report.failed == {}
        with CacheReader(open_split(tmp_path / name, "train")) as reader:
            found.append(reader.read([0, 1], [1, 0]).codes.float().numpy())
            assert [view.indices for view in reader.views_of(1)]
    np.testing.assert_array_equal(found[0], found[1])
