"""Released EVL checkpoints: in, out and back again; every key has its place, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError, WeightsError
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.evl.published import PUBLISHED
from vidxfer.pipeline.heads.evl.release import EvlRelease, config_of, read_sizes
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.convert import ImportRequest, import_weights
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.export import ExportRequest, export_weights
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import train
from vidxfer.stages.settings import TrainRequest


def released_shapes(
    layers: int, channels: int, inner: int, hidden: int, frames: int, side: int, classes: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released file, typed from docs/spec/evl.md §10: 23 a layer and 5."""
    shapes: dict[str, tuple[int, ...]] = {"decoder.cls_token": (channels,)}
    tables = (2 * side - 1) ** 2
    for i in range(layers):
        at = f"decoder.decoder_layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes |= {f"{at}attn.{name}.weight": (inner, channels), f"{at}attn.{name}.bias": (inner,)}
        shapes |= {f"{at}attn.out_proj.weight": (channels, inner), f"{at}attn.out_proj.bias": (channels,)}
        shapes |= {f"{at}mlp.fc1.weight": (hidden, channels), f"{at}mlp.fc1.bias": (hidden,)}
        shapes |= {f"{at}mlp.fc2.weight": (channels, hidden), f"{at}mlp.fc2.bias": (channels,)}
        shapes |= {f"{at}norm{n}.{kind}": (channels,) for n in (1, 2, 3) for kind in ("weight", "bias")}
        shapes |= {
            f"decoder.temporal_conv.{i}.weight": (channels, 1, 3),
            f"decoder.temporal_conv.{i}.bias": (channels,),
        }
        shapes |= {f"decoder.temporal_pos_embed.{i}": (frames, channels)}
        shapes |= {f"decoder.cross_attention.{i}.w{n}": (tables, channels) for n in (1, 2)}
    shapes |= {"proj.0.weight": (channels,), "proj.0.bias": (channels,)}
    return shapes | {"proj.2.weight": (classes, channels), "proj.2.bias": (classes,)}


def random_state(shapes: dict[str, tuple[int, ...]], prefix: str = "module.") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"{prefix}{name}": torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}


def toy_state(**changes: int) -> dict[str, Tensor]:
    """Of the size of the toy world: CLIP of 64 channels, 4 frames, 4 x 4 patches, 8 classes."""
    sizes = {"layers": 2, "channels": 64, "inner": 64, "hidden": 96, "frames": 4, "side": 4, "classes": 8}
    return random_state(released_shapes(**{**sizes, **changes}))


def saved(folder: Path, state: dict[str, Tensor], name: str = "evl.pth") -> Path:
    """As the release saves it: a folder of training state around it, and the wrapper's prefix on every key."""
    torch.save({"model": state, "optimizer": {"state": {}, "param_groups": []}, "next_step": 50_000}, folder / name)
    return folder / name


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.recipe)
def test_every_released_configuration_is_known_by_its_shapes(row: Any) -> None:
    layers = named(row.recipe).head.blocks or row.clip.blocks  # type: ignore[attr-defined]
    width = row.clip.width
    classes = {"K400": 400, "SSv2": 174}[row.data]
    shapes = released_shapes(layers, width, width, 4 * width, row.sparse_frames, row.clip.grid[0], classes)
    assert len(shapes) == 23 * layers + 5
    with torch.device("meta"):
        sizes = read_sizes({name: torch.empty(shape) for name, shape in shapes.items()})
    assert config_of(sizes) == named(row.recipe).head
    assert (sizes.frames, sizes.grid_side, sizes.classes) == (row.sparse_frames, row.clip.grid[0], classes)
    if layers <= 4 and row.sparse_frames == 8:  # of the larger ones numbers would take long to look at
        state = {f"module.{name}": torch.zeros(()).expand(shape) for name, shape in shapes.items()}
        found = EvlRelease().read(state)
        assert (found.problems, found.unknown, found.clip, found.config) == ((), (), {}, named(row.recipe).head)
        assert {name: tuple(value.shape) for name, value in found.weights.items()} == shapes


