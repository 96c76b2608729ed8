"""How a picture becomes the tower's square: against Pillow, with which both libraries resize, and 0.1.0's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vidxfer.pipeline.cache.views import as_stored
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.resize import AS_DIST, Resize
from vidxfer.pipeline.video import views as rules
from vidxfer.pipeline.video.replay import CutFrames, cut_out, finish, replay
from vidxfer.pipeline.video.sampling import Sampling

HEIGHT, WIDTH, SIDE = 72, 96, 32
PLAIN: dict[str, Any] = {"image_px": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1)}
SMOOTH = Resize(interpolation="bicubic", antialias=True)
SQUASH = Resize(interpolation="bicubic", antialias=True, resize_mode="squash")


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Two frames [frame height width rgb] of noise, not near 0 or 255: Pillow cuts off between its two passes."""
    return np.random.default_rng(5).integers(80, 176, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)


def view(resize: Resize) -> Any:
    """The central test view, as a cache gives it back."""
    sampling = Sampling(dense_frames=2, alpha=1, image_px=SIDE)
    return as_stored(
        rules.test_view(2, HEIGHT, WIDTH, sampling=sampling, views=1, view=0, resize_mode=resize.resize_mode)
    )


@pytest.mark.parametrize(
    "resize", [SMOOTH, SQUASH, Resize(antialias=True), Resize(antialias=True, resize_mode="squash")]
)
def test_with_antialias_it_is_pillows_resizing(resize: Resize, picture: Any) -> None:
    seen = replay(picture, view(resize), **PLAIN, resize=resize)
    size = (SIDE, SIDE) if resize.resize_mode == "squash" else (int(WIDTH / HEIGHT * SIDE), SIDE)
    how = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[resize.interpolation]
    left = (size[0] - SIDE) // 2
    for frame, ours in zip(picture, seen, strict=True):
        theirs = np.asarray(Image.fromarray(frame).resize(size, how))[:, left : left + SIDE] / 255.0
        assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() < 1.01 / 255  # Pillow rounds twice


def test_bicubic_values_beyond_black_and_white_are_cut_off(picture: Any) -> None:
    stripes = np.where(picture < 128, 0, 255).astype(np.uint8)
    seen = replay(stripes, view(SMOOTH), **PLAIN, resize=SMOOTH)
    assert (float(seen.min()), float(seen.max())) == (0, 1)
    assert cut_out(stripes, view(SMOOTH), image_px=SIDE, resize=SMOOTH).float().mean() == pytest.approx(
        float(seen.mean()) * 255, abs=1
    )


def test_the_default_has_the_bits_of_before(picture: Any) -> None:
    scaled = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255
    left = (int(WIDTH / HEIGHT * SIDE) - SIDE) // 2
    wide = F.interpolate(scaled, size=(SIDE, 42), mode="bilinear", align_corners=False)
    assert torch.equal(replay(picture, view(AS_DIST), **PLAIN), wide[..., left : left + SIDE])
    assert not torch.equal(replay(picture, view(AS_DIST), **PLAIN, resize=SMOOTH), wide[..., left : left + SIDE])


def test_a_squashed_view_is_the_whole_picture_and_a_training_crop_keeps_its_aspect(picture: Any) -> None:
    assert view(SQUASH).crop == (0, 0, HEIGHT, WIDTH)
    assert view(SMOOTH).crop[2:] == (HEIGHT, pytest.approx(SIDE * WIDTH / 42))
    rng = np.random.default_rng(0)
    drawn = rules.train_view(2, HEIGHT, WIDTH, sampling=Sampling(dense_frames=2, alpha=1, image_px=SIDE), rng=rng)
    top, left, height, width = (int(side) for side in drawn.crop)
    assert 0.74 <= width / height <= 1.35
    theirs = Image.fromarray(picture[0][top : top + height, left : left + width]).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    ours = replay(picture, drawn, **PLAIN, resize=SQUASH)[0]
    ours = ours.flip(-1) if drawn.flip else ours
    if not drawn.grey:
        assert np.abs(ours.permute(1, 2, 0).numpy() - np.asarray(theirs) / 255.0).max() < 1.01 / 255


def test_kept_frames_are_resized_as_the_tower_sees_them(picture: Any) -> None:
    kept = cut_out(picture, view(SQUASH), image_px=SIDE, resize=SQUASH).permute(0, 3, 1, 2).unsqueeze(0)
    flags = torch.zeros(1, dtype=torch.bool)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    again = finish(CutFrames(pixels=kept, flip=flags, grey=flags), mean=mean, std=std, device=torch.device("cpu"))[0]
    seen = replay(picture, view(SQUASH), image_px=SIDE, mean=mean, std=std, resize=SQUASH)
    assert float((again - seen).abs().max()) <= 0.5 / 255 / 0.25 + 1e-5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, SQUASH),
        ("bilinear", Resize(resize_mode="squash")),
        ("bicubic", Resize(interpolation="bicubic", resize_mode="squash")),
        ("bicubic-antialias", SQUASH),
        ("bilinear-shortest", AS_DIST),
        ("bicubic-antialias-shortest", SMOOTH),
        (AS_DIST.words, AS_DIST),
        (SQUASH.words, SQUASH),
    ],
)
def test_the_words_of_the_option(words: str | None, expected: Resize) -> None:
    assert SQUASH.overridden(words) == expected


@pytest.mark.parametrize(
    "words", ["", "nearest", "antialias", "bicubic-smooth", "bilinear-squash-antialias", "bicubic-"]
)
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="known are bilinear and bicubic"):
        AS_DIST.overridden(words)
