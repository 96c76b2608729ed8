"""Something-Something V2 in both generations, its traps, and what is said when it is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.datasets import load_dataset
from vidxfer.pipeline.errors import DatasetError

Make = Callable[..., Path]


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
@pytest.mark.parametrize("labels_in", ["labels", "annotations", "."])
@pytest.mark.parametrize("videos_in", ["20bn-something-something-v2", "videos"])
def test_both_generations_parse(ssv2_root: Make, prefix: str, labels_in: str, videos_in: str) -> None:
    root = ssv2_root(prefix=prefix, labels_in=labels_in, videos_in=videos_in)
    train = load_dataset("ssv2", root, "train")
    assert train.class_names == (
        "Approaching something with your camera",
        "Lifting something up completely, then letting it drop down",
        "Something falling like a rock",
    )
    assert [(video.id, video.label) for video in train.videos] == [("78687", 0), ("42326", 1), ("-7", 2)]
    assert train.videos[2].path == root / videos_in / "-7.webm"
    assert train.notes == ()
    val = load_dataset("ssv2", root, "val")
    assert [(video.id, video.label, video.split) for video in val.videos] == [("1", 2, "val")]


def test_the_official_174_names_parse(ssv2_root: Make, fixtures_dir: Path) -> None:
    labels = fixtures_dir / "annotations/labels"
    official = json.loads((labels / "ssv2_DiST_ssv2_labels.json").read_text())
    train = [{"id": number, "template": name} for name, number in official.items()]
    root = ssv2_root(labels=official, train=train, videos=("0.mp4",))
    dataset = load_dataset("ssv2", root, "train")
    assert len(dataset.class_names) == 174
    assert list(dataset.class_names) == (labels / "ssv2_mmaction2_label_map.txt").read_text().splitlines()
    assert all(str(video.label) == video.id for video in dataset.videos)


def test_labels_may_lie_elsewhere_and_videos_may_be_mp4(ssv2_root: Make) -> None:
    root = ssv2_root(labels_in="other", videos=("78687.mp4", "42326.webm", "-7.webm"))
    train = load_dataset("ssv2", root, "train", labels=root / "other")
    assert train.videos[0].path.name == "78687.mp4"


def test_videos_that_are_not_on_disk_are_counted_and_kept(ssv2_root: Make) -> None:
    train = load_dataset("ssv2", ssv2_root(videos=("78687.webm",)), "train")
    assert len(train) == 3
    assert train.notes == ("2 of 3 listed videos are not on disk: '42326.webm', '-7.webm'",)


def test_no_listed_video_on_disk_is_an_error(ssv2_root: Make) -> None:
    with pytest.raises(
        DatasetError, match=r"none of the 3 listed videos is on disk\. Looked in .*20bn.* for '78687.webm'"
    ):
        load_dataset("ssv2", ssv2_root(videos=("999.webm",)), "train")


def test_missing_label_files_list_every_path_tried_and_the_source(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset("ssv2", tmp_path, "train")
    text = str(caught.value)
    for tried in ("labels/labels.json", "annotations/something-something-v2-labels.json"):
        assert str(tmp_path / tried) in text
    assert "Qualcomm's developer site" in text
    assert "20bn-something-something-v2/" in text


def test_missing_videos_list_every_folder_tried(ssv2_root: Make) -> None:
    root = ssv2_root(videos=())
    with pytest.raises(DatasetError, match=rf"(?s)no folder with \.webm or \.mp4 files\. Looked in:\n  {root}/20bn"):
        load_dataset("ssv2", root, "train")


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        ("train", b"", "train.json: the file is empty"),
        ("train", b"\xef\xbb\xbf[]", "lists no videos"),
        ("train", b'[\n {"id": "1",]', r"train.json:2:1[23]: not JSON: "),
        ("train", b"[" * 100_000, "nested too deeply|not JSON"),
        ("train", b'"\xff\xfe"', "expected .* found "),
        ("train", "[]".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("train", {"id": "1"}, r"train.json: expected \[\{\"id\""),
        ("train", ["1"], "entry 1: expected .* found '1'"),
        ("train", [{"template": "x"}], "entry 1: expected an \"id\" like \"78687\", found None"),
        ("train", [{"id": "1"}], r"entry 1, id '1': expected a \"template\" .* found None"),
        ("train", [{"id": "1", "template": "Approaching [something] with your camara"}],
         r"names no class of labels.json \(did you mean 'Approaching something with your camera'\?\)"),
        ("train", [{"id": "../../x", "template": "[Something] falling like a rock"}],
         r"train.json: entry 1: '../../x.webm' leaves the data set"),
        ("train", [{"id": "/etc/x", "template": "[Something] falling like a rock"}], "leaves the data set"),
        ("train", [{"id": "a\0b", "template": "[Something] falling like a rock"}], "is not a path"),
        ("train", [{"id": "\ud800", "template": "[Something] falling like a rock"}], "cannot be a path here"),
        ("train", [{"id": "1" * 5000, "template": "[Something] falling like a rock"}], "cannot be a path here"),
        ("train", [{"id": "1", "template": "[Something] falling like a rock"}] * 2, "occur more than once: '1'"),
        ("labels", [], r"labels.json: expected \{\"class name\""),
        ("labels", {}, r"labels.json: expected \{\"class name\""),
        ("labels", {"a": "x"}, "class 'a' has the number 'x'"),
        ("labels", {"a": "0", "b": "0"}, "classes 'a' and 'b' both have the number 0"),
        ("labels", {"a": "0", "b": "2"}, "2 classes, but none has the number 1"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_by_name_and_place(ssv2_root: Make, part: str, value: Any, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        load_dataset("ssv2", ssv2_root(**{part: value}), "train")


def test_a_link_out_of_the_video_folder_is_refused(ssv2_root: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = ssv2_root(videos=("42326.webm", "-7.webm"))
    secret = tmp_path_factory.mktemp("outside") / "secret.webm"
    secret.write_bytes(b"x")
    (root / "20bn-something-something-v2/78687.webm").symlink_to(secret)
    with pytest.raises(DatasetError, match=r"entry 1: '78687.webm' leaves the data set: it is '.*secret.webm'"):
        load_dataset("ssv2", root, "train")


def test_the_video_folder_itself_may_be_a_link(ssv2_root: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = ssv2_root()
    elsewhere = tmp_path_factory.mktemp("disk") / "videos"
    (root / "20bn-something-something-v2").rename(elsewhere)
    (root / "20bn-something-something-v2").symlink_to(elsewhere)
    assert len(load_dataset("ssv2", root, "train")) == 3
