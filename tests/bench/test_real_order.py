"""The order task on real footage: same pictures, mirrored draws, intervals over recordings."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.video.sampling import Sampling, test_indices, train_indices
from vidxfer.pipeline.video.writer import write_video

HERE = Path(__file__).parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts, as modules."""
    monkeypatch.syspath_prepend(str(HERE))
    names = ("real_windows", "real_order", "frontier", "frontier_page", "token_motion")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


class Fixed:
    """A generator whose draws are given."""

    def __init__(self, draws: list[float]) -> None:
        self.draws = draws

    def random(self, count: int) -> Any:
        assert count == len(self.draws)
        return np.array(self.draws)


@pytest.mark.parametrize(("speed", "first"), [(1, 106), (2, 100)])
def test_backward_is_forward_from_its_end_in_every_draw_of_the_rule(bench: Any, speed: int, first: int) -> None:
    orders, sampling = bench.real_windows.orders(100, 2), Sampling(dense_frames=8)
    forward, backward = orders[f"forward x{speed}"], orders[f"backward x{speed}"]
    scored = test_indices(len(forward), sampling, views=1, view=0)
    assert [forward[place] for place in scored] == [first + 2 * speed * step for step in range(8)]
    assert [backward[place] for place in scored] == [first + 2 * speed * step for step in reversed(range(8))]
    for draw in np.linspace(0.01, 0.99, 25):
        there = train_indices(32, sampling, Fixed([float(draw)] * 8))  # type: ignore[arg-type]
        back = train_indices(32, sampling, Fixed([float(1 - draw)] * 8))  # type: ignore[arg-type]
        assert [backward[place] for place in back] == [forward[place] for place in reversed(there)]


def test_windows_in_which_most_moves_are_kept_in_the_order_of_the_video(bench: Any) -> None:
    still, moving = [0.0] * 28, [1.0] * 14
    assert bench.real_windows.starts([*still, *moving, *still], 1, 1) == [27]  # 13 of its 14 changes; 30 has 12
    assert bench.real_windows.starts([*still, *moving, *still], 1, 3) == [24, 27, 30]
    assert bench.real_windows.starts([1.0] * 27, 2, 36) == []
    assert bench.real_windows.starts([1.0] * 28, 2, 36) == [0]
    assert bench.real_windows.starts([1.0] * 34, 2, 36) == [0, 3, 6]
    steps = {(540, 90.0): 4, (540, 30.0): 1, (540, 10.0): 1, (47, 90.0): 2, (20, 90.0): 1}
    assert {one: bench.real_windows.step_of(*one) for one in steps} == steps


def test_the_parts_of_a_list_that_belong_to_one_video_and_split_are_one_stretch(bench: Any, tmp_path: Path) -> None:
    rows = ["path,label,start,end,split,id", "a.mp4,x,0.0,2.0,train,a0", "a.mp4,x,2.0,4.0,train,a1",
            "a.mp4,x,6.0,8.0,val,a3", "b.mp4,y,,,val,b"]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = [(one.path, one.split, one.start, one.end) for one in bench.real_windows.stretches(tmp_path)]
    assert found == [("a.mp4", "train", 0.0, 4.0), ("a.mp4", "val", 6.0, 8.0), ("b.mp4", "val", None, None)]
    (tmp_path / "list.csv").unlink()
    with pytest.raises(SystemExit, match="neither a list"):
        bench.real_windows.stretches(tmp_path)
    for name in ("b.mp4", "a.webm", "notes.txt"):
        (tmp_path / name).touch()
    assert [(one.path, one.split) for one in bench.real_windows.stretches(tmp_path)] == [
        ("a.webm", "train"), ("b.mp4", "val"),
    ]  # fmt: skip


def test_the_four_clips_of_a_window_are_links_to_the_same_pictures(bench: Any, tmp_path: Path) -> None:
    footage, folder = tmp_path / "videos", tmp_path / "work"
    footage.mkdir()
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(footage / name, np.full((15, 32, 48, 3), 90, dtype=np.uint8), codec="libx264")
    sources = bench.real_windows.write_windows(footage, folder, 4)
    assert len(sources) == 8
    assert set(sources.values()) == {"a.mp4", "b.mp4"}
    pictures = {}
    for clip in sources:
        links = sorted((folder / "clips" / clip).iterdir())
        assert [link.name for link in links] == [f"{number:05d}.png" for number in range(32)]
        pictures[clip] = {link.stat().st_ino for link in links}
    assert pictures["a_train_00000_forward_x2"] == pictures["a_train_00000_backward_x2"]
    assert pictures["a_train_00000_forward_x1"] == pictures["a_train_00000_backward_x1"]
    assert bench.real_windows.write_windows(footage, folder, 4) == sources
    with pytest.raises(SystemExit, match="Name another --work"):
        bench.real_windows.write_windows(footage, folder, 5)


def test_the_interval_is_over_recordings_and_not_over_clips(bench: Any) -> None:
    first = {f"{recording}{clip}": clip < 5 for recording in "ab" for clip in range(10)}
    second = {one: right if one[0] == "a" else int(one[1]) < 7 for one, right in first.items()}  # b: 5 to 7 of 10
    found = bench.frontier.difference([(first, second)], {one: one[0] for one in first})
    assert (found.points, found.low, found.high) == (10.0, 0.0, 20.0)  # a twice, or b twice, in a quarter of the draws
    alone = bench.frontier.difference([(first, second)], dict.fromkeys(first, "one"))
    assert (alone.points, alone.low, alone.high) == (10.0, 10.0, 10.0)
    two = bench.frontier.difference([(first, second), (first, first)], dict.fromkeys(first, "one"))
    assert two.points == 5.0
    with pytest.raises(ValueError, match="not on the same"):
        bench.frontier.difference([(first, {"a0": True})], {})


