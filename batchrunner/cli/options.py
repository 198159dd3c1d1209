"""Options shared by commands: how a spec is varied; a store or a checkpoint, and how to reach them."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.spec import BatchSpec

_ENDINGS = (".yaml", ".yml")
_VARIED = "batchrunner.varied"
"""Key in click's `meta` of what `spec_options` has read."""


def _json_object(_: click.Context, __: click.Parameter, value: str) -> dict[str, Any]:
    """Parse a JSON object. The error does not quote *value*, which may hold secrets."""
    with contextlib.suppress(ValueError):
        options = json.loads(value)
        if isinstance(options, dict):
            return options
    raise click.BadParameter("write a JSON object, such as '{\"anon\": false}'")


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--set` and `--profile` to a *command* that takes a spec; `load_spec` applies them."""
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        expose_value=False,
        callback=_keep,
        help="Use this value in place of the spec's, such as execution.batch_size=64; VALUE is YAML. "
        "May be repeated.",
    )
    profile = click.option(
        "--profile",
        metavar="NAME",
        envvar="BATCHRUNNER_PROFILE",
        show_envvar=True,
        expose_value=False,
        callback=_keep,
        help="Use this one of the spec's `profiles`.",
    )
    return overrides(profile(command))


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    ctx.meta.setdefault(_VARIED, {})[parameter.name] = value


def load_spec(path: str) -> BatchSpec:
    """Read the spec at *path*, varied as the options of this command say.

    Raises:
        InvalidSpecError: The spec, or an option that varies it, has problems.
    """
    # Imported here: `--help` must not wait for pydantic and fsspec.
    from batchrunner.spec import BatchSpec

    return BatchSpec.from_yaml(path, **_varied())


def _varied() -> dict[str, Any]:
    ctx = click.get_current_context(silent=True)
    return dict(ctx.meta.get(_VARIED, {})) if ctx else {}


def spec_words(spec: str, arguments: Sequence[str] | None = None) -> str:
    """Return *spec* with the options that vary it in this command line, to paste into a shell.

    A secret is `***`, which the user has to fill in again.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = [word for pair in _pairs(given) for word in pair]
    return shlex.join([as_argument(spec), *options])


def retry_line(spec: str, *, rows: bool) -> str:
    """Return the line that retries what failed; *rows*: committed shards have dead letters.

    *spec* is written for a shell. Rows of a failed shard need no `--rows`: the whole shard runs again.
    """
    return f"batchrunner retry {'--rows ' if rows else ''}{spec}"


def as_argument(path: str) -> str:
    """Return *path* so that no command takes it for an option."""
    return f"./{path}" if path.startswith("-") else path


def shown_words(arguments: Sequence[str]) -> list[str]:
    """Return *arguments*, a command line, with `***` for the secrets that `--set` gives."""
    from batchrunner.spec.override import shown

    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--set":
            words.append(shown(word))
        elif word.startswith("--set="):
            words.append(f"--set={shown(word.removeprefix('--set='))}")
        else:
            words.append(word)
    return words


def specs_in(arguments: Sequence[str]) -> list[str]:
    """Return the specs that the command line *arguments* names."""
    values = {at + 1 for at, word in enumerate(arguments) if word in ("--set", "--profile")}
    return [
        word
        for at, word in enumerate(arguments)
        if word.endswith(_ENDINGS) and at not in values and not word.startswith("-")
    ]


def _pairs(arguments: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the options of *arguments* that vary a spec, each with its value."""
    shown, pairs = shown_words(arguments), []
    for at, word in enumerate(shown):
        if word in ("--set", "--profile"):
            pairs.append(tuple(shown[at : at + 2]))
        elif word.startswith(("--set=", "--profile=")):
            pairs.append((word,))
    return pairs


def refuse_variation(place: str) -> None:
    """Refuse options that vary a spec for *place*, which is none.

    Raises:
        UsageError: There is such an option.
    """
    ctx = click.get_current_context()
    for name, option in (("overrides", "--set"), ("profile", "--profile")):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} varies a spec, and {place} is none: name its .yaml")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store` and its `--storage-options` to *command*."""
    store = click.option(
        "--store",
        required=True,
        envvar="BATCHRUNNER_STORE",
        show_envvar=True,
        metavar="URI",
        help="The analytics store: a folder or s3://bucket/prefix.",
    )
    return store(storage_options("the store")(command))


def storage_options(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--storage-options`; *of* is what they open, for the help."""
    return click.option(
        "--storage-options",
        callback=_json_object,
        default="{}",
        metavar="JSON",
        envvar="BATCHRUNNER_STORAGE_OPTIONS",
        show_envvar=True,
        help=f"fsspec's options of {of}, as JSON. The variable keeps secrets out of `ps`.",
    )


def report_options(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--file` and `-o` to a command that makes the report *name*."""
    file = click.option(
        "-O",
        "--file",
        metavar="FILE",
        help=f"Where to write it; - for stdout.  [default: {name}-report.html, and JSON to stdout]",
    )
    output = click.option(
        "-o",
        "--output",
        type=click.Choice(("html", "json")),
        default="html",
        show_default=True,
        help="A page for people, or its values for programs.",
    )
    return lambda command: file(output(command))


def checkpoint_of(place: str, storage_options: Mapping[str, Any]) -> Checkpoint:
    """Open the checkpoint of *place*: a spec, or the checkpoint's folder or URI.

    A spec has storage options of its own; *storage_options* are for a folder or a URI.
    """
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.checkpoint.location import checkpoint_storage
    from batchrunner.storage import open_storage

    if is_spec(place):
        return Checkpoint.current(checkpoint_storage(load_spec(place)))
    refuse_variation(place)
    return Checkpoint.current(open_storage(place, storage_options=storage_options))


def is_spec(place: str) -> bool:
    """Return whether *place* names a spec: by its ending, or since a file is there, not a folder."""
    return place.endswith(_ENDINGS) or Path(place).is_file()
