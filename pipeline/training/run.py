"""The run folder: the recipe, the inputs, the metrics, and the checkpoint of a training run.

    recipe.json        the resolved recipe
    run.json           cache fingerprint, CLIP, class names, code commit, versions, device
    rows.json          the videos it is trained on (kept_rows.py)
    metrics.jsonl      one line per logged step and per evaluation
    tensorboard/       the same curves
    checkpoint/        weights.safetensors, optimiser.pt, progress.json; text.safetensors, where the tower has text;
                       unaveraged.safetensors, where the weights are a moving average
    result.json        how the finished run went: score, seconds per epoch

A new checkpoint is written beside the old one and swapped in by renames. A whole checkpoint exists at every moment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.optim import Optimizer

from vidxfer.pipeline.cache.read.agree import AGREE, differing_fields
from vidxfer.pipeline.errors import PathError, RunError, UsageError, difference
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.reading import expect_unpacked, read_bytes, read_json
from vidxfer.pipeline.training.average import Average
from vidxfer.pipeline.training.kept import made_from_of, result_of
from vidxfer.pipeline.training.kept_rows import KeptRows, read_rows
from vidxfer.pipeline.training.kept_tensors import (
    MOST_OVERHEAD_BYTES,
    bytes_of,
    damage_named,
    read_tensors,
    write_tensors,
)
from vidxfer.pipeline.training.optimise import restore
from vidxfer.pipeline.training.own_heads import expect_known_head
from vidxfer.pipeline.training.recipes import from_dict
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.writing import make_folder, make_fresh_folder, remove, rename, sync_folder, whole_file, write_text

MOST_RUN_BYTES = 64 << 20
"""Largest small file of a run: a result names every video without a score."""

TEXT_BYTES = 1 << 16
"""Largest embedding of one class, float32: no CLIP has more numbers."""


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """The progress of a run.

    Attributes:
        epoch: epoch of the next step.
        step: the next step within that epoch.
        global_step: number of optimiser steps done.
        finished: whether all epochs are done.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    finished: bool = False


