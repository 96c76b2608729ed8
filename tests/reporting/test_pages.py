"""The two pages: what stands in them, text from strangers, missing videos, plots as files, and tokens as pictures."""

from __future__ import annotations

import io
import json
import re
import shutil
import tomllib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidxfer.pipeline.cache.packed import FrameReader
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.reporting import page
from vidxfer.stages.reporting.drawing import Plotter
from vidxfer.stages.reporting.maps import Scale, error_picture
from vidxfer.stages.reporting.report import ReportRequest, report
from vidxfer.stages.reporting.view import ViewRequest, view

ROOT = Path(__file__).parent.parent.parent


class Seen(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("which", ["report", "view"])
def test_names_from_strangers_are_text_and_nothing_else(pages: Any, which: str) -> None:
    text = getattr(pages, which).read_text(encoding="utf-8")
    seen = Seen(text)
    assert len(seen.named("script")) == (2 if which == "report" else 1)
    assert [one for one in seen.named("img") if not str(one["src"]).startswith("data:image/")] == []
    handlers = [attr for _, attrs in seen.elements for attr in attrs if attr.startswith("on")]
    assert handlers == []
    assert "document.title='taken'" in seen.text, "it is shown, as text"
    assert "{{ 7 * 7 }}{% raw %}" in seen.text
    assert not set("\u202e\u2066\u200f") & set(text), "direction marks are spelled out"
    assert "left\\u202egnp.evil\\u2066" in seen.text
    assert "x" * 299 + "…" in text
    assert "x" * 301 not in text
    assert text.count("<b>") == 0
    # A name in letters from right to left stands in an element that isolates it, wherever it stands in HTML.
    html = re.sub(r"<svg.*?</svg>|<script.*?</script>|alt=\"[^\"]*\"|data-value=\"[^\"]*\"", "", text, flags=re.DOTALL)
    places = [match.start() for match in re.finditer("\u05dc\u05e4\u05ea\u05d5\u05d7", html)]
    assert places
    assert [html[at - 30 : at] for at in places if not re.search(r"<bdi>[^<]*$", html[:at])] == []


def test_data_for_programs_cannot_end_its_element(pages: Any) -> None:
    text = pages.report.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="numbers">(.*?)</script>', text, flags=re.DOTALL)
    runs = json.loads(data)["runs"]
    assert [one["run"] for one in runs] == [str(run) for run in pages.runs]
    assert "<" not in data
    assert page.as_json("</script><!--\u2028&'") == '"\\u003c/script\\u003e\\u003c!--\\u2028\\u0026\\u0027"'


def test_only_pictures_inside_the_page_are_pictures() -> None:
    assert page.picture("data:image/png;base64,AAAA") == "data:image/png;base64,AAAA"
    for address in ("https://x.example/a.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,A" onload="'):
        with pytest.raises(ValueError, match="no picture inside the page"):
            page.picture(address)


def test_the_page_says_what_the_runs_said(pages: Any) -> None:
    seen = Seen(pages.report.read_text(encoding="utf-8"))
    for number, run in enumerate(pages.runs):
        score = json.loads((run / "result.json").read_text())["score"]
        assert f"{score['top1']:.1%}" in seen.text, number
        assert f"probe (seed={number})" in seen.text
    assert "12/12" in seen.text
    assert "head.kind" in seen.text, "the recipe"
    assert "clip_weights_sha256" in seen.text, "the passport"
    assert "vidxfer report " in seen.text
    assert "--plots" in seen.text
    assert pages.made.without_frames == 0
    assert pages.made.bytes == pages.report.stat().st_size < 3_000_000
    assert len(seen.named("img")) == 8 // 2 * pages.made.videos  # four frames that CLIP saw


def test_every_plot_is_a_png_and_an_svg_too(pages: Any) -> None:
    folder = pages.report.parent / "plots"
    names = {"loss", "top1", "waiting", "calibration", "confusion-0", "confusion-1", "cost"}
    assert set(pages.made.plots) == names
    assert {file.name for file in folder.iterdir()} == {f"{one}.{kind}" for one in names for kind in ("png", "svg")}
    for name in names:
        assert Image.open(io.BytesIO((folder / f"{name}.png").read_bytes())).width > 600
        drawn = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert drawn.startswith("<?xml")
        assert "<script" not in drawn
        assert "var(--" not in drawn


def test_a_missing_video_gets_a_placeholder_with_the_reason(pages: Any, tmp_path: Path) -> None:
    root = tmp_path / "moved"
    shutil.copytree(pages.root, root)
    for file in list(root.glob("val *.webm"))[1:]:
        file.unlink()
    asked = ReportRequest(
        runs=pages.runs[:1], cache=pages.cache, out=tmp_path / "r.html", root=root, frames_from="videos"
    )
    made = report(asked)
    assert (made.videos - made.without_frames, made.plots) == (1, ())
    seen = Seen((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert seen.text.count("no frames: ") == made.without_frames > 3
    assert "missing" in seen.text
    gone = report(replace(asked, root=tmp_path / "nowhere"))
    assert gone.without_frames == gone.videos


def test_frames_from_the_videos_are_those_of_the_cache(pages: Any, tmp_path: Path) -> None:
    asked = ViewRequest(cache=pages.cache, out=tmp_path / "a.html", videos=1, seed=3)
    view(asked)
    view(replace(asked, out=tmp_path / "b.html", frames_from="videos"))
    one, other = (pictures_of(tmp_path / name) for name in ("a.html", "b.html"))
    assert len(one) == len(other) == 4
    assert max(float(np.abs(a - b).mean()) for a, b in zip(one, other, strict=True)) < 6
    assert float(np.abs(one[0] - one[-1]).mean()) > 0, "the frames differ"


def test_frames_have_the_colours_that_are_stored(pages: Any, tmp_path: Path) -> None:
    split = open_split(pages.cache, "val")
    view(ViewRequest(cache=pages.cache, out=tmp_path / "a.html", split="val", ids=(split.video_ids[0],)))
    stored = FrameReader(Rows(split)).files(0, 0, [0])[0]
    truth = np.asarray(Image.open(io.BytesIO(stored.tobytes()))).astype(float)
    shown = pictures_of(tmp_path / "a.html")[0]
    assert float(np.abs(shown - truth).mean()) < 6


def pictures_of(file: Path) -> list[np.ndarray[Any, Any]]:
    """The frames of the film strips of a page."""
    shown = [one for one in Seen(file.read_text(encoding="utf-8")).named("img") if one.get("class") is None]
    jpegs = [str(one["src"]).partition(",")[2] for one in shown if "jpeg" in str(one["src"])]
    return [np.asarray(Image.open(io.BytesIO(b64decode(one)))).astype(float) for one in jpegs]


def test_a_view_is_drawn_by_its_seed_or_named(pages: Any, tmp_path: Path) -> None:
    def ids(**changes: Any) -> list[str]:
        asked = ViewRequest(cache=pages.cache, out=tmp_path / "v.html", videos=3)
        view(replace(asked, **changes))
        return re.findall(r"video <bdi>(.*?)</bdi>", (tmp_path / "v.html").read_text(encoding="utf-8"))

    assert ids(seed=1) == ids(seed=1) != ids(seed=2)
    named = "train 5 <b>&amp;.webm"
    assert ids(ids=(named,)) == ["train 5 &lt;b&gt;&amp;amp;.webm"]
    with pytest.raises(UsageError, match="no such video"):
        ids(ids=("nobody",))


def test_a_page_is_refused_before_the_work(pages: Any, tmp_path: Path) -> None:
    for out, said in ((tmp_path / "r.pdf", r"ends in \.html"), (tmp_path / "no/r.html", "there is no folder")):
        with pytest.raises(UsageError, match=said):
            report(ReportRequest(runs=pages.runs, cache=pages.cache, out=out))
    with pytest.raises(UsageError, match="named twice"):
        report(ReportRequest(runs=pages.runs[:1] * 2, cache=pages.cache, out=tmp_path / "r.html"))
    with pytest.raises(UsageError, match="holds exactly that"):
        view(ViewRequest(cache=pages.cache, out=tmp_path / "v.html", codec="float16", videos=1))


def pixels_of(address: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(b64decode(address.partition(",")[2]))))


def test_alike_tokens_have_one_colour_and_a_massive_one_shines_alone() -> None:
    one, other = torch.zeros(8), torch.zeros(8)
    one[0], other[1] = 1.0, 1.0
    patches = torch.stack([one, one, 3 * one, other])  # a picture of two by two
    patches[3] *= 50
    patches += 0.01 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    scale = Scale.of(patches)
    colour, length = pixels_of(scale.colour(patches)), pixels_of(scale.length(patches))
    assert colour.shape == length.shape == (2, 2, 3)
    assert abs(int(colour[0, 0, 0]) - int(colour[1, 0, 0])) < 30, "a direction, not a length"
    assert abs(int(colour[0, 0, 0]) - int(colour[1, 1, 0])) > 200
    bright = length.astype(int).sum(-1)
    assert bright[1, 1] > 400 > 200 > bright[0].max()
    assert scale.norms[2] == pytest.approx(50, rel=0.01)
    wrong = patches.clone()
    wrong[2] = 0
    errors = pixels_of(error_picture(patches, wrong, 1.0)).astype(int).sum(-1)
    assert errors.argmax() == 2
    assert errors[0, 0] == errors[1, 1]


def test_names_in_plots_are_no_mathematics_and_too_many_classes_give_pairs(pages: Any) -> None:
    drawn = Plotter().confusion("c", 'caption "<b>', np.eye(2, dtype=int), ["$\\frac{1}{", "<script>"])
    assert "$\\frac{1}{" in drawn.svg
    assert "<script>" not in drawn.svg
    assert "&lt;script&gt;" in drawn.svg
    assert 'aria-label="caption   b "' in drawn.svg


def test_templates_are_part_of_the_package() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    (pattern,) = packed["vidxfer.stages.reporting"]
    there = set((ROOT / "stages/reporting/templates").iterdir())
    assert there == set((ROOT / "stages/reporting").glob(pattern))
    assert {file.name for file in there} == {
        "base.html",
        "parts.html",
        "report.html",
        "view.html",
        "page.css",
        "page.js",
    }
    unsafe = [file.name for file in there if re.search(r"\|\s*safe\b|autoescape", file.read_text(encoding="utf-8"))]
    assert unsafe == []
