"""Tensors out of a TorchScript archive, as OpenAI publishes CLIP (`ViT-B-16.pt`): nothing in the file is run.

    zip ─┬─ code/…         the program: never read
         ├─ data.pkl       the tree of modules ─▶ opcodes checked ─▶ inert holders ─▶ dotted names of tensors
         └─ data/0, 1, …   one storage each    ─▶ size checked     ─▶ torch.frombuffer

torch.jit.load would compile and run what is under code/. Here the pickle may name the rebuilding of a tensor, lists and
classes of the archive itself, which become holders of attributes; whatever else it names is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidxfer.pipeline.errors import ClipError, PathError
from vidxfer.pipeline.reading import opened

PICKLE_BYTES_MOST = 64_000_000
OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "NEWOBJ", "REDUCE", "BUILD",
    "SETITEM", "SETITEMS", "APPEND", "APPENDS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINPERSID", "BINUNICODE", "BININT", "BININT1",
    "BININT2", "BINFLOAT", "LONG1", "NEWTRUE", "NEWFALSE", "NONE",
})  # fmt: skip
"""What torch's own pickler writes."""

STORAGES = {"HalfStorage": torch.float16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
            "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
            "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
            "BoolStorage": torch.bool}  # fmt: skip
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Last names of tensors that OpenAI's archives hold beside the weights; they follow from the sizes."""


class _Holder:
    """An object of a class that only the archive defines: its attributes, and nothing it could do."""

    held: Mapping[Any, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"an object whose state is a {type(state).__name__}")
        self.held = state


class _Declared(NamedTuple):
    """A tensor as the pickle declares it."""

    storage: tuple[torch.dtype, str, int]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    has_gradient: bool = False
    hooks: object = None


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip with the parts of a TorchScript archive."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, PathError, ValueError, RuntimeError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every weight of an archive by its name, as it is stored (OpenAI: float16), on the CPU.

    Raises:
        ClipError: it is damaged, holds more than tensors of modules, or declares sizes it does not have.
    """
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            return _Archive(archive, path.stat().st_size).weights()
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, IndexError, TypeError,
            AttributeError, RuntimeError, OverflowError, MemoryError, PathError) as error:  # fmt: skip
        raise ClipError(
            f"{path} is a TorchScript archive whose tensors cannot be read without running what is in it "
            f"({type(error).__name__}: {error}). Convert it where you trust it: "
            'torch.save(torch.jit.load("FILE.pt").state_dict(), "weights.pt"), and give --pretrained weights.pt'
        ) from error


class _Archive:
    """An opened archive.

    Args:
        archive: the zip.
        file_bytes: its length, which what is read of it must not exceed in all.
    """

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive, self._left_bytes = archive, file_bytes
        self._storages: dict[str, Tensor] = {}
        names = archive.namelist()
        wrong = [name for name in names if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")]
        if wrong or len(set(names)) != len(names):
            raise ValueError(f"members are named {(wrong or names)[:3]}: outside the archive, or twice")
        (self._root,) = (name.removesuffix("constants.pkl") for name in names if name.endswith("/constants.pkl"))

    def weights(self) -> dict[str, Tensor]:
        """Tensors under the dotted names of their modules."""
        raw = self._member("data.pkl", PICKLE_BYTES_MOST)
        _expect_plain(raw)
        tree = _Tree(io.BytesIO(raw)).load()
        if not isinstance(tree, _Holder):
            raise ValueError(f"it holds a {type(tree).__name__}, expected a module")
        tensors: dict[str, Tensor] = {}
        waiting, seen = [("", tree)], {id(tree)}
        while waiting:
            prefix, module = waiting.pop()
            for name, value in module.held.items():
                if isinstance(value, _Holder) and id(value) not in seen:
                    seen.add(id(value))
                    waiting.append((f"{prefix}{name}.", value))
                elif isinstance(value, _Declared) and name not in NOT_WEIGHTS:
                    tensors[f"{prefix}{name}"] = self._tensor(value)
        if not tensors:
            raise ValueError("there is no tensor in it")
        return tensors

    def _tensor(self, declared: _Declared) -> Tensor:
        storage = self._storage(*declared.storage)
        size, stride, offset = declared.size, declared.stride, declared.offset
        tensor = torch.as_strided(storage, size, stride, offset)  # refuses what lies outside, and what is negative
        if tensor.numel() > storage.numel():
            raise ValueError(f"a tensor of {size} is made of {storage.numel()} numbers")
        return tensor

    def _storage(self, dtype: torch.dtype, key: str, numbers: int) -> Tensor:
        if key not in self._storages:
            raw = self._member(f"data/{key}", self._left_bytes)
            self._storages[key] = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        storage = self._storages[key]
        if storage.dtype != dtype or len(storage) != numbers:
            raise ValueError(f"data/{key} has {len(storage)} numbers of {storage.dtype}, declared {numbers} of {dtype}")
        return storage

    def _member(self, name: str, most: int) -> bytes:
        info = self._archive.getinfo(self._root + name)
        stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not stored or info.file_size > min(most, self._left_bytes):
            raise ValueError(
                f"{name} declares {info.file_size:,} bytes; at most {most:,}, not compressed, can be there"
            )
        self._left_bytes -= info.file_size  # members that lie on one another would be read again and again
        return self._archive.read(info)


class _Tree(pickle.Unpickler):
    """The reader of data.pkl: holders and declarations come out, and not one object of torch.

    What is handed out is made for this reader, since a pickle may change the classes it names.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._holder, self._declared = type("Holder", (_Holder,), {}), type("Declared", (_Declared,), {})

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle may name."""
        if module.split(".")[0] == "__torch__":
            return self._holder
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._declared
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither a tensor nor a module of its own")

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str, int]:
        """A storage: ("storage", type, member, device, how many numbers)."""
        kind, dtype, key, _, numbers = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise pickle.UnpicklingError(f"a storage is declared as {pid!r:.100}")
        return dtype, str(key), int(numbers)


def _expect_plain(raw: bytes) -> None:
    """Look at every opcode before any is obeyed: an unknown one, or a place of the memo that would have to be made."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if opcode.name not in OPCODES:
            raise ValueError(f"data.pkl uses {opcode.name}, which torch does not write")
        if opcode.name == "LONG_BINPUT" and not 0 <= int(argument or 0) <= count:
            raise ValueError(f"data.pkl remembers a value at place {argument}")
