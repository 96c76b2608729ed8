"""What tests of several rooms share: golden vectors, real videos, a small toy world, and the command line.

Files from elsewhere are looked up one by one (`Shelf`): in the folder that the environment names (VIDXFER_GOLDEN,
VIDXFER_FIXTURES, VIDXFER_SPEC, VIDXFER_REAL), then in tests/, then in `shared` beside the checkout. A test whose
file lies in none of them is skipped; the last line of a run counts those tests and says how to have the files.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
VIDXFER = Path(sys.executable).with_name("vidxfer")
"""The installed command."""

# One thread, here and in the commands that tests start: sums come out otherwise with another number of threads, the
# tensors of tests are too small for two, and `make test` runs a test on each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A job in the background is born with Ctrl-C ignored, and so would be every command that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


SMALL_TOWERS = "vidxfer_tests_clip_small_towers"
ABSENT = "not on this machine: "
"""What the reason of a skipped test begins with when a file is missing."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Several folders seen as one: `shelf / name` is the file in the first folder that has it.

    Attributes:
        variable: of the environment that names a folder to look in first. places: the folders, first one first.
    """

    variable: str
    places: tuple[Path, ...]

    @classmethod
    def named(cls, variable: str, name: str) -> Shelf:
        """The folders of one kind of file; a folder that the environment names must be there."""
        named = os.environ.get(variable)
        if named is not None and not Path(named).is_dir():
            pytest.fail(f"{variable}={named} is not a folder")
        own = [] if named is None else [Path(named)]
        return cls(variable=variable, places=(*own, TESTS / name, TESTS.parent.parent / "shared" / name))

    def __truediv__(self, name: str | Path) -> Any:
        """The path of a file, or the shelf of a folder; the test is skipped where there is neither."""
        found = [place / name for place in self.places if (place / name).exists()]
        if not found:
            pytest.skip(f"{ABSENT}{name} (set {self.variable})")
        if found[0].is_dir():
            return Shelf(variable=self.variable, places=tuple(path for path in found if path.is_dir()))
        return found[0]

    def glob(self, pattern: str) -> Iterator[Path]:
        """Paths that match, each name once."""
        found = {path.name: path for place in reversed(self.places) for path in place.glob(pattern)}
        yield from (found[name] for name in sorted(found))

    def iterdir(self) -> Iterator[Path]:
        """What lies on the shelf, each name once."""
        return self.glob("*")


@pytest.fixture(scope="session")
def golden_dir() -> Shelf:
    """Tensors made by running the official modules."""
    return Shelf.named("VIDXFER_GOLDEN", "golden")


class Keys(dict[str, Any]):
    """What a golden file holds by name; a test that asks for a name it does not have fails and says what there is.

    Args:
        values: by name. place: of the table, for the message.
    """

    def __init__(self, values: Mapping[str, Any], place: object) -> None:
        super().__init__(values)
        self.place = place

    def __missing__(self, name: str) -> Any:
        some = ", ".join(sorted(self)[:12]) or "nothing"
        pytest.fail(
            f"{self.place} has no {name!r}; it has {some}" + (f" … {len(self)} in all" if len(self) > 12 else "")
        )


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A file of golden tensors.

    Attributes:
        tensors: by key, of the type in which they are stored. told: the file's metadata, texts by name.
    """

    tensors: Keys
    told: Keys

    def json(self, name: str) -> Any:
        """A metadata entry that is JSON, tables as `Keys`."""
        return json.loads(self.told[name], object_hook=lambda table: Keys(table, f"{self.told.place} {name}"))

    @property
    def config(self) -> Any:
        """The sizes that the file was made with."""
        return self.json("config")

    def below(self, prefix: str) -> Keys:
        """Float32 tensors whose keys begin so, by the rest of the key."""
        some = {key.removeprefix(prefix): one.float() for key, one in self.tensors.items() if key.startswith(prefix)}
        return Keys(some, f"{self.tensors.place} {prefix}…" if prefix else self.tensors.place)

    def load_into(self, module: Any, prefix: str) -> None:
        """Give a module all its parameters; the test fails where the file has others."""
        state, own = self.below(prefix), module.state_dict()
        for name in own:
            state[name]
        if unknown := sorted(state.keys() - own.keys()):
            pytest.fail(f"{state.place} has parameters that the module has not: {', '.join(unknown)}")
        module.load_state_dict(dict(state), strict=True)


