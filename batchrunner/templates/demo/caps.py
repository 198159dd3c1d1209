"""The capability of the demo: an ordinary function."""

from __future__ import annotations

import ast
import lzma
from typing import Any

Row = dict[str, Any]

_BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.With, ast.BoolOp, ast.comprehension)


def measure(row: Row) -> Row | None:
    """Measure one function; one without a docstring is dropped."""
    if not row["docstring"]:
        return None
    tree = ast.parse(row["source"])
    branches = sum(isinstance(node, _BRANCHES) for node in ast.walk(tree))
    packed = lzma.compress(row["source"].encode(), preset=7)
    return {
        "name": f"{row['module']}.{row['function']}",
        "lines": row["source"].count("\n") + 1,
        "complexity": branches + 1,
        "density": round(len(packed) / len(row["source"]), 2),  # low: it repeats itself
        "words": len(row["docstring"].split()),
        "summary": row["docstring"].strip().partition("\n")[0],
    }
