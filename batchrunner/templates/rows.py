"""Real rows that every machine has: its own Python's standard library, and pictures of a fractal."""

from __future__ import annotations

import ast
import itertools
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_PACKAGES = ("", "asyncio", "email", "http", "importlib", "json", "logging", "unittest", "xml/dom")
"""Below the standard library: enough for some thousands of functions, in two seconds."""


def functions() -> Iterator[Row]:
    """Yield the functions of the standard library: module, name, line, docstring and source."""
    for module, _, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield {
                    "module": module,
                    "function": node.name,
                    "line": node.lineno,
                    "docstring": ast.get_docstring(node),
                    "source": ast.unparse(node),
                }


def docstrings() -> Iterator[Row]:
    """Yield the docstrings of the standard library, each with an id such as `json.loads:299`."""
    for module, _, tree in _modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            text = ast.get_docstring(node)
            if text is not None:
                yield {"id": f"{module}.{node.name}:{node.lineno}", "text": text}


def requests() -> Iterator[Row]:
    """Yield requests about the docstrings, as lines of a batch file of OpenAI's."""
    kinds = itertools.cycle((_chat, _structured, _embedding, _completion))
    for (number, row), kind in zip(enumerate(docstrings()), kinds, strict=False):
        name, body = kind(row["text"])
        # Beyond what a server takes, once.
        odd = {"temperature": 9} if number == 200 else {}
        url, body = f"/v1/{name}", {"model": "small", **body, **odd}
        yield {"custom_id": row["id"], "method": "POST", "url": url, "body": body}


def _chat(text: str) -> tuple[str, Row]:
    system = {"role": "system", "content": "Answer in one sentence."}
    return "chat/completions", {"messages": [system, {"role": "user", "content": text}]}


def _structured(text: str) -> tuple[str, Row]:
    fields = {"words": {"type": "integer"}, "first": {"type": "string"}}
    schema = {"type": "object", "properties": fields, "required": ["words", "first"]}
    wanted = {"name": "counts", "schema": {**schema, "additionalProperties": False}, "strict": True}
    messages = [{"role": "user", "content": text}]
    form = {"type": "json_schema", "json_schema": wanted}
    return "chat/completions", {"messages": messages, "response_format": form}


def _embedding(text: str) -> tuple[str, Row]:
    return "embeddings", {"input": text}


def _completion(text: str) -> tuple[str, Row]:
    return "completions", {"prompt": text, "max_tokens": 16}


def sources() -> Iterator[Row]:
    """Yield the modules of the standard library, each with its source."""
    for module, text, _ in _modules():
        yield {"module": module, "source": text}


def _modules() -> Iterator[tuple[str, str, ast.Module]]:
    library = Path(sysconfig.get_path("stdlib"))
    for package in _PACKAGES:
        for path in sorted((library / package).glob("*.py")):
            try:
                text = path.read_text(encoding="utf-8")
                tree = ast.parse(text)
            except (SyntaxError, ValueError):  # ValueError: also what is no UTF-8
                continue
            name = ".".join(path.relative_to(library).with_suffix("").parts)
            yield name.removesuffix(".__init__"), text, tree


def fractal(at: complex, *, width: float, pixels: int) -> bytes:
    """Return a picture of the Mandelbrot set around *at* in the format PPM, *pixels* wide and high."""
    import numpy as np

    steps = np.linspace(-width / 2, width / 2, pixels)
    c = at + steps[None, :] + 1j * steps[:, None]
    z, escaped = np.zeros_like(c), np.zeros(c.shape, dtype=int)
    for step in range(1, 96):
        inside = escaped == 0
        z[inside] = z[inside] ** 2 + c[inside]
        escaped[inside & (abs(z) > 2)] = step
    colours = np.stack([escaped * 9, escaped * 5, escaped * 21], axis=-1) % 256
    return b"P6 %d %d 255\n" % (pixels, pixels) + colours.astype(np.uint8).tobytes()
