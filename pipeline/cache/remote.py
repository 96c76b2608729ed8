"""Where a cache lies: a local folder, or a store behind a URL that is only read.

    ./zarr, file:///data/zarr             ──▶ Path           everything
    s3:// gs:// az:// http(s):// (obstore) ┐
    memory:// and what fsspec knows        ┴▶ RemotePath     train, evaluate, predict, cache info; no listing is needed

Credentials and endpoints come from the environment, as obstore and fsspec read them (AWS_ENDPOINT, AWS_PROFILE ...).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeGuard

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.reading import expect_length, open_regular, parsed, read_bytes

SPLIT_NAMES = ("train", "val")
"""Splits that are looked for where a store cannot list what it holds."""

CONNECT_TIMEOUT, ANSWER_TIMEOUT = timedelta(seconds=10), timedelta(seconds=30)
"""Of one request to a store; a request reads at most some megabytes. It is repeated twice."""

OBSTORE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https")

# pathlib takes one of the two slashes away: s3://bucket/x is "s3:/bucket/x" once it was a Path
_URL = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?P<rest>/?.*)$")


class RemotePath(os.PathLike[str]):
    """As much of `pathlib.Path` as reading a cache needs, over a zarr store.

    Whatever opens it as a file of this machine gets the error that says so.

    Args:
        store: any zarr store that can be read.
        url: for people.
        key: within the store; "" is its root.
    """

    def __init__(self, store: Store, url: str, key: str = "") -> None:
        self.store, self.key = store, key
        self._root = url.rstrip("/")

    def __str__(self) -> str:
        return f"{self._root}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"RemotePath({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __fspath__(self) -> str:
        raise self._only_read()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a `Path` can do: to write, to list, to ask for sizes."""
        if hasattr(Path, name) and not name.startswith("_"):
            raise self._only_read()
        raise AttributeError(name)

    def _only_read(self) -> CacheError:
        return CacheError(
            f"{self}: this command needs a local folder, because a cache behind a URL can only be read. Copy the cache "
            "to a disk, and give its folder with --cache."
        )

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.store, self._root, f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The folder it is in."""
        return RemotePath(self.store, self._root, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> RemotePath:
        """The neighbour of that name."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return bool(self._ask(self.store.exists(self.key)))

    exists = is_file

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: it is not there. CacheError: the store does not answer.
        """
        return self._found(None)

    def size_bytes(self) -> int:
        """Length of the object. Raises as `read_bytes`."""

        async def asked() -> int | None:
            try:
                return int(await self.store.getsize(self.key))
            except FileNotFoundError:
                return None

        if (size := self._ask(asked())) is None:
            raise FileNotFoundError(str(self))
        assert isinstance(size, int)
        return size

    def read_end(self, size_bytes: int) -> bytes:
        """The last bytes of the object. Raises as `read_bytes`."""
        return self._found(SuffixByteRequest(size_bytes))

    def read_part(self, offset: int, size_bytes: int) -> bytes:
        """Some bytes of the object, fewer where it ends before. Raises as `read_bytes`."""
        return self._found(RangeByteRequest(offset, offset + size_bytes))

    def _found(self, part: ByteRequest | None) -> bytes:
        data = self._get(part)
        if data is None:
            raise FileNotFoundError(str(self))
        return data

    def _get(self, part: ByteRequest | None) -> bytes | None:
        answer = self._ask(self.store.get(self.key, default_buffer_prototype(), part))
        return None if answer is None else bytes(answer.to_bytes())

    def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        try:
            return sync(question)
        except store_errors() as error:
            said = str(error).strip().splitlines() or [""]
            raise CacheError(
                f"{self}: the store does not answer, or answers with an error ({type(error).__name__}: {said[0]}). "
                "Check address and credentials. They come from the environment, e.g. AWS_ENDPOINT, AWS_PROFILE."
            ) from error


def is_remote(place: object) -> TypeGuard[RemotePath]:
    """Whether a split's `path` is behind a URL."""
    return isinstance(place, RemotePath)


