"""vidxfer as a library: the listed names, what a cache and a run give to a person's own code, and silence."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import zarr

import vidxfer
from vidxfer.pipeline import errors
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.heads.probe import ProbeConfig
from vidxfer.pipeline.training import own_heads
from vidxfer.pipeline.training.bank import Bank
from vidxfer.pipeline.training.order import epoch_order
from vidxfer.stages.learning.predict import PredictRequest, predict

ROOT = Path(__file__).parents[2]
TREE = ast.parse((ROOT / "stages/public/__init__.py").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe on the float16 cache."""
    folder: Path = tmp_path_factory.mktemp("library") / "run"
    recipe = vidxfer.recipe("probe", "epochs=2", "warmup_epochs=1", "batch_clips=8")
    vidxfer.train(vidxfer.TrainRequest(recipe=recipe, cache=toy.float16, run=folder, device="cpu"))
    return folder


def test_the_three_lists_of_public_names_agree() -> None:
    imported = {
        (alias.name, node.module)
        for node in ast.walk(TREE)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vidxfer.")
        for alias in node.names
    }
    assert imported == set(vidxfer._WHERE.items()), "what type checkers see is what the program finds"
    assert sorted(vidxfer.__all__) == list(vidxfer.__all__) == sorted(vidxfer._WHERE) == dir(vidxfer)
    assert [name for name in vidxfer.__all__ if getattr(vidxfer, name).__name__ != name] == []
    with pytest.raises(AttributeError, match="no attribute 'Trainer'; it has CacheBusy, "):
        _ = vidxfer.Trainer


def test_every_error_is_public() -> None:
    raised = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert raised <= set(vidxfer.__all__)


