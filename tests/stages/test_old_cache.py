"""A cache of 0.1.0 is verified, trained on and added to by the commands of today: it lacks later words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.cache.store import open_split

ATTRIBUTES = ["format", "spec", "fingerprint", "cache_id", "class_names", "flip_pairs", "shard_videos",
              "informs"]  # fmt: skip
SPEC = ["clip_model", "clip_weights_sha256", "clip_precision", "channels", "tokens", "embed", "layers", "pixel_mean",
        "pixel_std", "sampling", "view_kind", "views", "crops", "codec", "calibration_videos", "dataset",
        "dataset_fingerprint", "split"]  # fmt: skip
"""What 0.1.0 wrote of a split, read from one that it made. It wrote a seal over all of them, and factors, too."""

SETTINGS = ["--set", "epochs=1", "--set", "warmup_epochs=0", "--set", "batch_clips=2"]


@pytest.fixture
def old(toy: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Data of six training videos, and a cache of the first three as 0.1.0 left it."""
    from vidxfer.stages.extract import extract

    data, cache = toy.smaller(tmp_path / "ssv2"), tmp_path / "zarr"
    extract(toy.request(cache, root=data, limit=3))
    shutil.rmtree(cache / "frozen", ignore_errors=True)
    for path in (cache / "train", cache / "val"):
        shutil.rmtree(path / "source_file")
        whole = json.loads((path / "zarr.json").read_text())
        known = whole["attributes"]["vidxfer"]
        kept = {name: known[name] for name in ATTRIBUTES}
        kept["informs"]["clip"] = {name: known["informs"]["clip"][name] for name in ("model", "pretrained")}
        whole["attributes"]["vidxfer"] = kept
        (path / "zarr.json").write_text(json.dumps(whole))
        ledger = path.with_name(f"{path.name}.ledger.jsonl")
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        for line in lines:
            del line["crc32c"]["source_file"], line["line_crc32c"]
        ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert list(kept["spec"]) == SPEC, "a field at its value of 0.1.0 is left out"
    return data, cache


def test_a_cache_of_0_1_0_is_verified_trained_on_and_added_to(old: tuple[Path, Path], invoke: Any) -> None:
    data, cache = old

    def done(*words: object) -> Any:
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr
        return result

    before = open_split(cache, "train")
    done("cache", "verify", "--cache", cache)
    for recipe in ("dist-toy", "probe"):
        done("train", "--cache", cache, "--recipe", recipe, "--run", cache.parent / recipe, *SETTINGS)
        done("evaluate", "--cache", cache, "--run", cache.parent / recipe)
    done("cache", "add", "--cache", cache, "--dataset", "ssv2", "--root", data, "--split", "train")
    grown = open_split(cache, "train")
    assert (before.video_count, grown.video_count) == (3, 6)
    assert grown.spec.tokens_fingerprint == before.spec.tokens_fingerprint
    assert list(grown.spec.to_dict()) == SPEC
    done("cache", "verify", "--cache", cache)
    done("cache", "parity", "--cache", cache, "--videos", 2)
    done("train", "--cache", cache, "--recipe", "dist-toy", "--run", cache.parent / "grown", *SETTINGS)
    scored = json.loads(done("evaluate", "--cache", cache, "--run", cache.parent / "grown", "--json").stdout)
    assert (scored["score"]["scored"], scored["score"]["listed"]) == (2, 2)
