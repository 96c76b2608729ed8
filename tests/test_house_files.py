"""The house rules about files: what is tracked, what is pinned, and what must not stand in them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
MOST_BYTES = 5_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

FOREIGN = ["/" + place for place in ("work/", "home/", "root/", "opt/pypi", "mnt/", "Users/")] + [
    "".join((".", *parts, ".org")) for parts in (("python", "hosted"), ("py", "pi"), ("ana", "conda"))
]
"""Paths of one machine, and addresses of package registries: neither means anything elsewhere."""


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files git knows; in a copy without git there is nothing to say."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_large_file_is_tracked(tracked: list[Path]) -> None:
    assert [str(path) for path in tracked if path.stat().st_size > MOST_BYTES] == []


def test_nothing_made_by_a_run_is_tracked(tracked: list[Path]) -> None:
    made = re.compile(r"(^|/)(__pycache__|\.venv|demo|runs)/|^(build|dist)/|\.(pyc|egg-info|ckpt|pkl)(/|$)")
    assert [p for path in tracked if made.search(p := path.relative_to(ROOT).as_posix())] == []


def test_no_file_names_a_place_on_one_machine_or_a_registry(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # tokens, golden numbers
        found += [
            f"{path.relative_to(ROOT)}: {place}" for place in FOREIGN if re.search(rf"(?<!\w){re.escape(place)}", text)
        ]
    assert found == []


def pins() -> dict[str, str]:
    """Name -> version of constraints.txt; every line that is not a comment must be one."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([0-9][\w.+!]*)", line)
            assert match, f"constraints.txt: {line!r} is not name==version"
            found[normal(match[1])] = match[2]
    return found


def normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        assert normal(requirement.name) in pinned, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), text


def test_every_requirement_has_a_floor_or_is_an_extra() -> None:
    assert [text for text in PROJECT["dependencies"] if not re.search(r">=", text)] == []


def test_no_requirement_is_an_address() -> None:
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    assert [text for text in [*PROJECT["dependencies"], *extras] if Requirement(text).url] == []


def test_the_licence_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert text.rstrip().endswith("limitations under the License.")
    assert PROJECT["license"] == "Apache-2.0"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == "make test"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_every_target_of_the_makefile_has_a_caption() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.MULTILINE))
    captioned = set(re.findall(r"^([a-z-]+):[^\n]*  ## \S", makefile, flags=re.MULTILINE))
    assert targets == captioned


def test_every_golden_file_says_where_it_comes_from() -> None:
    folder = ROOT / "tests/golden"
    described = "".join(path.read_text(encoding="utf-8") for path in folder.glob("README*.md"))
    tensors = [path.name for path in folder.iterdir() if path.suffix != ".md"]
    assert [name for name in tensors if f"### {name}" not in described and f"| `{name}`" not in described] == []
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40_000_000
