"""The doors for writing and reading, by themselves: links, pipes, second names, part files of the dead, and lengths."""

from __future__ import annotations

import fcntl
import io
import os
import zipfile
from pathlib import Path

import pytest

from vidxfer.pipeline import reading, writing
from vidxfer.pipeline.errors import PathError, RunError


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a busy disk takes seconds to sync."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file outside of the folder that is written in; it must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "folder").mkdir()
    file = tmp_path / "outside/precious"
    file.write_text("precious")
    return file


LAID = {
    "link": lambda path, file: path.symlink_to(file),
    "link to nothing": lambda path, file: path.symlink_to(file.with_name("nothing")),
    "hard link": lambda path, file: os.link(file, path),
    "pipe": lambda path, file: os.mkfifo(path),
    "own file": lambda path, file: path.write_text("old"),
}


@pytest.mark.parametrize("laid", LAID)
def test_a_whole_file_replaces_what_has_its_name_and_touches_nothing_else(precious: Path, laid: str) -> None:
    path = precious.parent.parent / "folder/result.json"
    LAID[laid](path, precious)
    LAID[laid](path.with_name("result.json.part"), precious)
    writing.write_text(path, "new")
    with writing.whole_path(path.with_name("other")) as own:
        own.write_text("by a library")
    assert path.read_text() == "new"
    assert not path.is_symlink()
    assert path.with_name("other").read_text() == "by a library"
    assert precious.read_text() == "precious"
    assert names(precious.parent) == ["precious"]
    assert names(path.parent) == ["other", "result.json", "result.json.part"]


def test_a_file_that_was_not_finished_is_not_there(precious: Path) -> None:
    path = precious.parent.parent / "folder/result.json"
    path.write_text("old")
    with pytest.raises(KeyError), writing.whole_file(path) as file:  # noqa: PT012
        file.write(b"half")
        raise KeyError
    with pytest.raises(KeyError), writing.whole_path(path) as own:  # noqa: PT012
        own.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert names(path.parent) == ["result.json"]


def test_what_a_killed_writer_left_goes_with_the_next_and_what_a_living_one_has_stays(precious: Path) -> None:
    folder = precious.parent.parent / "folder"
    (folder / ".a.json.0123456789ab.part").write_text("dead")
    with writing.whole_file(folder / "a.json") as first:
        with writing.whole_file(folder / "a.json") as second:
            second.write(b"second")
        first.write(b"first")
    assert (folder / "a.json").read_text() == "first"
    assert names(folder) == ["a.json"]


@pytest.mark.parametrize("laid", ["link", "link to nothing", "hard link", "pipe"])
def test_a_growing_file_is_a_regular_one_with_one_name(precious: Path, laid: str) -> None:
    path = precious.parent.parent / "folder/ledger"
    LAID[laid](path, precious)
    with pytest.raises(PathError, match=r"expected a regular file.*Nothing was changed"):
        writing.open_growing(path)
    assert precious.read_text() == "precious"
    assert names(precious.parent) == ["precious"]


@pytest.mark.parametrize("laid", LAID)
def test_an_owned_file_is_made_anew_whatever_lies_there(precious: Path, laid: str) -> None:
    part = precious.parent.parent / "folder/a/0.part"
    writing.make_folder(part.parent, below=part.parent.parent)
    LAID[laid](part, precious)
    fd = writing.open_owned(part, below=part.parent.parent)
    os.write(fd, b"mine")
    with pytest.raises(BlockingIOError):
        writing.open_owned(part, below=part.parent.parent)
    assert writing.sweep_parts(part.parent.parent) == []
    assert part.read_text() == "mine"
    writing.let_go(fd, part, below=part.parent.parent)
    assert precious.read_text() == "precious"
    assert names(part.parent) == []


@pytest.mark.parametrize("laid", LAID)
def test_sweeping_removes_names_and_nothing_behind_them(precious: Path, laid: str) -> None:
    folder = precious.parent.parent / "folder"
    LAID[laid](folder / "x.part", precious)
    (folder / "below").symlink_to(precious.parent)
    (precious.parent / "theirs.part").write_text("theirs")
    assert writing.sweep_parts(folder) == [folder / "x.part"]
    assert names(folder) == ["below"]
    assert names(precious.parent) == ["precious", "theirs.part"]


