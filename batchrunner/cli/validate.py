"""`batchrunner validate`: checks specs without running them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import load_spec, spec_options
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say, say_error

if TYPE_CHECKING:
    from batchrunner.errors import BatchRunnerError


@click.command("validate")
@click.argument(
    "specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(dir_okay=False)
)
@spec_options
@output_option
def command(specs: tuple[str, ...], output: str) -> int:
    """Check each SPEC and that its capability exists, without importing it or using any storage.

    With `-o`, stdout has one record per error: file, line, column, message. Exits with the highest
    code of all.
    """
    from batchrunner.errors import BatchRunnerError

    records: list[dict[str, Any]] = []
    codes = [0]
    for spec in specs:
        try:
            _check(spec)
            say(f"{spec}: ok")
        except BatchRunnerError as error:
            # A single error is raised, so that it looks and ends like that of `run`.
            if len(specs) == 1 and output == "table":
                raise
            codes.append(error.exit_code)
            records += _records(spec, error)
            say_error(_named(spec, error))
    if output != "table":
        print_records(records, output)
    return max(codes)


def _check(spec: str) -> None:
    from batchrunner.capability import check_target
    from batchrunner.driver.definition import check_constructor
    from batchrunner.driver.source_files import format_by_names
    from batchrunner.errors import InvalidSpecError
    from batchrunner.formats.registry import parts_format

    loaded = load_spec(spec)
    if loaded.capability is None:
        raise InvalidSpecError(f"{spec}: there is no capability; name one: package.module:function")
    source_format = format_by_names(loaded.source)
    if source_format:
        loaded.check_shard(source_format)
    if parts := loaded.sink.format or (source_format and parts_format(source_format)):
        loaded.check_parts(parts)
    for target in loaded.capability.own_targets:
        check_target(target)
    check_constructor(loaded)


def _records(spec: str, error: BatchRunnerError) -> list[dict[str, Any]]:
    problems: list[tuple[str, Any]] = [("", (None, None, str(error)))]
    if known := getattr(error, "problems", ()):
        problems = [(problem.file, problem) for problem in known]
    return [
        {"file": file or spec, "line": line, "column": column, "message": message}
        for file, (line, column, message) in problems
    ]


def _named(spec: str, error: BatchRunnerError) -> str:
    text = str(error)
    return text if text.startswith(spec) else f"{spec}: {text}"
