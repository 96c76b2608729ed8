"""A data set that 0.1.0 read rightly keeps its fingerprint: caches made then can be added to and trained from."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from vidxfer.pipeline.datasets import load_dataset

KINETICS = "label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,3,13,{0}\nzumba,bbbbbbbbbbb,0,10,{0}\n"
CAFE = unicodedata.normalize("NFD", "café")
LISTED = {
    "segments.csv": "path,label,start,end,split,id\na.mp4,x,0,1.5,train,\na.mp4,y,1.5,,train,third\nb.mp4,x,,,val,\n",
    "shares.csv": "path,label,caption\n" + "".join(f"{n}.mp4,c{n % 3},some words {n}\n" for n in range(12)),
    "numbers.txt": "".join(f"{n}.mp4 {n % 3}\n" for n in range(12)),
    "offsets_val.txt": "imgs 2 5 1\nimgs 0 2 0\n",
    "decomposed.csv": f"path,label\n{CAFE}.mp4,{CAFE}\n./b.mp4,x  y\nc.mp4,X\n",
    "repeats.csv": "path,label,caption,split\na.mp4,x,one,train\na.mp4,x,two,train\nb.mp4,y,one,val\n",
}
FOLDERS = {
    "splits": [f"{split}/{name}/{n}.mp4" for split in ("train", "val") for name in ("a door", CAFE) for n in range(3)],
    "shares": [f"{name}/{n}.mp4" for name in ("door", "cup") for n in range(12)],
    "pictures": ["train/x/1/1.jpg", "train/y/2/1.jpg", "val/x/3/1.jpg"],
}


def written(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def prints(kind: str, root: Path) -> list[str]:
    return [load_dataset(kind, root, split, val_fraction=0.4).fingerprint for split in ("train", "val")]


def ssv2(root: Path) -> Path:
    entries = [{"id": str(n), "template": "Holding [something]"} for n in (1, 2)]
    lists = {f"labels/{stem}.json": json.dumps(entries) for stem in ("train", "validation")}
    labels = json.dumps({"Holding something": "0", "Dropping something": "1"})
    return written(root, **lists, **{"labels/labels.json": labels, "videos/1.webm": "", "videos/2.webm": ""})


def k400(root: Path) -> Path:
    lists = {f"annotations/{split}.csv": KINETICS.format(split) for split in ("train", "val")}
    return written(root, **lists, **{f"{split}/aaaaaaaaaaa_000003_000013.mp4": "" for split in ("train", "val")})


def ucf101(root: Path) -> Path:
    lists = {f"ucfTrainTestlist/{split}list01.txt": f"Archery/v_Archery_g0{n}_c01.avi\r\n"
             for n, split in enumerate(("train", "test"))}  # fmt: skip
    return written(
        root, **lists, **{"UCF-101/Archery/v_Archery_g00_c01.avi": "", "UCF-101/Archery/v_Archery_g01_c01.avi": ""}
    )


def hmdb51(root: Path) -> Path:
    lists = {f"{name}_test_split1.txt": f"{name}_a.avi 1 \n{name}_b.avi 2 \n" for name in ("kick", "kick_ball")}
    return written(root, **lists, **{"kick/kick_a.avi": "", "kick/kick_b.avi": ""})


def ssv1(root: Path) -> Path:
    lists = {f"something-something-v1-{stem}.csv": "1;Holding\n2;Dropping\n" for stem in ("train", "validation")}
    return written(root, **lists, **{"something-something-v1-labels.csv": "Holding\nDropping\n", "frames/1/1.jpg": ""})


MADE = {"ssv2": ssv2, "k400": k400, "ucf101": ucf101, "hmdb51": hmdb51, "ssv1": ssv1}
RECORDED = {
    "ssv2": ["bfa78ff6bd65531d", "f5b8e6236b6c512d"],
    "k400": ["28d5b52fee3da88b", "05667505ae1867fb"],
    "ucf101": ["67d607ae8e39105f", "f85ce86f74f37011"],
    "hmdb51": ["5fadc11fb49c476d", "ff6fba08dff1dd0c"],
    "ssv1": ["2a5a74736c396d57", "ab93882f0e2670b0"],
    "segments.csv": ["03eb3a7c77b29963", "ac9f067bc373f7c3"],
    "shares.csv": ["33525444fa5cc5c6", "d8abddbd1533fb59"],
    "numbers.txt": ["704c283c1703314b", "794e98eb2c2f85c8"],
    "offsets_val.txt": ["fda01f9e82026db7", "cc3b32bba525f688"],
    "decomposed.csv": ["117ae12e59489fbe", "7b1173c83bfe9872"],
    "repeats.csv": ["56f5fce3fb90f9ce", "a7fbc0c31661fcd4"],
    "splits": ["cd345fef0d9d7d8a", "302745d564e8210d"],
    "shares": ["485a6d62e616b114", "9d94fbff356d55fc"],
    "pictures": ["52e9a1d93b4588ed", "eb629f69657f4aaa"],
}
"""From the code of 0.1.0: train, val."""


@pytest.mark.parametrize("kind", MADE)
def test_well_known_sets(kind: str, tmp_path: Path) -> None:
    assert prints(kind, MADE[kind](tmp_path)) == RECORDED[kind]


@pytest.mark.parametrize("name", LISTED)
def test_lists(name: str, tmp_path: Path) -> None:
    files = [*(f"{n}.mp4" for n in range(12)), "a.mp4", "b.mp4", "c.mp4", f"{CAFE}.mp4", "imgs/1.jpg"]
    root = written(tmp_path, **dict.fromkeys(files, ""), **{name: LISTED[name]})
    if name == "offsets_val.txt":
        written(root, **{"offsets_train.txt": LISTED[name]})
    labels = root / name
    found = [
        load_dataset("csv", root, split, labels=labels, val_fraction=0.4).fingerprint for split in ("train", "val")
    ]
    assert found == RECORDED[name]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    assert prints("folder", written(tmp_path, **dict.fromkeys(FOLDERS[name], ""))) == RECORDED[name]
