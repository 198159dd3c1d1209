"""`batchrunner schema`: prints the JSON Schema of specs."""

from __future__ import annotations

import json

import click

from batchrunner.cli.terminal import put


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of specs, for editors and checks."""
    from batchrunner.spec import spec_schema

    put(json.dumps(spec_schema(), indent=2) + "\n")
