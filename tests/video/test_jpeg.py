"""Frames as JPEG: the same bytes each time, pixels back within the error that the quality allows, geometry exactly."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.jpeg import SUBSAMPLINGS, decode_frames, encode_frames
from vidxfer.pipeline.video.replay import CutFrames, cut_out, finish, replay

CPU = torch.device("cpu")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LARGE = 1 << 20


def picture(frames: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with an edge: uint8 [frame height width rgb]."""
    down, across = np.mgrid[0:height, 0:width]
    one = np.stack([down * 4, across * 3, (down + across) * 2], axis=-1)
    one[height // 3 :, width // 2 :] = (250, 20, 120)
    return np.stack([(one + 7 * i) % 256 for i in range(frames)]).astype(np.uint8)


def back(files: list[bytes]) -> np.ndarray:
    """Decoded, uint8 [frame height width rgb]."""
    raw = [np.frombuffer(file, dtype=np.uint8) for file in files]
    return decode_frames(raw, CPU).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_the_same_pixels_give_the_same_bytes(subsampling: str) -> None:
    pixels = picture()
    first, lowest = encode_frames(pixels, quality=90, subsampling=subsampling, most_bytes=LARGE)
    again, _ = encode_frames(pixels[::-1].copy(), quality=90, subsampling=subsampling, most_bytes=LARGE)
    assert (first, lowest) == (again[::-1], 90)


@pytest.mark.parametrize(("quality", "most", "mean"), [(100, 4, 0.6), (95, 24, 2.2), (90, 48, 3.5), (75, 90, 6.0)])
def test_the_error_of_a_frame_falls_with_its_quality(quality: int, most: int, mean: float) -> None:
    pixels = picture()
    files, _ = encode_frames(pixels, quality=quality, subsampling="4:4:4", most_bytes=LARGE)
    wrong = np.abs(back(files).astype(int) - pixels)
    assert wrong.max() <= most
    assert wrong.mean() <= mean


def test_torchvision_decodes_to_what_pillow_says() -> None:
    files, _ = encode_frames(picture(), quality=80, subsampling="4:2:0", most_bytes=LARGE)
    pillow = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    assert np.array_equal(back(files), pillow)


def test_a_frame_that_does_not_fit_is_encoded_lower_and_said() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    calm = np.full_like(noise, 90)
    full, _ = encode_frames(noise, quality=90, subsampling="4:4:4", most_bytes=LARGE)
    files, lowest = encode_frames(
        np.concatenate([calm, noise]), quality=90, subsampling="4:4:4", most_bytes=len(full[0]) - 1
    )
    assert lowest == 80
    assert files[0] == encode_frames(calm, quality=90, subsampling="4:4:4", most_bytes=LARGE)[0][0]
    assert files[1] == encode_frames(noise, quality=80, subsampling="4:4:4", most_bytes=LARGE)[0][0]
    with pytest.raises(ValueError, match="at quality 1 does not fit in 300"):
        encode_frames(noise, quality=90, subsampling="4:4:4", most_bytes=300)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("resize_first", [False, True])
def test_cut_out_then_finished_is_what_replay_shows(flip: bool, grey: bool, resize_first: bool) -> None:
    box = (4.0, 16.0, 32.0, 32.0) if not resize_first else (0.0, 8.0, 48.0, 48.0)
    view = View(indices=(0, 1, 1, 2), crop=box, resize_first=resize_first, flip=flip, grey=grey)
    pixels = picture()[[0, 1, 1, 2]]
    shown = replay(pixels, view, image_px=24, mean=MEAN, std=STD)
    cut = cut_out(pixels, view, image_px=24)
    assert cut.shape == (4, 24, 24, 3)
    clips = CutFrames(
        pixels=torch.stack([cut.permute(0, 3, 1, 2)] * 2), flip=torch.tensor([flip] * 2), grey=torch.tensor([grey] * 2)
    )
    for clip in finish(clips, mean=MEAN, std=STD, device=CPU):
        half_a_step = 0.5 / 255 / min(STD)  # rounding to uint8, and nothing else
        assert (clip - shown).abs().max() <= half_a_step + 1e-5
        if grey:
            brightness = clip * torch.tensor(STD).reshape(3, 1, 1) + torch.tensor(MEAN).reshape(3, 1, 1)
            assert torch.allclose(brightness[:, 0], brightness[:, 2], atol=1e-6)
