"""The parts of the protocol, each by numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.clip.vit import VitTower
from vidxfer.pipeline.errors import CacheError, RunError
from vidxfer.pipeline.heads.base import Needs, Offer
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.training.build import build_head
from vidxfer.pipeline.training.loader import online_features
from vidxfer.pipeline.training.order import epoch_order
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.scoring import score_rows
from vidxfer.pipeline.video.sampling import Sampling, view_rng
from vidxfer.pipeline.video.views import train_view

SHARES = {  # (video, view) -> probabilities of three classes
    (4, 0): (0.6, 0.3, 0.1), (4, 1): (0.1, 0.5, 0.4),
    (2, 0): (0.2, 0.2, 0.6), (2, 1): (0.7, 0.2, 0.1),
    (0, 0): (0.1, 0.1, 0.8), (0, 1): (0.1, 0.8, 0.1),
}  # fmt: skip


class FakeLoader:
    """Two views of each of five videos; a batch's rows are as planned, its views in `views`."""

    refused: dict[str, str] = {}  # noqa: RUF012
    split: Any = SimpleNamespace(
        spec=SimpleNamespace(stored_views=2),
        class_names=("x", "y", "z"),
        video_ids=tuple("abcde"),
        labels=[2, 0, 0, 1, 1],
    )

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, int]]] = []

    def batches(self, plan: list[list[tuple[int, int]]]) -> Any:
        for clips in plan:
            self.asked.append(clips)
            yield SimpleNamespace(rows=tuple(row for row, _ in clips), clips=clips)


