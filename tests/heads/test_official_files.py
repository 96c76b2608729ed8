"""Files of the released code: in, out, and back again; what is no checkpoint is refused and never run."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import CacheMismatch, RunError, UsageError, WeightsError
from vidxfer.pipeline.heads.dist.keys import HEAD, OLD_HEAD, OLD_NAMES, PREFIX
from vidxfer.pipeline.training.run import Run
from vidxfer.pipeline.training.weights import read_state
from vidxfer.stages.learning.convert import ImportRequest, import_weights
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.export import ExportRequest, export_weights
from vidxfer.stages.learning.train import TrainRequest, train

OLD = {new: old for old, new in OLD_NAMES.items()}


def older(key: str) -> str:
    name = key.removeprefix(PREFIX)
    if not name.startswith(HEAD):
        return key
    first, dot, rest = name.removeprefix(HEAD).partition(".")
    return PREFIX + OLD_HEAD + OLD.get(first, first) + dot + rest


def official_file(shelf: Any, name: str, folder: Path, *, old: bool, blocks: bool = True) -> Path:
    """A checkpoint with the released keys and shapes, random float16 numbers; `blocks`: with those of CLIP."""
    listed = shelf / f"dist_state_dict_{name}.json"
    shapes = json.loads(listed.read_text(encoding="utf-8"))
    if not blocks:
        shapes = {key: shape for key, shape in shapes.items() if HEAD in key or key.count(".") < 4}
    numbers = torch.rand(65_521, dtype=torch.float16)  # a prime: they repeat in step with no axis
    state: OrderedDict[str, Tensor] = OrderedDict()
    for place, (key, shape) in enumerate(shapes.items()):
        size = torch.Size(shape).numel()
        repeated = numbers.roll(place).repeat(-(-size // len(numbers)))
        state[older(key) if old else key] = repeated[:size].reshape(shape).clone()
    torch.save({"model_state": state}, folder / f"{name}.pyth")
    return folder / f"{name}.pyth"


@pytest.mark.parametrize(
    ("name", "old", "recipe"),
    [
        pytest.param("b16_k400_8+16f", False, "dist-k400-b16-8f", marks=pytest.mark.slow),
        ("b16_ssv2_8+16f", True, "dist-ssv2-b16-8f"),
    ],
    ids=["whole", "older names, head only"],
)
def test_a_released_file_becomes_safetensors_key_by_key(
    tmp_path: Path, spec_dir: Any, name: str, old: bool, recipe: str
) -> None:
    file = official_file(spec_dir, name, tmp_path, old=old, blocks=not old)
    report = import_weights(ImportRequest(file=file, out=tmp_path / "dist.safetensors"))
    assert (report.recipe, report.unknown, report.old_names) == (recipe, (), old)
    state = read_state(file)
    assert report.head_keys + report.clip_keys == len(state)
    found = load_file(tmp_path / "dist.safetensors")
    assert len(found) == report.head_keys
    for key, value in found.items():
        theirs = state[older(PREFIX + key) if old else PREFIX + key]
        assert torch.equal(value, theirs.float()), key


@pytest.fixture(scope="module")
def trained(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "dist"
    train(TrainRequest(recipe=toy.recipe(), cache=toy.int8, run=run, device="cpu"))
    return run


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "dist.pyth"
    report = export_weights(ExportRequest(run=trained, out=out))
    assert report.note is None
    return out


def test_an_exported_run_has_the_released_keys_and_all_of_clip(toy: Any, exported: Path) -> None:
    state = torch.load(exported, weights_only=True)["model_state"]
    clip = {key.removeprefix(PREFIX): value for key, value in state.items() if HEAD not in key}
    tower = load_tower(str(toy.clip), device="cpu").state()
    assert clip.keys() == tower.keys()
    assert all(torch.equal(clip[name], value) for name, value in tower.items())
    assert all(key.startswith(PREFIX) for key in state)


def test_a_run_survives_the_way_out_and_in_again(toy: Any, trained: Path, exported: Path, tmp_path: Path) -> None:
    report = import_weights(ImportRequest(file=exported, cache=toy.int8, run=tmp_path / "back"))
    assert report.same_clip is True
    assert (report.sizes.layers, report.sizes.dense_frames, report.sizes.clip_blocks) == (3, 8, 3)
    before = evaluate(EvaluateRequest(run=trained, cache=toy.int8, device="cpu"))
    after = evaluate(EvaluateRequest(run=tmp_path / "back", cache=toy.int8, device="cpu"))
    assert after.predictions.read_text() == before.predictions.read_text()
    assert Run.open(tmp_path / "back").made_from["imported"] == {"file": "dist.pyth", "kind": "dist"}


def test_an_imported_run_is_finished_and_keeps_its_weights(toy: Any, exported: Path, tmp_path: Path) -> None:
    import_weights(ImportRequest(file=exported, cache=toy.int8, run=tmp_path / "back"))
    run = Run.open(tmp_path / "back")
    again = train(TrainRequest(recipe=run.recipe, cache=toy.int8, run=run.path, device="cpu"))
    assert again is not None
    assert again.finished
    assert again.score == evaluate(EvaluateRequest(run=run.path, cache=toy.int8, device="cpu")).score


def test_our_safetensors_can_be_imported_too(toy: Any, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "dist.safetensors"
    import_weights(ImportRequest(file=exported, out=out))
    with pytest.raises(UsageError, match=r"weights for 3 CLIP layers and it holds no CLIP.*--layers 0,1,2"):
        import_weights(ImportRequest(file=out, cache=toy.int8, run=tmp_path / "back"))
    report = import_weights(ImportRequest(file=out, cache=toy.int8, run=tmp_path / "back", layers=(0, 1, 2)))
    assert (report.same_clip, report.clip_keys) == (None, 0)


def test_a_head_on_some_layers_is_written_and_read_with_its_layers(toy: Any, tmp_path: Path) -> None:
    recipe, run, out = toy.recipe("dist.layers=[0, 2]"), tmp_path / "some", tmp_path / "some.pyth"
    train(TrainRequest(recipe=recipe, cache=toy.int8, run=run, device="cpu"))
    assert export_weights(ExportRequest(run=run, out=out)).settings["SELECTED_LAYERS"] == [0, 2]
    with pytest.raises(UsageError, match=r"its CLIP has 3 blocks.*--layers"):
        import_weights(ImportRequest(file=out, cache=toy.int8, run=tmp_path / "back"))
    with pytest.raises(UsageError, match="names 3 layers"):
        import_weights(ImportRequest(file=out, cache=toy.int8, run=tmp_path / "back", layers=(0, 1, 2)))
    import_weights(ImportRequest(file=out, cache=toy.int8, run=tmp_path / "back", layers=(0, 2)))
    assert Run.open(tmp_path / "back").recipe.head.layers == (0, 2)


def test_a_cache_of_another_kind_is_refused_field_by_field(toy: Any, spec_dir: Any, tmp_path: Path) -> None:
    file = official_file(spec_dir, "b16_ssv2_8+16f", tmp_path, old=False, blocks=False)
    with pytest.raises(CacheMismatch) as refused:
        import_weights(ImportRequest(file=file, cache=toy.int8, run=tmp_path / "run"))
    assert refused.value.fields.keys() >= {"sampling.dense_frames", "channels", "embed", "patch_px", "layers"}
    assert not (tmp_path / "run").exists()


def test_other_clip_weights_are_told(toy: Any, exported: Path, tmp_path: Path) -> None:
    state = torch.load(exported, weights_only=True)
    state["model_state"][PREFIX + "visual.proj"] += 1
    torch.save(state, tmp_path / "other.pyth")
    report = import_weights(ImportRequest(file=tmp_path / "other.pyth", cache=toy.int8, run=tmp_path / "run"))
    assert report.same_clip is False


def test_unknown_keys_are_listed_and_left_out_only_when_asked(exported: Path, tmp_path: Path) -> None:
    state = torch.load(exported, weights_only=True)["model_state"]
    state |= {"head.fc.weight": torch.ones(2), PREFIX + "dist_net.proj_2": torch.ones(2)}
    torch.save({"model_state": state, "epoch": 3}, tmp_path / "more.pyth")
    with pytest.raises(WeightsError, match=r"(?s)proj_2: not a part.*head\.fc\.weight: neither.*--allow-unknown"):
        import_weights(ImportRequest(file=tmp_path / "more.pyth", out=tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()
    del state[PREFIX + "dist_net.proj_2"]
    torch.save({"model_state": state}, tmp_path / "one.pyth")
    request = ImportRequest(file=tmp_path / "one.pyth", out=tmp_path / "out.safetensors", allow_unknown=True)
    assert import_weights(request).unknown == ("head.fc.weight",)


class Bomb:
    """Would touch a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def damaged(tmp_path: Path, exported: Path) -> dict[str, bytes]:
    whole = exported.read_bytes()
    torch.save({"model_state": {"a": Bomb(tmp_path / "ran")}}, tmp_path / "bomb.pyth")
    flipped = bytearray(whole)
    flipped[200:400] = b"\xff" * 200
    return {
        "empty": b"",
        "text": b"not a checkpoint\n" * 100,
        "cut": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
        "zip": b"PK\x03\x04" + b"\0" * 64,
        "bomb": (tmp_path / "bomb.pyth").read_bytes(),
        "old bomb": pickle.dumps(Bomb(tmp_path / "ran"), protocol=2),
    }


