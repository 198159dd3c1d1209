"""The lines of OpenAI's batch files, and the errors that hold one."""

from __future__ import annotations

import gzip
import json
import pickle

import httpx2
import pytest

from batchrunner.capabilities.batch_file import RequestFailedError, output_line
from batchrunner.capabilities.error_file import error_line
from batchrunner.capabilities.repeated import repeated_values
from openai_schema import complaints_of_line

ROW = {"custom_id": "request-1 \u2603", "method": "POST", "url": "/v1/embeddings", "body": {}}
ROOM = 2000
"""Characters of a message that a dead letter keeps."""


def refused(status=400, headers=None, **content):
    return RequestFailedError.refused(ROW, httpx2.Response(status, headers=headers, **content))


def line_of(error):
    """What `errors -o jsonl` and the line in the template's README make of *error*."""
    line = json.loads(str(error)[:ROOM].split("\n")[1])
    assert not complaints_of_line(line)
    return line


@pytest.mark.parametrize(
    "body",
    [
        {
            "error": {
                "message": "too long",
                "type": "invalid_request_error",
                "param": None,
                "code": 4,
            }
        },
        {"object": "error", "message": "too long", "code": 400},
        {"detail": "too long"},
        {"error": "too long"},
    ],
    ids=["OpenAI", "vLLM", "FastAPI", "text"],
)
def test_what_a_server_says_stands_first_and_as_it_said_it(body):
    """People read the first line, and scripts the second: there, nothing is left out."""
    error = refused(json=body, headers={"x-request-id": "req_7"})

    assert str(error).split("\n")[0] == "HTTP 400: too long"
    assert line_of(error)["response"] == {"status_code": 400, "request_id": "req_7", "body": body}


@pytest.mark.parametrize(
    "content",
    [
        '<html>"\\' * 2000,
        json.dumps({"error": {"message": '"\\' * 2000}}),
        "[1]",
        '"x"',
        "",
        "\x00\ud7ff",
        '{"error": NaN}',
        '{"error": ' + "9" * 5000 + "}",
        '{"error": ' + "[" * 400 + "1e9," * 40 + "1" + "]" * 400 + "}",
    ],
    ids=["page", "long", "list", "text", "nothing", "odd", "NaN", "digits", "numbers"],
)
def test_whatever_a_server_says_the_line_stays_one_of_an_error_file(content):
    """A dead letter cuts a message at 2,000 characters, and half a line is no JSON."""
    error = refused(502, content=content.encode())

    body = line_of(error)["response"]["body"]
    assert body["error"]["message"] == content[:500]
    assert str(error).startswith("HTTP 502: ")


def test_an_answer_that_grows_as_json_is_cut_shorter():
    """An escape takes six characters."""
    body = line_of(refused(502, content=b"\x00" * 3000))["response"]["body"]

    assert 100 < len(body["error"]["message"]) < 200


@pytest.mark.parametrize("custom_id", ["x" * 1990, 7, float("nan"), None], ids=repr)
def test_the_error_file_has_the_custom_id_also_where_the_message_has_no_room_for_it(custom_id):
    """A script looks it up; one that is no text is none."""
    row = {"custom_id": custom_id, "method": "POST"}
    errors = [RequestFailedError.refused(row, httpx2.Response(400, json={"error": "y" * 900}))]
    errors.append(RequestFailedError.of(row, "\x01" * 900, code="invalid_request"))

    for error, said in zip(errors, ["status_code", "code"], strict=True):
        letter = {"error": "E", "message": str(error)[:ROOM], "raw": json.dumps(row)}
        line = error_line(letter)
        assert not complaints_of_line(line)
        assert line["id"] == output_line(row)["id"]
        assert (line["response"] or line["error"])[said] in {400, "invalid_request"}
        assert line["custom_id"] == (custom_id if isinstance(custom_id, str) else None)


def test_an_error_keeps_what_it_says_of_when_to_ask_again_between_processes():
    """Without the status and its header, a service that is overloaded is asked again at once."""
    error = refused(429, headers={"Retry-After": "7", "Server": "x"}, json={"error": "busy"})

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.status_code, again.headers) == (str(error), 429, {"retry-after": "7"})


def test_the_id_of_a_line_follows_from_its_request():
    """A request that is sent again after a kill keeps it, and no two have the same."""
    ids = [
        output_line({"custom_id": name})["id"]
        for name in ("a", "b", "a", None, "null", "None", "\ud83d")
    ]

    assert ids[0] == ids[2]
    assert len(set(ids)) == 6


def test_every_value_that_stands_twice_is_found_wherever_it_stands(tmp_path):
    """In one file, in two, in a compressed one, in lines that only Python's parser reads."""
    files = {
        "a.jsonl": [
            '{"id": "once"}',
            '{"id": "here"}',
            '{"id": "here"}',
            '{"id": 1}',
            '{"id": 1}',
            "{",
        ],
        "b.jsonl": ['{"id": "two files"}', '{"id": "\\ud83d"}', '{"x": "once"}', "[1]", ""],
        "c/d.jsonl": [
            '{"id": "two files", "huge": 1000000000000000000000000000000}',
            '{"id": "\\ud83d"}',
            '{"id": "\\u0061"}',
        ],
    }
    for name, lines in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(lines))
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a"}\n'))

    found = repeated_values(str(tmp_path), field="id")

    assert found == {"here", "two files", "\ud83d", "a"}
    assert repeated_values([f"{tmp_path}/*.jsonl"], field="id") == {"here"}
    assert repeated_values((), field="id") == frozenset()


def test_lines_and_files_that_no_source_reads_make_no_value_repeated(tmp_path):
    """They would refuse the request that is there, or, nested too deeply, end the run before it began."""
    deep = '{"id": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = ['{"id": "a"}', '{"id": "x", "id": "a"}', '{"id": "a", "n": 1e400}', deep]
    lines += ['{"id": "b"}', '{"id": "b"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for name in (".a.jsonl", "_a.jsonl", "_old/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"id": "a"}\n')

    for uri in (f"{tmp_path}", f"{tmp_path}/", f"{tmp_path}/*.jsonl", f"{tmp_path}/**"):
        assert repeated_values(uri, field="id") == {"b"}
    assert repeated_values([f"{tmp_path}/a.jsonl", f"{tmp_path}/_a.jsonl"], field="id") == {
        "a",
        "b",
    }
    with pytest.raises(FileNotFoundError):
        repeated_values(f"{tmp_path}/_*", field="id")


def test_files_that_are_not_there_are_named(tmp_path):
    """A misspelt name would look at nothing, and say that all is well."""
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: there is no such file"):
        repeated_values(f"{tmp_path}/none.jsonl", field="id")
