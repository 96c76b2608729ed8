"""docs/python.md: every block runs, in order, in a fresh folder that has what `make demo` makes."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vidxfer
from vidxfer.pipeline.training import own_heads

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with demo/ in it; heads that are added and modules that are imported here go afterwards."""
    (tmp_path / "demo").mkdir()
    for name, target in {"ssv2": toy.root, "clip": toy.clip, "zarr": toy.int8}.items():
        (tmp_path / "demo" / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_heads, "_own", {})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("myhead", None)


def test_every_block_of_the_document_runs(folder: Path, invoke: Any) -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "console"}
    made: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, block) in enumerate(BLOCKS, 1):
        if kind == "console":
            for line in block.splitlines():
                done = invoke(*shlex.split(line.removeprefix("$ vidxfer ")))
                assert done.exit_code == 0, f"{line}\n{done.output}"
        elif block.startswith("# myhead.py\n"):
            (folder / "myhead.py").write_text(block)
        else:
            assert "assert" in block or "class " in block, "an example shows what comes out"
            exec(compile(block, f"docs/python.md, block {number}", "exec", dont_inherit=True), made)
    assert (folder / "runs/peak/predictions.val.jsonl").is_file()


def test_the_head_of_the_document_is_short() -> None:
    (head,) = [block for _, block in BLOCKS if block.startswith("# myhead.py\n")]
    assert len(head.splitlines()) <= 40


def test_the_document_counts_and_uses_the_public_names() -> None:
    assert f"gives {len(vidxfer.__all__)} names" in TEXT
    used = set(re.findall(r"\bvidxfer\.([A-Za-z]\w*)", "".join(block for kind, block in BLOCKS if kind == "python")))
    assert used <= set(vidxfer.__all__)


def test_the_lines_of_the_readme_run(folder: Path, toy: Any) -> None:
    (block,) = [one for one in README if "import vidxfer" in one]
    assert 5 <= len(block.splitlines()) <= 8
    (folder / "clip.mp4").symlink_to(sorted(toy.videos.glob("*.webm"))[0])
    made: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec", dont_inherit=True), made)
    assert made["tokens"].ndim == 4
    assert made["report"].finished
    assert len(made["answers"][0].top5) == 5
