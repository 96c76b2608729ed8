"""What docs/towers.md tells a newcomer to type is typed here word for word, with a small tower for the real one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODEL, WEIGHTS = "timm:vit_small_patch16_dinov3", ["--pretrained", "./model.safetensors"]
QUICK = {"plan": ["--no-measure"], "train": ["--set", "epochs=1", "--set", "warmup_epochs=0", "--set", "batch_clips=4"]}
"""Added, so that a test takes seconds."""


def commands() -> list[list[str]]:
    """The lines of the section on a newcomer's own videos, each taken apart."""
    text = (ROOT / "docs/towers.md").read_text(encoding="utf-8")
    section = text.partition("## DINOv3 features of your own videos")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for line in block.replace("\\\n", " ").splitlines()]


def test_the_commands_of_the_page_lead_from_videos_to_an_answer(
    toy: Any, invoke: Any, write_tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tower(tmp_path / "tower", "dinov3")
    for number, video in enumerate(sorted(toy.videos.glob("*.webm"))[:10]):
        target = tmp_path / "videos" / ("left", "right")[number % 2] / video.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, target)
    shutil.copyfile(video, tmp_path / "new.mp4")
    monkeypatch.chdir(tmp_path)
    typed, answers = [], {}
    for line in commands():
        program, command, *words = line
        assert program == "vidxfer"
        if WEIGHTS[1] in words:  # the small tower's folder has its own
            place = words.index(WEIGHTS[0])
            assert words[place : place + 2] == WEIGHTS
            del words[place : place + 2]
        words = ["./tower" if word == MODEL else word for word in words]
        done = invoke(command, *words, *QUICK.get(command, []))
        assert done.exit_code == 0, (line, done.stderr)
        typed.append(command)
        answers[command] = done.stdout
    assert typed == ["towers", "data", "plan", "extract", "train", "train", "evaluate", "compare", "predict"]
    assert f"│ {MODEL} " in answers["towers"], "a name is never broken"
    assert re.search(r"new\.mp4\n +\d+\.\d%  (left|right)", answers["predict"])
    config = json.loads((tmp_path / "tower/config.json").read_text())
    assert config["architecture"] == MODEL.removeprefix("timm:"), "the small tower is one of the same architecture"
    assert (tmp_path / "zarr/train/zarr.json").is_file()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"dist", "probe"}
