"""Documents that are made, not written: the help of every command, the map of the files, and the table of sizes.

Run as a script (`python tests/test_house_docs.py`, or `make fix`) it writes those parts anew between two comments; as
a test it says that they are current. What a person wrote around them is checked against the code too: commands that
the README and the Makefile name must parse, the format's document must list every array and every reason.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from vidxfer.cli.main import FAILED, OK, PARTIAL, USAGE, app
from vidxfer.cli.towers import counts_of, row_of
from vidxfer.pipeline.cache.codecs.plain import decode_int8
from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.spec import FORMAT
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.errors import VideoReason
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.recipe import Published
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.stages.planning.towers import list_towers

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- made by tests/test_house_docs.py: {} -->\n", "<!-- end of {} -->"
HELP_WIDTH = 100

AROUND = {
    "README.md": "what it is, and the first two commands",
    "CHANGELOG.md": "what changed, in users' terms",
    "LICENSE": "Apache-2.0",
    "NOTICE": "whose lists of class names these are",
    "Makefile": "bare `make` lists what there is",
    "pyproject.toml": "the package, its requirements, and the settings of its tools",
    "constraints.txt": "the versions the tests were passed with",
    "docs/": "commands, cache format, many GPUs, deviations from the papers",
    "tests/": "mirrors the three folders below; golden numbers, an old cache, and the rules of the house",
    ".ci/": "what continuous integration runs: the test command of the README",
    ".typings/": "links by which type checkers find the package",
    ".gitignore": "what runs and tools leave behind",
}
"""Everything at the top that is not code."""

FOLDERS = {
    "pipeline": "nouns: what the data is at each step, in the order in which it flows",
    "pipeline/datasets": "which videos exist: one file per layout on disk, and the toy world",
    "pipeline/video": "frames out of files, frame-exact or an error",
    "pipeline/clip": "the frozen tower",
    "pipeline/cache": "the promise on disk, format 1",
    "pipeline/cache/codecs": "what a codec computes: arithmetic, without a cache",
    "pipeline/cache/write": "who makes a split, and who enlarges it",
    "pipeline/cache/read": "who reads a split",
    "pipeline/heads": "one folder or file per family of heads, behind one protocol",
    "pipeline/heads/dist": "DiST: network in two forms, recipes, published results, released checkpoints",
    "pipeline/heads/side4video": "Side4Video: network in two forms, recipes, published results, released checkpoints",
    "pipeline/heads/tds": "TDS-CLIP: what it adds to Side4Video, likewise",
    "pipeline/heads/evl": "EVL and multi-layer attentive pooling: decoder in two forms, recipes, released checkpoints",
    "pipeline/training": "batches, recipes, run folders, scores",
    "stages": "verbs: each reads top to bottom like the path",
    "stages/videos": "data sets: looked at, checked, made",
    "stages/planning": "what it would cost, asked before anything is written",
    "stages/codecs": "what a codec costs the tower, and which one is small enough",
    "stages/shards": "one shard: videos decoded, seen by CLIP, quantised, written behind",
    "stages/spread": "many shards: who runs them, here, on this machine's GPUs, on a cluster",
    "stages/comparing": "what stands in a comparison of runs: alike, sure, counted, paired",
    "stages/learning": "stage two: train, score, predict, and weights from and for others",
    "stages/upkeep": "what happens to a cache after it was made",
    "stages/library": "what a person's own code opens",
    "stages/public": "the package `vidxfer` itself: the names that may be used",
    "stages/reporting": "pages to look at: runs, and what a cache holds",
    "cli": "words: arguments in, one stage call, lines and tables out",
}


def split_bytes(row: Published, codec: Any, videos: int) -> int:
    """Bytes of a split of one view per video."""
    one = cache_spec(row, codec)
    return SplitLayout(spec=one, videos=videos, classes=400, shard_videos=one.shard_videos_default).total_bytes


def table_of_sizes() -> str:
    """The README's table: what is published, what was run here, and what a cache of it takes."""
    lines = [
        "| data | model | recipe | published top-1 / top-5 | ours | cache, int8 | float16 | per view, int8 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in PUBLISHED:
        videos = (row.train_videos, row.val_videos)
        small, large = (sum(split_bytes(row, codec, n) for n in videos) / 1e12 for codec in ("int8", "float16"))
        model = row.clip.model.removesuffix("-quickgelu").replace("B-", "B/").replace("L-", "L/")
        more = ", K710 first" if row.recipe.endswith("-k710") else ""
        ours = "not run on this data" if row.ours is None else f"{row.ours:.1f}"
        frames = f"{row.sparse_frames}" + (f" + {row.dense_frames}" if row.alpha > 1 else "")
        top5 = "-" if row.top5 is None else f"{row.top5:.1f}"
        lines.append(
            f"| {row.data} | {model}, {frames} frames{more} | `{row.recipe}` "
            f"| {row.top1:.1f} / {top5} | {ours} "
            f"| {small:.1f} TB | {large:.1f} TB | {cache_spec(row).bytes_per_view / 1e6:.1f} MB |"
        )
    return "\n".join(lines) + "\n"


def table_of_codecs() -> str:
    """docs/codecs.md's table: what each codec takes for one view of the smallest published configuration."""
    said = {
        "float16": "exact but for float16's rounding", "int8": "the default: one scale per token",
        "klt8": "8 bits, shared out over directions", "klt6": "6 bits, shared out", "klt4": "4 bits, shared out",
        "klt3": "3 bits, shared out", "klt2": "2 bits, shared out over directions and frames",
        "klt1": "1 bit, shared out over both", "klt0.5": "half a bit, shared out over both",
        "int6": "a scale per 64 values, 4 values in 3 bytes", "int4": "a scale per 32 values, 2 values in a byte",
        "pq2": "one of 256 codewords for 2 values", "pq4": "one of 256 codewords for 4 values",
        "pq": "one of 256 codewords for 8 values", "pca192+int8": "a quarter of the directions, int8",
        "rotate+pq4": "all directions, then codewords", "pca64+int4": "64 directions, int4",
    }  # fmt: skip
    lines = ["| codec | what it keeps | bits per channel | bytes per view | smaller |", "|---|---|---|---|---|"]
    whole = cache_spec(PUBLISHED[0], "float16")
    for codec, words in said.items():
        spec = cache_spec(PUBLISHED[0], codec)
        bits = 8 * sum(spec.form.frame_bytes(spec.tokens, spec.channels)) / (spec.tokens * spec.channels)
        size, times = spec.bytes_per_view / 1e6, whole.bytes_per_view / spec.bytes_per_view
        lines.append(f"| `{codec}` | {words} | {bits:.2f} | {size:.2f} MB | {times:.1f}x |")
    clip = whole.clip_model.removesuffix("-quickgelu").replace("B-", "B/")
    more = f"{clip}, {len(whole.layers)} blocks, {whole.sparse_frames} frames; bits with scales, bytes with checksums."
    return "\n".join(lines) + f"\n\n{more}\n"


def table_of_towers() -> str:
    """docs/towers.md's table: what `vidxfer towers` prints, and what it says below."""
    report = list_towers()
    columns = ["tower", "parameters", "tokens", "pixels", "per view", "GFLOP", "text", "licence"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in report.towers:
        model, *cells = row_of(row)
        cells[5] = cells[5].replace("*", "\\*")
        lines.append("| " + " | ".join([f"`{model}`", *cells]) + " |")
    lines += ["", *(f"* {line}" for line in counts_of(report) if not line.startswith("*"))]
    lines += ["", "| does not work, for | of open_clip | why | nearest that works |", "|---|---|---|---|"]
    for group, count in Counter(refusal.group for refusal in report.refused).most_common():
        refused = [refusal for refusal in report.refused if refusal.group == group]
        names = ", ".join(f"`{refusal.model}`" for refusal in refused)
        nearest = ", ".join(f"`{name}`" for name in dict.fromkeys(refusal.nearest for refusal in refused))
        lines.append(f"| {group} | {count}: {names} | {refused[0].reason.partition(': ')[2]} | {nearest} |")
    return "\n".join(lines) + "\n"


def caption(path: Path) -> str | None:
    """The first sentence of a file's docstring; None for a file without code."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if text is None:
        return None
    first = re.sub(r" \((?:docs/)?spec/[^)]*\)", "", " ".join(text.split("\n\n")[0].split()))
    sentences = re.split(r"(?<=[.?]) (?=[A-Z])", first)
    return " ".join(sentences[: 2 if sentences[0].endswith("?") else 1]).removesuffix(".")  # a question, and its answer


def map_of_files() -> str:
    """Every file of code with its caption, folder by folder."""
    lines = ["```", *(f"{name:<26}{what}" for name, what in AROUND.items())]
    for folder, what in FOLDERS.items():
        lines.append(f"{folder + '/':<26}{what}")
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name != "__init__.py" or folder == "stages/public":
                lines.append(f"  {path.name:<24}{caption(path)}")
    return "\n".join([*lines, "```"]) + "\n"


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def help_text(words: tuple[str, ...]) -> str:
    """What `vidxfer … --help` prints."""
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="vidxfer", terminal_width=HELP_WIDTH)
    assert done.exit_code == OK, done.output
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def all_help() -> str:
    """The help of vidxfer and of each command, ready for a document."""
    parts = [
        f"## {' '.join(('vidxfer', *words))}\n\n```text\n{help_text(words)}\n```\n"
        for words in [(), *(words for words, _ in commands())]
    ]
    return "\n".join(parts)


MADE = {
    "sizes": ("README.md", table_of_sizes),
    "files": ("docs/house.md", map_of_files),
    "help": ("docs/commands.md", all_help),
    "codecs": ("docs/codecs.md", table_of_codecs),
    "towers": ("docs/towers.md", table_of_towers),
}


def parts(name: str) -> tuple[Path, str, str, str]:
    """The file, what stands before the made part, the part, what stands after it."""
    path = ROOT / MADE[name][0]
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN.format(name))
    inside, end, after = rest.partition(END.format(name))
    assert begin, f"{path.name} has no line {BEGIN.format(name).strip()}"
    assert end, f"{path.name} has no line {END.format(name)}"
    return path, before, inside, after


def regenerate() -> list[str]:
    """Write every made part anew; returns the names of those that changed."""
    changed = []
    for name, (_, make) in MADE.items():
        path, before, inside, after = parts(name)
        if (now := make()) != inside:
            path.write_text(before + BEGIN.format(name) + now + END.format(name) + after, encoding="utf-8")
            changed.append(name)
    return changed


def pins_are_installed(name: str) -> bool:
    """Other versions of typer lay out help otherwise, and other versions of the models' libraries have other towers."""
    said = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    deciding = {"help": ("typer",), "towers": ("open_clip_torch", "timm")}.get(name, ())
    return all(f"{package}=={version(package)}\n" in said for package in deciding)


@pytest.mark.parametrize("name", MADE)
def test_made_parts_of_documents_are_current(name: str) -> None:
    if not pins_are_installed(name):
        pytest.skip("it follows typer, open_clip or timm, and these are not the versions in constraints.txt")
    assert parts(name)[2] == MADE[name][1](), "run `make fix`, or python tests/test_house_docs.py"


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_help_has_an_example_that_parses(words: tuple[str, ...]) -> None:
    examples = re.findall(r"^ *Example: (vidxfer .*)$", help_text(words), flags=re.MULTILINE)
    assert examples, f"the help of {' '.join(words)} has no line 'Example: vidxfer …'"
    for example in examples:
        assert parse(example) == words


def parse(line: str) -> tuple[str, ...]:
    """Parse one command line with the real parser; returns the words of the command. Nothing is run."""
    rest = shlex.split(line, comments=True)[1:]
    command, words = typer.main.get_command(app), ()
    while hasattr(command, "commands"):
        assert rest, f"{line!r} names a group of commands, not one of them"
        assert rest[0] in command.commands, f"{line!r}: no command {rest[0]!r}"
        command, words, rest = command.commands[rest[0]], (*words, rest[0]), rest[1:]
    command.make_context(" ".join(words), rest)  # raises on an option that does not exist or a value of another type
    return words


def named_in(text: str) -> list[str]:
    """Command lines in the shell blocks of a document, continued lines joined."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("vidxfer ")]


def documents() -> list[Path]:
    """Everything a person wrote for people."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_command_lines_in_documents_parse() -> None:
    lines = [line for path in documents() for line in named_in(path.read_text(encoding="utf-8"))]
    assert len(lines) >= 8
    for line in lines:
        parse(line)


def test_the_demo_of_the_makefile_parses() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"^\t(?:@\$\(PARTLY\) )?\$\(BIN\)/(vidxfer .*)$", makefile, flags=re.MULTILINE)
    named = {"data", "plan", "extract", "cache", "train", "evaluate", "compare", "reproduction"}
    assert {parse(line)[0] for line in lines} >= named


def test_every_command_is_in_the_documents() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents())
    assert [words for words, _ in commands() if f"vidxfer {' '.join(words)}" not in text] == []


