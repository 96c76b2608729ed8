"""The whole road by command: extract, train, evaluate, predict; one device or two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from safetensors import safe_open

STEPS = 6  # two epochs of 24 videos in batches of 8


def words_of(toy: Any, run: Path, recipe: str = "dist-toy") -> list[object]:
    """A training of two epochs."""
    sets = [word for setting in toy.settings() for word in ("--set", setting)]
    return ["train", "--cache", toy.int8, "--recipe", recipe, "--run", run, "--device", "cpu", *sets]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def trained(toy: Any, invoke: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run and its report."""
    run = tmp_path_factory.mktemp("trained") / "run"
    result = invoke(*words_of(toy, run), "--json")
    assert result.exit_code == 0, result.stderr
    return run, json.loads(result.stdout)


def test_a_run_keeps_what_it_was_made_from(toy: Any, trained: tuple[Path, dict[str, Any]]) -> None:
    run, report = trained
    assert (report["finished"], report["global_step"]) == (True, STEPS)
    made = json.loads((run / "run.json").read_text())
    attributes = json.loads((toy.int8 / "train" / "zarr.json").read_text())["attributes"]["vidxfer"]
    assert made["cache_fingerprint"] == attributes["fingerprint"]
    assert made["class_names"] == attributes["class_names"]
    assert {"torch", "vidxfer", "zarr"} <= made["versions"].keys()
    assert made["code"]
    assert json.loads((run / "recipe.json").read_text())["epochs"] == 2
    assert len(losses(run)) == STEPS