def store_errors() -> tuple[type[Exception], ...]:
    """The errors of stores that cannot be reached. A missing object is no such error."""
    kinds: list[type[Exception]] = [OSError, ImportError]
    known = {"obstore.exceptions": "BaseError", "aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError"}
    for module, name in known.items():
        if module in sys.modules:  # what was never loaded raised nothing
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


Place = Path | RemotePath
"""The place of a cache or of a part of it."""


def place_of(cache: Path | str | RemotePath) -> Place:
    """The place of a cache, from a path or URL.

    Raises:
        CacheError: the URL's scheme is not known, or the package for it is not installed.
    """
    if isinstance(cache, RemotePath):
        return cache
    match = _URL.match(str(cache))
    if not match or Path(cache).exists():
        return Path(cache)
    scheme, rest = match["scheme"].lower(), match["rest"].lstrip("/")
    if scheme == "file":
        return Path("/" + rest)
    url = f"{scheme}://{rest}".rstrip("/")
    return RemotePath(_store(scheme, url), url)


def local_folder(cache: Path | str | RemotePath) -> Path:
    """The local folder of a cache, for commands that write.

    Raises:
        CacheError: it is behind a URL.
    """
    place = place_of(cache)
    return place if isinstance(place, Path) else Path(os.fspath(place))


def read_whole(place: Place, *, most: int | None = None, exactly: int | None = None, remedy: str = "") -> bytes:
    """A file or an object, whole; its length is asked first. `most` or `exactly`: bytes it may or must have.

    Raises:
        FileNotFoundError: it is not there. CacheCorrupt: it has another length, or is no regular file.
        CacheError: the store does not answer. PathError: the system does not open the file.
    """
    if not is_remote(place):
        return read_bytes(Path(place), most=most, exactly=exactly, error=CacheCorrupt, remedy=remedy)
    expect_length(place, place.size_bytes(), most=most, exactly=exactly, error=CacheCorrupt, remedy=remedy)
    return place.read_bytes()


def expect_size(place: Place, *, most: int | None = None, exactly: int | None = None, remedy: str = "") -> None:
    """Check kind and length of a file or an object that a library is going to read; that it is not there is no error.

    Raises:
        CacheCorrupt, CacheError, PathError: as `read_whole`.
    """
    try:
        if is_remote(place):
            expect_length(place, place.size_bytes(), most=most, exactly=exactly, error=CacheCorrupt, remedy=remedy)
        else:
            os.close(open_regular(Path(place), most=most, exactly=exactly, error=CacheCorrupt, remedy=remedy))
    except FileNotFoundError:
        return


def read_json(place: Place, *, most: int, remedy: str = "") -> Any:
    """What a JSON file or object says. Raises as `read_whole`, and ValueError where it is no JSON."""
    return parsed(read_whole(place, most=most, remedy=remedy))


def open_group(place: Place) -> zarr.Group:
    """The zarr group at a place, to be read."""
    if is_remote(place):
        return zarr.open_group(place.store, path=place.key, mode="r", zarr_format=3, use_consolidated=False)
    return zarr.open_group(Path(place), mode="r", zarr_format=3, use_consolidated=False)


def _store(scheme: str, url: str) -> Store:
    """obstore where it is there and knows the scheme, else fsspec."""
    if scheme in OBSTORE_SCHEMES:
        try:
            from obstore.store import from_url
        except ImportError:
            pass  # fsspec may have what it takes
        else:
            client = {"timeout": ANSWER_TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": scheme == "http"}
            retry = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
            store = from_url(url, client_options=client, retry_config=retry)  # type: ignore[call-overload]
            return ObjectStore(store, read_only=True)
    try:
        return FsspecStore.from_url(url, read_only=True)
    except (ImportError, ValueError) as error:
        raise CacheError(
            f"{url}: cannot be opened ({error}). Install what reads it (`pip install 'vidxfer[remote]'` for s3, gs, az "
            "and http; fsspec's packages for others), or give a local folder with --cache."
        ) from error
