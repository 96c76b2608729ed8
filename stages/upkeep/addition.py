"""May this be added to a cache? Settings, CLIP, labels and views are compared with the cache's; nothing is written.

asked settings, tower, data set ─▶ same as the cache's? ─▶ Addition: the videos that are new, in its class numbers
                                      │ no: each field with both values
                                      └─▶ CacheMismatch
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.grow import Addition
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.candidates import AUTO_CODEC, choice_of
from vidxfer.stages.describe import embedded_names
from vidxfer.stages.settings import DataSource


def expect_asked(split: Split, asked: Mapping[str, object]) -> None:
    """Check that settings a person named are the cache's.

    Raises:
        CacheMismatch: names each that is not.
    """
    cache_settings = split.spec.passport["tokens"]
    known = {
        **cache_settings,
        **({"codec": AUTO_CODEC} if asked.get("codec") == AUTO_CODEC and choice_of(split) else {}),
    }
    differing = {name: (known[name], value) for name, value in asked.items() if known[name] != value}
    if differing:
        raise CacheMismatch(split.path, differing)


def views_wanted(split: Split, begun: Split | None, asked: int | None) -> int:
    """How many training views a split is to have; a split of test views keeps its own, whatever is asked.

    Raises:
        CacheMismatch: it has more than are asked for. CacheError: another number of views is being added already.
    """
    stored_views = split.spec.views
    if asked is None or split.spec.view_kind == "test":
        return stored_views
    if asked < stored_views:
        raise CacheMismatch(split.path, {"views": (stored_views, asked)})
    coming = stored_views if begun is None else stored_views + begun.spec.views
    if begun is not None and asked != coming:
        raise CacheError(
            f"{split.path} has {stored_views} views per video, and {coming} are being made of them ({begun.path}): "
            f"`vidxfer cache add --views {coming}` finishes that. Or remove that folder to give it up."
        )
    return asked


def addition_of(split: Split, dataset: Dataset, data: DataSource, tower: Tower) -> Addition:
    """What of a data set is new to a split, in the split's class numbers.

    Raises:
        CacheMismatch: a video that is there has another label here, or the data set says other factors of classes.
    """
    names = (*split.class_names, *[name for name in dataset.class_names if name not in split.class_names])
    number = {name: class_number for class_number, name in enumerate(names)}
    labels = {
        video.id: -1 if video.label is None else number[dataset.class_names[video.label]] for video in dataset.videos
    }
    label_in_cache = dict(zip(split.video_ids, split.labels.tolist(), strict=True))
    for name, label in labels.items():
        if label_in_cache.get(name, label) != label:
            shown = [
                names[label_number] if label_number >= 0 else "no label"
                for label_number in (label_in_cache[name], label)
            ]
            raise CacheMismatch(split.path, {f"label of {name}": (shown[0], shown[1])})
    new = tuple(video.id for video in dataset.videos if video.id not in label_in_cache)
    fresh = names[len(split.class_names) :]
    if fresh and set(split.factors) != set(dataset.factors):
        raise CacheMismatch(split.path, {"factors of classes": (sorted(split.factors), sorted(dataset.factors))})
    label_there = {name: dataset_label for dataset_label, name in enumerate(dataset.class_names)}
    factors = {
        name: (*values, *[dataset.factors[name][label_there[class_name]] for class_name in fresh])
        for name, values in split.factors.items()
    }
    templates = tuple(split.informs.get("templates", ("{}",)))
    source: dict[str, Any] = data.to_dict()
    return Addition(
        video_ids=new,
        labels=[labels[name] for name in new],
        class_names=names,
        text=embedded_names(tower, fresh, templates),
        flip_pairs=flip_pairs(names) if fresh else split.flip_pairs,
        factors=factors,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        data=source,
    )