def test_a_finished_run_is_not_trained_again(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    before = {name: (run / name).read_bytes() for name in ("checkpoint/weights.safetensors", "metrics.jsonl")}
    result = invoke(*words_of(toy, run), "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["finished"], report["global_step"]) == (True, STEPS)
    assert report["score"]["top1"] == trained[1]["score"]["top1"]
    assert (run / "checkpoint" / "weights.safetensors").read_bytes() == before["checkpoint/weights.safetensors"]
    assert (run / "metrics.jsonl").read_bytes() == before["metrics.jsonl"], "a repetition adds no lines"


def test_another_recipe_in_the_same_folder_is_refused(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any
) -> None:
    result = invoke(*words_of(toy, trained[0]), "--set", "seed=4")
    assert result.exit_code == 1
    assert "seed: the run has 0, you ask for 4" in result.stderr


def test_evaluation_repeats_the_score_of_training_and_names_every_prediction(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any
) -> None:
    run, report = trained
    result = invoke("evaluate", "--run", run, "--cache", toy.int8, "--batch-clips", 3, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["score"]["top1"] == report["score"]["top1"]
    assert (found["score"]["scored"], found["score"]["listed"], found["score"]["missing"]) == (16, 16, {})
    rows = [json.loads(line) for line in Path(found["predictions"]).read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 16
    assert sum(row["right"] for row in rows) / 16 == pytest.approx(found["score"]["top1"])
    assert all(row["top5_labels"][0] == row["label"] for row in rows if row["right"])


@pytest.fixture(scope="module")
def probed(toy: Any, invoke: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the linear probe, whose whole arithmetic fits into a few lines of numpy."""
    run = tmp_path_factory.mktemp("probed") / "run"
    words = ["train", "--cache", toy.float16, "--recipe", "probe", "--run", run, "--device", "cpu"]
    assert invoke(*words, "--set", "epochs=6", "--set", "batch_clips=8").exit_code == 0
    return run


def by_numpy(cache: Path, run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Summed view probabilities [video class] and labels of a probe's run, from the files and numpy alone."""
    stored = zarr.open_group(cache / split, mode="r")
    frames = stored["embedding"][:].astype(np.float64)  # [video view frame embed]
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    with safe_open(run / "checkpoint" / "weights.safetensors", "numpy") as file:
        weights = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
    normed = (frames.mean(axis=2) - weights["norm.running_mean"]) / np.sqrt(weights["norm.running_var"] + 1e-5)
    powers = np.exp(normed @ weights["classifier.weight"].T + weights["classifier.bias"])
    return (powers / powers.sum(axis=-1, keepdims=True)).sum(axis=1), stored["label"][:]


@pytest.mark.parametrize("split", ["val", "train"])
def test_evaluation_is_a_softmax_per_view_summed_over_all_views(
    toy: Any, invoke: Any, probed: Path, split: str
) -> None:
    result = invoke("evaluate", "--run", probed, "--cache", toy.float16, "--split", split, "--batch-clips", 5, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    rows = [json.loads(line) for line in Path(found["predictions"]).read_text().splitlines()]
    summed, labels = by_numpy(toy.float16, probed, split)
    assert len(rows) == len(labels) == {"val": 16, "train": 24}[split]
    assert found["score"]["top1"] == pytest.approx(np.mean(summed.argmax(axis=1) == labels))
    if split == "val":
        best = json.loads((probed / "result.json").read_text())["score"]["top1"]
        assert best == pytest.approx(found["score"]["top1"])
    views = {"val": 1, "train": 2}[split]
    for row, chances, label in zip(rows, summed / views, labels, strict=True):
        assert row["label"] == label
        assert [share for _, share in row["top5"]] == pytest.approx(sorted(chances, reverse=True)[:5], abs=1e-4)


def test_a_float16_cache_gives_an_int8_run_nearly_the_same_scores(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any, tmp_path: Path
) -> None:
    shares = []
    for cache in (toy.int8, toy.float16):
        result = invoke("evaluate", "--run", trained[0], "--cache", cache, "--json")
        assert result.exit_code == 0, result.stderr
        rows = Path(json.loads(result.stdout)["predictions"]).read_text().splitlines()
        shares.append({row["id"]: dict(row["top5"]) for row in map(json.loads, rows)})
    for name in shares[0]:
        for label in shares[0][name].keys() & shares[1][name].keys():
            assert shares[0][name][label] == pytest.approx(shares[1][name][label], abs=0.02)


def test_prediction_agrees_with_evaluation_on_the_same_videos(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any
) -> None:
    evaluated = invoke("evaluate", "--run", trained[0], "--cache", toy.float16, "--json")
    rows = map(json.loads, Path(json.loads(evaluated.stdout)["predictions"]).read_text().splitlines())
    expected = {row["id"]: row["top5"] for row in rows}
    files = [toy.videos / f"{name}.webm" for name in list(expected)[:4]]
    result = invoke("predict", *files, "--checkpoint", trained[0], "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    for answer, file in zip(json.loads(result.stdout), files, strict=True):
        assert answer["error"] is None
        for (label, share), (same, other) in zip(answer["top5"], expected[file.stem], strict=True):
            assert share == pytest.approx(other, abs=2e-3)
            assert label == same or abs(share - other) < 2e-3


def test_a_file_that_is_no_video_is_named_and_the_others_are_answered(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any, tmp_path: Path
) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    good = min(toy.videos.iterdir())
    result = invoke("predict", tmp_path / "notes.mp4", good, tmp_path / "absent.mp4", "--checkpoint", trained[0])
    assert result.exit_code == 3
    assert f"{tmp_path / 'notes.mp4'}: refused: not_a_video" in result.stdout
    assert f"{tmp_path / 'absent.mp4'}: refused: missing" in result.stdout
    answer = result.stdout[result.stdout.index(str(good)) :].splitlines()
    assert sum("%" in line for line in answer[1:6]) == 5


def test_a_run_is_usable_from_another_folder(
    toy: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was named relative to the folder of the first command."""
    home, away = tmp_path / "base", tmp_path / "away"
    away.mkdir(parents=True)
    toy.smaller(home / "data", 8)
    shutil.copytree(toy.clip, home / "clip")
    monkeypatch.chdir(home)
    words = ["extract", "--root", "data", "--model", "clip", "--dense-frames", 8, "--cache", "zarr"]
    assert invoke(*words).exit_code == 0
    sets = [word for setting in toy.settings() for word in ("--set", setting)]
    assert invoke("train", "--cache", "zarr", "--recipe", "dist-toy", "--run", "run", *sets).exit_code == 0
    video = min((home / "data" / toy.videos.name).iterdir())
    monkeypatch.chdir(away)
    for words in (["predict", video, "--checkpoint", "../base/run"],
                  ["evaluate", "--run", "../base/run", "--cache", "../base/zarr"]):  # fmt: skip
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr


def test_evaluation_of_holes_exits_with_3_and_names_them(
    toy: Any, trained: tuple[Path, dict[str, Any]], invoke: Any, tmp_path: Path
) -> None:
    root = toy.smaller(tmp_path / "data", 8)
    videos = root / toy.videos.name
    labels = json.loads((root / "labels" / "validation.json").read_text())
    broken = labels[0]["id"]
    (videos / f"{broken}.webm").write_bytes(b"")
    words = ["extract", "--root", root, "--model", toy.clip, "--dense-frames", 8, "--cache", tmp_path / "zarr"]
    assert invoke(*words).exit_code == 3
    result = invoke("evaluate", "--run", trained[0], "--cache", tmp_path / "zarr")
    assert result.exit_code == 3
    assert "(1 scored / 2 listed)" in result.stdout
    assert f"missing: {broken}: empty" in result.stdout
    assert "every missing video counted as wrong" in result.stdout


def test_training_on_a_broken_training_video_leaves_it_out_and_says_so(toy: Any, invoke: Any, tmp_path: Path) -> None:
    root = toy.smaller(tmp_path / "data", 9)
    min((root / toy.videos.name).iterdir()).write_bytes(b"")
    words = ["extract", "--root", root, "--model", toy.clip, "--dense-frames", 8, "--cache", tmp_path / "zarr"]
    assert invoke(*words).exit_code == 3
    sets = [word for setting in toy.settings() for word in ("--set", setting)]
    words = ["train", "--cache", tmp_path / "zarr", "--recipe", "dist-toy", "--run", tmp_path / "run", *sets]
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    assert "1 videos were refused at extraction; left out" in result.stderr


def test_an_unfinished_extraction_is_not_trained_on_unless_told(toy: Any, invoke: Any, tmp_path: Path) -> None:
    cache = tmp_path / "zarr"
    shutil.copytree(toy.int8, cache)
    ledger = cache / "train.ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:3]))
    words = [word if word != toy.int8 else cache for word in words_of(toy, tmp_path / "run")]
    result = invoke(*words)
    assert result.exit_code == 1
    assert "9 of 24 videos are not extracted yet" in result.stderr
    assert "--allow-incomplete" in result.stderr
    assert invoke(*words, "--allow-incomplete").exit_code == 0


def test_the_probe_trains_and_scores_without_the_videos(toy: Any, invoke: Any, tmp_path: Path) -> None:
    cache = tmp_path / "zarr"
    shutil.copytree(toy.int8, cache)
    for split in ("train", "val"):
        file = cache / split / "zarr.json"
        stored = json.loads(file.read_text().replace(str(toy.root), str(tmp_path / "gone")))
        del stored["attributes"]["vidxfer"]["seal"]  # as in caches from before there was one: it is over these words
        file.write_text(json.dumps(stored))
    words = ["train", "--cache", cache, "--recipe", "probe", "--run", tmp_path / "run", "--set", "epochs=3"]
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    assert invoke("evaluate", "--run", tmp_path / "run", "--cache", cache).exit_code == 0


@pytest.mark.slow
def test_two_devices_have_the_losses_of_one_with_the_same_global_batch(
    toy: Any, trained: tuple[Path, dict[str, Any]], vidxfer: Any, tmp_path: Path
) -> None:
    done = vidxfer(*words_of(toy, tmp_path / "run"), "--devices", 2, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # once, not once per process
    assert (report["finished"], report["global_step"]) == (True, STEPS)
    ours, alone = losses(tmp_path / "run"), losses(trained[0])
    print("largest difference of a loss:", max(abs(a - b) for a, b in zip(ours, alone, strict=True)))
    assert ours == pytest.approx(alone, abs=1e-4, rel=1e-5)
    assert done.stderr.count("epoch 2/2") == 1, "one process shows bars"
