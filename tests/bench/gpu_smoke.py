"""A first look at a GPU: does everything that only its defaults reach run there? At most four minutes on a card.

    python tests/bench/gpu_smoke.py [--small] [--parts goldens,recipes]      (--small: tiny sizes, for a CPU)

Every part is a process of its own and says each result as it comes; a part that fails is a result, not an end. Works
from the source tree: nothing of vidxfer need be installed, only what it requires. All weights are random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = [str(HERE.parent.parent / ".typings"), str(HERE.parent / "heads"), str(HERE)]
sys.path[:0] = SOURCE
os.environ["PYTHONPATH"] = os.pathsep.join([*SOURCE, os.environ.get("PYTHONPATH", "")])  # for the parts and decoders
STEPS, CLIPS = 20, 2


def machine(folder: Path, small: bool) -> Iterator[str]:
    import torch

    from vidxfer.pipeline.precision import head_precision, tower_precision
    from vidxfer.stages.doctor import device, jpeg_frames

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}; {device()}"
    yield f"auto is {tower_precision('auto', where)} for CLIP, {head_precision('auto', where)} for heads"
    yield f"JPEG frames come back {jpeg_frames()}"


def goldens(folder: Path, small: bool) -> Iterator[str]:
    """Official numbers in float32: TF32 is off."""
    import test_dist_golden as golden
    import torch
    from safetensors import safe_open

    from vidxfer.pipeline.heads.dist.head import FORMS

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    places = [HERE.parent / "golden", HERE.parents[2] / "shared" / "golden"]
    place = next(one for one in places if (one / golden.FILES[0]).is_file())
    for name in golden.FILES:
        with safe_open(str(place / name), "pt") as file:
            config = json.loads(file.metadata()["config"])
            numbers = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        params = {key.removeprefix("param."): value for key, value in numbers.items() if key.startswith("param.")}
        for form in FORMS:
            net = golden.build(config)
            net.load_state_dict(params)
            net = net.to(where)
            video = FORMS[form](net, *(one.to(where) for one in golden.inputs_of(config, numbers)))
            (video * numbers["input.grad_probe"].to(where)).sum().backward()
            torch.testing.assert_close(video.cpu(), numbers["output.cls_x"], atol=2e-5, rtol=0)
            for key, one in net.named_parameters():
                norm = torch.zeros(()) if one.grad is None else one.grad.norm().cpu()
                torch.testing.assert_close(norm, numbers[f"gradnorm.{key}"].reshape(()), rtol=1e-3, atol=1e-3, msg=key)
            off = float((video.detach().cpu() - numbers["output.cls_x"]).abs().max())
            yield f"{name}, {form}: embedding off by {off:.1e}, gradients right"


def recipes(folder: Path, small: bool) -> Iterator[str]:
    """Every recipe at its published size on random clips: 20 steps at --precision auto."""
    import torch

    from vidxfer.pipeline.heads import PUBLISHED, RECIPES
    from vidxfer.pipeline.training.build import head_of_weights, offer_of
    from vidxfer.pipeline.training.optimise import build_optimiser, soft_cross_entropy, soft_targets
    from vidxfer.pipeline.training.published import cache_spec
    from vidxfer.stages.learning.evaluate import compute_on

    where, classes = compute_on("auto", "auto"), 174
    rows = {row.recipe: row for row in PUBLISHED}
    for recipe in RECIPES:
        sizes = (recipe.clip, recipe.sparse_frames, recipe.dense_frames)
        same = [row for row in PUBLISHED if (row.clip, row.sparse_frames, row.dense_frames) == sizes]
        spec = cache_spec(rows.get(recipe.name, [*same, PUBLISHED[0]][0]))
        offer = offer_of(spec, recipe, classes=classes, text=torch.randn(classes, spec.embed), logit_scale=100.0)
        if small:
            offer = replace(offer, sparse_frames=4, layers=(0, 1), channels=64, embed=32, grid=(2, 2), image_px=32,
                            text=torch.randn(classes, 32))  # fmt: skip
            side = {"side_channels": 64}
            own = {
                "dist": {"integration_channels": 64, "temporal_channels": 32},
                "evl": {"blocks": 1, "clip_heads": None},
                "side4video": side,
                "tds": side,
            }
            head = replace(recipe.head, **own.get(recipe.head.kind, {}))
            recipe = replace(recipe, dense_frames=None, sparse_frames=None, clip=None, head=head)
        head = head_of_weights(recipe, offer).to(where.device)
        optimiser = build_optimiser(head, recipe)
        optimiser.param_groups[0]["lr"] = 1e-3
        targets = soft_targets(torch.arange(CLIPS, device=where.device), classes, recipe.label_smoothing)
        batch = replace(offer.fake_batch(head.needs, CLIPS, device=where.device), targets=targets)
        losses, began = [], time.monotonic()
        for _ in range(STEPS):
            with where.autocast():
                logits = head(batch)
            loss = soft_cross_entropy(logits, batch.targets)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss))
        seconds = (time.monotonic() - began) / STEPS
        assert losses[-1] < losses[0] < 1e4, losses
        peak = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if where.device.type == "cuda" else ""
        fell = f"loss {losses[0]:.2f} to {losses[-1]:.2f}"
        yield f"{recipe.name}: {where.precision}, {fell}, {seconds * 1e3:.0f} ms a step{peak}"


def epochs(folder: Path, small: bool) -> Iterator[str]:
    """A whole path with a CLIP of B/16's size: videos, extraction with frames, and an epoch each way, scored."""
    from vidxfer.pipeline.clip.tiny import write_tiny_clip
    from vidxfer.pipeline.datasets.toy import ToyDesign
    from vidxfer.pipeline.datasets.toy_write import write_toy
    from vidxfer.pipeline.training.recipes import named
    from vidxfer.stages.extract import ExtractRequest, extract
    from vidxfer.stages.learning.train import TrainRequest, train
    from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource

    count = 16 if small else 96
    world = write_toy(folder / "ssv2", train_videos=count, val_videos=8, design=ToyDesign(appearances=1))
    sizes = {"image_px": 32, "channels": 64, "blocks": 3, "embed": 32} if small else {
        "image_px": 224, "channels": 768, "blocks": 12, "embed": 512}  # fmt: skip
    clip = ClipChoice(model=str(write_tiny_clip(folder / "clip", **sizes)))
    data = DataSource(kind="ssv2", root=world.root)
    store = CacheChoice(dense_frames=16, calibration_videos=8, with_frames=True)
    began = time.monotonic()
    extract(ExtractRequest(data=data, clip=clip, store=store, cache=folder / "zarr"))
    yield f"extraction: {count + 8} videos in {time.monotonic() - began:.1f} s"
    for head, online, source in (
        ("dist-ssv2-b16", False, "cache"), ("dist-ssv2-b16", False, "videos"), ("dist-ssv2-b16", True, "auto"),
        ("attentive-probe", False, "auto"), ("probe", False, "auto"),
    ):  # fmt: skip
        recipe = replace(named(head), epochs=1, warmup_epochs=0.0, batch_clips=8)
        run = folder / f"{head}-{online}-{source}"
        report = train(
            TrainRequest(recipe=recipe, cache=folder / "zarr", run=run, online=online, clip=clip, frames_from=source)
        )
        assert report is not None
        assert report.finished
        way = "online" if online else f"cached, dense frames from {source}"
        yield f"{head}, {way}: an epoch of {count} clips in {report.epoch_seconds:.1f} s, loss {report.loss:.2f}"


PARTS = {"machine": machine, "goldens": goldens, "recipes": recipes, "epochs": epochs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--here", action="store_true", help="run the parts in this process; an error ends it")
    chosen = parser.parse_args()
    failed = 0
    for name in chosen.parts.split(","):
        began = time.monotonic()
        if chosen.here:
            with tempfile.TemporaryDirectory() as folder:
                for line in PARTS[name](Path(folder), chosen.small):
                    print(f"{name}: {line} ({time.monotonic() - began:.1f} s)", flush=True)
            continue
        words = [sys.executable, __file__, "--here", "--parts", name, *["--small"] * chosen.small]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
        failed += done.returncode != 0
        why = f"FAILED: {(done.stderr.strip().splitlines() or ['no word'])[-1]}" if done.returncode else "passed"
        print(f"{name}: {why} ({time.monotonic() - began:.1f} s with its start)", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
