"""Options that come in groups: a command names the group, and gets the object that the group's options make.

    @taking(engine=engine)                       def engine(workers: … = None, scheduler: … = None) -> EngineChoice
    def extract(cache: …, engine: EngineChoice)  ──▶ vidxfer extract --cache … --workers … --scheduler …

The group's options stand in `--help` where the parameter stood. Two commands that take a group cannot drift apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def taking(**groups: Callable[..., Any]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Replace the parameters of a command that are named here by the options of their groups.

    Args:
        groups: parameter of the command -> function whose options make its value.
    """

    def wrap(command: Callable[..., T]) -> Callable[..., T]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            group = groups.get(parameter.name)
            parameters.extend(_options(group) if group else [_evaluated(parameter, command)])

        def run(**given: Any) -> T:
            made = {
                name: group(**{option.name: given.pop(option.name) for option in _options(group)})
                for name, group in groups.items()
            }
            return command(**given, **made)

        named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        return run

    return wrap


def _options(group: Callable[..., Any]) -> list[inspect.Parameter]:
    return [_evaluated(parameter, group) for parameter in inspect.signature(group).parameters.values()]


def _evaluated(parameter: inspect.Parameter, owner: Callable[..., Any]) -> inspect.Parameter:
    """The parameter with its annotation as an object, evaluated where it was written."""
    annotation = parameter.annotation
    if isinstance(annotation, str):  # one by one: those that stand for a group need not be importable
        annotation = eval(annotation, owner.__globals__)
    return parameter.replace(annotation=annotation)
