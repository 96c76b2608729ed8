"""Results of codec_accuracy.py as a table in Markdown and a plot: top-1 against bytes per view."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from measure import ROOT, machine

from vidxfer.pipeline.cache.spec import CacheSpec

BEGIN, END = "<!-- codec accuracy: begin -->\n", "<!-- codec accuracy: end -->\n"
EXACT, CONTROL = "float16", "pca1+int4"
"""What is compared with, and what should fail: one direction per token is nearly none."""

AIM_TIMES, AIM_POINTS, PIXEL_TIMES = 8.0, 0.5, 24.0
"""Eight times smaller than float16 of all layers, within half a point; the pixels of ViT-B/16 are 24 times smaller."""

KINDS = {"float16": "o", "int": "s", "pq": "D", "rotate": "^", "pca": "v"}
"""Beginning of a codec's name -> its mark in the plot."""


def bytes_of(spec: CacheSpec, codec: str, layers: Iterable[int]) -> int:
    """Of one view over all arrays but the dense frames, with these layers alone."""
    return replace(spec, codec=codec, layers=tuple(layers)).bytes_per_view


def chosen(results: Sequence[dict[str, Any]], **wanted: Any) -> dict[int, float]:
    """Seed -> top-1 in percent, of the lines that have these values."""
    return {line["seed"]: 100 * line["top1"] for line in results if all(line[k] == v for k, v in wanted.items())}


def shown(tops: dict[int, float]) -> str:
    """Mean, and each seed."""
    if not tops:
        return "-"
    return f"**{statistics.mean(tops.values()):.1f}** ({', '.join(f'{tops[seed]:.1f}' for seed in sorted(tops))})"


def against(tops: dict[int, float], exact: dict[int, float]) -> float | None:
    """Mean difference from float16 over the seeds that both have."""
    both = [tops[seed] - exact[seed] for seed in tops if seed in exact]
    return statistics.mean(both) if both else None


def changed(tops: dict[int, float], exact: dict[int, float]) -> str:
    """Mean difference from float16 in points, and each seed's."""
    both = [tops[seed] - exact[seed] for seed in sorted(tops) if seed in exact]
    if not both or tops is exact or tops == exact:
        return "-"
    return f"{statistics.mean(both):+.1f} ({', '.join(f'{points:+.1f}' for points in both)})"


