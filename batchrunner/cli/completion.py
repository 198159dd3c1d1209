"""`batchrunner completion`: prints what makes a shell complete commands, options and specs."""

from __future__ import annotations

from glob import escape, glob
from typing import TYPE_CHECKING

import click

from batchrunner.cli.terminal import put

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELLS = ("bash", "zsh", "fish")
_SPECS = ("*.yaml", "*.yml", "*/*.yaml", "*/*.yml")
_NAMES = {"spec", "specs", "place"}
"""Arguments that are a spec, or may be one."""


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the completion of commands, options and specs for SHELL.

    \b
    In ~/.bashrc:                   eval "$(batchrunner completion bash)"
    In ~/.zshrc, below compinit:    eval "$(batchrunner completion zsh)"
    Once, for fish:                 batchrunner completion fish \\
                                        > ~/.config/fish/completions/batchrunner.fish
    """  # noqa: D301 - click wants the character
    from click.shell_completion import get_completion_class

    from batchrunner.cli.main import batchrunner

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has all three
    put(kind(batchrunner, {}, "batchrunner", "_BATCHRUNNER_COMPLETE").source() + "\n")


def with_spec_completion(command: click.Command) -> click.Command:
    """Have *command*, and each command in it, complete its arguments that name a spec; return it."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_spec_completion(inner)
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.name in _NAMES:
            parameter._custom_shell_complete = _specs  # noqa: SLF001 - of arguments that others declare
    return command


def _specs(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the YAML files here and one folder down; if there are none, have the shell list files."""
    from click.shell_completion import CompletionItem

    listed = {path for pattern in _SPECS for path in glob(escape(begun) + pattern)}  # noqa: PTH207 - as it was typed
    found = sorted(path for path in listed if path.isprintable())
    return [CompletionItem(path) for path in found] or [CompletionItem(begun, type="file")]