def test_a_released_file_becomes_safetensors_and_a_run_and_comes_out_again_bit_by_bit(toy: Any, tmp_path: Path) -> None:
    state = toy_state()
    file = saved(tmp_path, state)
    report = import_weights(
        ImportRequest(file=file, kind="evl", out=tmp_path / "evl.safetensors", cache=toy.int8, run=tmp_path / "run")
    )
    assert (report.head_keys, report.clip_keys, report.unknown, report.recipe) == (51, 0, (), "evl")
    assert "2 decoder layers of 64 channels" in report.words
    kept = load_file(tmp_path / "evl.safetensors")
    assert all(torch.equal(kept[name.removeprefix("module.")], value) for name, value in state.items())
    out = tmp_path / "back.pth"
    told = export_weights(ExportRequest(run=tmp_path / "run", out=out, kind="evl"))
    assert (told.head_keys, told.clip_keys, told.note) == (51, 0, "EVL's files hold none")
    assert (told.settings["CLIP blocks"], told.settings["frames"], told.settings["MLP factor"]) == ([1, 2], 4, 1.5)
    back = torch.load(out, weights_only=True)["model"]
    assert list(back) == list(state) or back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    again = import_weights(ImportRequest(file=out, kind="evl", out=tmp_path / "again.safetensors"))
    assert again.head_keys == 51


def test_predict_runs_on_an_imported_head_and_says_what_the_head_says(toy: Any, tmp_path: Path) -> None:
    """CLIP is there when it predicts, so that its weights are."""
    import_weights(ImportRequest(file=saved(tmp_path, toy_state()), kind="evl", cache=toy.int8, run=tmp_path / "run"))
    video = next(iter(sorted(toy.videos.glob("*.webm"))))
    (answer,) = predict(PredictRequest(videos=(video,), run=tmp_path / "run", device="cpu"))
    assert answer.error is None
    assert len(answer.top5) == 5
    other = toy_state()
    other["module.proj.2.bias"][3] += 100.0
    import_weights(
        ImportRequest(file=saved(tmp_path, other, "b.pth"), kind="evl", cache=toy.int8, run=tmp_path / "other")
    )
    (answer,) = predict(PredictRequest(videos=(video,), run=tmp_path / "other", device="cpu"))
    assert answer.top5[0] == (Run.open(tmp_path / "other").made_from["class_names"][3], 1.0)


@pytest.mark.parametrize("cross_frame", [True, False])
def test_evaluate_runs_on_an_imported_head(toy: Any, tmp_path: Path, cross_frame: bool) -> None:
    """From the cache alone: cross-frame attention finds CLIP's own weights beside the tokens."""
    state = {name: value for name, value in toy_state().items() if cross_frame or "cross_attention" not in name}
    state["module.proj.2.bias"][2] += 100.0
    import_weights(ImportRequest(file=saved(tmp_path, state), kind="evl", cache=toy.int8, run=tmp_path / "run"))
    assert Run.open(tmp_path / "run").recipe.head == EvlConfig(blocks=2, mlp_ratio=1.5, cross_frame=cross_frame)
    report = evaluate(EvaluateRequest(run=tmp_path / "run", cache=toy.int8, device="cpu"))
    assert report.score.top1 == pytest.approx(1 / 8)
    assert all('"top5_labels": [2,' in line for line in report.predictions.read_text().splitlines())


def test_named_blocks_feed_the_head_instead_of_the_last_ones(toy: Any, tmp_path: Path) -> None:
    file = saved(tmp_path, toy_state())
    with pytest.raises(UsageError, match="names 1 layers, the weights are for 2"):
        import_weights(ImportRequest(file=file, kind="evl", cache=toy.int8, run=tmp_path / "a", layers=(2,)))
    with pytest.raises(CacheError, match=r"reads CLIP layers \[-1\]"):
        import_weights(ImportRequest(file=file, kind="evl", cache=toy.int8, run=tmp_path / "a", layers=(0, 2)))
    assert not (tmp_path / "a").exists()
    import_weights(ImportRequest(file=file, kind="evl", cache=toy.int8, run=tmp_path / "a", layers=(2, 1)))
    head = Run.open(tmp_path / "a").recipe.head
    assert isinstance(head, EvlConfig)
    assert head.layers == (2, 1)


