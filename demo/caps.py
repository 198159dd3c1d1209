"""The capabilities of the demo: what a user of batchrunner writes."""

from __future__ import annotations

import ast
from typing import Any

Row = dict[str, Any]

_BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.With, ast.BoolOp, ast.comprehension)


def upper(rows: list[Row]) -> list[Row]:
    """Shout."""
    return [{**row, "text": row["text"].upper()} for row in rows]


def measure(row: Row) -> Row | None:
    """Measure one function of the standard library; a function without a docstring is dropped."""
    if not row["docstring"]:
        return None
    tree = ast.parse(row["source"])
    branches = sum(isinstance(node, _BRANCHES) for node in ast.walk(tree))
    return {
        "name": f"{row['module']}.{row['function']}",
        "lines": row["source"].count("\n") + 1,
        "complexity": branches + 1,
        "words": len(row["docstring"].split()),
        "summary": row["docstring"].strip().partition("\n")[0],
    }
