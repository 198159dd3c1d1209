"""`batchrunner show`: prints a spec as it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import load_spec, spec_options
from batchrunner.cli.terminal import put

if TYPE_CHECKING:
    from batchrunner.spec import BatchSpec


@click.command("show")
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@click.option("--resolved", is_flag=True, help="With variables replaced, and with all defaults.")
@click.option(
    "--origin",
    is_flag=True,
    help="Say of each value where it is from: file and line, profile, --set, variable or default. "
    "Implies --resolved.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to print; json implies --resolved.",
)
def command(spec: str, resolved: bool, origin: bool, output: str) -> None:
    """Print SPEC as a run would read it and keep it: with all that it extends, profile and --set.

    Secrets are `***`. What is printed as YAML is a spec again.
    """
    loaded = load_spec(spec)
    if output == "json":
        shown = _records(loaded) if origin else _scrubbed(loaded.shown())
        put(json.dumps(shown, indent=2) + "\n")
    else:
        put(_yaml(loaded, origin=origin) if resolved or origin else loaded.kept_text)


def _yaml(spec: BatchSpec, *, origin: bool) -> str:
    from batchrunner.spec.yaml_text import block

    note = spec.origins.of if origin else lambda _: ""
    return block(_scrubbed(spec.shown()), note=note, escape="$")


def _scrubbed(value: Any) -> Any:
    """Return *value* without secrets that other values repeat, such as a variable used twice."""
    from batchrunner.spec import scrubbed

    if isinstance(value, dict):
        return {key: _scrubbed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(inner) for inner in value]
    return scrubbed(value) if isinstance(value, str) else value


def _records(spec: BatchSpec) -> list[dict[str, Any]]:
    from batchrunner.spec.origins import leaves
    from batchrunner.spec.yaml_text import dotted

    return [
        {"key": dotted(loc), "value": value, "origin": spec.origins.of(loc)}
        for loc, value in leaves(_scrubbed(spec.shown()))
    ]
