"""The run folder: what was asked, what it was made from, how it went, and where it can go on.

    recipe.json        the resolved recipe
    run.json           cache fingerprint, CLIP, class names, code commit, versions, device
    metrics.jsonl      one line per logged step and per evaluation
    tensorboard/       the same curves
    checkpoint/        weights.safetensors, optimiser.pt, progress.json, text.safetensors
    result.json        how the finished run went: score, seconds per epoch

A checkpoint is written beside the old one and swapped in by renames, so that there is a whole one at every moment.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidxfer.pipeline.cache.agree import AGREE, differing_fields
from vidxfer.pipeline.errors import RunError, UsageError, difference
from vidxfer.pipeline.training.recipes import Recipe, from_dict


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch, step: the next step to be done: epoch number and step inside it.
        global_step: optimiser steps done. finished: all epochs are done.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    finished: bool = False


class Run:
    """One run folder.

    Args:
        path: the folder. recipe: its recipe. made_from: what `run.json` holds.
    """

    def __init__(self, path: Path, recipe: Recipe, made_from: dict[str, Any]) -> None:
        self.path, self.recipe, self.made_from = path, recipe, made_from

    @classmethod
    def start(cls, path: Path, recipe: Recipe, made_from: dict[str, Any]) -> Self:
        """Begin a run, or take up the one that is there.

        Raises:
            RunError: the folder holds a run of another recipe or cache; the text names each difference.
        """
        if (path / "recipe.json").is_file():
            old = cls.open(path)
            row = AGREE["run with run"]
            differing = _differences(asdict(old.recipe), asdict(recipe))
            differing |= differing_fields(row.must, old.made_from, made_from)
            differing |= _differences(*({"init_from": one.get("init_from")} for one in (old.made_from, made_from)))
            if "cache_fingerprint" in differing:  # which of the settings behind it
                differing |= _differences(old.made_from.get("spec", {}), made_from.get("spec", {}))
            if differing:
                lines = [f"  {difference(name, *pair, row.sides)}" for name, pair in differing.items()]
                raise RunError("\n".join([f"{path} {row.what}:", *lines, row.remedy]))
            old._recover()
            return cls(path, recipe, old.made_from)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "run.json", json.dumps(made_from, indent=1, ensure_ascii=False))
        write_text(path / "recipe.json", recipe.to_json())  # last: it marks the folder as a run
        return cls(path, recipe, made_from)

    @classmethod
    def open(cls, path: Path) -> Self:
        """A run that exists.

        Raises:
            RunError: no such run, or its files do not parse.
        """
        try:
            recipe = from_dict(_table(path / "recipe.json"))
            made_from = _table(path / "run.json")
        except FileNotFoundError as error:
            raise RunError(
                f"{path} is no run folder: {error.filename} is missing. Make one with: vidxfer train --run {path}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise RunError(
                f"{path}: recipe.json or run.json is damaged, or of another version of vidxfer ({error}). "
                "Put it back, or train into another folder with --run."
            ) from error
        return cls(path, recipe, made_from)

    @property
    def checkpoint(self) -> Path:
        """Folder of the current checkpoint."""
        return self.path / "checkpoint"

    def progress(self) -> Progress:
        """How far the current checkpoint is; the beginning when there is none."""
        self._recover()
        file = self.checkpoint / "progress.json"
        if not file.is_file():
            return Progress()
        with _damage_named(file):
            return Progress(**_table(file))

    def save(self, head: torch.nn.Module, optimiser: torch.optim.Optimizer, text: Tensor, progress: Progress) -> None:
        """Write a whole checkpoint and swap it in."""
        fresh, old = self.path / "checkpoint.new", self.path / "checkpoint.old"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
        save_file(weights, fresh / "weights.safetensors")
        save_file({"text": text.detach().cpu().float().contiguous()}, fresh / "text.safetensors")
        torch.save(optimiser.state_dict(), fresh / "optimiser.pt")
        write_text(fresh / "progress.json", json.dumps(asdict(progress)))  # last: it marks the checkpoint as whole
        for file in fresh.iterdir():
            _sync(file)
        _sync(fresh)
        shutil.rmtree(old, ignore_errors=True)
        if self.checkpoint.exists():
            self.checkpoint.rename(old)
        fresh.rename(self.checkpoint)
        _sync(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def load_weights(self, head: torch.nn.Module) -> None:
        """Load the checkpoint's weights into a head of the run's recipe.

        Raises:
            RunError: no checkpoint, a damaged file, or weights that do not fit; every mismatch is named.
        """
        self._recover()
        file = self.checkpoint / "weights.safetensors"
        if not file.is_file():
            raise RunError(f"{self.path} has no checkpoint yet: {file} is missing. Train first: vidxfer train")
        with _damage_named(file):
            found = load_file(file)
        wanted = head.state_dict()
        wrong = [f"  {k}: in the file only" for k in sorted(found.keys() - wanted.keys())]
        wrong += [f"  {k}: missing in the file" for k in sorted(wanted.keys() - found.keys())]
        wrong += [
            f"  {k}: file has {tuple(found[k].shape)}, head has {tuple(wanted[k].shape)}"
            for k in sorted(found.keys() & wanted.keys())
            if found[k].shape != wanted[k].shape
        ]
        if wrong:
            raise RunError("\n".join([f"{file} does not fit the head:", *wrong]))
        head.load_state_dict(found)

    def load_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Load the optimiser's state of the current checkpoint."""
        file = self.checkpoint / "optimiser.pt"
        with _damage_named(file):
            optimiser.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))

    def text(self) -> Tensor:
        """Text embeddings [class embed] the head was trained with."""
        file = self.checkpoint / "text.safetensors"
        with _damage_named(file):
            return load_file(file)["text"]

    def keep_result(self, result: dict[str, Any]) -> None:
        """Remember how the finished run went; a later, empty repetition keeps what the run itself measured."""
        before = self.result() or {}
        kept = {name: before.get(name) if value is None else value for name, value in result.items()}
        if before.get("epoch_seconds") is not None and result.get("epoch_seconds") is None:
            kept["data_wait_share"] = before["data_wait_share"]
            kept["loss"] = before["loss"]
        write_text(self.path / "result.json", json.dumps(kept, indent=1, ensure_ascii=False))

    def result(self) -> dict[str, Any] | None:
        """What `keep_result` kept; None while the run is not finished."""
        file = self.path / "result.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def _recover(self) -> None:
        """After a crash between the two renames of `save`, the fresh (whole) or the old checkpoint takes its place."""
        if not self.checkpoint.exists():
            for name in ("checkpoint.new", "checkpoint.old"):
                if (self.path / name / "progress.json").is_file():
                    (self.path / name).rename(self.checkpoint)
                    return


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn what a missing or damaged file of a checkpoint makes its reader raise into a RunError that names it."""
    try:
        yield
    except (
        OSError,
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        raise RunError(
            f"{file} is missing or damaged: {error}\nPut it back, or train into another folder with --run."
        ) from error


def _table(file: Path) -> dict[str, Any]:
    """A JSON file that holds one object; ValueError if it holds something else."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no object")
    return found


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (found.get(name), wanted.get(name)) for name in wanted if found.get(name) != wanted.get(name)}


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all: a temporary name, fsync, rename."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")  # paths need not be UTF-8
    _sync(part)
    part.rename(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