def test_no_folder_below_is_a_link_and_the_first_may_be(precious: Path) -> None:
    root = precious.parent.parent
    (root / "mine").symlink_to(root / "folder")
    (root / "folder/a").symlink_to(precious.parent)
    below = root / "mine"
    writing.write_text(below / "here", "1")
    for wrong in (
        lambda: writing.make_folder(below / "a/b", below=below),
        lambda: writing.open_growing(below / "a/precious", below=below),
        lambda: writing.open_owned(below / "a/x.part", below=below),
        lambda: writing.rename(below / "here", below / "a/here", below=below),
        lambda: writing.rename(below / "a/precious", below / "precious", below=below),
        lambda: writing.remove(below / "a/precious", below=below),
        lambda: writing.whole_file(below / "a/x", below=below).__enter__(),
        lambda: writing.make_folder(below / "../outside/b", below=below),
    ):
        with pytest.raises(PathError, match=r"is a link to|leaves"):
            wrong()
    assert names(precious.parent) == ["precious"]
    assert (root / "folder/here").read_text() == "1"


def test_removing_a_link_or_a_folder_with_links_leaves_what_they_point_to(precious: Path) -> None:
    folder = precious.parent.parent / "folder"
    (folder / "link").symlink_to(precious.parent)
    (folder / "tree").mkdir()
    (folder / "tree/link").symlink_to(precious.parent)
    for name in ("link", "tree", "nothing"):
        writing.remove(folder / name)
    (folder / "link").symlink_to(precious.parent)
    writing.make_fresh_folder(folder / "link")
    assert names(folder) == ["link"]
    assert names(folder / "link") == []
    assert precious.read_text() == "precious"


def test_syncing_a_tree_waits_for_no_pipe(precious: Path) -> None:
    folder = precious.parent.parent / "folder"
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    (folder / "loop").symlink_to("..")
    writing.sync_tree(folder)
    with pytest.raises(PathError, match="expected a regular file or a folder"):
        reading.expect_plain_tree(folder)


@pytest.mark.parametrize("laid", ["pipe", "link to pipe", "device", "folder", "loop", "too long", "sparse"])
def test_only_a_regular_file_of_the_right_length_is_read(tmp_path: Path, laid: str) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    if laid in ("pipe", "link to pipe"):
        os.mkfifo(other)
        path.symlink_to(other) if laid == "link to pipe" else other.rename(path)
    elif laid == "folder":
        path.mkdir()
    elif laid in ("device", "loop"):
        path.symlink_to("/dev/zero" if laid == "device" else path)
    else:
        path.write_bytes(b"")
        os.truncate(path, 11 if laid == "too long" else 300 << 30)
    expected = PathError if laid == "loop" else RunError
    for bounds in ({"most": 10}, {"exactly": 10}):
        with pytest.raises(expected, match=f"{path}(:| is)"):
            reading.read_bytes(path, error=RunError, **bounds)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("[1]")
    (tmp_path / "file").symlink_to("blob")
    assert reading.read_json(tmp_path / "file", most=10) == [1]
    with pytest.raises(FileNotFoundError):
        reading.read_bytes(tmp_path / "nothing", most=1)
    with pytest.raises(FileNotFoundError):
        reading.read_bytes(tmp_path / "blob/below", most=1)


def test_json_that_is_nested_without_end_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        reading.parsed(b"[" * 200_000)


def test_a_line_has_a_most_length(tmp_path: Path) -> None:
    file = io.BytesIO(b"one\n" + b"\0" * 100)
    found = reading.lines(file, "x", most=10, error=RunError)
    assert next(found) == b"one\n"
    with pytest.raises(RunError, match="x, line 2: more than 10 bytes"):
        next(found)


def test_an_archive_of_tensors_packs_none() -> None:
    def archive(kind: int, repeats: int = 1) -> io.BytesIO:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", kind) as file:
            file.writestr("data/0", bytes(1_000_000))
            file.filelist *= repeats  # the same bytes under several entries
        return raw

    reading.expect_unpacked(archive(zipfile.ZIP_STORED), "x")
    reading.expect_unpacked(io.BytesIO(b"no archive"), "x")
    for hostile in (archive(zipfile.ZIP_DEFLATED), archive(zipfile.ZIP_STORED, 50)):
        with pytest.raises(PathError, match=r"x: unpacks to \d+ bytes from \d+"):
            reading.expect_unpacked(hostile, "x")


def test_a_lock_that_is_held_is_not_taken_for_a_dead_ones(tmp_path: Path) -> None:
    part = tmp_path / "0.part"
    with part.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            writing.open_owned(part, below=tmp_path)
        assert part.exists()
    os.close(writing.open_owned(part, below=tmp_path))


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, real, calls = tmp_path / "0.part", fcntl.flock, [0]

    def swept_first(fd: int, how: int) -> None:
        calls[0] += 1
        if calls[0] == 1:
            part.unlink()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    fd = writing.open_owned(part, below=tmp_path)
    assert os.path.samestat(os.fstat(fd), part.stat())
    assert calls == [2]
    os.close(fd)
