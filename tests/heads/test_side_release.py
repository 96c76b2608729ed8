"""Released files of Side4Video and TDS-CLIP: every key has its place, in, out, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.errors import CacheMismatch, UsageError, WeightsError
from vidxfer.pipeline.heads import HEADS, RELEASES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.side4video.release import sort_keys
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.training.recipes import named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.convert import ImportRequest, import_weights
from vidxfer.stages.learning.evaluate import EvaluateRequest, evaluate
from vidxfer.stages.learning.export import ExportRequest, export_weights
from vidxfer.stages.learning.predict import PredictRequest, predict
from vidxfer.stages.learning.train import TrainRequest, train

KINDS = ("side4video", "tds")
COUNTS = {"side4video": (524, 297), "tds": (675, 373)}
"""Keys of a file, and trainable tensors (docs/spec/tds_clip_side4video.md §11)."""

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def listed(spec_dir: Any) -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Key -> shape of the released B/16 of SSv2, listed on the official model."""

    def load(kind: str) -> dict[str, tuple[int, ...]]:
        found = json.loads((spec_dir / f"{kind}_state_dict_b16_ssv2.json").read_text(encoding="utf-8"))
        return {key: tuple(shape) for key, shape in found.items()}

    return load


def numbers_of(shapes: Mapping[str, tuple[int, ...]], *, trunk: bool = True) -> dict[str, Tensor]:
    """Random numbers in the released layout; `trunk`: with those of CLIP, one number for all, which takes no room."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(660)
        elif "side" in key or key.startswith("fc."):
            state[key] = torch.randn(shape, generator=draw)
        elif trunk:
            state[key] = torch.tensor(0.5).expand(shape)
    return state


@kinds
def test_every_key_of_the_release_has_its_place(kind: str, listed: Callable[[str], dict[str, tuple[int, ...]]]) -> None:
    shapes = listed(kind)
    head, clip, unknown = sort_keys(numbers_of(shapes))
    assert (len(shapes), unknown) == (COUNTS[kind][0], ())
    assert len(head) + len(clip) == len(shapes)
    found = RELEASES[kind].read(numbers_of(shapes))
    assert found.problems == ()
    assert found.config == HEADS[kind]()
    offer = found.offer
    assert (offer.channels, offer.patch_px, offer.grid, offer.classes) == (768, 16, (14, 14), 174)
    assert (found.layers, found.clip_blocks, offer.sparse_frames, offer.embed) == (12, 12, 0, 0)


@kinds
def test_a_released_file_goes_in_and_out_again_bit_for_bit(
    kind: str, listed: Callable[[str], dict[str, tuple[int, ...]]]
) -> None:
    state = numbers_of(listed(kind))
    release = RELEASES[kind]
    found = release.read({f"module.{key}": value for key, value in state.items()})
    assert found.config is not None
    head = found.config.build(replace(found.offer, sparse_frames=8, alpha=1))
    assert len(list(head.parameters())) == COUNTS[kind][1]
    head.load_state_dict(found.weights)
    whole = {
        **found.clip,
        "visual.proj": torch.ones(2),
        "visual.ln_post.weight": torch.ones(2),
        "logit_scale": torch.ones(1),
    }
    again = release.write(head, whole)
    assert again.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(again[key], value), key
        assert again[key].dtype == value.dtype


def test_a_file_becomes_safetensors_under_the_same_names(
    tmp_path: Path, listed: Callable[[str], dict[str, tuple[int, ...]]]
) -> None:
    state = numbers_of(listed("tds"), trunk=False)
    torch.save({"epoch": 29, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}, tmp_path / "tds.pt")
    request = ImportRequest(file=tmp_path / "tds.pt", kind="tds", out=tmp_path / "tds.safetensors")
    with pytest.raises(UsageError, match="weights for 12 CLIP layers and it holds no CLIP"):
        import_weights(request)
    report = import_weights(replace(request, layers=tuple(range(12))))
    assert (report.head_keys, report.clip_keys, report.unknown) == (len(state), 0, ())
    found = load_file(tmp_path / "tds.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    again = import_weights(replace(request, file=tmp_path / "tds.safetensors", out=tmp_path / "2.safetensors",
                                   layers=tuple(range(12))))  # fmt: skip
    assert (again.head_keys, again.words) == (report.head_keys, report.words)


def toy_recipe(toy: Any, kind: str, *settings: str) -> Any:
    return with_settings(named(f"{kind}-toy"), [*toy.settings(), *settings])


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, toy: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    run = tmp_path_factory.mktemp("run") / request.param
    train(TrainRequest(recipe=toy_recipe(toy, request.param), cache=toy.int8, run=run, device="cpu"))
    return request.param, run


def test_a_run_survives_the_way_out_and_in_again(toy: Any, trained: tuple[str, Path], tmp_path: Path) -> None:
    kind, run = trained
    out = tmp_path / f"{kind}.pt"
    report = export_weights(ExportRequest(run=run, out=out, kind=kind))
    tower = load_tower(str(toy.clip), device="cpu").state()
    state = torch.load(out, weights_only=True)["model_state_dict"]
    trunk = {name: value for name, value in tower.items() if name.startswith("visual.")}
    trunk = {name: value for name, value in trunk.items() if not name.startswith(("visual.ln_post", "visual.proj"))}
    assert report.clip_keys == len(trunk)
    assert report.settings["num_segments"] == 4
    assert {name for name in state if "side" not in name and not name.startswith("fc.")} == trunk.keys()
    assert all(torch.equal(state[name], value) for name, value in trunk.items())

    back = import_weights(ImportRequest(file=out, kind=kind, cache=toy.int8, run=tmp_path / "back"))
    assert back.same_clip is True
    again = export_weights(ExportRequest(run=tmp_path / "back", out=tmp_path / "again.pt", kind=kind))
    twice = torch.load(again.out, weights_only=True)["model_state_dict"]
    assert twice.keys() == state.keys()
    assert all(torch.equal(twice[name], value) for name, value in state.items())

    before = evaluate(EvaluateRequest(run=run, cache=toy.int8, device="cpu"))
    after = evaluate(EvaluateRequest(run=tmp_path / "back", cache=toy.int8, device="cpu"))
    assert after.predictions.read_text() == before.predictions.read_text()
    video = sorted(toy.videos.glob("*.webm"))[0]
    guesses = [predict(PredictRequest(videos=(video,), run=one, device="cpu")) for one in (run, tmp_path / "back")]
    assert guesses[0] == guesses[1]

    state["visual.conv1.weight"] += 1
    torch.save({"model_state_dict": state}, tmp_path / "other.pt")
    other = import_weights(ImportRequest(file=tmp_path / "other.pt", kind=kind, cache=toy.int8, run=tmp_path / "other"))
    assert other.same_clip is False
    assert Run.open(tmp_path / "other").made_from["imported"] == {"file": "other.pt", "kind": kind}


def small(kind: str = "tds", **settings: Any) -> dict[str, Tensor]:
    """The state of a small head and a stub of its trunk."""
    config = HEADS[kind](side_channels=64, **settings)
    offer = Offer(
        layers=(0, 1), sparse_frames=2, alpha=1, grid=(2, 2), channels=40, embed=8, classes=3, image_px=8,
    )  # fmt: skip
    torch.manual_seed(0)
    state = dict(config.build(offer).state_dict())
    trunk = {"visual.conv1.weight": (40, 3, 4, 4), "visual.transformer.resblocks.1.ln_1.weight": (40,)}
    return {**state, **{name: torch.randn(shape) for name, shape in trunk.items()}}


LINEAR = "visual.transformer.side_linears.0.weight"


def test_all_problems_are_listed_at_once() -> None:
    state = small()
    del state["fc.bias"], state["visual.side_pre_bn3d_c5.running_var"]
    state["visual.side_post_bn.weight"] = torch.full((64,), torch.nan)
    state["visual.side_post_bn.bias"] = torch.ones(65)
    state["visual.side_post_bn.num_batches_tracked"] = torch.tensor(1.0)
    state["visual.side_extra"] = torch.ones(1)
    state["visual.conv1.weight"] = torch.ones(40, 3, 8, 8)
    found = RELEASES["tds"].read({**state, "text.proj": torch.ones(1), "module.fc.weight": torch.ones(1)})
    assert found.config is None
    assert found.unknown == ("text.proj", "module.fc.weight")
    assert found.problems == (
        "fc.bias: missing",
        "visual.side_pre_bn3d_c5.running_var: missing",
        "visual.side_extra: not a part of this head",
        "visual.side_post_bn.bias: file has (65,), expected (64,)",
        "visual.side_post_bn.num_batches_tracked: holds torch.float32, expected the kind of torch.int64",
        "visual.side_post_bn.weight: holds NaN or infinity",
        "visual.conv1.weight: 40 channels and patches of 8 px, the side network reads 40 and 4 px",
    )


def test_the_other_methods_file_is_refused_key_by_key() -> None:
    for kind, other in (("tds", "side4video"), ("side4video", "tds")):
        state = small(other)
        lines = "\n".join(RELEASES[kind].read(state).problems)
        if kind == "side4video":
            assert "visual.side_conv1_c5.weight: not a part of this head" in lines
            assert "visual.transformer.side_transformer.1.mse.bn1.running_mean: not a part of this head" in lines
        else:  # TDS-CLIP without its adapters is Side4Video
            assert RELEASES[kind].read(state).config == TdsConfig(side_channels=64, local_frames=1, td_blocks="none")


@pytest.mark.parametrize("settings", [{"local_frames": 3}, {"td_blocks": "first-half"}, {"td_blocks": "second-half"}])
def test_settings_that_shapes_tell_are_read(settings: dict[str, Any]) -> None:
    found = RELEASES["tds"].read(small(**settings))
    assert found.problems == ()
    assert found.config == TdsConfig(side_channels=64, **settings)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "no key is of a side network"),
        ({LINEAR: torch.ones(0, 8)}, "is empty"),
        ({LINEAR: torch.ones(100, 8)}, "100 side channels do not divide into heads of 64"),
        (
            {LINEAR: torch.ones(64, 8), "visual.transformer.side_linears.7.bias": torch.ones(64)},
            "side_linears.1.bias: missing",
        ),
    ],
)
def test_what_is_no_side_network_is_said_without_building_it(change: dict[str, Tensor], text: str) -> None:
    for kind in KINDS:
        assert any(text in line for line in RELEASES[kind].read(change).problems)


def test_adapters_in_odd_blocks_are_named() -> None:
    state = {key: value for key, value in small().items() if ".mse." not in key}
    state["visual.transformer.side_transformer.5.mse.conv1.weight"] = torch.ones(4, 64, 1, 1)
    assert RELEASES["tds"].read(state).problems == (
        "TD-Adapters in blocks [5]: known are those of all blocks, of one half, or none",
    )


def test_what_the_released_code_cannot_load_is_not_written(toy: Any, tmp_path: Path) -> None:
    offer = Offer(layers=(0, 1, 2), sparse_frames=2, alpha=1, grid=(2, 2), channels=40, embed=8, classes=3, image_px=8)
    for settings, text in (
        ({"gate": "learned"}, r"no head with head\.gate='learned' \(released: 'fixed'\)"),
        ({"sme_alpha": 1.0, "td_against": "direct"}, r"head\.sme_alpha=1\.0 .*head\.td_against='direct'"),
        ({"layers": (0, 2)}, r"head\.layers=\[0, 2\]"),
    ):
        with pytest.raises(UsageError, match=text):
            RELEASES["tds"].write(TdsConfig(side_channels=64, **settings).build(offer), {})
    assert RELEASES["tds"].write(TdsConfig(side_channels=64, sync_batchnorm=True, form="plain").build(offer), {})


def test_weights_for_other_classes_are_refused(toy: Any, tmp_path: Path) -> None:
    torch.save({"model_state_dict": small("side4video")}, tmp_path / "s4v.pt")
    with pytest.raises(CacheMismatch) as refused:
        import_weights(
            ImportRequest(
                file=tmp_path / "s4v.pt", kind="side4video", cache=toy.int8, run=tmp_path / "run", layers=(0, 1)
            )
        )
    assert refused.value.fields.keys() == {
        "channels",
        "patch_px",
    }  # classes and grid: every weight that differs is listed
    assert not (tmp_path / "run").exists()


def test_unknown_keys_are_left_out_only_when_asked(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {**small(), "visual.proj": torch.ones(2)}}, tmp_path / "more.pt")
    request = ImportRequest(file=tmp_path / "more.pt", kind="tds", out=tmp_path / "o.safetensors")
    with pytest.raises(WeightsError, match=r"visual\.proj: neither TDS-CLIP's nor CLIP's"):
        import_weights(request)
    assert import_weights(replace(request, allow_unknown=True, layers=(0, 1))).unknown == ("visual.proj",)
