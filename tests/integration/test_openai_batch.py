"""A batch file of OpenAI's, sent to a server that refuses what the published schema does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import openai_batch
import openai_requests
import openai_server
from command import batchrunner
from openai_schema import complaints_of_line

pytestmark = pytest.mark.long


def test_a_batch_that_is_killed_twice_has_every_answer_once_and_exact(tmp_path):
    """Chat, pictures, structured output, completions and embeddings; texts and numbers of every kind."""
    requests = openai_requests.requests(1000)

    kept, lines = openai_batch.killed_twice(tmp_path, requests, after=[400, 700])

    assert 0 < len(kept[0]) < len(kept[1]) < len(lines)
    assert openai_batch.found(lines) == openai_batch.expected(requests)
    openai_batch.check_against_the_schema(lines, requests)
    assert len({line["id"] for line in lines}) == len(lines)


def test_what_is_refused_goes_into_the_error_file_and_is_sent_again(tmp_path):
    """Scripts that read OpenAI's error file find there what they look for; the key is nowhere."""
    requests = openai_requests.requests(20)
    requests[7]["body"]["max_tokens"] = "many"
    requests[9]["body"]["messages"] = []
    openai_batch.a_batch(tmp_path, requests)
    with openai_server.running(tmp_path) as server:
        wrong_key = {**server.environment, "OPENAI_API_KEY": "sk-wrong-and-secret"}
        nothing = batchrunner("run", "spec.yaml", cwd=tmp_path, **wrong_key)
        done = batchrunner("retry", "spec.yaml", cwd=tmp_path, **server.environment)
        errors = error_file(tmp_path)
        again = batchrunner("retry", "--rows", "spec.yaml", cwd=tmp_path, **server.environment)
        asked = openai_batch.times_asked(server, errors, requests)

    assert nothing.returncode == 1
    assert "HTTP 401: wrong key: Bearer ***" in nothing.stderr
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    rest = [request for at, request in enumerate(requests) if at not in {7, 9}]
    assert openai_batch.found(openai_batch.output(tmp_path)) == openai_batch.expected(rest)
    assert [line["custom_id"] for line in errors] == [requests[n]["custom_id"] for n in (7, 9)]
    for line, wrong in zip(errors, ["max_tokens", "messages"], strict=True):
        assert not complaints_of_line(line), line
        assert (line["response"]["status_code"], line["error"]) == (400, None)
        assert wrong in line["response"]["body"]["error"]["message"]
    assert min(asked) > 3, "once with each try of each command"
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(
        key in data for data in stored for key in (b"sk-wrong", openai_server.KEY.encode())
    )


def error_file(folder):
    """What the line in the template's README makes of the dead letters."""
    done = batchrunner("errors", "--rows", "-o", "jsonl", "spec.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    made = subprocess.run(
        [sys.executable, "-m", "batchrunner.capabilities.error_file"],
        input=done.stdout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return [json.loads(line) for line in made.stdout.splitlines()]


def test_the_error_file_also_has_what_never_got_to_the_service_or_was_ended(tmp_path):
    """Their dead letters are the framework's, and hold no line of such a file."""
    requests = openai_requests.requests(4)
    openai_batch.a_batch(tmp_path, requests)
    with (tmp_path / "in/requests.jsonl").open("a") as file:
        file.write('{"custom_id": "cut \\u00e9 short", "method\nno request\n')
    with openai_server.running(tmp_path, hang=1.0) as server:
        limits = ["--set", "errors.row_timeout=0.3", "--set", "errors.max_row_errors=6"]
        batchrunner("run", "spec.yaml", *limits, cwd=tmp_path, **server.environment)

    errors = error_file(tmp_path)
    found = [(line["custom_id"], line["error"]["code"]) for line in errors]
    assert found[-2:] == [("cut é short", "invalid_json_line"), (None, "invalid_json_line")]
    assert found[:-2] == [(one["custom_id"], "request_timeout") for one in requests]
    assert not any(complaints_of_line(line) or line["response"] for line in errors)


def test_what_is_no_request_is_never_sent(tmp_path):
    """Each such line costs itself; of requests with one custom_id, no line says which one it answers."""
    requests = openai_requests.requests(40)
    wrong = {
        "custom_id is None": {"custom_id": None},
        "custom_id is ''": {"custom_id": ""},
        "method is 'GET'": {"method": "GET"},
        "url is '/v1/files': it must be one of /v1/chat/completions": {"url": "/v1/files"},
        "url is None": {"url": None},
        "body is 'x': it must be an object": {"body": "x"},
        "body has stream": {"body": {"model": "m", "stream": True}},
        "names several requests": {"custom_id": requests[20]["custom_id"]},
    }
    for at, changes in enumerate(wrong.values()):
        requests[at].update(changes)
    openai_batch.a_batch(tmp_path, requests)

    with openai_server.running(tmp_path) as server:
        done = batchrunner("run", "spec.yaml", cwd=tmp_path, **server.environment)
        sent = server.counts()["requests"]

    assert done.returncode == 0, done.stderr
    errors = error_file(tmp_path)
    messages = [line["error"]["message"] for line in errors]
    kept = [request for at, request in enumerate(requests) if at >= len(wrong) and at != 20]
    assert len(sent) == len(kept)
    assert openai_batch.found(openai_batch.output(tmp_path)) == openai_batch.expected(kept)
    assert all(part in message for part, message in zip(wrong, messages, strict=False)), messages
    assert "names several requests" in messages[-1]
    assert {line["error"]["code"] for line in errors} == {"invalid_request"}
    for line in errors:
        assert not complaints_of_line(line), line


def test_a_server_that_is_not_there_or_hangs_is_named(tmp_path):
    """The way out differs: the address, or the time that an answer may take."""
    openai_batch.a_batch(tmp_path, openai_requests.requests(1), base_url="http://127.0.0.1:9/v1")
    absent = batchrunner("run", "spec.yaml", cwd=tmp_path, OPENAI_API_KEY="none")
    openai_batch.a_batch(tmp_path, openai_requests.requests(1), timeout=0.5)
    with openai_server.running(tmp_path, hang=1.0) as server:
        late = batchrunner("run", "--fresh", "spec.yaml", cwd=tmp_path, **server.environment)
        [asked] = server.counts()["requests"].values()

    assert "http://127.0.0.1:9/v1/ does not answer: ConnectError" in absent.stderr
    assert "no answer in time" in late.stderr
    assert (absent.returncode, late.returncode) == (1, 1)
    assert asked == 3, "as often as errors.retry says, and not three times as often"


def test_without_a_key_nothing_is_sent_and_the_variable_is_named(tmp_path):
    """Where a shell lacks what another one exported."""
    openai_batch.a_batch(tmp_path, openai_requests.requests(1))
    code = "import os, sys; os.environ.pop('OPENAI_API_KEY', None); from batchrunner.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, "run", "spec.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "OPENAI_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
