"""Frames are cut, resized and normalised where CLIP is: the same pictures as on the CPU, and only bytes travel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.resize import Resize
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.replay import replay
from vidxfer.stages.shards import encode

CPU = torch.device("cpu")
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
BOX = View(indices=(0, 2, 2, 5), crop=(3, 5, 20, 31), resize_first=False, flip=True, grey=False)
WHOLE = View(indices=(0, 1, 3, 4), crop=(0.0, 8.0, 40.0, 40.0), resize_first=True, flip=False, grey=True)
SAME = replace(BOX, crop=(3, 5, 16, 16), grey=True)


@pytest.mark.parametrize("view", [BOX, WHOLE, SAME])
@pytest.mark.parametrize("words", ["bicubic", "bicubic-antialias", "bilinear", "bilinear-antialias"])
def test_frames_made_on_a_device_are_those_of_the_cpu(view: View, words: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 56, 3), dtype=np.uint8)
    how = {"image_px": 16, "mean": MEAN, "std": STD}
    resize = Resize(interpolation=words.partition("-")[0], antialias="-" in words)  # type: ignore[arg-type]
    here = replay(pixels, view, resize=resize, **how)
    there = replay(pixels, view, resize=resize, device=CPU, **how)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)
    assert there.is_contiguous()


def test_a_gpu_gets_bytes_and_a_cpu_does_as_before(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = encode.replay

    def seen(pixels: Any, view: View, *, device: Any = None, **more: Any) -> torch.Tensor:
        asked.append(device)
        assert pixels.dtype == np.uint8
        return real(pixels, view, device=None if device is None else CPU, **more)

    monkeypatch.setattr(encode, "replay", seen)
    split, request = open_split(toy.int8, "val"), toy.request(toy.int8, decode_in="threads")
    videos = request.data.load("val").videos[:2]
    made = {
        where: list(encode.prepare_videos(videos, split.spec, request, None, torch.device(where)))
        for where in ("cpu", "cuda")
    }
    assert asked == [None] * 2 + [torch.device("cuda")] * 2
    for here, there in zip(made["cpu"], made["cuda"], strict=True):
        torch.testing.assert_close(there.pixels, here.pixels, rtol=0, atol=1e-5)
