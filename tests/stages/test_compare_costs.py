"""What a head takes and what it can see: operations by hand and by the official counts, order by trying."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.heads import FAMILIES, HEADS, PUBLISHED
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.recipe import Published, Recipe
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.journal import read_metrics
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.stages.comparing.order_seen import NOISE, order_effect, sees_order
from vidxfer.stages.learning.compare import compare
from vidxfer.stages.learning.train import TrainRequest, train
from vidxfer.stages.planning.operations import operations

SPEC = (Path(__file__).parents[2] / "docs/spec/dist.md").read_text(encoding="utf-8")
COUNTED = {
    f"dist-{data.lower()}-{tower.replace('/', '').lower()}-{frames}f": (float(forward), float(both))
    for tower, frames, data, forward, both in re.findall(
        r"^\| ([BL]/1[46]) (\d+)\+\d+ (K400|SSv2) \| [^|]+ \| ([\d.]+) \([^|]+\| [^|]+\| [^|]+\| ([\d.]+) \|", SPEC,
        re.MULTILINE,
    )
}  # fmt: skip
"""Recipe -> GFLOP of DiST forward, and forward and backward, counted on the official modules (docs/spec/dist.md §7)."""


def test_operations_of_the_linear_probe_are_those_by_hand(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    found = operations(named("probe"), spec, classes=8)
    forward = 2 * 32 * 8  # embed x classes, a product and a sum each
    # Backward: the gradient of the weights is one more such product; the input has none.
    assert (found.parameters, found.forward_gflop, found.training_gflop) == (
        32 * 8 + 8,
        forward / 1e9,
        forward * 2 / 1e9,
    )


def test_operations_of_a_transformer_are_those_by_hand(toy: Any) -> None:
    spec = open_split(toy.int8, "train").spec
    recipe = with_settings(named("frame-transformer"), ["head.channels=16", "head.blocks=1", "head.attention_heads=2"])
    frames, embed, channels, classes = 4, 32, 16, 8
    macs = frames * embed * channels  # in
    macs += frames * channels * (3 * channels + channels)  # queries, keys, values, and out of the attention
    macs += 2 * frames * frames * channels  # scores, and the mean of the values
    macs += frames * channels * 4 * channels * 2 + channels * classes  # MLP, classifier
    found = operations(recipe, spec, classes)
    assert found.forward_gflop * 1e9 == 2 * macs
    # Each product has two more backward, but for the gradient of the input.
    assert found.training_gflop * 1e9 == pytest.approx(2 * (3 * macs - frames * embed * channels))


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row.recipe in COUNTED][::5], ids=lambda row: row.recipe)
def test_operations_of_dist_equal_the_official_count_forward_and_backward(row: Published) -> None:
    assert len(COUNTED) == 8
    found = operations(with_settings(named(row.recipe), ["head.form=plain"]), cache_spec(row), classes=1)
    # The release computes the last layer's way back to the temporal stream too, which nothing reads.
    unread = 2 * row.sparse_frames * (row.clip.tokens - 1) * 384 * 96 / 1e9
    forward, both = COUNTED[row.recipe]
    assert found.forward_gflop + unread == pytest.approx(forward, abs=0.051)
    assert found.training_gflop + unread == pytest.approx(both, abs=0.051)


SEES: list[tuple[str, dict[str, Any], bool]] = [
    ("probe", {}, False),
    ("attentive-probe", {}, False),
    ("frame-transformer", {}, True),
    ("frame-transformer", {"positions": False}, False),
    ("dist", {"integration_channels": 64, "temporal_channels": 8, "pooling_layers": 1}, True),
    ("attentive-pooler", {}, False),
    ("attentive-pooler", {"positions": True}, True),
    ("evl", {"blocks": 2}, True),
    ("evl", {"blocks": 2, "clip_heads": 2}, True),
    ("evl", {"blocks": 2, "position": False, "convolution": False}, True),
    ("evl", {"blocks": 2, "convolution": False, "position": False, "cross_frame": False}, False),
    ("side4video", {"side_channels": 64}, True),
    ("tds", {"side_channels": 64}, True),
]
"""Kind of head, settings, whether it can tell the order of frames."""


@pytest.mark.parametrize(("kind", "settings", "expected"), [one for one in SEES if one[0] in HEADS])
def test_what_each_family_can_see_is_found_by_trying(
    toy: Any, kind: str, settings: dict[str, Any], expected: bool
) -> None:
    recipe = Recipe(name="x", head=HEADS[kind](**settings))
    spec = open_split(toy.int8, "train").spec
    assert sees_order(recipe, spec) is expected
    effect = order_effect(recipe, spec)
    assert effect > 5 * NOISE if expected else effect < NOISE / 5, "not clear of the noise"


def test_the_order_of_every_family_is_expected() -> None:
    assert {family.config.kind for family in FAMILIES} <= {kind for kind, _, _ in SEES}


@dataclass(frozen=True, kw_only=True)
class MadeUp(HeadConfig):
    """A head that is told how to look at frames."""

    kind: ClassVar[str] = "made-up"
    way: str = "sum"

    def needs(self, offer: Offer) -> Needs:
        return Needs(layers=(0,), pixels="dense")

    def build(self, offer: Offer) -> Head:
        return Made(self, offer)


class Made(Head):
    """Logits of one mean token or pixel over time, taken the way that the settings say."""

    def __init__(self, config: MadeUp, offer: Offer) -> None:
        super().__init__()
        self.needs, self.way = config.needs(offer), config.way
        self.over_time = nn.Parameter(torch.zeros(offer.sparse_frames))  # begins at zero, as released gates do
        self.out = nn.Linear(1, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        assert batch.tokens is not None
        assert batch.dense is not None
        frames, dense = batch.tokens.mean(dim=(1, 3, 4)), batch.dense.mean(dim=(2, 3, 4))
        near = dense.unflatten(1, (frames.shape[1], -1))
        value = {
            "sum": frames.sum(1),
            "gate": frames.sum(1) + (frames * self.over_time).sum(1),
            "steps": frames.diff(dim=1).abs().sum(1),  # the same backwards
            "inside": (near[:, :, 0] - near[:, :, -1]).sum(1),  # the same with sparse frames changed about
        }[self.way]
        logits: Tensor = self.out(value[:, None])
        return logits


@pytest.mark.parametrize(("way", "expected"), [("sum", False), ("gate", True), ("steps", True), ("inside", True)])
def test_a_path_over_time_is_seen_though_it_begins_at_zero_or_is_the_same_backwards(
    toy: Any, way: str, expected: bool
) -> None:
    assert sees_order(Recipe(name="x", head=MadeUp(way=way)), open_split(toy.int8, "train").spec) is expected


@pytest.fixture(scope="module")
def run(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe of two epochs of three steps."""
    path = tmp_path_factory.mktemp("costs") / "probe"
    recipe = replace(named("probe"), epochs=2, warmup_epochs=0, batch_clips=8)
    train(TrainRequest(recipe=recipe, cache=toy.int8, run=path, device="cpu"))
    return path