class Normed(nn.Module):
    """Gives the clips' logits, standardised by statistics that were gathered in training: mean 1, variance 4."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False, eps=1e-12)  # nothing beside 4; torch refuses 0
        nn.init.constant_(self.norm.running_mean, 1.0)  # type: ignore[arg-type]
        nn.init.constant_(self.norm.running_var, 4.0)  # type: ignore[arg-type]
        self.train()

    def forward(self, wanted: torch.Tensor) -> torch.Tensor:
        standard: torch.Tensor = self.norm(wanted * 2.0 + 1.0)  # so that `wanted` comes out
        return standard


class Assemble:
    device = torch.device("cpu")

    def __call__(self, raw: Any) -> torch.Tensor:
        return torch.tensor([SHARES[clip] for clip in raw.clips]).log() - 3.0


@pytest.mark.parametrize("batch_clips", [1, 2, 3, 4, 5, 6, 99])
def test_a_video_is_scored_by_the_sum_of_its_views_probabilities(batch_clips: int) -> None:
    head, loader = Normed(), FakeLoader()
    scored = score_rows(head, loader, Assemble(), [4, 2, 0], batch_clips=batch_clips)  # type: ignore[arg-type]
    expected = torch.tensor([[0.7, 0.8, 0.5], [0.9, 0.4, 0.7], [0.2, 0.9, 0.9]])
    torch.testing.assert_close(scored.probabilities, expected)
    assert (scored.rows, scored.ids, scored.labels.tolist()) == ((4, 2, 0), ("e", "c", "a"), [1, 0, 2])
    assert sorted(clip for clips in loader.asked for clip in clips) == sorted(SHARES)
    assert [len(clips) for clips in loader.asked[:-1]] == [batch_clips] * (len(loader.asked) - 1)
    assert (head.training, int(head.norm.num_batches_tracked)) == (True, 0)  # type: ignore[arg-type]


def test_no_score_is_made_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHARES, (2, 1), [float("nan"), 0.5, 0.5])
    monkeypatch.setattr(FakeLoader.split, "path", Path("zarr/val"), raising=False)
    with pytest.raises(RunError, match="NaN for 1 of 3 videos of zarr/val, such as 'c'"):
        score_rows(Normed(), FakeLoader(), Assemble(), [4, 2, 0], batch_clips=4)  # type: ignore[arg-type]


OFFER = Offer(
    layers=(0, 1), sparse_frames=4, alpha=2, grid=(2, 2), channels=64, embed=6, classes=3, image_px=32,
    text=torch.ones(3, 6),
)  # fmt: skip


def test_a_heads_weights_come_from_its_seed_alone() -> None:
    for seed in (0, 5):
        torch.manual_seed(99)
        head = build_head(with_settings(named("probe"), [f"seed={seed}"]), OFFER)
        after = torch.rand(1)
        torch.manual_seed(99)
        assert torch.equal(after, torch.rand(1)), "nobody else's draws change"
        torch.manual_seed(seed)
        expected = nn.Linear(6, 3)
        assert torch.equal(head.classifier.weight, expected.weight)  # type: ignore[union-attr]
        assert torch.equal(head.classifier.bias, expected.bias)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["dist-toy", "attentive-probe", "probe"])
def test_another_seed_is_another_head(name: str) -> None:
    one, same, other = (
        build_head(with_settings(named(name), [f"seed={seed}"]), OFFER).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_a_head_over_layers_that_are_not_there_is_refused_by_name() -> None:
    recipe = with_settings(named("dist-toy"), ["head.layers=[0, 3]"])
    with pytest.raises(CacheError, match=r"reads CLIP layers \[3\], and the cache holds \[0, 1\]"):
        build_head(recipe, OFFER)


@pytest.mark.parametrize("layers", [(0, 1, 2), (2, 0), (1,), None])
def test_codes_are_decoded_with_the_statistics_of_their_own_layer(toy: Any, layers: tuple[int, ...] | None) -> None:
    spec = open_split(toy.int8, "train").spec
    channels = torch.arange(spec.channels)
    mean = torch.stack([1000.0 * layer + channels for layer in range(3)])
    std = torch.stack([torch.full((spec.channels,), 10.0**layer) for layer in range(3)])
    read = (0, 1, 2) if layers is None else layers
    codes = torch.full((1, len(read), 1, 1, spec.channels), 4, dtype=torch.int8)
    found = Dequantiser(spec, mean, std, layers=layers)(codes, torch.full((1, len(read), 1, 1), 0.5))
    for place, layer in enumerate(read):  # 4 · 0.5 standard deviations above the mean
        torch.testing.assert_close(found[0, place, 0, 0], 1000.0 * layer + channels + 2.0 * 10.0**layer)


class FakeText(nn.Module):
    """Texts are looked up: "a b" is (3, 4), "no b" is (0, 10)."""

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[3.0, 4.0], [0.0, 10.0]])[ids]


def test_prompts_are_averaged_after_normalisation_and_one_alone_stays_as_it_is() -> None:
    def tokens(texts: list[str]) -> torch.Tensor:
        return torch.tensor([0 if text == "a b" else 1 for text in texts])

    info = SimpleNamespace(precision="fp32", has_text=True)
    tower = VitTower(FakeText(), tokens, info, torch.device("cpu"))  # type: ignore[arg-type]
    torch.testing.assert_close(tower.encode_text(["b"], ["a {}"]), torch.tensor([[3.0, 4.0]]))
    both = tower.encode_text(["b"], ["a {}", "no {}"])  # (0.6, 0.8) and (0, 1)
    torch.testing.assert_close(both, torch.tensor([[0.3, 0.9]]))


def test_the_sparse_frames_are_the_first_of_every_alpha_dense_ones_in_their_order() -> None:
    seen = []

    def taps(pixels: torch.Tensor, layers: tuple[int, ...]) -> Any:
        seen.append(pixels[:, 0, 0, 0].tolist())
        count = len(pixels)
        return SimpleNamespace(
            tokens=torch.arange(float(count)).reshape(1, count, 1, 1), embedding=torch.arange(float(count))[:, None]
        )

    dense = torch.arange(12.0).reshape(2, 6, 1, 1, 1).expand(2, 6, 3, 4, 4)
    tower = SimpleNamespace(taps=taps)
    tokens, embedding = online_features(tower, dense, 3, Needs(layers=(0,), embedding=True, pixels="dense"))
    assert seen == [[0.0, 3.0, 6.0, 9.0]]
    assert tokens is not None
    assert embedding is not None
    assert tokens.flatten(1).tolist() == embedding.flatten(1).tolist() == [[0.0, 1.0], [2.0, 3.0]]


PINNED = {  # seed, id, number, frames, height, width: indices, crop, flip, grey
    (0, "100001", 0, 30, 48, 64): ((2, 5, 9, 12, 18, 20, 24, 29), (0.0, 8.0, 44.0, 53.0), True, True),
    (0, "100001", 1, 30, 48, 64): ((1, 5, 8, 12, 18, 20, 23, 29), (1.0, 3.0, 47.0, 42.0), False, True),
    (5, "a/b c.mp4", 3, 7, 240, 320): ((0, 1, 3, 3, 4, 5, 6, 6), (4.0, 91.0, 203.0, 224.0), False, False),
    (1, "v", 2, 300, 256, 340): ((17, 64, 81, 120, 183, 212, 233, 299), (19.0, 21.0, 235.0, 266.0), False, True),
    (0, "x", 4, 30, 48, 64): ((3, 5, 9, 12, 16, 20, 26, 27), (9.0, 10.0, 33.0, 43.0), True, False),
}  # fmt: skip
"""Views as they were first drawn. They never change: caches hold them, and `cache add --views` goes on with them."""


@pytest.mark.parametrize("drawn", PINNED)
def test_a_view_is_drawn_for_ever_as_it_was_first(drawn: tuple[int, str, int, int, int, int]) -> None:
    seed, video_id, number, frames, height, width = drawn
    indices, crop, flip, grey = PINNED[drawn]
    sampling = Sampling(dense_frames=8, image_px=32)
    view = train_view(frames, height, width, sampling=sampling, rng=view_rng(seed, video_id, number))
    assert view == View(indices=indices, crop=crop, resize_first=False, flip=flip, grey=grey)


def by_hand(seed: int, video_id: str, number: int, frames: int, height: int, width: int) -> View:
    """The draws in their order: an index per segment; then area, ratio, top, left of a box; then mirror, then grey."""
    rng, sampling = view_rng(seed, video_id, number), Sampling(dense_frames=8, image_px=32)
    edges = np.linspace(0, frames, 9)
    draws = rng.random(8)
    indices = tuple(int(at) for at in np.rint(np.clip(edges[:-1] + np.diff(edges) * draws, 0, frames - 1)))
    while True:
        area = (0.4 + 0.6 * rng.random()) * height * width
        ratio = np.exp(np.log(0.75) + (np.log(4 / 3) - np.log(0.75)) * rng.random())
        box_width, box_height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if box_width <= width and box_height <= height:
            break
    top, left = int(rng.random() * (height - box_height + 1)), int(rng.random() * (width - box_width + 1))
    flip, grey = rng.random() < 0.5, rng.random() < 0.2
    crop = (float(top), float(left), float(box_height), float(box_width))
    assert sampling.crop_scale == (0.4, 1.0)
    return View(indices=indices, crop=crop, resize_first=False, flip=bool(flip), grey=bool(grey))


def test_the_draws_of_a_view_come_in_their_order() -> None:
    flags = set()
    for number in range(40):
        drawn = train_view(50, 48, 64, sampling=Sampling(dense_frames=8, image_px=32), rng=view_rng(3, "v", number))
        assert drawn == by_hand(3, "v", number, 50, 48, 64), number
        flags.add((drawn.flip, drawn.grey))
    assert flags == {(False, False), (True, False), (False, True), (True, True)}


def test_an_epoch_takes_its_order_and_its_views_from_its_number() -> None:
    """As it was first: a run that goes on after an update has the order it began with."""
    assert epoch_order([10, 11, 12, 13], 3, seed=7, epoch=0) == [(10, 2), (12, 2), (11, 1), (13, 2)]
    assert epoch_order([10, 11, 12, 13], 3, seed=7, epoch=1) == [(12, 0), (10, 0), (13, 0), (11, 0)]
