"""Barcodes survive the encoders, so a test can prove which frame was read; without being asked for, there are none."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.datasets.toy import ToyDesign, draw_clip
from vidxfer.pipeline.datasets.toy_barcode import MOST_FRAMES, read_number, stamp
from vidxfer.pipeline.datasets.toy_write import write_toy
from vidxfer.pipeline.video.reader import open_video

NUMBERED = ToyDesign(appearances=1, difficulty="hard", barcode=True)


@pytest.mark.parametrize("layout", ["ssv2", "k400"])
def test_whatever_frames_are_asked_for_their_numbers_are_those_in_the_pixels(layout: str, tmp_path: Path) -> None:
    write_toy(tmp_path, layout=layout, train_videos=4, val_videos=1, design=NUMBERED)
    draws = random.Random(0)
    for video in load_dataset(layout, tmp_path, "train").videos:
        with open_video(video.path) as source:
            for count in (1, 3, 8):
                asked = [draws.randrange(source.frame_count) for _ in range(count)]
                assert [read_number(picture) for picture in source.read(asked).pixels] == asked
            every = range(source.frame_count)
            assert [read_number(picture) for picture in source.read(list(every)).pixels] == list(every)


def test_reversed_clips_count_upwards_too() -> None:
    """The number is the place in the file, not in the motion."""
    for label in (0, 1):
        clip = draw_clip(label, np.random.default_rng(0), NUMBERED)
        assert [read_number(picture) for picture in clip] == list(range(len(clip)))


def test_a_world_for_comparing_heads_has_no_barcodes() -> None:
    clip = draw_clip(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="check bits do not fit"):
        read_number(clip[0])


@given(st.integers(0, MOST_FRAMES - 1), st.integers(0, 79))
def test_a_cell_turned_over_is_noticed_or_the_number_is_not_read(number: int, column: int) -> None:
    clip = stamp(np.zeros((MOST_FRAMES, 16, 80, 3), np.uint8))
    picture = clip[number].copy()
    assert read_number(picture) == number
    cell = column // 8 * 8
    picture[-8:, cell : cell + 8] = 255 - picture[-8:, cell : cell + 8]
    with pytest.raises(ValueError, match="check bits do not fit"):
        read_number(picture)


def test_a_picture_too_small_for_a_barcode_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 80 px in width and at most 256"):
        stamp(np.zeros((2, 32, 72, 3), np.uint8))
    with pytest.raises(ValueError, match="holds no barcode"):
        read_number(np.zeros((4, 80, 3), np.uint8))
