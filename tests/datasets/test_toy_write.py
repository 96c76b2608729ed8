"""The toy world on disk: every layout is read back as what was drawn, and no folder ever holds a mixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.toy import ToyDesign, draw_clip
from vidxfer.pipeline.datasets.toy_write import class_of_id, write_toy
from vidxfer.pipeline.errors import DatasetError, UsageError

ONE = ToyDesign(appearances=1)
"""Eight classes: one thing, and all it can do."""


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def any_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the encoder where nothing but the files' names matters."""
    monkeypatch.setattr("vidxfer.pipeline.video.writer.write_video", lambda path, frames, **_: path.write_bytes(b"0"))


@pytest.fixture
def fake_encoder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands for the encoder: one byte per frame. Returns the ids written, in order."""
    written: list[int] = []

    def write(path: Path, frames: np.ndarray, *, fps: float, codec: str, crf: int) -> None:
        assert (fps, codec) == (12.0, "libvpx-vp9")
        path.write_bytes(bytes(len(frames)))
        written.append(int(path.stem))

    monkeypatch.setattr("vidxfer.pipeline.video.writer.write_video", write)
    return written


def test_what_is_written_is_read_as_something_something_v2(tmp_path: Path, fake_encoder: list[int]) -> None:
    root = tmp_path / "new" / "toy"
    seen: list[tuple[int, int]] = []
    world = write_toy(root, train_videos=16, val_videos=8, design=ONE, progress=lambda *done: seen.append(done))
    assert str(world) == f"{root}: 24 toy videos written, 0 reused"
    assert seen == [(done, 24) for done in range(1, 25)]
    train, val = load_dataset("ssv2", root, "train"), load_dataset("ssv2", root, "val")
    assert train.class_names == val.class_names == ONE.class_names
    assert train.factors == val.factors == ONE.factors
    assert (len(train), len(val)) == (16, 8)
    assert sorted(video.label or 0 for video in val.videos) == list(range(8))
    assert all(video.label == class_of_id(int(video.id), ONE) for video in train.videos)
    assert train.notes == val.notes == ()
    first = json.loads((root / "labels/train.json").read_text())[0]
    assert first == {
        "id": "100001",
        "label": "moving right with a red triangle",
        "template": "Moving right with [a red triangle]",
        "placeholders": ["a red triangle"],
    }


def test_a_second_call_reuses_everything_and_a_hole_is_filled(tmp_path: Path, fake_encoder: list[int]) -> None:
    write_toy(tmp_path, train_videos=8, val_videos=8)
    fake_encoder.clear()
    again = write_toy(tmp_path, train_videos=8, val_videos=8)
    assert (again.written, again.reused, fake_encoder) == (0, 16, [])
    assert str(again) == f"{tmp_path}: all 16 toy videos are there already"
    (tmp_path / "20bn-something-something-v2/100003.webm").unlink()
    write_toy(tmp_path, train_videos=8, val_videos=8)
    assert fake_encoder == [100003]


def test_other_settings_are_refused_before_anything_is_written(tmp_path: Path, fake_encoder: list[int]) -> None:
    write_toy(tmp_path, train_videos=8, val_videos=8)
    with pytest.raises(
        DatasetError, match=r"(?s)other settings:\n  seed: the folder has 0, asked for 1\nWrite into another"
    ):
        write_toy(tmp_path, train_videos=8, val_videos=8, seed=1)
    assert len(fake_encoder) == 16


def test_after_a_kill_finished_videos_are_kept_and_settings_still_hold(
    tmp_path: Path, fake_encoder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_toy(tmp_path, train_videos=32, val_videos=8, progress=stop)
    assert not (tmp_path / "toy.json").exists()
    kept = len(fake_encoder)
    assert 5 <= kept < 40
    with pytest.raises(DatasetError, match="train_videos: the folder has 32, asked for 8"):
        write_toy(tmp_path, train_videos=8, val_videos=8)
    world = write_toy(tmp_path, train_videos=32, val_videos=8)
    assert (world.written, world.reused) == (40 - kept, kept)
    assert (tmp_path / "toy.json").exists()


def test_a_foreign_data_set_is_never_written_into(tmp_path: Path, fake_encoder: list[int]) -> None:
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match="holds labels that no toy world wrote"):
        write_toy(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "labels"]


def test_a_world_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for wrong in ({"train_videos": 0}, {"val_videos": -1}, {"seed": -1}, {"layout": "k600"}):
        with pytest.raises(UsageError):
            write_toy(tmp_path / "none", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("layout", ["ssv2", "k400", "folder"])
def test_real_videos_hold_the_drawn_frames_in_every_layout(layout: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_toy(tmp_path, layout=layout, train_videos=8, val_videos=1, seed=3, design=ONE)
    train = load_dataset(layout, tmp_path, "train")
    assert set(train.class_names) >= {ONE.class_names[0]}
    drawn = {name: draw_clip(label, generator(3, 100_001 + label), ONE) for label, name in enumerate(ONE.class_names)}
    for video in train.videos:
        with av.open(str(video.path)) as container:
            stored = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        expected = drawn[train.class_names[video.label or 0]]
        assert stored.shape == expected.shape
        assert np.abs(stored.astype(float) - expected).mean() < 10


@pytest.mark.parametrize("layout", ["ssv2", "k400", "folder"])
def test_every_layout_carries_the_factors(layout: str, tmp_path: Path, any_encoder: None) -> None:
    design = ToyDesign(appearances=4)
    write_toy(tmp_path, layout=layout, train_videos=64, val_videos=32, design=design)
    of_name = dict(zip(design.class_names, zip(*design.factors.values(), strict=True), strict=True))
    for split, count in (("train", 64), ("val", 32)):
        found = load_dataset(layout, tmp_path, split)
        assert len(found) == count
        assert tuple(zip(*found.factors.values(), strict=True)) == tuple(of_name[name] for name in found.class_names)


def test_pixels_depend_on_design_seed_and_id_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder_of(name: str, **settings: Any) -> dict[str, bytes]:
        def write(path: Path, frames: np.ndarray, **_: object) -> None:
            path.write_bytes(frames.tobytes())

        monkeypatch.setattr("vidxfer.pipeline.video.writer.write_video", write)
        write_toy(tmp_path / name, **settings)
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("20bn*/*.webm")}

    small, large = folder_of("s", train_videos=2, val_videos=1), folder_of("l", train_videos=5, val_videos=3)
    other = folder_of("o", train_videos=2, val_videos=1, seed=9)
    hard = folder_of("h", train_videos=2, val_videos=1, design=ToyDesign(difficulty="hard"))
    assert all(large[name] == pixels != other[name] != hard[name] for name, pixels in small.items())
