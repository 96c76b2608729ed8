"""What a codec does to the tower's own end: the command's figures equal those of a few plain lines over the library."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import zarr

from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.codecs.through import Ending, EndSums, LayerThrough, ThroughTower
from vidxfer.stages.extract import extract
from vidxfer.stages.progress import Silent
from vidxfer.stages.upkeep.fidelity import FidelityRequest, fidelity
from vidxfer.stages.upkeep.recode import RecodeRequest, recode
from vidxfer.stages.upkeep.truth import Truth, tower_of_split


def plain_figures(model: Path, exact: Path, small: Path, split: str) -> list[tuple[float, float, float]]:
    """Class row, patches and worst 1 % per layer of an int8 cache, by the library's blocks and plain zarr."""
    visual = open_clip.create_model(f"local-dir:{model}").eval().visual
    codes, scale = (zarr.open(small / split / name, mode="r")[:] for name in ("tokens", "scale"))
    mean, std = (zarr.open(small / split / f"channel_{name}", mode="r")[:] for name in ("mean", "std"))
    truth = np.asarray(zarr.open(exact / split / "tokens", mode="r")[:], dtype=np.float32)
    steps = codes.astype(np.float32) * scale.astype(np.float32)[..., None]
    decoded = mean[:, None, None] + steps * std[:, None, None]
    figures = []
    for layer in range(truth.shape[2]):
        ends = []
        for tokens in (truth, decoded):
            x = torch.from_numpy(tokens[:, :, layer]).flatten(0, 2)
            with torch.inference_mode():
                for block in visual.transformer.resblocks[layer + 1 :]:
                    x = block(x)
                ends.append(visual.ln_post(x))
        cosines = F.cosine_similarity(*ends, dim=-1)
        patches = cosines[:, 1:].flatten().sort().values
        worst = patches[: max(1, len(patches) // 100)].mean()
        figures.append((float(cosines[:, 0].mean()), float(patches.mean()), float(worst)))
    return figures


def test_figures_equal_plain_lines_over_the_same_tokens_and_codes(toy: Any, invoke: Any, tmp_path: Path) -> None:
    small = tmp_path / "int8"
    recoded = invoke("cache", "recode", toy.float16, "--to", small, "--codec", "int8", "--split", "val")
    assert recoded.exit_code == 0, recoded.stderr
    wanted = plain_figures(toy.clip, toy.float16, small, "val")
    request = FidelityRequest(
        cache=toy.float16, split="val", fit_on="val", videos=99, calibration_videos=64, truth="stored", through=True,
        codecs=("int8",), batch_frames=24,
    )  # fmt: skip
    (found,) = fidelity(request).codecs
    assert found.through is not None
    for layer, (class_row, patches, worst) in zip(found.through.layers, wanted, strict=True):
        assert 1 - layer.class_row == pytest.approx(1 - class_row, abs=2e-6)
        assert 1 - layer.patches == pytest.approx(1 - patches, abs=2e-6)
        assert 1 - layer.patches_worst == pytest.approx(1 - worst, abs=5e-6)
    smallest = [min(class_row, patches) for class_row, patches, _ in wanted]
    assert found.through.loss == pytest.approx(1 - min(smallest), abs=2e-6)
    # Against pixels the cache that is stored so has the same loss, but for the truth's rounding to float16.
    (stored,) = fidelity(FidelityRequest(cache=small, split="val", videos=99, through=True, fit_on="val")).codecs
    assert stored.through is not None
    for layer, other in zip(stored.through.layers, found.through.layers, strict=True):
        assert layer.patches == pytest.approx(other.patches, abs=1e-5)
        assert layer.patches < 1 - 1e-6


def test_the_worst_layer_and_the_smaller_mean_are_the_loss() -> None:
    layers = [
        LayerThrough(layer=-1, class_row=0.99, patches=0.95, patches_worst=0.5),
        LayerThrough(layer=4, class_row=0.91, patches=0.98, patches_worst=0.9),
        LayerThrough(layer=9, class_row=0.97, patches=0.96, patches_worst=0.1),
    ]
    judged = ThroughTower.of(layers)
    assert (judged.worst_layer, judged.loss) == (4, pytest.approx(0.09))


def test_the_worst_hundredth_is_over_all_frames_and_whatever_part_of_them_could_be_read() -> None:
    draw = torch.Generator().manual_seed(4)
    truth = torch.randn(2, 30, 11, 6, generator=draw)
    found = truth + torch.randn(truth.shape, generator=draw)
    sums = EndSums((3, 5), frames=500)  # 30 of them come
    for first, end in ((0, 7), (7, 20), (20, 30)):
        sums.update(truth[:, first:end], found[:, first:end])
    cosines = F.cosine_similarity(truth.double(), found.double(), dim=-1)
    for one, plain in zip(sums.finish(), cosines, strict=True):
        patches = plain[:, 1:].flatten().sort().values
        assert one.class_row == pytest.approx(float(plain[:, 0].mean()))
        assert one.patches == pytest.approx(float(patches.mean()))
        assert one.patches_worst == pytest.approx(float(patches[:3].mean()))  # 300 patches
    assert EndSums((3,), frames=5).finish() == ()


def test_pixels_are_measured_through_the_tower_unless_told_otherwise(toy: Any, invoke: Any) -> None:
    words = [
        "cache",
        "fidelity",
        "--cache",
        toy.int8,
        "--split",
        "val",
        "--videos",
        3,
        "--codec",
        "pq",
        "--layers",
        "0,2",
    ]
    report = json.loads(invoke(*words, "--json").stdout)
    stored, tried = report["codecs"]
    assert (report["fitted_in"], report["fitted_on"], report["overlap"]) == ("train", 16, False)
    for codec in (stored, tried):
        layers = codec["through"]["layers"]
        assert [layer["layer"] for layer in layers] == [layer["layer"] for layer in codec["layers"]] == [0, 2]
        assert codec["through"]["loss"] == 1 - min(min(one["class_row"], one["patches"]) for one in layers)
    assert 0 < stored["through"]["loss"] < 1e-3 < tried["through"]["loss"] < 1
    assert (stored["bits_per_value"], tried["bits_per_value"]) == (8.25, 1.25)
    shown = invoke(*words)
    assert shown.exit_code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    loss = tried["through"]["loss"]
    assert text.index("What the tower makes of it: val") < text.index("int8 (stored)") < text.index(f"{loss:.4f}")
    assert "come from 16 other videos, of train" in text
    row = tried["through"]["layers"][1]
    assert f"{row['class_row']:.4f}|{row['patches']:.4f},{row['patches_worst']:.3f}" in text
    without = json.loads(invoke(*words, "--no-through", "--json").stdout)
    assert [codec["through"] for codec in without["codecs"]] == [None, None]
    assert "tower" not in invoke(*words, "--no-through").stdout


def test_stored_tokens_need_the_tower_and_no_video(toy: Any, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidxfer.stages.upkeep.truth.dense_videos", None)
    words = [
        "cache",
        "fidelity",
        "--cache",
        toy.float16,
        "--truth",
        "stored",
        "--codec",
        "int4",
        "--videos",
        2,
        "--json",
    ]
    through = json.loads(invoke(*words, "--through").stdout)["codecs"][0]["through"]
    assert 0 < through["loss"] < 0.05
    monkeypatch.setattr("vidxfer.stages.upkeep.truth.tower_of_caches", None)
    assert json.loads(invoke(*words).stdout)["codecs"][0]["through"] is None  # not asked for: no tower either


def test_what_cannot_be_measured_is_refused(toy: Any) -> None:
    for changes, words in (
        ({"fit_on": "tset"}, "--fit-on tset: .* holds train, val"),
        ({"layers": (0, 7)}, r"--layers: layers \[7\] are not in the cache"),
    ):
        with pytest.raises(UsageError, match=words):
            fidelity(FidelityRequest(cache=toy.int8, through=True, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["dinov2 with registers", "siglip"])
def test_registers_come_from_the_undisturbed_tower_and_are_missed_where_there_are_no_pixels(
    kind: str, toy: Any, write_tower: Any, tmp_path: Path
) -> None:
    tower, cache = write_tower(tmp_path / "tower", kind), tmp_path / "zarr"
    request = toy.request(cache, codec="float16", root=toy.smaller(tmp_path / "ssv2", 4), decode_in="threads")
    extract(replace(request, clip=replace(request.clip, model=str(tower))))
    asked = FidelityRequest(cache=cache, videos=2, through=True, codecs=("int4",))
    exact, int4 = (codec.through for codec in fidelity(asked).codecs)
    assert exact is not None
    assert int4 is not None
    assert exact.loss < 1e-6
    assert int4.loss > 1e-4
    with open_reader(open_split(cache, "train")) as reader:
        truth = Truth(asked, reader, Silent())
        seen = next(iter(truth.seen([1], "look at")))
        loaded = tower_of_split(reader.split, "cpu")
    ends = Ending(loaded, (0, 1, 2), batch_frames=3).ends(seen.tokens, seen.left_out)
    for other in ends[1:]:  # from every layer to the same end, so what was left out is that of the layer and the frame
        torch.testing.assert_close(other, ends[0], atol=2e-5, rtol=1e-4)
    stored, recoded = replace(asked, truth="stored"), RecodeRequest(source=cache, target=tmp_path / "to", codec="auto")
    if kind == "siglip":
        (found,) = fidelity(stored).codecs
        assert found.through is not None
        assert found.through.loss == pytest.approx(int4.loss, rel=0.05)
        return
    with pytest.raises(UsageError, match=r"has 4 more tokens per frame .* Take --truth pixels"):
        fidelity(stored)
    with pytest.raises(UsageError, match=r"has 4 more tokens per frame .* name the codec"):
        recode(recoded)


def test_tokens_of_another_number_than_the_tower_s_are_refused(toy: Any) -> None:
    from vidxfer.pipeline.clip.load import load_tower

    tower = load_tower(str(toy.clip), device="cpu")
    ending = Ending(tower, (0, 1), batch_frames=4)
    with pytest.raises(UsageError, match=r"holds 5 tokens per frame, and the blocks of .* go on with 17"):
        ending.ends(torch.zeros(1, 2, 4, 5, 64))
