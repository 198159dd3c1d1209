"""Runs of OpenAI batch files, and what their output has to be."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

import openai_requests
from builders import parts
from command import batchrunner, start
from openai_answers import answer, digest_of
from openai_schema import complaints, complaints_of_line
from openai_server import Running, running
from patience import PATIENCE

ROWS_IN_SHARD = 50
FAULTS = {"_429": 0.03, "_500": 0.03, "reset": 0.03, "torn": 0.03}
TYPES = {
    "/chat/completions": ChatCompletion,
    "/completions": Completion,
    "/embeddings": CreateEmbeddingResponse,
}


def a_batch(folder: Path, lines: list[dict[str, Any]], **changes: Any) -> None:
    """Write *lines* as a batch file, and the spec that sends them; *changes* are arguments of the class."""
    openai_requests.write(folder / "in/requests.jsonl", lines)
    spec = {
        "capability": {
            "target": "batchrunner.capabilities.openai:Completions",
            "mode": "row",
            "fn_constructor_kwargs": {"timeout": PATIENCE, "unique_in": "in", **changes},
        },
        "source": {"uri": "in/*.jsonl", "shard": {"rows": ROWS_IN_SHARD}},
        "sink": "out",
        "execution": {"engine": "local", "batch_size": 4, "max_concurrency": 16},
        "errors": {"max_row_errors": 0.5},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))


def killed_while_it_waits(folder: Path, server: Running, *, after: int) -> list[dict[str, Any]]:
    """Kill a run when *server* has answered *after* requests; return the lines that are in parts then."""
    server.hold(after=after)
    before = len(parts(folder / "out"))
    with start("run", "spec.yaml", cwd=folder, **server.environment) as process:
        deadline = time.monotonic() + PATIENCE
        while server.answered() < after or len(parts(folder / "out")) == before:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
    server.hold(after=float("inf"))
    return output(folder)


def read_lines(part: Path) -> list[bytes]:
    return part.read_bytes().splitlines()  # of bytes: a text also ends lines at U+2028


def killed_twice(
    folder: Path, requests: list[dict[str, Any]], *, after: list[int]
) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Run a batch through faults, and kill it when so many requests were answered.

    Return what was committed at each kill, and at the end.
    """
    a_batch(folder, requests)
    with running(folder, **FAULTS) as server:
        kept, asked = [], []
        for n in after:
            kept.append(killed_while_it_waits(folder, server, after=n))
            asked.append(times_asked(server, kept[-1], requests))
        done = batchrunner("run", "spec.yaml", cwd=folder, **server.environment)
        assert done.returncode == 0, done.stderr
        assert asked == [times_asked(server, lines, requests) for lines in kept]
        said = server.counts()["said"]
    assert all(said[name.removeprefix("_")] for name in FAULTS), said
    assert max(asked[0]) == 2, "once more if it was failed, and not for a neighbour that was"
    return kept, output(folder)


def output(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of all parts, in order."""
    return [json.loads(line) for part in parts(folder / "out") for line in read_lines(part)]


def check_against_the_schema(lines: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
    """Hold each line against what OpenAI publishes of its shape, and against the types of its client."""
    for line, request in zip(lines, asked, strict=True):
        assert not complaints_of_line(line), line
        path, body = request["url"].removeprefix("/v1"), line["response"]["body"]
        assert not complaints(path, "response", body), line
        TYPES[path].model_validate(body)


def expected(asked: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Return `custom_id`, status and body of the answers to the requests *asked*."""
    bodies = [answer(request["url"].removeprefix("/v1"), request["body"]) for request in asked]
    ids = [request["custom_id"] for request in asked]
    return [(id_, 200, json.dumps(body)) for id_, body in zip(ids, bodies, strict=True)]


def found(lines: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Return the same of the *lines* of an output; as text, in which 1, 1.0 and true are three."""
    return [
        (line["custom_id"], line["response"]["status_code"], json.dumps(line["response"]["body"]))
        for line in lines
    ]


def times_asked(
    server: Running, lines: list[dict[str, Any]], requests: list[dict[str, Any]]
) -> list[int]:
    """Return how often the one of *requests* that each of *lines* is for came to the *server*."""
    counts, bodies = server.counts()["requests"], {r["custom_id"]: r["body"] for r in requests}
    return [counts.get(digest_of(bodies[line["custom_id"]]), 0) for line in lines]
