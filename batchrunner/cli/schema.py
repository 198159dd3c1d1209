"""`batchrunner schema`: prints the JSON Schema of specs."""

from __future__ import annotations

import json

import click

from batchrunner.cli.terminal import put


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of specs, for editors and checks.

    For completion in an editor with the YAML language server, save it beside a spec, with
    `batchrunner schema > batchrunner.schema.json`, and begin the spec with this line:

    \b
      # yaml-language-server: $schema=batchrunner.schema.json
    """  # noqa: D301 - click wants the character
    from batchrunner.spec import spec_schema

    put(json.dumps(spec_schema(), indent=2) + "\n")
