"""Two runs compared video by video. Two scores alone do not say enough: the same videos are hard for both runs.

predictions of the one ─┬─ videos that both scored ─▶ b, c: only one of the two is right ─▶ difference, interval, p
predictions of another ─┘
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.training.predictions import KeptPrediction
from vidxfer.pipeline.training.resampled import difference_interval, mcnemar
from vidxfer.stages.comparing.rows import PairedRow


def paired(
    run: Path, name: str, by_id: Mapping[str, KeptPrediction], other_by_id: Mapping[str, KeptPrediction]
) -> PairedRow:
    """A run beside another one.

    Args:
        run, name: of the run.
        by_id: of the run: id of a video -> its prediction.
        other_by_id: the same of the run that it is compared with.

    Raises:
        UsageError: they share no video.
    """
    shared = by_id.keys() & other_by_id.keys()
    only_other = sum(other_by_id[id_].right and not by_id[id_].right for id_ in shared)
    only_this = sum(by_id[id_].right and not other_by_id[id_].right for id_ in shared)
    interval = difference_interval(only_other, only_this, len(shared))
    if interval is None:
        raise UsageError(f"{run} was scored on none of the videos of the run that it is compared with (--against)")
    return PairedRow(
        run=run,
        name=name,
        videos=len(shared),
        difference=(only_this - only_other) / len(shared),
        interval=interval,
        only_other=only_other,
        only_this=only_this,
        p=mcnemar(only_other, only_this),
    )
