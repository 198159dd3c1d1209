"""Writes the reference pages that are made from the code: `make docs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import click

from batchrunner import errors, testing
from batchrunner.cli.main import batchrunner
from batchrunner.jobs.options import (
    InProcessOptions,
    JobBackendOptions,
    RayOptions,
    RaySimpleOptions,
)
from batchrunner.spec import spec_schema

REFERENCE = Path(__file__).parent / "reference"
_VALUES = (
    "Values may hold `${VAR}`, `${VAR:-default}` and `${VAR:?message}`; `$$` is a dollar sign. YAML "
    "is read as YAML 1.2: `NO` is a string. `batchrunner schema` prints the JSON Schema."
)
_EDITORS = (
    "An editor with the YAML language server (VS Code's YAML extension, Neovim, Helix, ...) completes the "
    "keys, shows these descriptions and underlines mistakes. Keep the schema beside the specs, with "
    "`batchrunner schema > batchrunner.schema.json`, and begin a spec with the line "
    "`# yaml-language-server: $schema=batchrunner.schema.json`. The package has the same file: "
    "`batchrunner/spec/spec.schema.json`. [Vary a spec](../how-to/vary-a-spec.md) has `extends`, `profiles` "
    "and `--set`."
)
_MADE = "<!-- Made by `make docs`; do not edit. -->"


def spec_page() -> str:
    """The fields of a spec, from its JSON Schema."""
    schema = spec_schema()
    lines = [_MADE, "", "# The spec", "", f"{schema.get('description', '')}", ""]
    lines += [_VALUES, "", _EDITORS, ""]
    lines += list(_section("", schema, schema))
    return "\n".join(lines) + "\n"


def _section(path: str, section: dict[str, Any], root: dict[str, Any]) -> Iterator[str]:
    if path:
        yield from ["", f"## `{path}`", "", section.get("description", ""), ""]
    yield from ["| field | default | |", "|---|---|---|"]
    inner = []
    for name, field in section["properties"].items():
        needed = name in section.get("required", _required(path, root))
        default = (
            "**required**" if needed else f"`{field.get('default')}`" if "default" in field else ""
        )
        text = field.get("description", "").replace("|", "\\|")
        yield f"| `{name}` | {default.replace('`None`', '')} | {text} |"
        target = _object_of(field, root)
        if target is not None:
            described = {"description": field.get("description", ""), **target}
            inner.append((f"{path}.{name}".lstrip("."), described))
    for inner_path, target in inner:
        yield from _section(inner_path, target, root)


def _required(path: str, root: dict[str, Any]) -> list[str]:
    """Return what the section at *path* of a spec requires: `else` it extends another spec."""
    alone = root.get("else", {})
    if not path:
        return list(alone.get("required", ()))
    options = alone.get("properties", {}).get(path, {}).get("anyOf", ())
    required = [option["required"] for option in options if "required" in option]
    return list(required[0]) if len(required) == 1 else []  # of several, one is needed


def _object_of(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any] | None:
    """Return the mapping that *field* may be, or a list of such mappings."""
    options = [field, *field.get("anyOf", ()), *field.get("oneOf", ())]
    items = (option["items"] for option in options if isinstance(option.get("items"), dict))
    sections = (one for one in items if one.get("$ref", "").endswith("Spec"))
    found = (_mapping_in(option, root) for option in (*options, *sections))
    return next(filter(None, found), None)


def _mapping_in(option: dict[str, Any], root: dict[str, Any]) -> dict[str, Any] | None:
    if "$ref" not in option:
        return option if "properties" in option else None
    target = root["$defs"][option["$ref"].rpartition("/")[2]]
    return target if "properties" in target else _object_of(target, root)


def cli_page() -> str:
    """The commands, from their help."""
    lines = [_MADE, "", "# The command line", "", *_help(batchrunner, "batchrunner")]
    for name in batchrunner.list_commands(click.Context(batchrunner)):
        command = import_module(f"batchrunner.cli.{name}").command
        lines += ["", f"## batchrunner {name}", "", *_help(command, f"batchrunner {name}")]
        inner = command.commands if isinstance(command, click.Group) else {}
        for word, one in inner.items():
            full = f"batchrunner {name} {word}"
            lines += ["", f"### {full}", "", *_help(one, full)]
    return "\n".join(lines) + "\n"


def _help(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return ["```", *command.get_help(context).splitlines(), "```"]


def jobs_page() -> str:
    """The options of the job backends, from their models."""
    every = JobBackendOptions.model_json_schema()
    lines = [_MADE, "", "# Options of the job backends", ""]
    lines += ["`configure_job_backend(kind, *, analytics_store, ...)`: what each option means.", ""]
    lines += ["## Every backend", "", *_section("", every, every)]
    for title, options, base in (
        ("`ray` and `ray-simple`", RaySimpleOptions, JobBackendOptions),
        ("`ray` alone", RayOptions, RaySimpleOptions),
        ("`in-process`", InProcessOptions, JobBackendOptions),
    ):
        schema = options.model_json_schema()
        own = schema["properties"].keys() - base.model_fields.keys()
        more = {name: field for name, field in schema["properties"].items() if name in own}
        lines += ["", f"## {title}", "", *_section("", {**schema, "properties": more}, schema)]
    return "\n".join([*lines, "", *_SAME_RUN.splitlines()]) + "\n"


_SAME_RUN = """\
## The same run

