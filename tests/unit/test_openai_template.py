"""The template of a batch file: what it sends and what its server answers is what OpenAI publishes."""

from __future__ import annotations

import json
import runpy
from itertools import islice
from pathlib import Path

import batchrunner.templates
from batchrunner.capabilities.batch_file import refusal
from batchrunner.templates import rows
from openai_schema import complaints

SERVER = Path(batchrunner.templates.__file__).parent / "openai-batch/server.py"
HEAD = {"id": "answer-1", "model": "small", "created": 1}
WRONG = 200
"""The number of the request that the server refuses."""


def test_each_request_but_one_is_of_the_published_schema_and_so_is_its_answer():
    """A template is copied: what is wrong with it would be wrong with what comes of it."""
    answers = runpy.run_path(str(SERVER))["ANSWERS"]
    requests = list(islice(rows.requests(), 400))

    wrong = {}
    for number, request in enumerate(json.loads(json.dumps(requests))):
        url, body = request["url"], request["body"]
        path = url.removeprefix("/v1")
        assert refusal(request) is None
        if number % 9 and number != WRONG:  # each kind of them comes every four
            continue
        wrong[number] = complaints(path, "request", body)
        assert not complaints(path, "response", {**HEAD, **answers[url](body)})

    assert [number for number, why in wrong.items() if why] == [WRONG]
    assert len({request["custom_id"] for request in requests}) == len(requests)
