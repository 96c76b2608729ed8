"""`vidxfer train`, `vidxfer evaluate` and `vidxfer predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidxfer.cli import options as o
from vidxfer.cli.choices import DEFAULT_MODEL, data_source, know_heads, parse_layers
from vidxfer.pipeline.errors import UsageError

Settings = Annotated[list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")]


def train(
    cache: o.CachesOption = None,
    labels_as: o.LabelsAsOption = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Named recipe; default dist-ssv2-b16.")] = None,
    head: o.HeadOption = None,
    settings: Settings = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run; default runs/RECIPE.")] = None,
    root: o.RootOption = None,
    device: o.DeviceOption = "auto",
    devices: Annotated[int, typer.Option(min=0, help="Number of devices; 0: all GPUs, or one CPU.")] = 0,
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")] = "auto",
    pool: Annotated[
        int | None,
        typer.Option(
            "--pool",
            min=1,
            help="Average N x N patches on the device; default: as the cache holds them. As --set pool=N.",
        ),
    ] = None,
    decode_threads: o.ThreadsOption = 2,
    frames_from: o.FramesFromOption = "auto",
    log_every_steps: Annotated[int, typer.Option(min=1, help="Steps per line of metrics.jsonl.")] = 1,
    micro_batch: o.MicroBatchOption = None,
    ema: o.EmaOption = None,
    compile: o.CompileOption = None,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Run whose weights a new run begins with.")
    ] = None,
    allow_incomplete: Annotated[bool, typer.Option(help="Train although extraction has not finished.")] = False,
    online: Annotated[
        bool,
        typer.Option("--online", help="CLIP in every step, fresh views; needs no cache.", rich_help_panel="Online"),
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="With --online and without a cache: ssv2, folder …", rich_help_panel="Online"),
    ] = None,
    labels: o.LabelsOption = None,
    val_fraction: o.ValFractionOption = 0.2,
    limit: o.LimitOption = None,
    fold: o.FoldOption = None,
    model: o.ModelOption = DEFAULT_MODEL,
    pretrained: o.PretrainedOption = None,
    resize: o.ResizeOption = None,
    activation: o.ActivationOption = None,
    dense_frames: o.DenseFramesOption = 16,
    alpha: o.AlphaOption = 2,
    layers: o.LayersOption = "all",
    test_views: o.TestViewsOption = 1,
    test_crops: o.TestCropsOption = 1,
    sampling: o.SamplingOption = "segment",
    square_pixels: o.SquarePixelsOption = False,
    flips: o.FlipsOption = None,
    json: o.JsonOption = False,
) -> None:
    """Train a temporal head on cached tokens and dense frames. Goes on where an earlier run stopped.

    The videos are looked for where extraction found them; --root says where they are now. With --online, CLIP runs in
    every step on freshly drawn views: of the cache's videos with the cache's settings, or, with --dataset, without any
    cache. With --labels-as, several caches of equal settings are trained on as one. A video that lies in two of them
    counts once. With --head, the head is a class of settings in a file of your own, and --recipe gives the rest.
    SIGTERM, SIGUSR1 and Ctrl-C stop it after a step, with a checkpoint. Exit code 75 says so: run it again.

    Example: vidxfer train --cache ./zarr --recipe dist-ssv2-b16 --set epochs=10
    """
    from vidxfer.cli import show
    from vidxfer.pipeline.training.own_heads import import_head
    from vidxfer.pipeline.training.recipes import recipe as recipe_of
    from vidxfer.stages.learning import train as stage
    from vidxfer.stages.settings import CacheChoice, ClipChoice
    from vidxfer.stages.signals import STOPPED

    if dataset and not online:
        raise UsageError("--dataset is for --online; a cache remembers its own data set (--root says where it is now)")
    caches = parse_caches(cache, labels_as)
    shown = show.Shown()
    own = None if head is None else import_head(head)
    options = {"micro_batch": micro_batch, "ema": ema, "compile": compile, "pool": pool}
    given = [f"{name}={str(value).lower()}" for name, value in options.items() if value is not None]
    resolved = recipe_of(recipe, *(settings or ()), *given, head=own, tell=shown.line)
    report = stage.train(
        stage.TrainRequest(
            recipe=resolved,
            cache=caches[0],
            more_caches=caches[1:],
            labels_as=labels_as,
            run=run or Path("runs") / (recipe if recipe and head is None else resolved.name),
            root=root,
            device=device,
            devices=devices,
            precision=precision,
            decode_threads=decode_threads,
            frames_from=frames_from,
            log_every_steps=log_every_steps,
            allow_incomplete=allow_incomplete,
            init_from=init_from,
            online=online,
            data=data_source(dataset, root, labels, val_fraction, limit, fold) if dataset else None,
            clip=ClipChoice(model=model, pretrained=pretrained, resize=resize, activation=activation),
            store=CacheChoice(
                dense_frames=dense_frames,
                alpha=alpha,
                layers=parse_layers(layers),
                test_views=test_views,
                test_crops=test_crops,
                seed=resolved.seed,
                square_pixels=square_pixels,
                sampling=sampling,
                flips=flips,
            ),
        ),
        shown,
    )
    if report is None:  # not the leading process
        return
    if json:
        show.print_json(report)
    else:
        state = "finished" if report.finished else "not finished"
        show.say(f"{report.run}: {state} after {report.global_step:,} steps, loss {report.loss:.4f}")
        if report.epoch_seconds is not None:
            show.say(
                f"epoch: {show.duration(report.epoch_seconds)}, {report.data_wait_share:.0%} of it waiting for data"
            )
        if report.score is not None:
            show.say(f"validation: {report.score}")
    if not report.finished:
        raise typer.Exit(STOPPED)


def evaluate(
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the trained run.")] = None,
    head: o.HeadsOption = None,
    cache: o.CachesOption = None,
    labels_as: o.LabelsAsOption = None,
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "val",
    root: o.RootOption = None,
    device: o.DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")] = "auto",
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="CLIP alone, without any training.")] = False,
    fuse_clip: Annotated[float, typer.Option(min=0, max=1, help="Share of CLIP's own logits; published: 0.5.")] = 0.0,
    batch_clips: Annotated[int, typer.Option(min=1, help="Clips per forward.")] = 32,
    decode_threads: o.ThreadsOption = 2,
    frames_from: o.FramesFromOption = "auto",
    json: o.JsonOption = False,
) -> None:
    """Score a run on a split: softmax summed over the stored views, with the coverage and every missing video named.

    The cache may be of another data set with other classes: a text-cosine head needs their names alone. --zero-shot
    scores CLIP itself. Exits with 3 when some listed videos have no score.

    Example: vidxfer evaluate --run runs/dist-ssv2-b16 --cache ./zarr
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import evaluate as stage

    if (run is None) != zero_shot:
        raise UsageError("give either --run FOLDER, or --zero-shot for CLIP without training")
    caches = parse_caches(cache, labels_as)
    know_heads(head)
    report = stage.evaluate(
        stage.EvaluateRequest(
            run=run,
            cache=caches[0],
            more_caches=caches[1:],
            labels_as=labels_as,
            split=split,
            root=root,
            fuse_clip=fuse_clip,
            device=device,
            precision=precision,
            batch_clips=batch_clips,
            decode_threads=decode_threads,
            frames_from=frames_from,
        ),
        show.Shown(),
    )
    score = report.score
    if json:
        show.print_json(report)
    else:
        show.say(f"{split}: {score}, {report.views} view{'s' * (report.views > 1)} per video")
        for name, part in report.per_cache.items():
            show.say(f"{split} of {name}: {part}")
        for name, reason in score.missing.items():
            show.say(f"missing: {name}: {reason}")
        if score.missing:
            show.say(f"top-1 with every missing video counted as wrong: {score.top1_of_listed:.1%}")
        show.say(f"predictions: {report.predictions}")
    if score.missing:
        raise typer.Exit(3)


