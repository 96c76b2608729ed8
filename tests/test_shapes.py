"""What crosses a boundary checks itself once, and prints as shapes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidxfer.pipeline.shapes import ClipBatch, Frames, Taps, Video, View, expect


def test_expect_gives_every_size_by_its_word() -> None:
    assert expect("x", np.zeros((2, 3, 4)), "clip frame token", clip=2) == {"clip": 2, "frame": 3, "token": 4}
    assert expect("x", torch.zeros(5), "clip") == {"clip": 5}
    assert expect("x", np.zeros(()), "") == {}


@pytest.mark.parametrize(
    ("shape", "axes", "sizes", "text"),
    [
        ((2, 3), "clip frame token", {}, "x has shape (2, 3), expected [clip frame token]"),
        ((2, 3, 4, 5), "clip frame token", {}, "x has shape (2, 3, 4, 5), expected [clip frame token]"),
        ((2, 3), "clip frame", {"clip": 4}, "x has shape (2, 3), expected [clip frame]: clip=2 (expected 4)"),
        ((2, 3), "clip frame", {"clip": 4, "frame": 9}, "clip=2 (expected 4), frame=3 (expected 9)"),
        ((), "clip", {}, "x has shape (), expected [clip]"),
    ],
)
def test_expect_shows_the_found_and_the_expected_shape(
    shape: tuple[int, ...], axes: str, sizes: dict[str, int], text: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        expect("x", np.zeros(shape), axes, **sizes)


VIEW: dict[str, Any] = {
    "indices": (0, 2, 2), "crop": (1.0, 2.0, 30.0, 40.0), "resize_first": False, "flip": False, "grey": True
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"indices": ()}, "frame indices"),
        ({"indices": (3, -1)}, "at least 0"),
        ({"crop": (0.0, 0.0, 0.0, 4.0)}, "positive area"),
        ({"crop": (0.0, 0.0, 4.0, -1.0)}, "positive area"),
        ({"crop": (0.5, 0.0, 4.0, 4.0)}, "whole pixels"),
    ],
)
def test_a_view_that_cannot_be_replayed_cannot_be_made(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        View(**{**VIEW, **changes})


def test_a_test_view_may_lie_between_pixels() -> None:
    assert View(**{**VIEW, "crop": (0.5, 0.25, 30.5, 30.5), "resize_first": True}).crop[0] == 0.5


@pytest.mark.parametrize("id_", ["", "a\nb"])
def test_a_video_needs_an_id_of_one_line(id_: str) -> None:
    with pytest.raises(ValueError, match="non-empty line"):
        Video(id=id_, path=Path("a.webm"), label=None, split="train")


def frames(**changes: Any) -> Frames:
    parts = {"pixels": np.zeros((2, 4, 6, 3), np.uint8), "indices": np.arange(2), "pts_seconds": np.zeros(2)}
    return Frames(**{**parts, "decoder": "decord", **changes})


def test_frames_print_as_shapes() -> None:
    shown = repr(frames())
    assert shown.startswith("Frames(pixels=uint8[2, 4, 6, 3], indices=int64[2], pts_seconds=float64[2]")
    assert "decoder='decord'" in shown


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": np.zeros((2, 4, 6, 4), np.uint8)},
        {"pixels": np.zeros((2, 4, 6, 3), np.float32)},
        {"indices": np.arange(3)},
        {"pts_seconds": np.zeros(1)},
    ],
)
def test_frames_whose_parts_disagree_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        frames(**changes)


def test_taps_name_as_many_layers_as_they_hold() -> None:
    tokens, embedding = torch.zeros(2, 3, 5, 8), torch.zeros(3, 4)
    assert repr(Taps(tokens=tokens, embedding=embedding, layers=(0, 2))) == (
        "Taps(tokens=torch.float32[2, 3, 5, 8], embedding=torch.float32[3, 4], layers=(0, 2))"
    )
    for wrong in ({"layers": (0,)}, {"embedding": torch.zeros(2, 4)}):
        with pytest.raises(ValueError, match="expected"):
            Taps(**{"tokens": tokens, "embedding": embedding, "layers": (0, 2), **wrong})


BATCH: dict[str, Any] = {
    "tokens": torch.zeros(2, 3, 4, 5, 8),
    "embedding": torch.zeros(2, 4, 6),
    "dense": torch.zeros(2, 8, 3, 10, 10),
    "targets": torch.zeros(2, 7),
    "labels": torch.zeros(2, dtype=torch.int64),
    "ids": ("a", "b"),
}


def test_a_batch_prints_as_shapes_and_without_numbers() -> None:
    shown = repr(ClipBatch(**BATCH))
    for part in ("tokens=torch.float32[2, 3, 4, 5, 8]", "dense=torch.float32[2, 8, 3, 10, 10]", "ids=('a', 'b')"):
        assert part in shown
    assert "tensor(" not in shown


@pytest.mark.parametrize("part", ["tokens", "embedding", "dense", "targets", "labels"])
def test_a_batch_whose_parts_are_of_other_clips_cannot_be_made(part: str) -> None:
    one_clip_less = BATCH[part][:1]
    with pytest.raises(ValueError, match=rf"{part} has shape .*clip=1 \(expected 2\)"):
        ClipBatch(**{**BATCH, part: one_clip_less})


@pytest.mark.parametrize("part", ["tokens", "embedding", "dense", "targets"])
def test_parts_that_a_head_does_not_need_may_be_absent(part: str) -> None:
    batch = ClipBatch(**{**BATCH, part: None}).to("cpu")
    assert getattr(batch, part) is None
    assert batch.ids == ("a", "b")


def test_a_batch_moves_whole() -> None:
    moved = ClipBatch(**BATCH).to("meta")
    assert {getattr(moved, part).device.type for part in BATCH if part != "ids"} == {"meta"}