def test_the_readme_names_its_two_commands_and_every_recipe() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = "\n".join(readme.splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in readme
    assert [recipe.name for recipe in RECIPES if f"`{recipe.name}`" not in readme] == []


def test_the_map_leaves_nothing_at_the_top_out() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    top = {f"{name.split('/')[0]}/" if "/" in name else name for name in done.stdout.splitlines()}
    assert top == {*AROUND, "pipeline/", "stages/", "cli/"}
    folders = {path.parent.relative_to(ROOT).as_posix() for f in FOLDERS for path in (ROOT / f).rglob("*.py")}
    assert folders == set(FOLDERS)


def test_the_readme_lists_the_exit_codes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {OK, FAILED, USAGE, PARTIAL} == {int(code) for code in re.findall(r"^\| (\d) \| ", readme, re.MULTILINE)}


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.name}: {target}"
        for path in documents()
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not target.startswith("http") and not (path.parent / target).exists()
    ]
    assert broken == []


def test_documents_that_the_code_names_are_there() -> None:
    code = [path for floor in ("pipeline", "stages", "cli", "tests") for path in (ROOT / floor).rglob("*.py")]
    named = {
        (path.relative_to(ROOT).as_posix(), target)
        for path in [*code, ROOT / "Makefile"]
        for target in re.findall(r"(?<![\w/])(?:\w+/)+\w[\w-]*\.md\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert sorted(pair for pair in named if not (ROOT / pair[1]).exists()) == []


def test_the_format_is_described_array_by_array() -> None:
    text = (ROOT / "docs/cache-format.md").read_text(encoding="utf-8")
    frames = FrameStore.at(224, quality=90, subsampling="4:4:4")
    layout, fitted = (
        SplitLayout(spec=cache_spec(PUBLISHED[0], codec), videos=8, classes=4, shard_videos=4, frames=frames)
        for codec in ("int8", "rotate+pq")
    )
    arrays = text.partition("## Arrays")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", arrays, flags=re.MULTILINE))
    assert set(rows) == {*layout.owned, *fitted.fixed, "video_id"}
    for array in [*layout.owned.values(), *fitted.fixed.values()]:
        assert f"| {array.axes} |" in f"| {rows[array.name]}", array.name
        assert array.dtype in rows[array.name], array.name
    assert f"format {FORMAT}" in text


def test_plain_zarr_reads_tokens_as_the_readme_says() -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (snippet,) = (code for code in snippets if "import zarr" in code)
    cache = ROOT / "tests/cache/format1/int8"
    said: dict[str, Any] = {}
    exec(snippet.replace('"zarr/train"', repr(str(cache / "train"))), said)
    split = open_split(cache, "train")
    with CacheReader(split) as reader:
        read = reader.read([said["row"]], [said["view"]])
    assert read.scale is not None
    mean, std = torch.from_numpy(split.channel_mean), torch.from_numpy(split.channel_std)
    ours = decode_int8(read.codes[0], read.scale[0], mean, std)
    torch.testing.assert_close(torch.from_numpy(said["tokens"]), ours)


def test_every_reason_for_refusing_a_video_is_described() -> None:
    text = (ROOT / "docs/cache-format.md").read_text(encoding="utf-8")
    assert [reason.value for reason in VideoReason if f"`{reason.value}`" not in text] == []


def test_the_changelog_begins_with_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == project["version"].removesuffix(".dev0")


if __name__ == "__main__":
    print("written anew:", ", ".join(regenerate()) or "nothing, all is current", file=sys.stderr)
