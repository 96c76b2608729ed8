"""How every video was read stands in the ledger: the path, the reason, and off the fast path the video's id."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch
from av import library_versions as LIBRARIES

from vidxfer.pipeline.draw import Drawn, draw
from vidxfer.pipeline.shapes import NOT_KNOWN, Video, View
from vidxfer.pipeline.video.writer import write_video
from vidxfer.stages.shards.encode import Prepared
from vidxfer.stages.shards.extract import notes_of


def prepared(decoder: str, why: str) -> Prepared:
    view = View(indices=(0,), crop=(0.0, 0.0, 2.0, 2.0), resize_first=False, flip=False, grey=False)
    return Prepared(
        views=(view,), pixels=torch.zeros(1, 1, 3, 2, 2), decoder=decoder, why=why, frame_count=1, source_px=(2, 2),
        source_file=NOT_KNOWN,
    )  # fmt: skip


def test_the_fast_path_is_counted_and_every_other_video_is_named(tmp_path):
    video = Video(id="a b/c", path=tmp_path / "x.avi", label=0, split="train")
    fast = notes_of(video, prepared("decord", "the gate passes"), None)
    slow = notes_of(video, prepared("pyav-sequential", "no decord: avi is not mov/mp4"), None)
    assert (fast["decoder"], fast["why"]) == ("decord", "decord: the gate passes")
    assert (slow["decoder"], slow["why"]) == (
        "pyav-sequential",
        "pyav-sequential: no decord: avi is not mov/mp4\ta b/c",
    )


def test_the_reason_is_the_readers_own(tmp_path, request):
    from vidxfer.pipeline.cache.store import open_split

    frames = np.random.default_rng(0).integers(0, 255, (10, 64, 96, 3), np.uint8)
    write_video(tmp_path / "x.avi", frames, codec="mpeg4")
    spec = open_split(request.config.rootpath / "tests/cache/format1/int8", "train").spec
    video = Video(id="x", path=tmp_path / "x.avi", label=0, split="train")
    drawn: Drawn = draw(video, spec)
    assert (drawn.decoder, drawn.why) == ("pyav-sequential", "decoded whole, once")
    assert drawn.version == f"PyAV {version('av')}, libavcodec {'.'.join(map(str, LIBRARIES['libavcodec']))}"
    drawn = draw(video, spec, "decord")
    assert drawn.decoder == "pyav-sequential"
    assert drawn.why.startswith("no decord: avi is not mov/mp4 or matroska/webm; decoded whole, once; no time stamps:")


def test_versions_and_pixels_that_are_not_square_are_counted(tmp_path):
    video = Video(id="a", path=tmp_path / "x.mp4", label=0, split="train")
    usual = prepared("pyav-sequential", "decoded whole, once")
    assert notes_of(video, usual, None) == {
        "decoder": "pyav-sequential",
        "why": "pyav-sequential: decoded whole, once",
    }
    noted = notes_of(video, replace(usual, version="PyAV 18.1.0", pixel_aspect="4:3"), None)
    assert (noted["decoder version"], noted["pixel aspect"]) == ("PyAV 18.1.0", "4:3")
