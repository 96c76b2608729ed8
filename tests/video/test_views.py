"""Views: the official pixels, and the same pixels each time a stored view is replayed."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video import views as rules
from vidxfer.pipeline.video.replay import replay
from vidxfer.pipeline.video.sampling import Sampling
from vidxfer.pipeline.video.views import square_in_resized, train_view

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
CLIP = {"mean": MEAN, "std": STD}
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
sides = st.integers(1, 3000)


@pytest.fixture(scope="module")
def official(golden):
    return golden("dist_transforms.safetensors")


def cases(official) -> list[str]:
    """The numbers of the videos in the file."""
    found = sorted(key.split(".")[1] for key in official.tensors if key.startswith("input."))
    assert found, f"{official.tensors.place} has no input.<number>.video"
    return found


def as_stored(view: View) -> View:
    return replace(view, crop=tuple(float(side) for side in np.asarray(view.crop, np.float32)))


@pytest.fixture(autouse=True)
def two_threads():
    """torch's bilinear rounds otherwise with one thread: 7 of 18,816 values of case 1 are then 1.2e-5 off."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def close(found: torch.Tensor, official: torch.Tensor) -> bool:
    """Official clips are [rgb frame height width]. Strict with the pinned torch; 2.11's bilinear rounds otherwise."""
    pinned = f"torch=={version('torch').partition('+')[0]}\n" in CONSTRAINTS.read_text(encoding="utf-8")
    return torch.allclose(found, official.transpose(0, 1), rtol=0, atol=1e-5 if pinned else 2e-5)


def test_test_views_are_the_official_pixels(official):
    for case, (crops, crop) in product(cases(official), [(1, 0), (3, 0), (3, 1), (3, 2)]):
        pixels = official.tensors[f"input.{case}.video"].numpy()
        sampling = Sampling(dense_frames=len(pixels), alpha=1, image_px=int(official.told["test_scale"]))
        view = rules.test_view(
            len(pixels), *pixels.shape[1:3], sampling=sampling, views=1, view=0, crops=crops, crop=crop
        )
        for kept in (view, as_stored(view)):
            found = replay(pixels, kept, image_px=sampling.image_px, **CLIP)
            assert close(found, official.tensors[f"output.{case}.test_crops{crops}_idx{crop}"]), (case, crops, crop)


def test_train_views_are_the_official_pixels(official):
    for case in cases(official):
        expect_train_views(official, case)


def expect_train_views(official, case: str) -> None:
    pixels = official.tensors[f"input.{case}.video"].numpy()
    image_px = int(official.told["crop"])
    box = tuple(float(side) for side in official.json(f"train_box_{case}_i_j_h_w"))
    plain = View(indices=tuple(range(len(pixels))), crop=box, resize_first=False, flip=False, grey=False)
    expected = {
        "train_rrc": replay(pixels, plain, image_px=image_px, **PLAIN),
        "train_rrc_gray_norm": replay(pixels, replace(plain, grey=True), image_px=image_px, **CLIP),
        "train_rrc_hflip_norm": replay(pixels, replace(plain, flip=True), image_px=image_px, **CLIP),
    }
    for name, found in expected.items():
        assert close(found, official.tensors[f"output.{case}.{name}"]), (case, name)


