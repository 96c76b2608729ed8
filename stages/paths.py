"""Files and folders in settings: text in a person's own code becomes a path, as it does on the command line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path


class WithPaths:
    """Settings whose files and folders may be given as text in code: each becomes a `Path`."""

    def __post_init__(self) -> None:
        assert is_dataclass(self)
        for setting in fields(self):
            given = getattr(self, setting.name)
            if "Path" in str(setting.type) and given is not None:
                several = isinstance(given, list | tuple)
                object.__setattr__(self, setting.name, tuple(map(Path, given)) if several else Path(given))