def test_a_trained_run_survives_the_way_out_and_in_again(toy: Any, tmp_path: Path) -> None:
    recipe = with_settings(
        named("mlap"), ["epochs=1", "batch_clips=8", "head.blocks=3", "head.convolution=true", "head.mlp_ratio=1"]
    )
    train(TrainRequest(recipe=recipe, cache=toy.int8, run=tmp_path / "run", device="cpu"))
    export_weights(ExportRequest(run=tmp_path / "run", out=tmp_path / "evl.pth", kind="evl"))
    import_weights(ImportRequest(file=tmp_path / "evl.pth", kind="evl", cache=toy.int8, run=tmp_path / "back"))
    before, after = (
        evaluate(EvaluateRequest(run=tmp_path / name, cache=toy.int8, device="cpu")) for name in ("run", "back")
    )
    assert after.predictions.read_text() == before.predictions.read_text()
    with pytest.raises(UsageError, match="holds a head of kind 'evl'"):
        export_weights(ExportRequest(run=tmp_path / "run", out=tmp_path / "dist.pth", kind="dist"))


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    state = toy_state()
    del state["module.decoder.decoder_layers.1.norm2.bias"]
    state["module.decoder.temporal_conv.0.weight"] = torch.ones(64, 1, 5)
    state["module.decoder.cross_attention.1.w3"] = torch.ones(2)
    state["module.proj.0.bias"][3] = torch.nan
    state["module.proj.2.bias"] = torch.ones(8, dtype=torch.int64)
    state["backbone.conv1.weight"] = torch.ones(2)
    with pytest.raises(WeightsError) as refused:
        import_weights(ImportRequest(file=saved(tmp_path, state), kind="evl", out=tmp_path / "x.safetensors"))
    assert [line.strip() for line in str(refused.value).splitlines()[1:]] == [
        "decoder.decoder_layers.1.norm2.bias: missing",
        "decoder.cross_attention.1.w3: not a part of this head",
        "decoder.temporal_conv.0.weight: file has (64, 1, 5), expected (64, 1, 3)",
        "proj.0.bias: holds NaN or infinity",
        "proj.2.bias: holds torch.int64, not floating-point numbers",
        "backbone.conv1.weight: neither EVL's nor CLIP's",
        "(unknown keys are left out with --allow-unknown)",
    ]
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.clear() or state.update(a=torch.ones(1)), "no key begins with module"),
        (lambda state: state.pop("module.decoder.cls_token"), "cls_token: missing or empty, but its shape gives sizes"),
        (lambda state: state.update({"module.proj.2.weight": torch.ones(0, 64)}), r"proj\.2\.weight: missing or empty"),
        (
            lambda state: state.update({f"module.decoder.cross_attention.{i}.w1": torch.ones(15, 64) for i in (0, 1)}),
            "15 displacements are not those of a square",
        ),
        (
            lambda state: state.update({"module.decoder.decoder_layers.0.attn.q_proj.weight": torch.ones(96, 64)}),
            "96 channels are not of heads of 64",
        ),
        (lambda state: state.update({"decoder.cls_token": torch.ones(64)}), r"decoder\.cls_token: neither EVL's"),
        (lambda state: state.update({"module.decoder.decoder_layers.7.norm1.bias": torch.ones(64)}), "not a part"),
    ],
)
def test_what_is_no_such_head_is_said(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], text: str) -> None:
    state = toy_state()
    change(state)
    with pytest.raises(WeightsError, match=text):
        import_weights(ImportRequest(file=saved(tmp_path, state), kind="evl", out=tmp_path / "x.safetensors"))


def test_a_cache_that_does_not_fit_is_refused_before_anything_is_written(toy: Any, tmp_path: Path) -> None:
    request = {"kind": "evl", "cache": toy.int8, "run": tmp_path / "run", "out": tmp_path / "x.safetensors"}
    with pytest.raises(CacheMismatch, match="channels: cache has 64, run needs 128"):
        import_weights(ImportRequest(file=saved(tmp_path, toy_state(channels=128, inner=128)), **request))
    with pytest.raises(CacheMismatch, match="sparse_frames: cache has 4, recipe needs 8"):
        import_weights(ImportRequest(file=saved(tmp_path, toy_state(frames=8)), **request))
    with pytest.raises(WeightsError, match=r"(?s)cross_attention\.0\.w1: file has \(25, 64\).*\(49, 64\).*w2"):
        import_weights(ImportRequest(file=saved(tmp_path, toy_state(side=3)), **request))
    with pytest.raises(WeightsError, match=r"proj\.2\.weight: file has \(9, 64\), a head for this cache \(8, 64\)"):
        import_weights(ImportRequest(file=saved(tmp_path, toy_state(classes=9)), **request))
    with pytest.raises(CacheError, match=r"head\.blocks=4"):
        import_weights(ImportRequest(file=saved(tmp_path, toy_state(layers=4)), **request))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "x.safetensors").exists()


def test_the_commands_know_the_layout(toy: Any, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    file = saved(tmp_path, toy_state())
    shown = invoke("import", file, "--as", "evl", "--cache", toy.int8, "--run", tmp_path / "run")
    assert shown.exit_code == 0, shown.stderr
    assert "51 keys of the head; CLIP, not needed: 0 keys" in shown.stdout
    shown = invoke("export", tmp_path / "back.pth", "--as", "evl", "--run", tmp_path / "run")
    assert shown.exit_code == 0, shown.stderr
    assert "without CLIP: EVL's files hold none" in shown.stdout
    assert "MLP factor 1.5" in shown.stdout
