"""Makes the error file of a batch of OpenAI's from the dead letters of its run.

    batchrunner errors --rows -o jsonl SPEC | python -m batchrunner.capabilities.error_file > errors.jsonl

A line has `id`, `custom_id`, `response` and `error`, as those of the output. `response` is what the service
said to refuse the request, with its HTTP status, and `error` is null; else it is the other way round, and
`error.code` says why there was no response.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from batchrunner.capabilities.batch_file import output_line

_CODES = {"UnreadableRow": "invalid_json_line", "CapabilityTimedOut": "request_timeout"}
_OTHER = "request_failed"
_CUSTOM_ID = re.compile(r'\s*\{\s*"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')


def error_line(dead_letter: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of the error file for *dead_letter*, as `errors --rows -o jsonl` prints it.

    Raises:
        KeyError, TypeError, AttributeError: It is no dead letter.
    """
    message = dead_letter["message"]
    with suppress(ValueError):
        line = json.loads(message.partition("\n")[2])
        if isinstance(line, dict) and line.keys() == output_line({}).keys():
            return {**line, "custom_id": line["custom_id"] or _custom_id(dead_letter["raw"])}
    error = {"code": _CODES.get(dead_letter["error"], _OTHER), "message": message}
    return output_line({"custom_id": _custom_id(dead_letter["raw"])}, error=error)


def _custom_id(raw: str | None) -> str | None:
    """Return the one in *raw*, the first bytes of a request, which may be no JSON; None if there is none."""
    try:
        row = json.loads(raw or "")
        found = row.get("custom_id") if isinstance(row, dict) else None
    except ValueError:
        match = _CUSTOM_ID.match(raw or "")
        with suppress(ValueError):
            return json.loads(match[1]) if match else None
        return None
    return found if isinstance(found, str) else None


def main(lines: Iterable[bytes]) -> int:
    """Write the line of the error file for each of *lines*; return the exit code."""
    for number, line in enumerate(lines, start=1):
        try:
            found = error_line(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            sys.stderr.write(
                f"line {number} is no dead letter: pipe in what `batchrunner errors --rows -o jsonl SPEC` prints\n"
            )
            return 2
        sys.stdout.write(f"{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer))
