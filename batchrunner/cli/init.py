"""`batchrunner init`: makes a folder with a spec, a capability and real data, to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from batchrunner.cli.options import as_argument
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say, show


def _templates(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from batchrunner.templates.making import TEMPLATES

    return [name for name in TEMPLATES if name.startswith(begun)]


@click.command("init")
@click.argument("template", default="demo", shell_complete=_templates)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--list", "list_", is_flag=True, help="List the templates.")
@output_option
def command(template: str, folder: Path | None, list_: bool, output: str) -> None:
    """Make FOLDER with a spec, a capability and data from TEMPLATE, `demo` by default.

    FOLDER is by default the template's name. What is made runs without a network, and no file is ever
    overwritten.
    """
    from batchrunner.templates.making import TEMPLATES, files_of, make

    if list_:
        records = [{"template": name, "shows": one.summary} for name, one in TEMPLATES.items()]
        print_records(records, output, ids=["template"])
        return
    place = folder or Path(template)
    data = make(template, place)
    say(f"made {place}/ with {', '.join(files_of(template))} and data/: {data}")
    say("next:")
    for line in _next(place, start=TEMPLATES[template].start):
        show(line)


def _next(place: Path, *, start: str) -> list[str]:
    is_here = place.resolve() == Path.cwd()
    enter = [] if is_here else [f"cd {shlex.quote(as_argument(str(place)))}"]
    server = [start] if start else []
    return [*enter, "cat README.md", *server, "batchrunner run spec.yaml"]
