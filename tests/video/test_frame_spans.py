"""Segments by frame numbers hold exactly those frames, on every way to them; by another rate they mean time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.shapes import FrameSpan
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.window import ENDS_BEHIND, Window
from vidxfer.pipeline.video.writer import write_video

FRAMES = 40


@pytest.fixture(scope="module", params=["mp4", "avi"])
def counting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames at 25 per second whose grey is five times their number; mp4 is read by time stamps, avi in sequence."""
    path = tmp_path_factory.mktemp("counting") / f"a.{request.param}"
    pixels = np.repeat(np.arange(FRAMES, dtype=np.uint8) * 5, 64 * 64 * 3).reshape(FRAMES, 64, 64, 3)
    write_video(path, pixels, fps=25, codec="libx264")
    return path


def numbers(path: Path, span: FrameSpan) -> tuple[list[int], str]:
    with open_video(path, frames=span) as source:
        pixels = source.read(range(source.frame_count)).pixels[:, 32, 32, 0]
        return [round(int(value) / 5) for value in pixels], source.why


@pytest.mark.parametrize(("start", "end"), [(0, 25), (25, 40), (7, 8), (39, None), (0, None), (12, 31)])
def test_frames_are_counted_from_zero_and_the_end_is_not_part(counting: Path, start: int, end: int | None) -> None:
    assert numbers(counting, FrameSpan(start=start, end=end))[0] == list(range(start, FRAMES if end is None else end))


@pytest.mark.parametrize("fps", [25.0, 24.9])
def test_the_rate_of_the_video_itself_changes_nothing(counting: Path, fps: float) -> None:
    assert numbers(counting, FrameSpan(start=10, end=20, fps=fps))[0] == list(range(10, 20))


def test_numbers_at_another_rate_mean_time(counting: Path) -> None:
    """At 5 per second the numbers 2 and 3 stand for five frames each, from half a number early: 0.3 s to 0.7 s."""
    with open_video(counting) as source:
        shown = source.read(range(FRAMES)).pts_seconds
    found, _ = numbers(counting, FrameSpan(start=2, end=4, fps=5))
    assert found == [number for number, seconds in enumerate(shown) if 0.3 <= seconds < 0.7]
    assert len(found) == 10


@pytest.mark.parametrize(("end", "said"), [(40, False), (60, False), (70, True), (4000, True)])
def test_an_end_far_behind_the_videos_is_said(counting: Path, end: int, said: bool) -> None:
    found, why = numbers(counting, FrameSpan(start=30, end=end))
    assert found == list(range(30, 40))
    assert (ENDS_BEHIND in why) == said


@pytest.mark.parametrize(
    ("end_seconds", "said"), [(0.5, False), (1.6, False), (2.4, False), (2.7, True), (900.0, True)]
)
def test_an_end_in_seconds_far_behind_is_said_too(counting: Path, end_seconds: float, said: bool) -> None:
    with open_video(counting, start_seconds=0.2, end_seconds=end_seconds) as source:
        assert (ENDS_BEHIND in source.why) == said


def test_a_start_behind_the_end_is_refused(counting: Path) -> None:
    with pytest.raises(VideoError, match="bad_segment: no frame is shown of frames 40 up to 50"):
        numbers(counting, FrameSpan(start=40, end=50))
    with (
        pytest.raises(ValueError, match="a segment in seconds and in frames"),
        open_video(counting, start_seconds=1.0, frames=FrameSpan(start=4)),
    ):
        pass
    with pytest.raises(ValueError, match="frames 4 up to 4 hold no frame"):
        FrameSpan(start=4, end=4)


@given(st.integers(0, 500), st.integers(1, 200), st.sampled_from([5.0, 12.5, 30000 / 1001, 60.0]))
@settings(max_examples=60, deadline=None)
def test_a_rate_of_another_kind_holds_the_moments_of_its_numbers_and_no_others(
    start: int, length: int, fps: float
) -> None:
    """The clever: a window in seconds. The dumb: the moment number / fps of every number, tested one by one."""
    window = Window(frames=FrameSpan(start=start, end=start + length, fps=fps)).at_rate(240.0)
    held = [number for number in range(start + length + 5) if window.holds(number / fps, 0)]
    assert held == list(range(start, start + length))