def test_the_smallest_that_passes_must_pass_with_every_head(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = bench.frontier.Scaled(bytes_per_view=14_560_000, training_gflop=95.0, decoding_gflop=22.3, break_even=None)
    monkeypatch.setattr(bench.frontier_page, "at_scale", lambda *_: sizes)

    def row(head: str, candidate: str, size: int, low: float | None) -> Any:
        against = None if low is None else bench.frontier.Difference(points=0.0, low=low, high=1.0)
        cost = SimpleNamespace(bytes_per_view=size, training_gflop=1.0)
        return bench.frontier.Row(
            task="order", head=head, candidate=candidate, tops=(50.0,), against=against, cost=cost, within_pair=55.0
        )  # fmt: skip

    rows = [
        row("dist", "float16", 80, None), row("motion", "float16", 20, None), row("probe", "float16", 1, None),
        row("dist", "int8", 40, -1.9), row("motion", "int8", 10, -1.0),
        row("dist", "int4", 20, -1.0), row("motion", "int4", 5, -2.0),
        row("dist", "pq", 10, 0.0),
    ]  # fmt: skip
    assert bench.frontier.smallest(rows) == "int8"
    assert bench.frontier.smallest(rows[:3]) is None
    at_chance = [replace(one, within_pair=54.9) if one.head == "motion" else one for one in rows]
    assert bench.frontier.gauges(at_chance) == {"dist"}
    assert bench.frontier.smallest(at_chance) == "pq"
    assert "no gauge" in bench.frontier.table(at_chance)[3]
    assert "`int8`**; with all blocks it would mean: B/16 14.56 MB" in bench.frontier_page.verdict(rows)
    assert "No candidate passes" in bench.frontier_page.verdict(rows[:3])


def test_sizes_at_published_towers_are_those_of_the_documents(bench: Any) -> None:
    exact = bench.frontier.at_scale("float16", "ViT-B-16-quickgelu", None)
    assert exact.bytes_per_view == 12 * 8 * 197 * 768 * 2
    assert round(exact.training_gflop, 1) == 95.0  # docs/heads.md
    clip, head = 281e9 / 100e12, 95e9 / 100e12
    assert exact.break_even == pytest.approx(exact.bytes_per_view / 1e9 / (clip + head), rel=0.01)
    assert exact.decoding_gflop == 0
    turned = bench.frontier.at_scale("klt4", "ViT-B-16-quickgelu", None).decoding_gflop
    assert turned == pytest.approx(12 * 8 * 196 * 2 * 767 * 768 / 1e9), "not the class row, and one direction is apart"
    fewer = bench.frontier.at_scale("pca192+int8@pool2", "ViT-B-16-quickgelu", None).decoding_gflop
    assert fewer == pytest.approx(12 * 8 * 50 * 2 * 192 * 768 / 1e9)


def test_ties_within_a_pair_are_half_right(bench: Any, tmp_path: Path) -> None:
    names = sorted(bench.real_windows.REVERSE)
    assert names == ["backward x1", "backward x2", "forward x1", "forward x2"]

    def line(number: int, shares: list[float]) -> str:
        best = sorted(range(4), key=lambda one: -shares[one])
        return json.dumps({
            "id": f"clip {number}", "label": 2, "label_name": names[2], "right": best[0] == 2,
            "top5": [[names[one], shares[one]] for one in best], "top5_labels": best,
        })  # fmt: skip

    shares = [[0.1, 0.5, 0.3, 0.1], [0.3, 0.5, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.0, 0.1, 0.8, 0.1]]
    (tmp_path / "predictions.val.jsonl").write_text("\n".join(line(*one) for one in enumerate(shares)) + "\n")
    assert bench.real_order.within_pair(tmp_path) == (1 + 0 + 0.5 + 1) / 4


def test_float16_comes_first_and_some_heads_are_trained_on_it_alone(bench: Any) -> None:
    jobs = bench.real_order.plan(["order"], ["int8", "float16"], 2, None)
    assert [(job.candidate, job.head, job.seed) for job in jobs] == [
        *[("float16", head, 0) for head in ("probe", "attentive", "motion", "dist")],
        ("int8", "motion", 0), ("float16", "motion", 1), ("int8", "motion", 1),
    ]  # fmt: skip
    assert len({job.run_name for job in jobs}) == len(jobs)


def test_a_picture_that_moves_is_seen_to_move_and_where(bench: Any) -> None:
    module, rng = bench.token_motion, torch.Generator().manual_seed(0)
    offer = Offer(layers=(0,), sparse_frames=2, alpha=2, grid=(6, 6), channels=8, embed=8, classes=4, image_px=96)
    head = module.TokenMotion(module.TokenMotionConfig(directions=8), offer)
    first = torch.randn(6, 6, 8, generator=rng)
    later = torch.roll(first, (1, 2), dims=(0, 1))  # a row down, two columns to the right
    unit = F.normalize(torch.stack([first, later]).flatten(1, 2), dim=-1)[None, None]
    shares = head._moved(unit, 1).reshape(25, -1).mean(dim=1)
    assert int(shares.argmax()) == (2 + 1) * 5 + (2 + 2)
    near, inside = module.neighbours((2, 3), 1)
    assert near[0].tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    assert inside[0].tolist() == [False] * 4 + [True, True, False, True, True]
    assert inside[5].tolist() == [True, True, False, True, True, False, False, False, False]
