"""`--codec auto` of a recoded cache: the tower goes on from the tokens of a float16 cache, and no video is read.

training split, else the first ─ even sample ─ halves that share no file ─▶ codecs/choose.py ─▶ CodecChoice
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vidxfer.pipeline.cache.codec import Dequantiser
from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.candidates import CodecChoice
from vidxfer.stages.codecs.choose import MEASURED_FRAMES, choose, in_halves
from vidxfer.stages.codecs.through import Ending, Seen
from vidxfer.stages.progress import Progress
from vidxfer.stages.upkeep.made_of import expect_finished
from vidxfer.stages.upkeep.stored import decoded, even_rows, read_row
from vidxfer.stages.upkeep.truth import tower_of_split


def split_to_measure(opened: Sequence[Split]) -> Split:
    """The training split where it is there, else the first.

    Raises:
        CacheIncomplete: it has pending shards.
    """
    source = next((split for split in opened if split.spec.split == "train"), opened[0])
    expect_finished(source)
    return source


def choose_for_cache(
    source: Split, spec: CacheSpec, *, loss: float | None, videos: int, device: str, shown: Progress
) -> CodecChoice:
    """Measure on stored tokens.

    Args:
        source: a split of the cache.
        spec: the settings of the new split, with any codec.
        loss: the bound; None: `candidates.LOSS`.
        videos: to fit and measure on, at most.
        device: of the tower.
        shown: for bars.

    Raises:
        UsageError: it is not float16, holds fewer than two videos, or the tower cannot go on from stored tokens.
    """
    if not source.spec.form.is_exact:
        raise UsageError(
            f"{source.path} holds {source.spec.codec}: what a codec loses is measured from float16 tokens. Name a "
            "codec, or give a cache made with --codec float16."
        )
    tower = tower_of_split(source, device)
    ending = Ending(tower, spec.layers, MEASURED_FRAMES)
    ending.expect_no_left_out()
    decode = Dequantiser.of(source, layers=spec.layers).to(tower.device)
    with open_reader(source) as reader:
        files = {row: reader.file_of(row) or row for row in even_rows(reader.stored_rows(), max(2, videos))}
        halves = in_halves([(file, row) for row, file in files.items()], spec.split)

        def seen(rows: Sequence[int], why: str) -> Iterator[Seen]:
            with shown.bar(f"{why} {spec.split}", len(rows), "videos") as bar:
                for row in rows:
                    yield Seen(row=row, tokens=decoded(decode, read_row(reader, row, spec.layers)))
                    bar.advance()

        return choose(spec, loss, halves, seen, ending, len(set(files.values())) > 1, shown)
