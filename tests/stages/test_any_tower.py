"""Small random towers of each adapter walk the whole path by command line: extract, train, evaluate, predict.

The towers are those of tests/clip/small_towers.py; they see 32 px and have three blocks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split

KINDS = ("clip", "clipa", "siglip", "eva02", "dinov2", "dinov2 with registers")
"""open_clip's own blocks, with a class token pooled and with the mean; `TimmModel` without a class token and with one;
plain timm with registers and without."""

SETTINGS = ["epochs=1", "warmup_epochs=0", "batch_clips=2"]


@pytest.fixture(scope="module")
def data(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training videos and two to validate on."""
    root: Path = toy.smaller(tmp_path_factory.mktemp("any") / "ssv2", 3)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_of_each_adapter_walks_the_whole_path(
    kind: str, data: Path, write_tower: Any, invoke: Any, tmp_path: Path
) -> None:
    tower, cache = write_tower(tmp_path / "tower", kind), tmp_path / "zarr"

    def done(*words: object) -> Any:
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr
        return result

    where = ["--dataset", "ssv2", "--root", data, "--model", tower, "--dense-frames", 8]
    done("plan", *where, "--cache", cache, "--no-measure")
    done("extract", *where, "--cache", cache, "--decode-in", "threads")
    spec = open_split(cache, "train").spec
    assert (spec.channels, spec.tokens, spec.layers) == (64, 17, (0, 1, 2))
    assert spec.class_row == ("mean" if kind == "siglip" else "token")
    assert spec.left_out == 4 * (kind == "dinov2 with registers")
    assert spec.textless == kind.startswith("dinov2")
    assert spec.resize.words == ("bilinear-shortest" if kind == "clip" else RESIZED[kind])
    done("cache", "verify", "--cache", cache)
    for recipe in ("dist-toy", "probe"):
        run = tmp_path / recipe
        sets = [word for setting in SETTINGS for word in ("--set", setting)]
        done("train", "--cache", cache, "--recipe", recipe, "--run", run, *sets)
        scored = json.loads(done("evaluate", "--cache", cache, "--run", run, "--json").stdout)
        assert (scored["score"]["scored"], scored["score"]["listed"]) == (2, 2)
        video = sorted((data / "20bn-something-something-v2").glob("*.webm"))[0]
        (answer,) = json.loads(done("predict", video, "--checkpoint", run, "--json").stdout)
        assert (answer["error"], len(answer["top5"])) == (None, 5)


RESIZED = {
    "clipa": "bicubic-antialias-squash",
    "siglip": "bicubic-antialias-squash",
    "eva02": "bicubic-antialias-squash",
    "dinov2": "bicubic-antialias-shortest",
    "dinov2 with registers": "bicubic-antialias-shortest",
}
"""What the folders ask for; CLIP alone keeps what DiST's authors did."""
