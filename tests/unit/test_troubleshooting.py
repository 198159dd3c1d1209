"""The page on troubleshooting quotes messages that exist, and gives lines that can be pasted."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from batchrunner.cli.main import batchrunner

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/troubleshooting.md").read_text()
ROWS = [re.split(r" \| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.fixture(scope="module")
def messages():
    """Every text in the code, with … for what is filled in."""
    files = (ROOT / "batchrunner").rglob("*.py")
    return [text for file in files for text in texts(ast.parse(file.read_text()))]


def texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (getattr(part, "value", "") for part in node.values)
            yield "".join(part if isinstance(part, str) else "…" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("quoted", [row[0].strip("`") for row in ROWS])
def test_a_message_that_the_page_quotes_is_one_that_the_code_writes(quoted, messages):
    """A reader searches for what the screen shows, word for word."""
    pattern = re.compile(".*".join(map(re.escape, quoted.split("…"))), re.DOTALL)

    assert any(pattern.search(text) for text in messages)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`batchrunner ([^`]+)`", PAGE))))
def test_a_line_of_the_page_can_be_pasted(line):
    """With a command and options that exist."""
    name, *words = line.split()
    command = import_module(f"batchrunner.cli.{name}").command

    with click.Context(batchrunner) as context:
        command.make_parser(context).parse_args(words)