class Run:
    """One run folder.

    Args:
        path: the folder.
        recipe: its recipe.
        made_from: the values of `run.json`.
    """

    def __init__(self, path: Path, recipe: Recipe, made_from: dict[str, Any]) -> None:
        self.path, self.recipe, self.made_from = path, recipe, made_from

    @classmethod
    def start(cls, path: Path, recipe: Recipe, made_from: dict[str, Any], rows: KeptRows | None = None) -> Self:
        """Begin a run on `rows`, or resume the run in the folder. The folder must be owned (owned.py).

        Raises:
            RunError: the folder holds a run of another recipe or cache; the text names each difference.
        """
        if (path / "recipe.json").is_file():
            old = cls.open(path)
            row = AGREE["run with run"]
            differing = _differences(old.recipe.to_dict(), recipe.to_dict())
            differing |= differing_fields(row.must, old.made_from, made_from)
            differing |= _differences(*({"init_from": facts.get("init_from")} for facts in (old.made_from, made_from)))
            if "cache_fingerprint" in differing:  # name the settings that differ
                differing |= _differences(old.made_from.get("spec", {}), made_from.get("spec", {}))
            if differing:
                lines = [f"  {difference(name, *pair, row.sides)}" for name, pair in differing.items()]
                raise RunError("\n".join([f"{path} {row.what}:", *lines, row.remedy]))
            old.recover()
            return cls(path, recipe, old.made_from)
        make_folder(path)
        fresh = cls(path, recipe, made_from)
        fresh.remember(rows)
        write_text(path / "recipe.json", json.dumps(recipe.to_dict(), indent=1))  # last: it marks the folder as a run
        return fresh

    def remember(self, rows: KeptRows | None) -> None:
        """Write the rows, if there are any, and then run.json."""
        if rows is not None:
            write_text(self.path / "rows.json", rows.text())
            self.made_from = {**self.made_from, "rows": rows.facts()}
        write_text(self.path / "run.json", json.dumps(self.made_from, indent=1, ensure_ascii=False))

    def rows(self) -> KeptRows | None:
        """The rows that the run is trained on; None: a version that stored no list began the run.

        Raises:
            RunError: the list is missing or damaged.
        """
        facts = self.made_from.get("rows")
        return None if facts is None else read_rows(self.path, facts)

    @classmethod
    def open(cls, path: Path) -> Self:
        """A run that exists. A head of your own was added before (own_heads.py): nothing is imported here.

        Raises:
            RunError: no such run, its files do not parse, or its head is not known.
        """
        try:
            asked = _table(path / "recipe.json")
            made_from = made_from_of(path / "run.json", _table(path / "run.json"))
            expect_known_head(path, asked, made_from)
            recipe = from_dict(asked)
        except FileNotFoundError as error:
            raise RunError(
                f"{path} is no run folder: {error.filename} is missing. Make one with: vidxfer train --run {path}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, UsageError, PathError) as error:
            raise RunError(
                f"{path}: recipe.json or run.json is damaged, or another version of vidxfer wrote it ({error}). "
                "Put the original file back, or train into another folder with --run."
            ) from error
        return cls(path, recipe, made_from)

    @property
    def checkpoint(self) -> Path:
        """Folder of the current checkpoint. After a crash between the renames of `save` it is the new or the old one.

        Reading renames nothing, because the run's owner may be writing.
        """
        named = self.path / "checkpoint"
        if not named.exists():
            for name in ("checkpoint.new", "checkpoint.old"):
                if (self.path / name / "progress.json").is_file():
                    return self.path / name
        return named

    def progress(self) -> RunPlace:
        """The progress of the current checkpoint. Without a checkpoint it is the beginning."""
        file = self.checkpoint / "progress.json"
        if not file.exists() and not file.is_symlink():
            return RunPlace()
        with damage_named(file):
            place: RunPlace = checked(_table(file), RunPlace, "progress")
            if min(place.epoch, place.step, place.global_step) < 0:
                raise ValueError(f"{place} has a number below 0")
            return place

    def save(
        self,
        head: nn.Module,
        optimiser: Optimizer,
        text: Tensor | None,
        progress: RunPlace,
        unaveraged: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a whole checkpoint and swap it in; `text` [class embed], None: the tower has none.

        `unaveraged`: the weights that training goes on with, where the head has averaged ones; None: the head's.
        """
        self.recover()
        fresh, old = self.path / "checkpoint.new", self.path / "checkpoint.old"
        make_fresh_folder(fresh)
        tensors: dict[str, Mapping[str, Tensor]] = {"weights": head.state_dict()}
        if unaveraged is not None:
            tensors["unaveraged"] = unaveraged
        if text is not None:
            tensors["text"] = {"text": text.float()}
        for name, values in tensors.items():
            write_tensors(fresh / f"{name}.safetensors", values)
        with whole_file(fresh / "optimiser.pt") as file:
            torch.save(optimiser.state_dict(), file)
        write_text(fresh / "progress.json", json.dumps(asdict(progress)))  # last: it marks the checkpoint as whole
        remove(old)
        named = self.path / "checkpoint"
        with suppress(FileNotFoundError):
            rename(named, old)
        rename(fresh, named)
        sync_folder(self.path)
        remove(old)

    def load_weights(self, head: nn.Module) -> None:
        """Load the checkpoint's weights into a head of the run's recipe.

        Raises:
            RunError: there is no checkpoint, a file is damaged, or weights do not fit; the text names every mismatch.
        """
        head.load_state_dict(read_tensors(self.checkpoint / "weights.safetensors", head.state_dict()))

    def load_unaveraged(self, average: Average) -> None:
        """Give the head of an average the weights that training goes on with; those it has now are the average.

        Raises:
            RunError: as `load_weights`.
        """
        average.load_weights(read_tensors(self.checkpoint / "unaveraged.safetensors", average.weights()))

    def load_optimiser(self, optimiser: Optimizer) -> None:
        """Load the optimiser's state of the current checkpoint."""
        file = self.checkpoint / "optimiser.pt"
        with damage_named(file):
            held = [value for group in optimiser.param_groups for value in group["params"]]
            raw = read_bytes(file, most=4 * bytes_of(held) + MOST_OVERHEAD_BYTES)  # AdamW keeps two of each, and steps
            expect_unpacked(stream := io.BytesIO(raw), file)
            state = torch.load(stream, weights_only=True, map_location="cpu")
            restore(optimiser, state)

    def text(self) -> Tensor | None:
        """Text embeddings [class embed] the head was trained with; None: its tower has no text."""
        if self.made_from.get("spec", {}).get("textless"):
            return None
        file = self.checkpoint / "text.safetensors"
        with damage_named(file):
            most = TEXT_BYTES * max(1, len(self.made_from.get("class_names", ()))) + MOST_OVERHEAD_BYTES
            text = load(read_bytes(file, most=most))["text"]
            if text.ndim != 2 or not text.is_floating_point() or not bool(text.isfinite().all()):
                raise ValueError(f"text is {tuple(text.shape)} {text.dtype}, expected finite numbers [class embed]")
            return text

    def keep_result(self, result: dict[str, Any]) -> None:
        """Write the results of the finished run. A later call with None values keeps the earlier measurements."""
        before = self.result() or {}
        kept = {name: before.get(name) if value is None else value for name, value in result.items()}
        if before.get("epoch_seconds") is not None and result.get("epoch_seconds") is None:
            kept["data_wait_share"] = before["data_wait_share"]
            kept["loss"] = before["loss"]
        write_text(self.path / "result.json", json.dumps(kept, indent=1, ensure_ascii=False))

    def result(self) -> dict[str, Any] | None:
        """The results of the run; None while it is not finished."""
        file = self.path / "result.json"
        if not file.exists() and not file.is_symlink():
            return None
        with damage_named(file):
            return result_of(file, _table(file))

    def recover(self) -> None:
        """Rename the current checkpoint to its own name again."""
        named = self.path / "checkpoint"
        if (current := self.checkpoint) != named:
            rename(current, named)


def _table(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError if the file holds something else."""
    table = read_json(file, most=MOST_RUN_BYTES)
    if not isinstance(table, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return table


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (stored.get(name), wanted.get(name)) for name in wanted if stored.get(name) != wanted.get(name)}