@pytest.fixture(scope="session")
def golden(golden_dir: Shelf) -> Callable[[str], Any]:
    """Read a golden file: a .safetensors as `Golden`, a .json as `Keys`. Sizes stand in the files, never in tests."""

    def read(name: str) -> Any:
        from safetensors import safe_open

        path = golden_dir / name
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"), object_hook=lambda table: Keys(table, name))
        with safe_open(str(path), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Golden(tensors=Keys(tensors, name), told=Keys(file.metadata() or {}, f"{name}, metadata"))

    return read


@pytest.fixture(scope="session")
def fixtures_dir() -> Shelf:
    """Real videos, broken files and label lists."""
    return Shelf.named("VIDXFER_FIXTURES", "fixtures")


@pytest.fixture(scope="session")
def spec_dir() -> Shelf:
    """Names and shapes of the tensors of released checkpoints."""
    return Shelf.named("VIDXFER_SPEC", "spec")


@pytest.fixture(scope="session")
def real_dir() -> Shelf:
    """A really trained image tower and real footage."""
    return Shelf.named("VIDXFER_REAL", "real")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end no process then waits for the last slow test of another one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line on the tests that were skipped for want of files, and one for each other reason."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    missing = [reason.partition(ABSENT)[2] for reason in reasons if ABSENT in reason]
    if missing:
        variables = sorted(set(re.findall(r"VIDXFER_\w+", " ".join(missing))))
        terminalreporter.write_line(
            f"{len(missing)} tests need files that are not part of the project: name their folder with "
            f"{', '.join(variables)} (pytest -rs lists the files; tests/fixtures/README.md says where they come from)."
        )
    for reason, count in Counter(reason for reason in reasons if ABSENT not in reason).items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A toy world of 24 training and 16 validation videos in 8 classes, and a CLIP of three blocks that sees 32 px.

    Attributes:
        root: in the layout of ssv2. clip: a folder for --model. videos: where the .webm files lie.
        int8, float16: caches of it, 2 training views and 1 test view of 8 dense frames, 5 videos per shard.
    """

    root: Path
    clip: Path
    int8: Path
    float16: Path

    @property
    def videos(self) -> Path:
        return self.root / "20bn-something-something-v2"

    def request(self, cache: Path, *, root: Path | None = None, **changes: Any) -> Any:
        """An `ExtractRequest`; changes go to the fields of `CacheChoice`, `DataSource` or the request itself."""
        from vidxfer.stages.extract import ExtractRequest
        from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource

        data = DataSource(kind="ssv2", root=root or self.root)
        store = CacheChoice(dense_frames=8, train_views=2, shard_videos=5, calibration_videos=8)
        request = ExtractRequest(
            data=data, clip=ClipChoice(model=str(self.clip)), store=store, cache=cache, batch_frames=32
        )
        for name, value in changes.items():
            if hasattr(store, name):
                store = replace(store, **{name: value})
            elif hasattr(data, name):
                data = replace(data, **{name: value})
            else:
                request = replace(request, **{name: value})
        return replace(request, data=data, store=store)

    def smaller(self, folder: Path, count: int = 6) -> Path:
        """A copy of the data set with `count` training and 2 validation videos, to be damaged."""
        import shutil

        for split, some in (("train", count), ("validation", 2)):
            entries = json.loads((self.root / "labels" / f"{split}.json").read_text())[:some]
            for entry in entries:
                target = folder / self.videos.name / f"{entry['id']}.webm"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.videos / target.name, target)
            (folder / "labels").mkdir(parents=True, exist_ok=True)
            (folder / "labels" / f"{split}.json").write_text(json.dumps(entries))
        shutil.copyfile(self.root / "labels" / "labels.json", folder / "labels" / "labels.json")
        return folder

    def recipe(self, *settings: str) -> Any:
        """A DiST of a few thousand parameters for two epochs of three steps."""
        from vidxfer.pipeline.training.recipes import named, with_settings

        return with_settings(named("dist-toy"), [*self.settings(), *settings])

    def settings(self) -> list[str]:
        """`--set` values of `recipe`."""
        return ["epochs=2", "warmup_epochs=1", "batch_clips=8", "evaluate_every_epochs=1"]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Toy:
    """The toy world with both caches; read-only for tests. Processes of one run share it: the first one makes it."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):  # pytest-xdist's mark of one process among several
        base = base.parent
    folder, done = base / "toy", base / "toy.done"
    made = Toy(root=folder / "ssv2", clip=folder / "clip", int8=folder / "int8", float16=folder / "float16")
    with (base / "toy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits here
        if not done.exists():
            make_toy(made)
            done.touch()
    return made


def make_toy(toy: Toy) -> None:
    """Write the toy world and its caches where they belong."""
    from vidxfer.pipeline.clip.tiny import write_tiny_clip
    from vidxfer.pipeline.datasets.toy import ToyDesign
    from vidxfer.pipeline.datasets.toy_write import write_toy
    from vidxfer.stages.extract import extract

    write_toy(toy.root, train_videos=24, val_videos=16, design=ToyDesign(appearances=1))
    write_tiny_clip(toy.clip, image_px=32, channels=64, blocks=3, embed=32)
    for codec in ("int8", "float16"):
        extract(toy.request(getattr(toy, codec), codec=codec))


@pytest.fixture(scope="session")
def vidxfer() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command to its end, in a process of its own."""

    def run(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(VIDXFER), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, timeout=120, env={**os.environ, **environment}
        )

    return run


@pytest.fixture
def started() -> Any:
    """Start the installed command and go on; whatever still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        command = [str(VIDXFER), *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen(command, text=True, **{**pipes, **options}))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Any]:
    """Run a command line in this process; the result has exit_code, stdout and stderr. Unmeant errors are raised."""
    from typer.testing import CliRunner

    from vidxfer.cli.main import app

    def run(*words: object, **environment: str | None) -> Any:
        return CliRunner().invoke(
            app, [str(word) for word in words], env={"VIDXFER_DATA": None, **environment}, catch_exceptions=False
        )

    return run


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, Any]]:
    """Everything a cache holds, by file; what differs from run to run by nature (identity, times) is left out."""

    def read(cache: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for file in sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"):
            name = str(file.relative_to(cache))
            if file.name.endswith(".ledger.jsonl"):
                lines = [json.loads(line) for line in file.read_text().splitlines()]
                kept = [
                    {k: v for k, v in line.items() if k not in ("cache_id", "seconds", "line_crc32c")} for line in lines
                ]
                found[name] = sorted(kept, key=lambda line: line["shard"])
            elif file.parent.parent == cache and file.name == "zarr.json":
                attributes = json.loads(file.read_text())["attributes"]["vidxfer"]
                del attributes["cache_id"], attributes["informs"]
                del attributes["seal"]["attributes"]  # of identity and times too
                found[name] = attributes
            else:
                found[name] = file.read_bytes()
        return found

    return read


@pytest.fixture(scope="session")
def small() -> Any:
    """The module clip/small_towers.py."""
    if SMALL_TOWERS not in sys.modules:
        spec = importlib.util.spec_from_file_location(SMALL_TOWERS, Path(__file__).parent / "clip" / "small_towers.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[SMALL_TOWERS] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[SMALL_TOWERS])
    return sys.modules[SMALL_TOWERS]


@pytest.fixture(scope="session")
def write_tower(small: Any) -> Any:
    """Writes a small tower of a kind into a folder; see small_towers.py."""
    return small.write_tower