@given(sides, sides, st.sampled_from([56, 112, 224, 336]), st.sampled_from([(1, 0), (3, 0), (3, 1), (3, 2)]))
def test_a_test_box_gives_back_its_whole_numbers_after_float32(height, width, image_px, which):
    crops, crop = which
    if max(height, width) > 20 * min(height, width):
        return
    view = rules.test_view(
        8, height, width, sampling=Sampling(image_px=image_px), views=1, view=0, crops=crops, crop=crop
    )
    long_side = int(max(height, width) / min(height, width) * image_px)
    resized = (image_px, long_side) if height <= width else (long_side, image_px)
    offsets = [
        {(1, 0): (side - image_px) // 2, (3, 0): 0, (3, 1): (side - image_px) // 2, (3, 2): side - image_px}[which]
        for side in resized
    ]
    assert square_in_resized(as_stored(view).crop, height, width, image_px) == (*offsets, *resized)


@given(sides, sides, st.integers(0, 2**32))
def test_a_train_box_lies_inside_the_picture_and_survives_float32(height, width, seed):
    view = train_view(9, height, width, sampling=Sampling(), rng=np.random.default_rng(seed))
    top, left, box_height, box_width = view.crop
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert as_stored(view) == view


def test_train_boxes_have_the_area_and_ratio_that_were_asked_for():
    rng, sampling = np.random.default_rng(0), Sampling()
    drawn = [train_view(16, 240, 320, sampling=sampling, rng=rng) for _ in range(2000)]
    areas = np.array([view.crop[2] * view.crop[3] / (240 * 320) for view in drawn])
    ratios = np.array([view.crop[3] / view.crop[2] for view in drawn])
    assert areas.min() > 0.39
    assert 0.6 < areas.mean() < 0.72
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    assert 0.46 < np.mean([view.flip for view in drawn]) < 0.54
    assert 0.17 < np.mean([view.grey for view in drawn]) < 0.23
    assert {(view.crop[0] == 0, view.crop[0] + view.crop[2] == 240) for view in drawn} >= {(True, False), (False, True)}


def test_pictures_too_narrow_for_any_box_fall_back_to_the_largest_in_the_middle():
    assert rules.central_box(100, 1000, (0.75, 4 / 3)) == (0, 433, 100, 133)
    assert rules.central_box(1000, 100, (0.75, 4 / 3)) == (433, 0, 133, 100)
    assert rules.central_box(100, 110, (0.75, 4 / 3)) == (0, 0, 100, 110)
    assert train_view(4, 10, 1000, sampling=Sampling(), rng=np.random.default_rng(0)).crop[2] == 10


def noise(frames: int, height: int = 37, width: int = 53) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_replaying_equals_the_plain_way_frame_by_frame(seed, test):
    pixels, sampling = noise(6), Sampling(dense_frames=6, alpha=2, image_px=32)
    if test:
        view = rules.test_view(3, 37, 53, sampling=sampling, views=1, view=0)
    else:
        view = train_view(3, 37, 53, sampling=sampling, rng=np.random.default_rng(seed))
    pixels = pixels[list(view.indices)]
    found = replay(pixels, view, image_px=32, **CLIP)
    assert found.shape == (6, 3, 32, 32)
    assert found.dtype == torch.float32
    assert torch.equal(found, replay(pixels, view, image_px=32, **CLIP))
    for number, picture in enumerate(pixels):
        scaled = torch.from_numpy(picture).permute(2, 0, 1).float()[None] / 255
        if test:
            top, left, *size = square_in_resized(view.crop, 37, 53, 32)
            scaled = F.interpolate(scaled, size=size, mode="bilinear")[:, :, top : top + 32, left : left + 32]
        else:
            top, left, height, width = map(int, view.crop)
            scaled = F.interpolate(
                scaled[:, :, top : top + height, left : left + width], size=(32, 32), mode="bilinear"
            )
        if view.grey:
            scaled = (
                (scaled * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).repeat(1, 3, 1, 1)
            )
        scaled = (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        dumb = scaled.flip(3) if view.flip else scaled
        assert torch.allclose(found[number], dumb[0], rtol=0, atol=2e-6)


def test_sparse_frames_alone_give_the_same_pixels_as_among_dense_ones():
    view = train_view(50, 37, 53, sampling=Sampling(dense_frames=6, image_px=32), rng=np.random.default_rng(1))
    pixels = noise(6)
    every_other = replay(pixels[::2], view, image_px=32, **CLIP)
    assert torch.equal(every_other, replay(pixels, view, image_px=32, **CLIP)[::2])


def test_read_only_frames_are_not_written_to_and_give_no_warning():
    pixels = noise(4)
    pixels.flags.writeable = False
    view = rules.test_view(400, 37, 53, sampling=Sampling(dense_frames=4, image_px=32), views=1, view=0)
    assert replay(pixels, view, image_px=32, **CLIP).isfinite().all()


def test_a_view_of_another_video_is_an_error_that_shows_both_sizes():
    view = View(indices=(0,), crop=(0.0, 0.0, 40.0, 40.0), resize_first=False, flip=False, grey=False)
    with pytest.raises(ValueError, match="37 x 53"):
        replay(noise(1), view, image_px=32, **CLIP)
    with pytest.raises(ValueError, match="uint8"):
        replay(noise(1).astype(np.float32), view, image_px=32, **CLIP)
    with pytest.raises(ValueError, match="crops=2"):
        rules.test_view(1, 9, 9, sampling=Sampling(), views=1, view=0, crops=2)
    with pytest.raises(ValueError, match="nothing to crop"):
        train_view(1, 0, 9, sampling=Sampling(), rng=np.random.default_rng(0))
