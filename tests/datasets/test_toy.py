"""The toy world: what a thing does lies in the order of frames and nowhere else, and on disk it is the real layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidxfer.pipeline.datasets import toy
from vidxfer.pipeline.datasets.toy import MOTIONS, ToyDesign, draw_clip, trajectory
from vidxfer.pipeline.datasets.toy_shapes import COLOURS, DIFFICULTIES, SHAPES, appearance, outline

ONE = ToyDesign(appearances=1)
"""Eight classes: one thing, and all it can do."""


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("pair", range(4))
def test_the_motions_of_a_pair_are_the_same_frames_in_opposite_order(pair: int, difficulty: str) -> None:
    design = ToyDesign(difficulty=difficulty)
    for thing in range(4):
        label = 8 * thing + 2 * pair
        forward, backward = (draw_clip(one, generator(3, thing), design) for one in (label, label + 1))
        np.testing.assert_array_equal(forward, backward[::-1])
        assert backward.flags.c_contiguous
        assert not np.array_equal(forward, backward)


def test_frames_are_wide_uint8_pictures_of_varying_count() -> None:
    clips = [draw_clip(label, generator(seed, label), ONE) for label in range(8) for seed in range(6)]
    assert {clip.shape[1:] for clip in clips} == {(64, 86, 3)}
    assert {clip.dtype for clip in clips} == {np.dtype(np.uint8)}
    counts = {len(clip) for clip in clips}
    assert min(counts) >= 18
    assert max(counts) <= 30
    assert len(counts) > 6
    assert draw_clip(0, generator(0), ToyDesign(side_px=72)).shape[1:] == (72, 96, 3)


def test_classes_are_every_thing_with_every_motion() -> None:
    design = ToyDesign(appearances=4)
    assert len(set(design.class_names)) == len(design.class_names) == 32
    assert design.class_names[:2] == ("Moving right with a red triangle", "Moving left with a red triangle")
    assert design.templates[30] == "Turning left with [a green cross]"
    assert design.factors["appearance"][7:9] == ("red triangle", "red cross")
    assert design.factors["motion"] == tuple(MOTIONS) * 4


@pytest.mark.parametrize("side", [2, 3, 6])
def test_the_first_square_of_appearances_is_all_pairs_of_colours_and_shapes(side: int) -> None:
    things = {appearance(number) for number in range(side * side)}
    assert things == {(colour, shape) for colour in tuple(COLOURS)[:side] for shape in SHAPES[:side]}


def centre(clip: np.ndarray, frame: int) -> tuple[float, float]:
    """Middle of what is redder than it is green."""
    rows, columns = np.nonzero(clip[frame, ..., 0].astype(int) - clip[frame, ..., 1] > 90)
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("seed", range(6))
def test_things_go_where_their_class_says(seed: int) -> None:
    easy = ToyDesign(appearances=1, difficulty="easy")
    right, up = (draw_clip(label, generator(seed, 1), easy) for label in (0, 2))
    assert centre(right, -1)[1] - centre(right, 0)[1] > 6
    assert centre(up, 0)[0] - centre(up, -1)[0] > 6
    radius = trajectory(2, 20, 4 / 3, DIFFICULTIES["easy"], generator(seed))[:, 2]
    assert radius[-1] > 1.7 * radius[0]


def test_turning_to_the_left_is_against_the_clock() -> None:
    """Angles count clockwise on the screen: what was at the right of the middle goes up when they fall."""
    angle = trajectory(3, 20, 4 / 3, DIFFICULTIES["medium"], generator(0))[:, 3]
    assert np.all(np.diff(angle) < 0)
    assert tuple(MOTIONS)[6] == "turning to the left"
    handle = [toy.paint(np.zeros((64, 64, 3), np.float32), "hammer", np.full(3, 255.0, np.float32), (0.5, 0.5, 0.4, a))
              for a in (0.0, -0.6)]  # fmt: skip
    head_of = [np.argwhere(picture[:, 40:, 0] > 127)[:, 0].mean() for picture in handle]
    assert head_of[1] < head_of[0] - 2, "the head, at the right, goes up"


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("pair", range(4))
def test_things_stay_inside_the_picture(pair: int, difficulty: str) -> None:
    for seed in range(40):
        x, y, radius, _ = trajectory(pair, 24, 4 / 3, DIFFICULTIES[difficulty], generator(seed)).T
        for position, size in ((x, 4 / 3), (y, 1.0)):
            assert np.all(position - radius > -1e-5)
            assert np.all(position + radius < size + 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_fits_the_circle_of_its_radius_but_for_the_corners_of_the_hammer(shape: str) -> None:
    rows, columns = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j].astype(np.float32)
    inside = outline(shape, columns, rows) < 0
    assert inside.mean() > 0.05
    assert np.hypot(columns, rows)[inside].max() <= (1.14 if shape == "hammer" else 1.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_small_turn_maps_a_shape_onto_itself(shape: str) -> None:
    """Between two frames nothing turns by more than 40 degrees, so what repeats after 90 still shows its direction."""
    rows, columns = np.mgrid[-1:1:101j, -1:1:101j].astype(np.float32)
    still = outline(shape, columns, rows) < 0
    for degrees in range(15, 46, 5):
        turned = (columns + 1j * rows) * np.exp(1j * np.deg2rad(degrees))
        moved = outline(shape, turned.real, turned.imag) < 0
        assert (moved & still).sum() / (moved | still).sum() < 0.9, degrees
    fastest = max(level.turn_radians[1] * level.warp[1] for level in DIFFICULTIES.values())
    assert np.rad2deg(fastest / 8) < 40


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("pair", range(4))
def test_knowing_place_and_size_of_every_sampled_frame_but_not_their_order_hardly_tells_the_motion(
    pair: int, difficulty: str
) -> None:
    """A logistic regression on sorted poses at the eight sparse frames: an order-blind observer with perfect eyes."""
    clips, level = 2000, DIFFICULTIES[difficulty]
    seen = np.stack([sparse_poses(pair, level, generator(number), number % 2 == 1) for number in range(clips)])
    backwards = np.arange(clips) % 2
    half = clips // 2
    share = logistic_share(seen[:half], backwards[:half], seen[half:], backwards[half:])
    most = 0.57 if difficulty == "easy" else 0.55
    assert 0.45 < share < most + 0.05, "as the docstring says, and three standard deviations of a share of 1000"


def sparse_poses(pair: int, level: Any, rng: np.random.Generator, backwards: bool) -> np.ndarray:
    """x, y and log radius of the frames a test view shows to CLIP, each sorted."""
    frames = int(rng.integers(18, 31))
    poses = trajectory(pair, frames, 4 / 3, level, rng)
    poses = poses[::-1] if backwards else poses
    edges = np.linspace(0.0, frames, 17)
    shown = poses[np.rint((edges[:-1] + edges[1:]) / 2).astype(int).clip(0, frames - 1)[::2]]
    return np.sort(np.stack([shown[:, 0], shown[:, 1], np.log(shown[:, 2])]), axis=1).ravel()


def logistic_share(train: np.ndarray, labels: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Share of test rows a ridge classifier gets right."""
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = ((part - mean) / spread for part in (train, test))
    signs = 2.0 * labels - 1
    weights = np.linalg.solve(train.T @ train + 1.0 * np.eye(train.shape[1]), train.T @ signs)
    return float(np.mean((test @ weights > 0) == (expected == 1)))


def test_lengths_and_backgrounds_do_not_tell_the_motion() -> None:
    """They are drawn before and apart from the motion: equal generators, equal lengths, whatever the class."""
    lengths = {len(draw_clip(label, generator(7), ONE)) for label in range(8)}
    assert len(lengths) == 1


def test_left_and_right_stand_in_the_names_of_mirrored_motions() -> None:
    from vidxfer.pipeline.video.mirror import flip_pairs

    assert flip_pairs(ONE.class_names) == {0: 1, 1: 0, 6: 7, 7: 6}
    assert len(flip_pairs(ToyDesign(appearances=9).class_names)) == 9 * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"appearances": 0}, "1 to 36 appearances, not 0"),
        ({"appearances": 37}, "1 to 36 appearances, not 37"),
        ({"difficulty": "brutal"}, "no difficulty 'brutal'. Known: easy, medium, hard."),
        ({"side_px": 33}, "even number of at least 32, not 33"),
        ({"side_px": 48, "barcode": True}, "a barcode needs side_px of at least 60, not 48"),
    ],
)
def test_wrong_designs_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToyDesign(**wrong)


def test_a_class_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="label must be 0 to 31, not 32"):
        draw_clip(32, generator(0))
