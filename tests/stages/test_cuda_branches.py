"""Branches that only a CUDA device takes, taken on the CPU: what is asked of CUDA is stood in for and looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vidxfer.pipeline.cache.codec import Quantiser
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.training.recipes import named
from vidxfer.stages.doctor import device
from vidxfer.stages.planning import measure
from vidxfer.stages.shards.quantise import SplitQuantiser

CUDA = torch.device("cuda", 0)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each new buffer was to be pinned; it is made without."""
    asked: list[bool] = []
    real = torch.empty

    def empty(*shape: Any, pin_memory: bool = False, **more: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return real(*shape, **more)

    monkeypatch.setattr(torch, "empty", empty)
    return asked


@pytest.mark.parametrize("there", [False, True])
def test_buffers_of_batches_are_pinned_where_there_is_a_device(
    toy: Any, monkeypatch: pytest.MonkeyPatch, pinned: list[bool], there: bool
) -> None:
    with CacheReader(open_split(toy.int8, "train")) as reader:
        plain = reader.read([0, 1], [0, 0])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        pinned.clear()
        again = reader.read([0, 1], [0, 0], out=reader.buffer(2))
    assert pinned == [there, there], "codes and scales"
    assert torch.equal(again.codes, plain.codes)


@pytest.mark.parametrize("where", [torch.device("cpu"), CUDA])
def test_codes_leave_the_device_into_pinned_buffers_that_are_used_again(
    toy: Any, monkeypatch: pytest.MonkeyPatch, pinned: list[bool], where: torch.device
) -> None:
    split = open_split(toy.int8, "train")
    spec = split.spec
    tokens = torch.randn(spec.stored_views, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels)
    expected = Quantiser.of(split)(tokens)
    monkeypatch.setattr(Quantiser, "to", lambda self, device: self)
    quantise = SplitQuantiser(split, where)
    pinned.clear()
    first = quantise(tokens)
    assert pinned.count(where.type == "cuda") >= 2
    assert all(torch.equal(one, other) for one, other in zip(first, expected, strict=True))
    quantise.give_back(first)
    assert quantise(tokens)[0].data_ptr() == first[0].data_ptr()


def test_a_device_is_waited_for_before_its_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("waited"))
    measure._seconds(lambda: done.append("worked"), CUDA, most=0.0)
    assert done == ["worked", "waited"] * 2


def test_a_head_is_measured_in_the_precision_it_is_trained_in(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, seen = open_split(toy.int8, "train").spec, []
    monkeypatch.setattr(measure, "head_precision", lambda asked, where: "bf16")
    monkeypatch.setattr(measure, "MEASURE_SECONDS", 0.0)
    real = torch.nn.functional.layer_norm

    def layer_norm(*words: Any, **more: Any) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
        return real(*words, **more)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", layer_norm)
    assert measure.measure_head(named("dist-toy"), spec, 8, torch.device("cpu")) > 0
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("wrong", ["CUDA error: no kernel image is available for execution on the device\nmore", None])
def test_doctor_says_what_each_device_is_good_for(monkeypatch: pytest.MonkeyPatch, wrong: str | None) -> None:
    """A card that this torch was not built for ended the doctor itself."""
    real = torch.ones

    def ones(*shape: int, device: str) -> torch.Tensor:
        assert device == "cuda:0"
        if wrong:
            raise RuntimeError(wrong)
        return real(*shape)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Tesla K80")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=12e9))
    state = "works" if wrong is None else f"cannot be used: {wrong.splitlines()[0]}"
    assert device() == f"cuda:0 Tesla K80, 12 GB, {state}"
