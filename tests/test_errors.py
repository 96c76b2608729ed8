"""The tree of errors is the one that is drawn, and its texts say what a person needs."""

from __future__ import annotations

import pickle
import re

import pytest

from vidxfer.pipeline import errors
from vidxfer.pipeline.errors import CacheMismatch, VideoError, VideoReason, VidxferError


def drawn() -> dict[str, str]:
    """Class -> parent, read from the docstring's drawing: four characters per level."""
    above: list[str] = []
    found: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ├└─]*)([A-Z]\w+) {2,}\S", line)
        if match:
            level, name = len(match[1]) // 4, match[2]
            del above[level:]
            found[name] = above[-1] if above else "Exception"
            above.append(name)
    return found


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    classes = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, VidxferError)
    }
    assert len(classes) > 8
    assert drawn() == classes


@pytest.mark.parametrize("name", sorted(drawn()))
def test_every_error_says_in_a_sentence_what_it_is(name: str) -> None:
    assert (getattr(errors, name).__doc__ or "").strip().split("\n")[0].endswith((".", ";")) or name == "VidxferError"


def test_a_video_error_crosses_process_borders_whole() -> None:
    error = VideoError(VideoReason.TOO_SLOW, "a/b c.webm", "30 s were not enough")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (VideoError, str(error))
    assert (again.reason, again.path, again.detail) == (VideoReason.TOO_SLOW, "a/b c.webm", "30 s were not enough")
    assert str(error) == "a/b c.webm: too_slow: 30 s were not enough"


def test_a_video_error_takes_no_reason_that_is_not_in_the_list() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        VideoError("nonsense", "a", "b")  # type: ignore[arg-type]


def test_codes_of_reasons_that_stand_in_ledgers_are_still_there() -> None:
    assert {reason.value for reason in VideoReason} >= {
        "missing", "not_regular", "outside_root", "empty", "unreadable", "not_a_video", "no_video_stream", "no_frames",
        "no_decoder", "decode_failed", "changing_size", "too_large", "too_slow", "bad_segment",
    }  # fmt: skip


def test_a_mismatch_shows_both_values_of_every_field_and_the_way_out() -> None:
    fields = {"clip_model": ("ViT-B-16", "ViT-L-14"), "channels": (768, 1024), "layers": ([3, 7], [11])}
    error = CacheMismatch("zarr/train", fields)
    lines = str(error).splitlines()
    assert lines[0] == "zarr/train: this cache was made with other settings:"
    for line, (name, (found, wanted)) in zip(lines[1:], fields.items(), strict=False):
        assert line == f"  {name}: cache has {found!r}, run needs {wanted!r}"
    assert "--cache" in lines[-1]
    assert error.fields == fields
