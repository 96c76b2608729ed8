"""`vidxfer report` and `vidxfer view` as a person types them: what is written, what is refused, and odd run folders."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.stages.progress import Silent
from vidxfer.stages.reporting import report as stage
from vidxfer.stages.reporting.codec_maps import codec_maps, request_of

from .test_pages import Seen


def command_in(page: bytes) -> list[str]:
    """The words of the page's own command, without `vidxfer`."""
    (found,) = re.findall(r"<pre><code>(.*?)</code></pre>", page.decode("utf-8"), flags=re.DOTALL)
    return shlex.split(Seen(found).text)[1:]


@pytest.fixture
def copied(pages: Any, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the first run in which the lines of its predictions are changed, one by one; None leaves one out."""

    def make(change: Callable[[dict[str, Any]], dict[str, Any] | None], name: str = "copy") -> Path:
        run = tmp_path / name
        shutil.copytree(pages.runs[0], run)
        file = run / "predictions.val.jsonl"
        lines = [change(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None), encoding="utf-8")
        return run

    return make


def test_the_command_on_a_page_makes_the_same_page_again(pages: Any, tmp_path: Path, invoke: Any) -> None:
    words = ["report", pages.runs[0], "--cache", pages.cache, "--out", tmp_path / "r.html", "--plots", tmp_path / "a/b"]
    done = invoke(*words, "--frames-from", "cache")
    assert done.exit_code == 0, done.output
    assert re.search(r"r\.html: \d+ kB, 12 videos shown\. Open it in a browser\.\nplots: ", done.stdout)
    assert len(list((tmp_path / "a/b").iterdir())) == 12
    first = (tmp_path / "r.html").read_bytes()
    (tmp_path / "r.html").unlink()
    assert invoke(*command_in(first)).exit_code == 0
    assert (tmp_path / "r.html").read_bytes() == first
    for extra in ([], ["--video", "train 3 <b>&amp;.webm", "--frames-from", "videos"]):
        told = invoke("view", "--cache", pages.cache, "--out", tmp_path / "v.html", "--videos", 2, "--json", *extra)
        assert json.loads(told.stdout)["videos"] == 2 - bool(extra)
        first = (tmp_path / "v.html").read_bytes()
        assert invoke(*command_in(first)).exit_code == 0
        assert (tmp_path / "v.html").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["report", "{run}", "--out", "/proc/r.html"], 2, "--out /proc: no file can be made in this folder"),
        (
            ["report", "{run}", "--out", "{folder}/r.html", "--plots", "{run}/recipe.json"],
            2,
            "recipe.json: no file can",
        ),
        (["report", "{run}", "--out", "{folder}/dir.html"], 2, "dir.html: this is a folder. Name a file, as"),
        (["report", "{run}", "{run}/checkpoint/..", "--out", "{folder}/r.html"], 2, "the same run is named twice"),
        (["report", "{folder}/none", "--out", "{folder}/r.html"], 1, "is no run folder"),
        (["report", "{run}", "--out", "{folder}/r.html", "--split", "train"], 1, "predictions.train.jsonl is missing"),
        (["report", "{run}", "--out", "{folder}/r.html", "--cache", "{folder}/gone"], 1, "no cache at "),
        (["view", "--out", "/proc/v.html"], 2, "--out /proc: no file can be made in this folder"),
        (["view", "--out", "{folder}/v.html", "--cache", "{folder}/gone"], 1, "no cache at "),
        (["view", "--out", "{folder}/v.html", "--codec", "int5"], 2, "codec='int5' must be one of int8"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    words: list[str], code: int, said: str, pages: Any, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / "dir.html").mkdir()
    cache = [] if "--cache" in words else ["--cache", pages.cache]
    done = invoke(*(word.format(run=pages.runs[0], folder=tmp_path) for word in words), *cache)
    assert done.exit_code == code
    assert said in " ".join(done.stderr.split())
    assert "film strips" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["dir.html"]


def test_a_run_of_other_videos_or_of_another_version_is_named(
    pages: Any, toy: Any, tmp_path: Path, invoke: Any
) -> None:
    refused = invoke("report", *pages.runs, "--cache", toy.int8, "--out", tmp_path / "r.html")
    assert refused.exit_code == 2
    assert "cannot stand in this table. A table holds scores over the same videos, labels and classes" in refused.stderr
    newer = tmp_path / "newer"
    shutil.copytree(pages.runs[1], newer)
    recipe = json.loads((newer / "recipe.json").read_text())
    (newer / "recipe.json").write_text(json.dumps({**recipe, "head": {**recipe["head"], "kind": "of-tomorrow"}}))
    refused = invoke("report", pages.runs[0], newer, "--cache", pages.cache, "--out", tmp_path / "r.html")
    assert refused.exit_code == 1
    assert "newer: its head is of kind 'of-tomorrow', which is none of vidxfer's" in " ".join(refused.stderr.split())
    assert not (tmp_path / "r.html").exists()


def test_one_run_that_was_scored_again_is_told_and_so_is_one_without_a_scored_video(
    pages: Any, tmp_path: Path, invoke: Any, copied: Any
) -> None:
    only = copied(lambda line: line if line["id"].startswith("val 3 ") else None)
    done = invoke("report", only, "--cache", pages.cache, "--out", tmp_path / "r.html")
    assert "1 video shown." in done.stdout
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    right = json.loads((only / "predictions.val.jsonl").read_text())["right"]
    assert f"scored again since its training: {right:d} of 1 videos right in predictions.val.jsonl" in text
    assert "tests of this table" not in text, "one run is compared with none"
    none = copied(lambda line: None, "none")
    done = invoke("report", none, "--cache", pages.cache, "--out", tmp_path / "r.html")
    assert "0 videos shown." in done.stdout
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("There is none.") == 2
    assert json.loads(re.findall(r'id="numbers">(.*?)</script>', text)[0])["runs"][0]["ece"] is None


def test_a_share_that_is_no_number_is_refused(pages: Any, tmp_path: Path, invoke: Any, copied: Any) -> None:
    broken = copied(lambda line: {**line, "top5": [[name, float("nan")] for name, _ in line["top5"]]})
    done = invoke("report", broken, "--cache", pages.cache, "--out", tmp_path / "r.html")
    assert done.exit_code == 1
    assert "predictions.val.jsonl:1: no line of an evaluation" in " ".join(done.stderr.split())


def test_above_sixty_classes_the_pairs_stand_for_the_matrix(
    pages: Any, tmp_path: Path, invoke: Any, copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two videos a class. All of class 1 and one of class 2 are taken for class 0, the other one of class 2 for 5."""
    monkeypatch.setattr(stage, "MATRIX_CLASSES", 5)
    names = open_split(pages.cache, "val").class_names
    met: set[int] = set()

    def answer(line: dict[str, Any]) -> dict[str, Any]:
        label, first = line["label"], line["label"] not in met
        met.add(label)
        best = {1: 0, 2: 0 if first else 5}.get(label, label)
        return {**line, "top5_labels": [best], "top5": [[names[best], 0.75]], "right": best == label}

    run = copied(answer)
    done = invoke("report", run, "--cache", pages.cache, "--out", tmp_path / "r.html", "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "plots").glob("confusion*"))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "6 classes are too many for a matrix" in text
    table = text[text.index('id="pair-table"') :].partition("</table>")[0]
    assert re.findall(r'<td data-value="(\d+)">', table) == ["2", "2", "2", "1", "2", "1"], "listed, then the run's"
    rows = [Seen(row).text for row in table.split("<tr>")[2:]]
    assert [[name[:4] in row for name in (names[a], names[b])] for row, (a, b) in zip(
        rows, [(1, 0), (2, 0), (2, 5)], strict=True
    )] == [[True, True]] * 3  # fmt: skip


def test_a_codec_beside_float16_has_the_numbers_of_its_formula(pages: Any) -> None:
    """int8: u = (x - mean) / std of the other videos, a step of max |u| / 127 per token, rounded."""
    split, shown = open_split(pages.cache, "train"), [1, 4, 7]
    with open_reader(split) as reader:
        found = codec_maps(request_of(pages.cache, "train", "int8", None, "cpu"), reader, shown, (1,), Silent())
    stored = zarr.open_group(pages.cache / "train", mode="r")["tokens"][:, 0].astype(np.float64)
    others = np.delete(stored, shown, axis=0)
    for layer, close in enumerate(found.layers):
        flat = others[:, layer].reshape(-1, others.shape[-1])
        mean, std = flat.mean(0), flat.std(0)
        u = (stored[shown, layer] - mean) / std
        step = np.abs(u).max(-1, keepdims=True) / 127
        error = (np.round(u / step) * step - u) * std
        relative = np.sqrt((error**2).sum() / (stored[shown, layer] ** 2).sum())
        assert close.relative_error == pytest.approx(relative, rel=0.01)
        assert close.error_in_std == pytest.approx(np.sqrt(((error / std) ** 2).mean()), rel=0.01)
        if layer == 1:  # the brightest square: of patches of the middle frame
            lengths = np.linalg.norm(error[:, 2, 1:], axis=-1) / np.linalg.norm(stored[shown, 1, 2, 1:], axis=-1)
            assert found.most_error == pytest.approx(lengths.max(), rel=0.03)
    assert [one["id"] for one in found.shown] == [split.video_ids[row] for row in shown]
    assert found.truth == "the cache's own float16 tokens"