Within a scope of `ray` or `in-process`, the same run is one job: submitting it again while its job is pending, running or completed
returns that job. A job that failed or was cancelled does not count. The same run has the same

* `capability.id`;
* `config`, or the capability's own (`_create_config()`) when none is given;
* ids of `datasets`, `models` and `metrics`, in order (`metadata["id"]`, or `.id`, or the text itself);
* further arguments of `run`;
* `edition`.

Nothing else counts: not the capability's code or constructor arguments, not what a dataset holds, not the resources. What decides the
result belongs into one of the five. To run the same run again all the same, give it another edition:

`submit_capability(capability, ..., edition="2")` is another job than without it, in every backend; its run is recorded as
`<run_uid>-2`, beside the first. An edition is a word or a date, of up to 100 letters, digits and `. : + - _`.
`BatchCapability(spec, edition="2")` and `batchrunner jobs submit --edition 2` mean the same.

Of a batch (`BatchCapability`, `batchrunner jobs submit`) the code counts, too, with all else of its spec that decides the output: with
other code it is another job. Where the old code has committed shards, that job fails with an error that names what differs: outputs are
not mixed, and a complete one is not taken for the new code's. Decide with `batchrunner run --accept-changes` or `--fresh`, or with
`batchrunner retry` once the code is fixed; then submit the batch again. Submitted again with the code as it was, it also retries the
quarantined shards.

A job's id is made of scope, run and number. Ids of older versions, which do not name the scope, still find their job."""


def api_page(module: str) -> str:
    """The public names of a module: a line for each here, and all of it in the site."""
    found = import_module(module)
    names = [name for name in found.__all__ if not name.startswith("_")]
    return _api_page(module, {name: getattr(found, name) for name in names})


def errors_page() -> str:
    """The tree of errors, and each of them."""
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    tree = {one.__name__: one for one in classes if issubclass(one, errors.BatchRunnerError)}
    text = ["", "```text", *(errors.__doc__ or "").strip().splitlines()[2:], "```"]
    return _api_page("batchrunner.errors", tree, *text)


def testing_page() -> str:
    """The modules of `batchrunner.testing`: each is for the tests of other people's code, too."""
    inner = [one.name for one in iter_modules(testing.__path__) if one.name != "job_capabilities"]
    modules = {name: import_module(f"batchrunner.testing.{name}") for name in inner}
    return _api_page("batchrunner.testing", modules)


def capabilities_page() -> str:
    """The classes that a spec may name as they are."""
    modules = {
        name: import_module(f"batchrunner.capabilities.{name.split('.')[0]}") for name in SHIPPED
    }
    return _api_page(
        "batchrunner.capabilities",
        {name: getattr(module, name.split(".")[1]) for name, module in modules.items()},
    )


def _api_page(module: str, things: dict[str, Any], *more: str) -> str:
    lines = [_MADE, "", f"# {module}", "", _summary(import_module(module)), *more, ""]
    lines += ["| name | |", "|---|---|"]
    lines += [f"| `{name}` | {_summary(thing)} |" for name, thing in things.items()]
    lines += [f"\n<!-- ::: {module}.{name} -->" for name in things]
    return "\n".join(lines) + "\n"


def _summary(thing: Any) -> str:
    text = (getdoc(thing) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


SHIPPED = (
    "embeddings.SentenceEmbedder",
    "onnx.Model",
    "openai.Completions",
    "transformers.Pipeline",
    "vllm.Engine",
)
API = ("jobs", "analytics", "hooks", "formats", "storage")
PAGES = {
    "spec.md": spec_page,
    "cli.md": cli_page,
    "jobs.md": jobs_page,
    "api/batchrunner.md": partial(api_page, "batchrunner"),
    **{f"api/{name}.md": partial(api_page, f"batchrunner.{name}") for name in API},
    "api/errors.md": errors_page,
    "api/testing.md": testing_page,
    "api/capabilities.md": capabilities_page,
}


def spec_schema_file() -> str:
    """The JSON Schema that the package has, for editors."""
    return json.dumps(spec_schema(), indent=1, ensure_ascii=False) + "\n"


SCHEMA = Path(__file__).parents[1] / "batchrunner" / "spec" / "spec.schema.json"


def main() -> None:
    """Write the pages, or with `--check` end with 1 when one is not up to date."""
    stale = []
    made = {**{REFERENCE / name: page for name, page in PAGES.items()}, SCHEMA: spec_schema_file}
    for path, page in made.items():
        name, text = path.name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"run `make docs`: {', '.join(stale)} is not what the code says")


if __name__ == "__main__":
    main()