def test_the_import_loads_no_library_and_an_error_none_either() -> None:
    heavy = ("torch", "numpy", "zarr", "av", "open_clip", "lightning_fabric", "dask", "safetensors", "PIL")
    code = (
        "import sys, vidxfer\nvidxfer.UsageError, vidxfer.Progress, dir(vidxfer)\n"
        f"print(sorted(set(sys.modules) & {set(heavy)!r}), vidxfer.Needs.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] Needs True\n"


def test_tokens_are_what_plain_zarr_reads(toy: Any) -> None:
    group = zarr.open_group(toy.float16 / "train", mode="r")
    with vidxfer.open_cache(str(toy.float16)) as split:
        for video, row in ((3, 3), (split.ids[5], 5), (np.int64(7), 7)):
            stored = torch.from_numpy(group["tokens"][row, 1])
            found = split.tokens(video, view=1)
            assert found.dtype == torch.float32
            assert found.shape == (3, 4, 17, 64), "[layer frame token channel]: CLS and 4 x 4 patches"
            assert torch.equal(found, stored.float())
            assert torch.equal(split.tokens(video, 1, layers=(2, 0)), stored[[2, 0]].float())
            assert np.array_equal(split.embedding(video, 1), group["embedding"][row, 1].astype(np.float32))
            assert split.view(video, 1).indices == tuple(group["frame_index"][row, 1])
        assert np.array_equal(split.labels, group["label"][:])
        assert np.array_equal(split.text, group["text"][:])
        assert (len(split.rows), split.views, split.layers) == (24, 2, (0, 1, 2))


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_batches_hold_what_the_same_split_says_of_each_view(toy: Any, codec: str) -> None:
    needs = vidxfer.Needs(layers=(2, 0), embedding=True)
    with vidxfer.open_cache(getattr(toy, codec)) as split:
        batches = list(split.batches(needs, batch_clips=5, rows=[4, 1, 9]))  # kept, so that no buffer may be shared
        assert [len(one.ids) for one in batches] == [5, 1]
        clips = [(row, view) for row in (4, 1, 9) for view in (0, 1)]
        tokens = torch.cat([one.tokens for one in batches if one.tokens is not None])
        embeddings = torch.cat([one.embedding for one in batches if one.embedding is not None])
        for place, (row, view) in enumerate(clips):
            assert torch.equal(tokens[place], split.tokens(row, view, layers=(2, 0)))
            assert torch.equal(embeddings[place], split.embedding(row, view))
        assert [name for one in batches for name in one.ids] == [split.ids[row] for row, _ in clips]
        assert batches[0].dense is None
        first = next(iter(split.batches(vidxfer.Needs(pixels="dense"), batch_clips=2)))
        assert first.dense is not None
        assert first.dense.shape == (2, 8, 3, 32, 32)
        assert first.tokens is None


def test_an_epoch_is_that_of_a_training(toy: Any) -> None:
    with vidxfer.open_cache(toy.float16) as split:
        found = [
            name for one in split.batches(vidxfer.Needs(layers=(0,)), batch_clips=7, epoch=(3, 2)) for name in one.ids
        ]
        expected = epoch_order(list(range(24)), 2, seed=3, epoch=2)
        assert found == [split.ids[row] for row, _ in expected]
        one = next(iter(split.batches(vidxfer.Needs(layers=(0,)), batch_clips=24, epoch=(3, 2))))
        assert one.tokens is not None
        for place, (row, view) in enumerate(expected):
            assert torch.equal(one.tokens[place, 0], split.tokens(row, view, layers=(0,))[0])


def test_fewer_frames_are_drawn_anew_in_each_epoch_as_a_training_draws_them(toy: Any) -> None:
    needs, bank = vidxfer.Needs(layers=(0,), sparse_frames=2), Bank(stored=4, used=2, alpha=2)
    drawn = []
    with vidxfer.open_cache(toy.float16) as split:
        for epoch in (None, (3, 1), (3, 2)):
            batch = next(split.batches(needs, batch_clips=48, epoch=epoch))
            assert batch.tokens is not None
            of_epoch = epoch_order(list(range(24)), 2, seed=3, epoch=(epoch or (0, 0))[1])
            for place, (row, number) in enumerate(of_epoch if epoch else [(0, 0), (0, 1), (1, 0)]):
                name, view = split.ids[row], split.view(row, number)
                one = bank.fixed(view) if epoch is None else bank.draw(view, name, *epoch)
                drawn.append(one.places)
                assert torch.equal(batch.tokens[place, 0], split.tokens(row, number, layers=(0,))[0, list(one.places)])
    assert len(set(drawn)) == 4


def test_what_is_not_there_is_said(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(vidxfer.UsageError, match=r"has no split 'test'; it has train, val"):
        vidxfer.open_cache(toy.float16, "test")
    with pytest.raises(vidxfer.CacheError, match="nothing"):
        vidxfer.open_cache("nothing")
    with vidxfer.open_cache(toy.float16) as split:
        for call, words in {
            lambda: split.tokens("nobody"): r"has no video 'nobody'; its ids are like '\d+', '\d+', '\d+'",
            lambda: split.tokens(24): "has rows 0 to 23, not 24",
            lambda: split.tokens(-1): "has rows 0 to 23, not -1",
            lambda: split.embedding(0, 2): "has views 0 to 1 of each video, not 2",
            lambda: split.view(0, -1): "has views 0 to 1 of each video, not -1",
            lambda: split.batches(vidxfer.Needs(), batch_clips=0): "batch_clips=0 must be at least 1",
        }.items():
            with pytest.raises(vidxfer.UsageError, match=words):
                call()
        with pytest.raises(vidxfer.CacheError, match="3"):
            split.tokens(0, layers=(3,))
    monkeypatch.setattr(Rows, "_states_in", lambda self, *_: np.full(24, 2, np.uint8))  # all failed
    with vidxfer.open_cache(toy.float16) as split:
        assert len(split.rows) == 0
        with pytest.raises(vidxfer.CacheIncomplete, match="not stored"):
            split.tokens(0)
        with pytest.raises(vidxfer.CacheIncomplete, match="not stored"):
            split.batches(vidxfer.Needs(), rows=[0])


def test_a_run_scores_batches_as_evaluate_does(toy: Any, run: Path) -> None:
    loaded = vidxfer.load_run(str(run), device="cpu")
    with vidxfer.open_cache(toy.float16, "val") as split:
        shares = [(one, loaded.score(one)) for one in split.batches(loaded, batch_clips=6)]
    assert all(torch.allclose(found.sum(dim=1), torch.ones(len(found))) for _, found in shares)
    right = sum(int((found.argmax(dim=1) == one.labels).sum()) for one, found in shares)
    report = vidxfer.evaluate(vidxfer.EvaluateRequest(run=str(run), cache=str(toy.float16), device="cpu"))  # type: ignore[arg-type]
    assert report.views == 1
    assert right == round(report.score.top1 * 16)
    assert not loaded.head.training


def test_a_run_predicts_as_the_command_does_and_loads_clip_once(
    toy: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = sorted(toy.videos.glob("*.webm"))[0]
    loaded = vidxfer.load_run(run, device="cpu")
    assert "tower" not in vars(loaded), "CLIP is loaded when it is needed"
    (first,) = loaded.predict(str(video))
    tower = loaded.tower
    second, gone = loaded.predict(video, "gone.mp4", views=2)
    assert loaded.tower is tower
    assert (first,) == predict(PredictRequest(videos=(video,), run=run, device="cpu"))
    assert (second,) == predict(PredictRequest(videos=(video,), run=run, views=2, device="cpu"))
    assert str(gone.error).startswith("missing")


def test_batches_for_a_run_are_of_its_own_kind_of_cache(toy: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = vidxfer.load_run(run, device="cpu")
    with vidxfer.open_cache(toy.float16, "val") as split:
        source = split._source
        names = (*source.split.class_names[1:], source.split.class_names[0])
        split._source = replace(source, split=replace(source.split, class_names=names))
        with pytest.raises(vidxfer.CacheMismatch, match="the same names in another order"):
            split.batches(loaded)
        spec = replace(source.split.spec, clip_weights_sha256="0" * 64)
        split._source = replace(source, split=replace(source.split, spec=spec))
        with pytest.raises(vidxfer.CacheMismatch, match="clip_weights_sha256"):
            split.batches(loaded)


def test_a_head_for_any_classes_scores_batches_of_its_own_alone(toy: Any, tmp_path: Path) -> None:
    recipe = vidxfer.recipe("dist-toy", "epochs=1", "warmup_epochs=0", "batch_clips=8")
    assert recipe.head.any_classes
    vidxfer.train(vidxfer.TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu"))
    loaded = vidxfer.load_run(tmp_path / "run", device="cpu")
    with vidxfer.open_cache(toy.float16, "val") as split:
        assert loaded.score(next(split.batches(loaded, batch_clips=3))).shape == (3, 8)
        source = split._source
        names = tuple(f"other {name}" for name in source.split.class_names)
        split._source = replace(source, split=replace(source.split, class_names=names))
        split.class_names = names
        with pytest.raises(vidxfer.CacheMismatch, match=r"class_names.*\nScore it with vidxfer\.evaluate"):
            split.batches(loaded)


@dataclass(frozen=True, kw_only=True)
class OwnProbe(ProbeConfig):
    kind: ClassVar[str] = "own-probe"


def test_a_head_of_ones_own_is_known_from_its_training_on(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_heads, "_own", {})
    recipe = vidxfer.Recipe(name="mine", head=OwnProbe(), epochs=1, warmup_epochs=0, batch_clips=8)
    request = vidxfer.TrainRequest(recipe=recipe, cache=toy.float16, run=tmp_path / "run", device="cpu")
    for _ in range(2):
        report = vidxfer.train(request)
        assert report is not None
        assert report.finished
    assert vidxfer.load_run(tmp_path / "run").recipe == recipe
    monkeypatch.setattr(own_heads, "_own", {})
    with pytest.raises(vidxfer.RunError, match=r"of kind 'own-probe'.*trained with --head \S+:OwnProbe"):
        vidxfer.load_run(tmp_path / "run")
    vidxfer.add_head(OwnProbe)
    assert vidxfer.load_run(tmp_path / "run").recipe == recipe
    monkeypatch.setattr(OwnProbe, "kind", "probe")
    with pytest.raises(vidxfer.UsageError, match="kind = 'probe' is a head of vidxfer's"):
        vidxfer.train(replace(request, run=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_settings_take_folders_as_text() -> None:
    text: Any = "there"
    data = vidxfer.DataSource(kind="folder", root=text)
    asked = vidxfer.TrainRequest(recipe=vidxfer.recipe("probe"), cache=text, run=text, more_caches=(text,), data=data)
    assert (asked.cache, asked.more_caches, asked.init_from) == (Path("there"), (Path("there"),), None)
    assert data.root == Path("there")
    assert vidxfer.ExtractRequest(
        data=data, clip=vidxfer.ClipChoice(), store=vidxfer.CacheChoice(), cache=text
    ).cache == (Path("there"))
    assert vidxfer.EvaluateRequest(run=None, cache=text).run is None


SILENT = """
import sys
from pathlib import Path
import vidxfer

if __name__ == "__main__":
    root, clip, cache, run = sys.argv[1:]
    vidxfer.extract(vidxfer.ExtractRequest(
        data=vidxfer.DataSource(kind="ssv2", root=root, limit=2), clip=vidxfer.ClipChoice(model=clip),
        store=vidxfer.CacheChoice(dense_frames=8, layers=(0,)), cache=cache))
    recipe = vidxfer.recipe("probe", "epochs=1", "warmup_epochs=0", "batch_clips=2")
    request = vidxfer.TrainRequest(recipe=recipe, cache=cache, run=run, devices=DEVICES, device="cpu")
    if vidxfer.train(request) is not None:
        vidxfer.evaluate(vidxfer.EvaluateRequest(run=run, cache=cache))
        (video, *_) = sorted(Path(root).glob("*/*.webm"))
        assert vidxfer.load_run(run).predict(video)[0].top5
"""


def test_nothing_is_printed(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SILENT.replace("DEVICES", "1"))
    words = [sys.executable, "script.py", toy.root, toy.clip, "cache", "run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lines_go_where_they_are_asked_to(toy: Any, run: Path) -> None:
    told: list[str] = []
    recipe = vidxfer.recipe("probe", "epochs=2", "warmup_epochs=1", "batch_clips=8")
    request = vidxfer.TrainRequest(recipe=recipe, cache=toy.float16, run=run, device="cpu")
    vidxfer.train(request, vidxfer.Lines(told.append))
    assert f"{run} is finished: all 2 epochs are done" in told
