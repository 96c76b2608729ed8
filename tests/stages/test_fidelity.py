"""What a codec loses: the measures tell what they claim, and the command compares the cache with the pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vidxfer.pipeline.cache.codecs.closeness import Closeness
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.upkeep.fidelity import FidelityRequest, fidelity


def test_the_measures_equal_the_plain_formulas() -> None:
    draw = torch.Generator().manual_seed(1)
    truth = torch.randn(2, 3, 2, 5, 24, generator=draw) * torch.tensor([1.0] * 16 + [30.0] * 8) + 2
    found = truth + torch.randn(truth.shape, generator=draw) * 0.3
    mean, std = truth.mean((0, 2, 3)), truth.std((0, 2, 3))
    close = Closeness((1, 4, 6), 10, mean, std)
    close.update(truth[:1], found[:1])
    close.update(truth[1:], found[1:])
    for i, one in enumerate(close.finish()):
        x, y = truth[:, i].reshape(-1, 24), found[:, i].reshape(-1, 24)
        assert one.layer == (1, 4, 6)[i]
        for cosine, (a, b) in (
            ((one.cosine, one.cosine_worst), (x, y)),
            ((one.centred, one.centred_worst), (x - mean[i], y - mean[i])),
            ((one.ordinary, one.ordinary_worst), (x[:, :16], y[:, :16])),  # the 8 largest are the last 8
        ):
            plain = F.cosine_similarity(a, b, dim=-1)
            assert cosine == pytest.approx((float(plain.mean()), float(plain.min())), abs=1e-5)
        assert one.relative_error == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-4)
        assert one.error_in_std == pytest.approx(float(((y - x) / std[i]).square().mean().sqrt()), rel=1e-4)


def test_plain_cosine_is_blind_where_large_channels_hide_the_rest_and_the_others_are_not() -> None:
    draw = torch.Generator().manual_seed(2)
    truth = torch.randn(1, 1, 8, 50, 128, generator=draw)
    truth[..., :6] = truth[..., :6] * 3 + 400
    found = truth.clone()
    found[..., 6:] = 0  # every ordinary channel is gone
    close = Closeness((0,), 1, truth.mean((0, 2, 3)), truth.std((0, 2, 3)))
    close.update(truth, found)
    (one,) = close.finish()
    assert one.cosine > 0.999
    assert one.ordinary < 0.1
    assert one.centred < 0.9
    assert one.error_in_std > 0.9


def test_what_is_stored_is_compared_with_the_pixels_and_tried_codecs_lose_more_with_fewer_bits(
    toy: Any, invoke: Any
) -> None:
    codecs = ["int8", "int6", "int4", "pq"]
    words = [word for codec in codecs for word in ("--codec", codec)]
    result = invoke("cache", "fidelity", "--cache", toy.int8, "--videos", 3, *words, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["truth"], len(report["videos"]), report["fitted_on"], report["overlap"]) == ("pixels", 3, 16, False)
    assert [(one["codec"], one["stored"]) for one in report["codecs"]] == [
        ("int8", True),
        *((c, False) for c in codecs),
    ]
    stored, *tried = report["codecs"]
    assert [layer["layer"] for layer in stored["layers"]] == [0, 1, 2]
    for i in range(3):
        assert stored["layers"][i]["ordinary_worst"] > 0.999
        assert stored["layers"][i]["error_in_std"] == pytest.approx(tried[0]["layers"][i]["error_in_std"], rel=0.3)
        errors = [one["layers"][i]["error_in_std"] for one in tried]
        sizes = [one["layers"][i]["bytes_per_view"] for one in tried]
        assert errors == sorted(errors)
        assert sizes == sorted(sizes, reverse=True)


def test_a_float16_cache_is_its_own_truth_and_needs_neither_videos_nor_clip(
    toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidxfer.stages.upkeep.truth.dense_videos", None)
    monkeypatch.setattr("vidxfer.stages.upkeep.truth.tower_of_caches", None)
    words = ["--cache", toy.float16, "--truth", "stored", "--codec", "rotate+int6", "--videos", 4]
    result = invoke("cache", "fidelity", *words)
    assert result.exit_code == 0, result.stderr
    assert "rotate+int6 (tried, not stored)" in result.stdout
    assert "Plain cosine alone misleads" in result.stdout
    assert "against their float16 tokens in the cache" in " ".join(result.stdout.split())


def test_a_small_split_says_that_it_was_measured_on_what_was_fitted(toy: Any) -> None:
    request = FidelityRequest(cache=toy.float16, split="val", videos=99, truth="stored", codecs=("int4",), fit_on="val")
    report = fidelity(request)
    assert report.overlap
    assert len(report.videos) == report.fitted_on == 16


def test_what_cannot_be_measured_is_refused_with_the_way_out(toy: Any, tmp_path: Path) -> None:
    for changes, words in (
        ({"truth": "stored", "codecs": ("int4",)}, "holds int8, which is no truth"),
        ({"truth": "seen"}, "pixels, stored"),
        ({"codecs": ("int5",)}, "Nearest: int"),
    ):
        with pytest.raises(UsageError, match=words):
            fidelity(FidelityRequest(cache=toy.int8, **changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name codecs to try"):
        fidelity(FidelityRequest(cache=toy.float16, truth="stored"))