def parse_caches(caches: list[Path] | None, labels_as: str | None) -> tuple[Path, ...]:
    """The caches that were named, "zarr" if none was.

    Raises:
        UsageError: several without a word on what their classes are.
    """
    if caches is not None and len(caches) > 1 and labels_as is None:
        raise UsageError("several caches need one set of classes: --labels-as k710, or union for all their names")
    return tuple(caches or [Path("zarr")])


def predict(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "--run", help="Folder of the trained run.")],
    head: o.HeadsOption = None,
    views: Annotated[int, typer.Option(min=1, help="Temporal views per video, summed.")] = 1,
    model: Annotated[str | None, typer.Option("--model", help="CLIP, if it has moved since extraction.")] = None,
    pretrained: o.PretrainedOption = None,
    device: o.DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")] = "auto",
    json: o.JsonOption = False,
) -> None:
    """Classify any video files with CLIP in the loop, and print the five best classes of each.

    Exits with 3 when some of the files could not be read.

    Example: vidxfer predict cat.mp4 --checkpoint runs/dist-ssv2-b16
    """
    from vidxfer.cli import show
    from vidxfer.stages.learning import predict as stage

    know_heads(head)
    answers = stage.predict(
        stage.PredictRequest(
            videos=tuple(videos),
            run=checkpoint,
            views=views,
            model=model,
            pretrained=pretrained,
            device=device,
            precision=precision,
        ),
        show.Shown(),
    )
    if json:
        show.print_json(answers)
    else:
        for answer in answers:
            show.say(answer.path if answer.error is None else f"{answer.path}: refused: {answer.error}")
            for name, share in answer.top5:
                show.say(f"  {share:6.1%}  {name}")
    if any(answer.error is not None for answer in answers):
        raise typer.Exit(3)
