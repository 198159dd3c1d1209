"""A key of the spec that a message quotes is one that the spec has: a reader pastes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import batchrunner
from batchrunner.spec import BatchSpec
from batchrunner.spec.section import Section

PACKAGE = Path(batchrunner.__file__).parent
SECTIONS = {
    name: kind
    for name, field in BatchSpec.model_fields.items()
    for kind in (field.annotation, *get_args(field.annotation))
    # `ray.` and `analytics_store.` begin names of modules too.
    if isinstance(kind, type) and issubclass(kind, Section) and name != "ray"
}
# Those of `errors.retry` are written in full.
QUOTED = re.compile(rf"(?<![\w./\"])({'|'.join((*SECTIONS, 'retry'))})\.([a-z_]+)\b(?![(.\"])")


def messages():
    """Every text of the package that is no docstring, with its file."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text())
        docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in docs:
                yield file, node.value


FINGERPRINTED = {"capability": {"code"}}
"""What a refusal names beside the keys of the spec: the code is part of the run's identity."""


def keys_of(section):
    fields = SECTIONS[section].model_fields if section in SECTIONS else {}
    return {field.alias or name for name, field in fields.items()} | FINGERPRINTED.get(
        section, set()
    )


def test_each_key_that_a_message_quotes_is_a_key_of_the_spec():
    quoted = [(file, match) for file, text in messages() for match in QUOTED.finditer(text)]
    unknown = [
        f"{file.relative_to(PACKAGE)}: {match[0]}"
        for file, match in quoted
        if match[2] not in keys_of(match[1])
    ]
    assert len(quoted) > 20
    assert not unknown, "\n".join(unknown)