def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path: Path, exported: Path) -> None:
    for kind, content in damaged(tmp_path, exported).items():
        file = tmp_path / "broken.pyth"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
            read_state(file)
        assert not (tmp_path / "ran").exists(), kind
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_state(tmp_path / "broken.safetensors")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"model_state": {}}, "an empty dict"),
        ([1, 2], "holds list"),
        ({"model_state": {"a": 3}}, "'a': int"),
        ({"epoch": 3, "optimizer_state": {}}, "no plain tensors"),
        ({"model_state": {"a": torch.eye(2).to_sparse()}}, "'a': Tensor"),
    ],
)
def test_a_checkpoint_of_something_else_is_named(tmp_path: Path, content: Any, text: str) -> None:
    torch.save(content, tmp_path / "other.pyth")
    with pytest.raises(WeightsError, match=text):
        read_state(tmp_path / "other.pyth")


def test_requests_that_cannot_be_meant(toy: Any, exported: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what shall be written"):
        import_weights(ImportRequest(file=exported))
    with pytest.raises(UsageError, match="needs both --run"):
        import_weights(ImportRequest(file=exported, run=tmp_path / "run"))
    with pytest.raises(UsageError, match=r"is no released layout\. Choose one of dist"):
        import_weights(ImportRequest(file=exported, kind="probe", out=tmp_path / "x"))
    with pytest.raises(WeightsError, match="already exists"):
        export_weights(ExportRequest(run=trained, out=exported))
    with pytest.raises(WeightsError, match="is not a file"):
        import_weights(ImportRequest(file=tmp_path / "none.pyth", out=tmp_path / "x"))
    with pytest.raises(RunError, match="holds a run already"):
        import_weights(ImportRequest(file=exported, cache=toy.int8, run=trained))


def test_the_commands_say_what_they_did(toy: Any, trained: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    out = tmp_path / "dist.pyth"
    shown = invoke("export", out, "--run", trained, "--as", "dist", "--no-clip")
    assert (shown.exit_code, "0 of CLIP" in shown.stdout) == (0, True)
    assert "without CLIP: left out, as asked" in shown.stdout
    assert "NUM_INPUT_FRAMES 8" in shown.stdout
    shown = invoke("import", out, "--as", "dist", "--cache", toy.int8, "--run", tmp_path / "back", "--layers", "0,1,2")
    assert shown.exit_code == 0, shown.stderr
    assert "CLIP, not needed: 0 keys" in shown.stdout
    assert "4 sparse and 8 dense frames" in shown.stdout
    assert "vidxfer evaluate --run" in shown.stdout
    report = json.loads(
        invoke("import", out, "--out", tmp_path / "x.safetensors", "--layers", "0,1,2", "--json").stdout
    )
    assert report["sizes"]["patch_px"] == 8