def test_bytes_speed_and_memory_are_those_of_the_cache_and_the_journal(toy: Any, run: Path, tmp_path: Path) -> None:
    (row,) = compare((run,), toy.int8).runs
    assert row.cost is not None
    assert (row.cost.bytes_per_view, row.cost.frames_per_view) == (4 * 32 * 2, 0)  # 4 embeddings in float16
    metrics = read_metrics(run)
    rates = sorted(line["clips_per_second"] for line in metrics if "loss" in line)
    assert row.clips_per_second == pytest.approx((rates[2] + rates[3]) / 2)
    peaks = [line["peak_memory_bytes"] for line in metrics if "loss" in line]
    assert peaks == sorted(peaks)
    assert row.peak_memory_bytes == peaks[-1] > 100e6  # torch alone has more
    shutil.copytree(run, tmp_path / "more")
    numbered = [{**line, "peak_memory_bytes": 2 + number % 3} for number, line in enumerate(metrics)]
    (tmp_path / "more/metrics.jsonl").write_text("\n".join(map(json.dumps, numbered)) + "\n")
    assert compare((tmp_path / "more",), toy.int8).runs[0].peak_memory_bytes == 4
    old = tmp_path / "old"
    shutil.copytree(run, old)
    lines = [{k: v for k, v in line.items() if k != "peak_memory_bytes"} for line in metrics]
    (old / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (row,) = compare((old,), toy.int8).runs
    assert (row.peak_memory_bytes, row.clips_per_second is None) == (None, False)
    (old / "metrics.jsonl").unlink()
    assert compare((old,), toy.int8).runs[0].clips_per_second is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("channels", 2**16, r"a head and a clip of [\d,]+ numbers; at most"),
        ("channels", 2**24, r"numbers; at most|cannot be built from what the run says"),
        ("tokens", 1, "cannot be built from what the run says"),
    ],
)
def test_a_run_that_says_sizes_of_no_head_is_an_error_of_ours(
    toy: Any, run: Path, tmp_path: Path, name: str, value: int, text: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    known = json.loads((tmp_path / "run/run.json").read_text())
    known["spec"][name] = value
    (tmp_path / "run/run.json").write_text(json.dumps(known))
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    recipe["head"] = {"kind": "attentive-probe"}
    (tmp_path / "run/recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(RunError, match=text):
        compare((tmp_path / "run",), toy.int8)
