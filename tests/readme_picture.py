"""The README's first picture: the two pages of `make demo`, side by side, as a browser shows them.

make demo && python tests/readme_picture.py          writes docs/pages.jpg; needs chromium; another demo: its folder
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from browser import Tab, chromium, started_browser  # noqa: E402

WIDTH_PX, HEIGHT_PX, GAP_PX = 860, 1000, 16
SHOWN = {"view.html": "#videos", "report.html": "#scores"}
"""The pages, left to right, and the element that each picture begins with."""

SHORTER = "document.querySelectorAll('#class-table').forEach(one => one.closest('.scroll').style.maxHeight = '15rem')"
"""The table of classes is made shorter, so that more of the page fits."""


def main() -> None:
    """Take both pictures and put them side by side."""
    demo = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo"
    program = chromium()
    if program is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    whole = Image.new("RGB", (len(SHOWN) * (WIDTH_PX + GAP_PX) - GAP_PX, HEIGHT_PX), "#d5d9df")
    with started_browser(program) as browser, tempfile.TemporaryDirectory() as folder:
        for number, (name, first) in enumerate(SHOWN.items()):
            tab = Tab(browser, demo / name, WIDTH_PX, dark=False)
            tab.run(SHORTER)
            top = int(tab.run(f"document.querySelector('{first}').getBoundingClientRect().top"))
            tab.picture(Path(folder) / name, most_height_px=HEIGHT_PX, top_px=top)
            shot = Image.open(io.BytesIO((Path(folder) / name).read_bytes())).convert("RGB")
            whole.paste(shot, (number * (WIDTH_PX + GAP_PX), 0))
    whole.save(ROOT / "docs/pages.jpg", quality=82)


if __name__ == "__main__":
    main()