class Report:
    """Everything the table and the plot need."""

    def __init__(self, spec: dict[str, Any], val: dict[str, Any], subsets: dict[str, list[int]], codecs: list[str],
                 results: list[dict[str, Any]], jobs: Sequence[Any]) -> None:  # fmt: skip
        wanted = [asdict(job) | {"layers": list(job.layers)} for job in jobs]
        self.results = [line for line in results if any(all(line[k] == v for k, v in one.items()) for one in wanted)]
        self.done, self.asked = len(self.results), len(jobs)
        self.spec, self.subsets, self.codecs = CacheSpec.from_dict(spec), subsets, codecs
        self.videos, self.classes = val["stored"], val["classes"]
        self.side_px, self.frames = self.spec.sampling.image_px, self.spec.sparse_frames
        epochs = {line["head"]: line["epochs"] for line in self.results}
        self.epochs = ", ".join(f"{head} {count}" for head, count in sorted(epochs.items())) or "none yet"
        self.whole = bytes_of(self.spec, EXACT, subsets["all"])

    def dist(self, codec: str, subset: str, on: str | None = None) -> dict[int, float]:
        layers = self.subsets[subset]
        return chosen(self.results, head="dist-toy", codec=codec, trained_on=on or codec, layers=layers)

    def attentive(self, codec: str, on: str | None = None) -> dict[int, float]:
        return chosen(self.results, head="attentive-probe", codec=codec, trained_on=on or codec)

    def by_codec(self) -> list[str]:
        """One row per codec: the attentive probe, which reads the last block alone."""
        lines = [
            "| codec | attentive probe trained on it | trained on float16, scored on it |",
            "|---|---|---|",
        ]
        for codec in self.codecs:
            tops, moved = self.attentive(codec), changed(self.attentive(codec, on=EXACT), self.attentive(EXACT))
            lines.append(f"| `{codec}` | {shown(tops)} | {moved} |")
        return lines

    def by_layers(self) -> list[str]:
        """One row per codec and subset: bytes, DiST's top-1, and what float16-trained heads lose."""
        lines = [
            "| layers | codec | kB per view | smaller | DiST trained on it | trained on float16, scored on it |",
            "|---|---|---|---|---|---|",
        ]
        for name, layers in self.subsets.items():
            exact = self.dist(EXACT, name)
            for codec in self.codecs:
                size = bytes_of(self.spec, codec, layers)
                moved = changed(self.dist(codec, name, on=EXACT), exact)
                cells = [f"{name} ({', '.join(map(str, layers))})", f"`{codec}`", f"{size / 1e3:.1f}",
                         f"{self.whole / size:.1f}x", shown(self.dist(codec, name)), moved]  # fmt: skip
                lines.append("| " + " | ".join(cells) + " |")
        return lines

    def small_pairs(self) -> list[tuple[float, float, str]]:
        """(points lost, times smaller, words) of codecs and subsets far below float16 of all layers, least lost first.

        Of DiST trained on float16, against float16 of the same layers: the heads are the same, and what differs is the
        codec's alone.
        """
        found = []
        for codec in self.codecs:
            for name, layers in self.subsets.items():
                lost = against(self.dist(codec, name, on=EXACT), self.dist(EXACT, name))
                times = self.whole / bytes_of(self.spec, codec, layers)
                if lost is not None and times >= AIM_TIMES and codec not in (CONTROL, EXACT):
                    found.append((lost, times, f"`{codec}`, {name} ({times:.1f}x, {lost:+.1f})"))
        return sorted(found, reverse=True)

    def small_probes(self) -> list[tuple[float, float, str]]:
        """The same of attentive probes trained on each codec, against the last block in float16."""
        last, exact, found = self.subsets["all"][-1:], self.attentive(EXACT), []
        for codec in self.codecs:
            lost = against(self.attentive(codec), exact)
            times = bytes_of(self.spec, EXACT, last) / bytes_of(self.spec, codec, last)
            if lost is not None and times >= AIM_TIMES and codec not in (CONTROL, EXACT):
                found.append((lost, times, f"`{codec}` ({times:.1f}x, {lost:+.1f})"))
        return sorted(found, reverse=True)

    def verdict(self) -> list[str]:
        """Pixels, the aim, and how finely this world can tell."""
        pixels = self.frames * self.side_px**2 * 3
        lines = [
            f"* The {self.frames} frames of a view as pixels are {pixels:,} bytes at {self.side_px} px, "
            f"{self.whole / pixels:.1f}x smaller than float16 here ({PIXEL_TIMES:g}x for ViT-B/16 at 224 px).",
        ]
        aim = f"{AIM_TIMES:g}x smaller than float16 within {AIM_POINTS} points"
        for words, pairs in (
            ("DiST trained on float16, scored on the codec", self.small_pairs()),
            ("attentive probe trained on the codec, last block alone", self.small_probes()),
        ):
            met = [text for lost, _, text in pairs if lost >= -AIM_POINTS]
            tiny = next((text for _, times, text in pairs if times >= PIXEL_TIMES), "none was run")
            nearest = pairs[0][2] if pairs else "none was run"
            lines.append(
                f"* Aim, {aim}; {words}: {'met by ' + ', '.join(met) if met else 'not met, nearest ' + nearest}. "
                f"Least lost at {PIXEL_TIMES:g}x and more: {tiny}."
            )
        spread = [max(t.values()) - min(t.values()) for c in self.codecs if len(t := self.dist(c, "all")) > 1]
        control = against(self.dist(CONTROL, "all"), self.dist(EXACT, "all"))
        if spread and control is not None:
            scored = against(self.dist(CONTROL, "all", on=EXACT), self.dist(EXACT, "all"))
            lines.append(
                f"* What DiST trained on each codec can tell (all layers): two seeds of one row differ by "
                f"{statistics.median(spread):.1f} points at the median and {max(spread):.1f} at most. Trained on "
                f"`{CONTROL}`, which keeps nearly nothing of a token, it ends {control:+.1f} points from float16: it "
                f"also sees the dense frames; trained on float16 and scored on that codec, {scored or 0.0:+.1f}."
            )
        lines.append(
            f"* One validation video is {100 / self.videos:.2f} points: {self.videos:,} videos, {self.classes} classes."
        )
        if self.done < self.asked:
            lines.append(f"* {self.done} of {self.asked} results are there; the others were not run.")
        return lines

    def plot(self, path: Path) -> None:
        """Top-1 against bytes per view, one colour per layer subset, one mark per kind of codec."""
        import matplotlib as mpl

        mpl.use("svg")
        mpl.rcParams["svg.hashsalt"] = "vidxfer"
        import matplotlib.pyplot as plt

        figure, both = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
        self._panel(both[0], lambda codec, name: self.dist(codec, name))
        both[0].set_title("trained on the codec, scored on it", fontsize=10)
        both[0].set_ylabel("DiST, validation top-1 in % (line: from seed to seed)")
        self._panel(both[1], self._lost)
        both[1].set_title(f"trained on float16, scored on the codec ({CONTROL}, far below, is left out)", fontsize=10)
        both[1].set_ylabel("the same heads: points from float16 of these layers")
        both[1].axhspan(-AIM_POINTS, AIM_POINTS, color="grey", alpha=0.15)
        handles = both[0].get_legend_handles_labels()[0]
        figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=len(handles))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)

    def _lost(self, codec: str, name: str) -> dict[int, float]:
        """Seed -> points from float16 of the same layers, for heads trained on float16; nothing for the control."""
        exact, found = self.dist(EXACT, name), self.dist(codec, name, on=EXACT)
        return {} if codec == CONTROL else {seed: found[seed] - exact[seed] for seed in found if seed in exact}

    def _panel(self, axes: Any, values: Callable[[str, str], dict[int, float]]) -> None:
        """One half of the plot; `values`: codec, subset -> seed -> height."""
        from matplotlib.ticker import NullFormatter, ScalarFormatter

        for number, (name, layers) in enumerate(self.subsets.items()):
            label: str | None = f"layers: {name}"
            for at, codec in enumerate(self.codecs):
                size, found = bytes_of(self.spec, codec, layers) / 1e3, values(codec, name)
                if not found:
                    continue
                mark = next(mark for kind, mark in KINDS.items() if codec.startswith(kind))
                mean = statistics.mean(found.values())
                axes.vlines(size, min(found.values()), max(found.values()), color=f"C{number}", alpha=0.4)
                axes.plot(size, mean, mark, color=f"C{number}", label=label)
                label = None
                if name == "all":
                    where = (5, 5 if at % 2 else -9)
                    axes.annotate(codec, (size, mean), xytext=where, textcoords="offset points", fontsize=7)
        pixels = self.frames * self.side_px**2 * 3 / 1e3
        axes.axvline(pixels, color="grey", linestyle=":", label="the frames as pixels")
        axes.axvline(self.whole / AIM_TIMES / 1e3, color="black", linestyle="--", linewidth=0.8,
                     label=f"{AIM_TIMES:g}x below float16")  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([2, 5, 10, 20, 50, 100, 200])
        axes.set_xlabel("kB per view")
        axes.grid(alpha=0.3)


