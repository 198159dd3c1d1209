"""Real data that every machine has: the functions of its own Python's standard library."""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3"}
_ROWS_PER_FILE = 250


def extract(folder: Path) -> int:
    """Write the functions as JSON lines into *folder*, a few hundred a file; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in functions(Path(sysconfig.get_path("stdlib")))]
    for number, first in enumerate(range(0, len(lines), _ROWS_PER_FILE)):
        path = folder / f"functions-{number:03d}.jsonl"
        path.write_text("".join(lines[first : first + _ROWS_PER_FILE]))
    return len(lines)


def functions(library: Path) -> Iterator[dict[str, Any]]:
    """Yield each function of each module below *library*."""
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if _SKIPPED & set(inside.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield {
                    "module": module,
                    "function": node.name,
                    "line": node.lineno,
                    "docstring": ast.get_docstring(node),
                    "source": ast.unparse(node),
                }
