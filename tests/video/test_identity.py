"""A file is known again by its length and its ends; not by its name, its date or the folder it lies in."""

from __future__ import annotations

import os
import shutil

import pytest

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.identity import END_BYTES, identity_of


def test_copies_moves_and_dates_change_nothing(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(bytes(range(256)) * 200)
    known = identity_of(file)
    assert known[0] == 51_200
    assert 0 < known[1] < 2**63
    os.utime(file, (1, 1))
    shutil.copy(file, tmp_path / "b.webm")
    (tmp_path / "link.mp4").symlink_to(file)
    assert identity_of(file) == identity_of(tmp_path / "b.webm") == identity_of(tmp_path / "link.mp4") == known


@pytest.mark.parametrize("length", [1, 100, END_BYTES, END_BYTES + 1, 2 * END_BYTES + 5, 100_000])
def test_another_byte_at_either_end_or_another_length_is_another_file(tmp_path, length):
    file = tmp_path / "a.mp4"
    good = bytes(7 for _ in range(length))
    file.write_bytes(good)
    known = identity_of(file)
    for place in {0, min(length, END_BYTES) - 1, max(0, length - END_BYTES), length - 1}:
        file.write_bytes(good[:place] + b"x" + good[place + 1 :])
        assert identity_of(file) != known
    file.write_bytes(good + bytes([7]))
    assert identity_of(file) != known


def test_a_folder_of_pictures_is_its_names_and_sizes(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(bytes(10 + number))
    known = identity_of(folder)
    assert known[0] == 33
    shutil.copytree(folder, tmp_path / "b")
    assert identity_of(tmp_path / "b") == known
    (folder / "2.jpg").write_bytes(bytes(13))
    assert identity_of(folder) != known
    (tmp_path / "b" / "2.jpg").rename(tmp_path / "b" / "3.jpg")
    assert identity_of(tmp_path / "b") != known


def test_what_cannot_be_read_is_a_reason(tmp_path):
    for name, reason in (("missing", VideoReason.MISSING), ("empty", VideoReason.EMPTY)):
        if name == "empty":
            (tmp_path / name).touch()
        with pytest.raises(VideoError) as caught:
            identity_of(tmp_path / name)
        assert caught.value.reason == reason
