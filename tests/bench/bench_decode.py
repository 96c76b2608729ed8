"""What decoding costs: codes of one view to tokens, codec by codec, beside int8.

Run by `make bench`, not by the tests: `python tests/bench/bench_decode.py [--write docs/codecs.md]`. Sizes are those of
B/16 with 8 frames; tokens are made up, and every codec is fitted on their like. The codecs are timed in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from gpu_caches import fitted, tokens_like
from measure import CLOCKS, in_turn, machine, write_block
from stored import B16, decoding_gflop

from vidxfer.pipeline.cache.codec import Dequantiser, Quantiser
from vidxfer.pipeline.cache.spec import CacheSpec

CODECS = ("int8", "int6", "int4", "rotate+int8", "rotate+pq", "klt8", "klt4", "klt3", "klt2", "klt1", "klt0.5")
COLUMNS = ("codec", "bytes of a view", "GFLOP to turn it back", "a view", "against `int8`", "turned back in bf16")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def decodings(spec: CacheSpec) -> dict[str, Callable[[], object]]:
    """Decode one view of made-up tokens; where the codec turns them back in a head's precision, also in bf16."""
    known = fitted(spec)
    quantise = Quantiser(spec.form, known.mean, known.std, known.arrays, range(len(spec.layers)))
    codes, scale = quantise(tokens_like(spec, 99, len(spec.layers))[None])
    made = {}
    for name, product in ((spec.codec, None), *([(f"{spec.codec} bf16", torch.bfloat16)] if spec.form.is_klt else [])):
        decode = Dequantiser(spec, known.mean, known.std, fitted=known.arrays, product=product)
        made[name] = lambda decode=decode: decode(codes, scale)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding a view of B/16, codec by codec.")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or cores: core-seconds (wall)")
    parser.add_argument("--threads", type=int, help="threads of torch (as torch chooses)")
    parser.add_argument("--layers", type=int, default=12, help="blocks of a view (12)")
    parser.add_argument("--codecs", nargs="+", default=CODECS, help="the first is what the others are compared with")
    parser.add_argument("--write", type=Path, help="put the table into this document, between its two comments")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    specs = {one: replace(B16, codec=one, layers=tuple(range(asked.layers))) for one in asked.codecs}
    work = {name: run for spec in specs.values() for name, run in decodings(spec).items()}
    timed = in_turn(work, asked.rounds, asked.clock)
    first = timed[asked.codecs[0]].median
    lines = [f"Machine: {machine()}; clock: {asked.clock}; {asked.layers} blocks, float32.", "", HEADER]
    for one, spec in specs.items():
        turned = decoding_gflop(spec)
        cells = [f"`{one}`", f"{spec.bytes_per_view / 1e6:.2f} MB", f"{turned:.1f}" if turned else "-",
                 str(timed[one]), f"{timed[one].median / first:.1f}x", str(timed.get(f"{one} bf16", ""))]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    print(*lines, sep="\n")
    if asked.write:
        write_block(asked.write, "decode", "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