def write_report(
    folder: Path, spec: dict[str, Any], val: dict[str, Any], subsets: dict[str, list[int]], codecs: list[str],
    results: list[dict[str, Any]], jobs: Sequence[Any], *, command: str, docs: bool,
) -> None:  # fmt: skip
    """Write the table and its plot into FOLDER, and, where asked, both into docs/."""
    report = Report(spec, val, subsets, codecs, results, jobs)
    minutes = sum(line["seconds"] for line in report.results) / 60
    text = "\n".join([
        f"Made by `{command}`: {minutes:.0f} minutes of training and scoring, one thread a run.",
        f"Epochs: {report.epochs}.",
        "",
        f"{machine()}.", "", *report.by_codec(), "",
        "Top-1 in percent: mean (each seed). `scored on it`: points that the float16-trained heads lose or gain when "
        "they are scored on that codec's tokens. Bytes are those of one view in the cache without dense frames.", "",
        "![top-1 against bytes per view](codec-accuracy.svg)", "", *report.by_layers(), "", *report.verdict(), "",
    ])  # fmt: skip
    report.plot(folder / "codec-accuracy.svg")
    (folder / "codec-accuracy.md").write_text(text, encoding="utf-8")
    print(text)
    if docs:
        page = ROOT / "docs/codecs.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")
        (ROOT / "docs/codec-accuracy.svg").write_bytes((folder / "codec-accuracy.svg").read_bytes())
