"""The toy world: the label lies in the order of frames and nowhere else, and what is on disk is the real layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidxfer.pipeline.datasets import load_dataset, toy
from vidxfer.pipeline.datasets.toy import CLASSES, draw_clip
from vidxfer.pipeline.datasets.toy_write import class_of_id, write_toy
from vidxfer.pipeline.errors import DatasetError, UsageError


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("label", range(0, 8, 2))
@pytest.mark.parametrize("seed", range(5))
def test_the_classes_of_a_pair_are_the_same_frames_in_opposite_order(label: int, seed: int) -> None:
    forward, backward = draw_clip(label, generator(seed)), draw_clip(label + 1, generator(seed))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert backward.flags.c_contiguous


def test_frames_are_wide_uint8_pictures_of_varying_count() -> None:
    clips = [draw_clip(label, generator(seed, label)) for label in range(8) for seed in range(6)]
    assert {clip.shape[1:] for clip in clips} == {(72, 96, 3)}
    assert {clip.dtype for clip in clips} == {np.dtype(np.uint8)}
    counts = {len(clip) for clip in clips}
    assert min(counts) >= 18
    assert max(counts) <= 30
    assert len(counts) > 6
    assert draw_clip(0, generator(0), side_px=64).shape[1:] == (64, 86, 3)


def shape_mask(clip: np.ndarray) -> np.ndarray:
    """Where a clip differs from its own background, bool [frame height width]."""
    apart = np.abs(clip.astype(float) - np.median(clip, axis=0)).sum(axis=-1)
    return apart > 60


def centre(clip: np.ndarray, frame: int) -> tuple[float, float]:
    rows, columns = np.nonzero(shape_mask(clip)[frame])
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("seed", range(6))
def test_things_go_where_their_class_says(seed: int) -> None:
    right, up = (draw_clip(label, generator(seed, 1)) for label in (0, 2))
    assert centre(right, -1)[1] - centre(right, 0)[1] > 10
    assert centre(up, 0)[0] - centre(up, -1)[0] > 5
    radius = toy._trajectory(2, 20, 4 / 3, generator(seed))[2]
    assert radius[-1] > 1.7 * radius[0]


def test_turning_to_the_left_is_against_the_clock() -> None:
    angle = toy._trajectory(3, 20, 4 / 3, generator(0))[3]
    assert np.all(np.diff(angle) < 0)  # rows count downwards: falling angles are against the clock on the screen
    assert CLASSES[6].endswith("left")


@pytest.mark.parametrize("motion", range(4))
def test_shapes_stay_inside_the_picture(motion: int) -> None:
    for seed in range(40):
        x, y, radius, _ = toy._trajectory(motion, 24, 4 / 3, generator(seed))
        for position, size in ((x, 4 / 3), (y, 1.0)):
            assert np.all(position - radius > -1e-5)
            assert np.all(position + radius < size + 1e-5)


@pytest.mark.parametrize("shape", sorted({*toy.SHAPES, *toy.TURNABLE}))
def test_every_shape_fits_the_circle_of_its_radius(shape: str) -> None:
    rows, columns = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j].astype(np.float32)
    inside = toy._distance(shape, columns, rows) < 0
    assert inside.mean() > 0.05
    assert np.hypot(columns, rows)[inside].max() <= 1.01


@pytest.mark.parametrize("shape", toy.TURNABLE)
def test_no_rotation_hides_a_turn(shape: str) -> None:
    rows, columns = np.mgrid[-1:1:101j, -1:1:101j].astype(np.float32)
    still = toy._distance(shape, columns, rows) < 0
    for degrees in range(30, 331, 15):
        turned = (columns + 1j * rows) * np.exp(1j * np.deg2rad(degrees))
        moved = toy._distance(shape, turned.real, turned.imag) < 0
        assert (moved & still).sum() / (moved | still).sum() < 0.9, degrees


def test_where_a_thing_is_on_average_does_not_tell_the_direction() -> None:
    """A sampler that looks 3 % of the clip too early moves the mean by less than a tenth of the spread of starts."""
    middles, travels = [], []
    for seed in range(300):
        x = toy._trajectory(0, 24, 4 / 3, generator(seed))[0]
        middles.append(x.mean())
        travels.append(x[-1] - x[0])
    assert 2 * 0.03 * np.mean(travels) < 0.1 * np.ptp(middles)


def test_left_and_right_stand_in_the_names_of_mirrored_pairs() -> None:
    def swap(name: str) -> str:
        return name.replace("left", "?").replace("right", "left").replace("?", "right")

    mirrored = {label: CLASSES.index(swap(name)) for label, name in enumerate(CLASSES)}
    assert mirrored == {0: 1, 1: 0, 2: 2, 3: 3, 4: 4, 5: 5, 6: 7, 7: 6}


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="class_index must be 0 to 7, not 8"):
        draw_clip(8, generator(0))
    with pytest.raises(ValueError, match="even number of at least 32, not 33"):
        draw_clip(0, generator(0), side_px=33)


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
    world = write_toy(root, train_videos=16, val_videos=8, progress=lambda done, of: seen.append((done, of)))
    assert str(world) == f"{root}: 24 toy videos written, 0 reused"
    assert seen == [(done, 24) for done in range(1, 25)]
    train, val = load_dataset("ssv2", root, "train"), load_dataset("ssv2", root, "val")
    assert train.class_names == val.class_names == CLASSES
    assert (len(train), len(val)) == (16, 8)
    assert sorted(video.label or 0 for video in val.videos) == list(range(8))
    assert all(video.label == class_of_id(int(video.id)) for video in train.videos)
    assert train.notes == val.notes == ()
    first = json.loads((root / "labels/train.json").read_text())[0]
    assert first == {
        "id": "100001",
        "label": "moving a shape from left to right",
        "template": "Moving [something] from left to right",
        "placeholders": ["a shape"],
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
    for wrong in ({"train_videos": 0}, {"val_videos": -1}, {"seed": -1}, {"side_px": 71}):
        with pytest.raises(UsageError):
            write_toy(tmp_path / "none", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_real_videos_hold_the_drawn_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_toy(tmp_path, train_videos=8, val_videos=1, seed=3)
    for video in load_dataset("ssv2", tmp_path, "train").videos:
        drawn = draw_clip(class_of_id(int(video.id)), generator(3, int(video.id)))
        with av.open(str(video.path)) as container:
            stored = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert stored.shape == drawn.shape
        assert np.abs(stored.astype(float) - drawn).mean() < 8


def test_pixels_depend_on_seed_and_id_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder_of(name: str, **settings: int) -> dict[str, bytes]:
        def write(path: Path, frames: np.ndarray, **_: object) -> None:
            path.write_bytes(frames.tobytes())

        monkeypatch.setattr("vidxfer.pipeline.video.writer.write_video", write)
        write_toy(tmp_path / name, **settings)  # type: ignore[arg-type]
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("20bn*/*.webm")}

    small, large = folder_of("s", train_videos=2, val_videos=1), folder_of("l", train_videos=5, val_videos=3)
    other = folder_of("o", train_videos=2, val_videos=1, seed=9)
    assert all(large[name] == pixels != other[name] for name, pixels in small.items())
