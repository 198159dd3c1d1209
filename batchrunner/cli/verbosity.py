"""`-v`, which every command accepts both before and after its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(slots=True)
class Verbosity:
    """Whether to print events, and the tracebacks of errors."""

    verbose: bool = False


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-v` to *command*."""
    return click.option(*_NAMES, **_SAYS)(command)


def with_verbose(command: click.Command) -> click.Command:
    """Add `-v` to *command*, and to each command in it, unless it has it already; return it."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_verbose(inner)
    if not any(_NAMES[0] in parameter.opts for parameter in command.params):
        command.params.append(click.Option(_NAMES, **_SAYS))
    return command


def _take(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.ensure_object(Verbosity).verbose = True
        logging.getLogger().setLevel(logging.INFO)


_NAMES = ("-v", "--verbose")
_SAYS: dict[str, Any] = {
    "is_flag": True,
    "is_eager": True,  # before the other options, whose errors may have a traceback to show
    "expose_value": False,
    "callback": _take,
    "help": "Show events, and tracebacks of errors.",
}
