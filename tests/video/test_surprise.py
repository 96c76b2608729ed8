"""An error that nobody foresaw costs one video; the same error again and again stops the run, with its traceback."""

from __future__ import annotations

import pickle

import pytest

from vidxfer.pipeline.errors import UnforeseenError, VideoError, VideoReason
from vidxfer.pipeline.video.guard import Guard
from vidxfer.pipeline.video.surprise import Surprise, Surprises


def surprise(kind: type[Exception] = KeyError, text: str = "colour") -> Surprise:
    """What a child would send of an exception that was raised here."""
    try:
        raise kind(text)
    except kind as error:
        return pickle.loads(pickle.dumps(Surprise.of(error)))


def outcomes(answers: list[object]) -> list[str]:
    """What each answer became: "good", "video" or "run"."""
    words = {type(None): "good", VideoError: "video", UnforeseenError: "run"}
    counted = Surprises()
    return [words[type(counted.error_of(answer, f"{place}.mp4"))] for place, answer in enumerate(answers)]


def test_any_error_in_a_child_is_a_reason_for_its_video_and_the_next_one_is_read():
    with Guard(processes=1) as guard:
        with pytest.raises(VideoError) as caught:
            guard.submit("a.mp4", divmod, 1, 0).result(30)
        assert (caught.value.reason, caught.value.path) == (VideoReason.UNEXPECTED, "a.mp4")
        assert caught.value.detail.startswith("ZeroDivisionError: ")
        assert "guarded.py:" in caught.value.detail
        assert guard.submit("b.mp4", divmod, 7, 2).result(30) == (3, 1)


def test_an_error_and_a_value_that_cannot_be_sent_are_reasons_too():
    with Guard(processes=1) as guard:
        with pytest.raises(VideoError, match=r"b\.mp4: unexpected: TypeError: cannot pickle"):
            guard.submit("b.mp4", open, "/dev/null").result(30)
        assert guard.submit("c.mp4", abs, -1).result(30) == 1


def test_a_reason_is_one_bounded_line_and_the_traceback_is_bounded():
    long = surprise(text="x" * 10_000 + "\nsecond line")
    assert "\n" not in long.detail
    assert len(long.detail) < 500
    assert len(long.traceback) <= 4000
    assert surprise(text="a.mp4").kind == surprise(text="b.mp4").kind  # texts name the file, kinds do not


def test_the_first_twenty_videos_with_one_error_stop_the_run():
    assert outcomes([surprise()] * 20) == ["video"] * 19 + ["run"]
    assert outcomes([1, *[surprise()] * 30]) == ["good"] + ["video"] * 30  # one could be read: not the first 20
    assert outcomes([surprise(), *[surprise(ValueError)] * 25]) == ["video"] * 26  # not one and the same


def test_one_video_in_twenty_stops_the_run_once_a_hundred_were_read():
    few = [surprise() if place % 25 == 0 else 0 for place in range(400)]  # 4 %
    assert "run" not in outcomes(few)
    many = [surprise() if place % 20 == 0 else 0 for place in range(100)]  # the 5th of 81 comes too early to tell
    assert "run" not in outcomes(many)
    assert outcomes([*many, surprise()])[-1] == "run"
    errors = [VideoError(VideoReason.EMPTY, "a", "0 bytes")] * 300
    assert {type(Surprises().error_of(error, "a")) for error in errors} == {VideoError}  # named reasons never do


def test_the_error_that_stops_a_run_holds_the_traceback_and_what_to_do():
    counted = Surprises()
    for number in range(20):
        error = counted.error_of(surprise(), f"{number}.mp4")
    assert isinstance(error, UnforeseenError)
    text = str(error)
    assert text.startswith("19.mp4: KeyError: 'colour' (in test_surprise.py:")
    assert "20 of the 20 videos read so far failed with this error" in text
    assert "raise kind(text)\nKeyError: 'colour'" in text
