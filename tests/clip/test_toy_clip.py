"""The carried CLIP is a real one in miniature: loaded by open_clip, small, and it knows things by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tiny import TOY_CLIP_CONFIG, TOY_CLIP_FOLDER, copy_toy_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.toy import MOTIONS, ToyDesign, draw_picture

DESIGN = ToyDesign(appearances=4)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    return load_tower(str(copy_toy_clip(tmp_path_factory.mktemp("clip"))), device="cpu")


def normal(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def test_what_is_carried_is_small_and_is_what_its_configuration_says() -> None:
    assert (TOY_CLIP_FOLDER / "open_clip_model.safetensors").stat().st_size <= 4_000_000
    assert json.loads((TOY_CLIP_FOLDER / "open_clip_config.json").read_text()) == TOY_CLIP_CONFIG


def test_it_tells_pictures_it_never_saw_by_the_names_of_colour_and_shape(tower: Tower) -> None:
    pictures, expected = [], []
    for number in range(120):
        thing = number % 4
        pixels, _ = draw_picture(DESIGN.things[thing], np.random.default_rng([77, number]), DESIGN)
        left = (pixels.shape[1] - 64) // 2
        pictures.append(pixels[:, left : left + 64])
        expected.append(thing)
    mean, std = (torch.tensor(v)[:, None, None] for v in (tower.info.pixel_mean, tower.info.pixel_std))
    pixels = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - mean) / std
    text = tower.encode_text([f"a {colour} {shape}" for colour, shape in DESIGN.things])
    best = (normal(tower.taps(pixels, ()).embedding) @ normal(text).T).argmax(dim=1)
    assert float((best == torch.tensor(expected)).float().mean()) > 0.8


def test_every_class_has_a_text_embedding_of_its_own(tower: Tower) -> None:
    """DiST compares with these: two classes of one embedding could never be told apart."""
    text = normal(tower.encode_text(DESIGN.class_names))
    cosines = text @ text.T - 2 * torch.eye(len(text))
    scale = tower.info.logit_scale
    assert scale * (2 - 2 * float(cosines.max())) ** 0.5 > 10, "logits between the two nearest classes"


def test_the_log_of_its_training_is_carried_with_it() -> None:
    log = [json.loads(line) for line in (TOY_CLIP_FOLDER / "training.jsonl").read_text().splitlines()]
    assert log[0]["steps"] == max(line.get("step", 0) for line in log)
    assert log[-1]["file_bytes"] == (TOY_CLIP_FOLDER / "open_clip_model.safetensors").stat().st_size
    assert log[-1]["after_rounding"]["held_out_top1"] > 0.7


def test_motions_are_as_many_as_the_names_say(tmp_path: Path) -> None:
    assert len(DESIGN.class_names) == 4 * len(MOTIONS)
    again = copy_toy_clip(copy_toy_clip(tmp_path / "clip"))
    assert sorted(path.name for path in again.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
