"""OpenAI's own files are TorchScript archives: their tensors are read, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from vidxfer.pipeline.clip import load
from vidxfer.pipeline.clip.archive import is_torchscript, read_torchscript
from vidxfer.pipeline.clip.tower import hash_state
from vidxfer.pipeline.errors import ClipError

SIZES: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny CLIP, traced, in float16, saved as OpenAI did; and its weights."""
    torch.manual_seed(7)
    vision, text = CLIPVisionCfg(**SIZES["vision_cfg"]), CLIPTextCfg(**SIZES["text_cfg"])
    model = CLIP(SIZES["embed_dim"], vision, text, quick_gelu=True).eval()
    weights = {name: value.half() for name, value in model.state_dict().items()}
    model.register_buffer("input_resolution", torch.tensor(16))  # as OpenAI's have
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against tracing; these files are traced
        pictures, words = torch.rand(1, 3, 16, 16), torch.randint(0, 50, (1, 77))
        traced = torch.jit.trace(model, (pictures, words), check_trace=False)
        file = tmp_path_factory.mktemp("published") / "Tiny.pt"
        traced.half().save(str(file))
    return file, weights


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of open_clip with the tiny sizes."""
    for name, quick in (("Tiny-quickgelu", True), ("Tiny", False), ("Wide-quickgelu", True)):
        width = 96 if name.startswith("Wide") else 64
        config = {**SIZES, "vision_cfg": {**SIZES["vision_cfg"], "width": width}, "quick_gelu": quick}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)


def test_every_tensor_is_read_as_it_is_stored(published: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, expected = published
    assert is_torchscript(file)
    found = read_torchscript(file)
    assert found.keys() == expected.keys()
    assert {value.dtype for value in found.values()} == {torch.float16}
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_torch = torch.jit.load(str(file)).state_dict()  # the library that runs it; this file is our own
    assert [name for name in found if not torch.equal(found[name], by_torch[name])] == []


@pytest.mark.usefixtures("known")
def test_the_tower_is_that_of_the_same_weights_in_another_file(
    published: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    file, weights = published
    torch.save(weights, tmp_path / "openai.pt")
    ours = load.load_tower("Tiny-quickgelu", str(file), device="cpu")
    theirs = load.load_tower("Tiny-quickgelu", str(tmp_path / "openai.pt"), device="cpu")
    assert ours.info == theirs.info
    assert ours.info.weights_sha256 == hash_state(weights)
    pictures = torch.rand(2, 3, 16, 16)
    a, b = ours.taps(pictures, [-1, 0, 1]), theirs.taps(pictures, [-1, 0, 1])
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.embedding, b.embedding)


@pytest.mark.usefixtures("known")
def test_another_activation_or_other_sizes_are_refused_by_name(published: tuple[Path, Any]) -> None:
    file, _ = published
    with pytest.raises(ClipError, match="use --model Tiny-quickgelu, not Tiny"):
        load.load_tower("Tiny", str(file), device="cpu")
    with pytest.raises(ClipError, match=r"size mismatch for visual\.class_embedding") as refused:
        load.load_tower("Wide-quickgelu", str(file), device="cpu")
    assert len(str(refused.value).splitlines()) < 25


class Shell:
    """What a hostile pickle is made of."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


def rebuilt(file: Path, out: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes]) -> Path:
    """The archive with other members: None leaves one out."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if (raw := change(name, old.read(name))) is not None:
                new.writestr(name, raw)
        for name, raw in more.items():
            new.writestr(name, raw)
    return out


def pickled(raw: bytes) -> Callable[[str, bytes], bytes | None]:
    return lambda name, old: raw if name.endswith("/data.pkl") else old


def test_what_is_hostile_is_refused_and_nothing_runs(
    published: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, _ = published
    tree = zipfile.ZipFile(file).read("Tiny/data.pkl")
    cases: dict[str, tuple[Callable[[str, bytes], bytes | None], dict[str, bytes], str]] = {
        "names os.system": (pickled(pickle.dumps(Shell(), protocol=2)), {}, "it names posix.system"),
        "names eval": (pickled(b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001+1\x85R."), {}, "builtin"),
        "a newer opcode": (pickled(pickle.dumps(Shell(), protocol=4)), {}, "data.pkl uses"),
        "a place in the memo": (pickled(b"\x80\x02}r\xff\xff\xff\x7f."), {}, "remembers a value at place"),
        "not a module": (pickled(b"\x80\x02}."), {}, "it holds a dict"),
        "cut off": (pickled(tree[: len(tree) // 2]), {}, "newline|exhausted|opcode"),
        "a storage is short": (lambda name, raw: raw[:-2] if name.endswith("data/7") else raw, {}, "declared"),
        "a storage is missing": (lambda name, raw: None if name.endswith("data/7") else raw, {}, "data/7"),
        "an absolute name": (lambda name, raw: raw, {"/etc/x": b"x"}, "outside the archive"),
        "a name that climbs": (lambda name, raw: raw, {"Tiny/../../x": b"x"}, "outside the archive"),
    }
    for what, (change, more, said) in cases.items():
        with pytest.raises(ClipError, match=said):
            read_torchscript(rebuilt(file, tmp_path / f"{what}.pt", change, more))
    assert not (tmp_path / "PWNED").exists()


def test_sizes_that_are_only_declared_are_refused(published: tuple[Path, Any], tmp_path: Path) -> None:
    file, _ = published
    packed = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            big = name.endswith("data/7")
            raw = bytes(50_000_000) if big else old.read(name)
            new.writestr(name, raw, zipfile.ZIP_DEFLATED if big else zipfile.ZIP_STORED)
    assert packed.stat().st_size < 5_000_000
    with pytest.raises(ClipError, match=r"data/7 declares 50,000,000 bytes"):
        read_torchscript(packed)
    strided = bytes(zipfile.ZipFile(file).read("Tiny/data.pkl"))
    huge = strided.replace(b"(M\x00\x01K@t", b"(J\x00\x00\x00\x7fK@t", 1)  # a matrix of 256 x 64
    assert huge != strided
    with pytest.raises(ClipError, match=r"storage|numbers"):
        read_torchscript(rebuilt(file, tmp_path / "huge.pt", pickled(huge), {}))


def test_a_zip_of_another_kind_is_none(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_bytes(b"PK\x03\x04" + struct.pack("<I", 1))
    with zipfile.ZipFile(io.BytesIO(), "w") as empty:
        empty.writestr("x", b"")
    for name in ("plain.pt", "text.pt", "none.pt", "."):
        assert not is_torchscript(tmp_path / name)
