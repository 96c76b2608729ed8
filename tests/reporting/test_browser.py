"""Both pages in headless Chromium, at the width of a phone and of a desk, light and dark.

The claims: nothing complains; no request leaves the file; no name from a stranger has run; every picture has a size;
the page is no wider than the window, and no text runs out of its element; text stands out from what is behind it; a
table sorts by the column whose head is pressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..browser import Browser, Tab, chromium, started_browser

LEAST_CONTRAST = 4.5
"""Of text, as WCAG 2 (AA) has it."""

PICTURES = """
[...document.images, ...document.querySelectorAll("figure svg, .box svg")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width < 20 || box.height < 20 || (one.tagName === "IMG" && !(one.complete && one.naturalWidth));
}).map(one => one.outerHTML.slice(0, 80))
"""

OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(one => {
  if (one.closest("svg") || one.closest(".scroll") || !one.innerText) return false;
  const box = one.getBoundingClientRect();
  const leaves = box.right > document.documentElement.clientWidth + 1 || box.left < -1;
  return leaves || (getComputedStyle(one).display !== "inline" && one.scrollWidth > one.clientWidth + 1);
}).map(one => one.tagName + " " + one.className + ": " + one.innerText.slice(0, 60))
"""

OUT_OF_CELLS = """
[...document.querySelectorAll("th, td")].filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText.slice(0, 60))
"""

CONTRASTS = """
(() => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const linear = one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgba(colour).map(one => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = one => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3]) return colour;
    }
    return "white";
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!text || ["SCRIPT", "STYLE"].includes(one.tagName)) continue;
    const style = getComputedStyle(one), drawn = one.closest("svg");
    const ink = drawn ? style.fill : style.color;
    if (drawn && ["rgb(0, 0, 0)", "rgb(255, 255, 255)"].includes(ink)) continue;  // on a square of a matrix
    const bar = one.closest("li")?.querySelector(".bar");
    const grounds = [behind(drawn ?? one), ...(bar ? [getComputedStyle(bar).backgroundColor] : [])];
    found.push([Math.min(...grounds.map(ground => contrast(ink, ground))), one.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""

BROKEN_SHARES = """
[...document.querySelectorAll(".best li > :last-child")].filter(one => {
  const words = document.createRange();
  words.selectNodeContents(one);
  return words.getBoundingClientRect().height > 30;
}).length
"""

COLUMN = """
[...document.querySelectorAll("#class-table tbody tr")].map(row => row.cells[COLUMN].dataset.value)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with started_browser(program) as running:
        yield running


@pytest.mark.parametrize("width_px", [400, 1600])
@pytest.mark.parametrize("which", ["report", "view"])
def test_a_page_at_a_width(pages: Any, browser: Browser, which: str, width_px: int) -> None:
    for dark in (False, True):
        tab = Tab(browser, getattr(pages, which), width_px, dark=dark)
        assert tab.complaints == []
        assert tab.asked == []
        assert tab.run("document.title").startswith("vidxfer: ")
        assert tab.run("document.images.length") > 20
        assert tab.run(PICTURES) == []
        assert tab.run("document.documentElement.scrollWidth") == width_px
        assert tab.run(OVERFLOWING) == []
        assert tab.run(OUT_OF_CELLS) == []
        assert tab.run(BROKEN_SHARES) == 0, "a share beside a long name stays on one line"
        contrasts = tab.run(CONTRASTS)
        assert len(contrasts) > 60
        assert [one for one in contrasts if one[0] < LEAST_CONTRAST] == []
        tab.close()


def test_tables_sort_by_the_column_whose_head_is_pressed(pages: Any, browser: Browser) -> None:
    tab = Tab(browser, pages.report, 1600, dark=False)
    before = tab.run(COLUMN.replace("COLUMN", "2"))
    press = "document.querySelectorAll('#class-table thead button')[{}].click()"
    tab.run(press.format(2))
    down = tab.run(COLUMN.replace("COLUMN", "2"))
    assert down == sorted(before, key=float, reverse=True) != before
    assert tab.run("document.querySelectorAll('#class-table th')[2].getAttribute('aria-sort')") == "descending"
    tab.run(press.format(2))
    assert tab.run(COLUMN.replace("COLUMN", "2")) == sorted(before, key=float)
    tab.run(press.format(0))
    tab.run(press.format(0))
    names = tab.run(COLUMN.replace("COLUMN", "0"))
    assert names[0].startswith('"')
    assert len(set(names)) == 6
    assert tab.run("document.querySelectorAll('#class-table th[aria-sort]').length") == 1
    tab.close()


def test_a_page_that_breaks_a_claim_is_seen(pages: Any, browser: Browser, tmp_path: Any) -> None:
    whole = pages.report.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(
        whole.replace("</header>", "<img src='https://other.example/a.png' width=40 height=40><p style='width:3000px;"
        "color:#888;background:#999'>grey on grey</p><script>console.log('ran')</script></header>", 1)
    )  # fmt: skip
    tab = Tab(browser, bad, 400, dark=False)
    assert sum("Content Security Policy" in one for one in tab.complaints) == 2, "the policy stops both"
    assert tab.run(PICTURES) != []
    assert tab.run("document.documentElement.scrollWidth") > 400
    assert tab.run(OVERFLOWING) != []
    assert tab.run(CONTRASTS)[0][1] == "grey on grey"
    bad.write_text("<!DOCTYPE html><img src='other.png'><script>console.error('said')</script>")
    plain = Tab(browser, bad, 400, dark=False)
    assert any("said" in one for one in plain.complaints)
    assert plain.asked == [(tmp_path / "other.png").as_uri()]
    plain.close()
    tab.close()
