"""The hook `webhook`, against a real server on loopback that fails, hangs and resets."""

from __future__ import annotations

import hashlib
import hmac
import json
import shlex

import pytest

from batchrunner import BatchRunner
from batchrunner.errors import InvalidSpecError
from batchrunner.hooks import DeadLetterKept, RunInfo
from batchrunner.hooks.webhook import Webhook
from builders import a_source, a_spec
from command import a_spec_file, batchrunner
from receiver import a_receiver

RUN = RunInfo("0" * 32, "s", "nightly", ("in",), "out", "out/_checkpoint")
LETTER = DeadLetterKept(RUN, "2026-01-01T00:00:00+00:00", 7, "in", "byte 3", "read", "E", "m", "r")


def run(folder, **options):
    a_source(folder / "in")
    return BatchRunner(a_spec(folder, hooks={"webhook": options})).run()


def test_start_and_end_are_posted_with_a_line_for_a_chat(tmp_path):
    """Slack and its kin show `text`; a program reads the rest."""
    with a_receiver() as receiver:
        report = run(tmp_path, url=f"{receiver.url}/hook")

    (path, headers, start), (_, _, end) = receiver.posts
    assert path == "/hook"
    assert headers["Content-Type"].startswith("application/json")
    assert (start["version"], start["event"], start["shards"]) == (1, "on_run_start", 3)
    assert start["text"] == "test: started, 0 of 3 shards are committed"
    assert (end["event"], end["state"], end["rows_out"]) == ("on_run_end", "complete", 12)
    assert end["run"]["run_uid"] == report.run_uid
    assert end["text"].startswith(
        "test: complete, 3 of 3 shards committed, 12 rows in, 12 out, 0 failed"
    )


def test_a_run_that_failed_comes_with_a_line_to_paste(tmp_path):
    """At night, on a phone, the next step is in the message; and it works."""
    a_source(tmp_path / "in")
    errors = {"retry": {"max_attempts": 1}}

    def fails(rows):
        raise ValueError("no such word")

    with a_receiver() as receiver:
        spec = a_spec(tmp_path, hooks={"webhook": {"url": receiver.url}}, errors=errors)
        BatchRunner(spec, capability=fails).run()

    text = receiver.posts[-1][2]["text"]
    assert text.startswith("test: failed, ")
    assert "no such word" in text
    _, _, command = text.partition("; look: batchrunner ")
    status = batchrunner(*shlex.split(command), cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "next  " in status.stdout


def test_only_the_events_that_were_asked_for_are_posted(tmp_path):
    """A message for each of ten thousand shards is no message."""
    with a_receiver() as receiver:
        run(tmp_path, url=receiver.url, events=["on_shard_committed"])

    assert [post["event"] for _, _, post in receiver.posts] == ["on_shard_committed"] * 3
    assert receiver.posts[0][2]["part"] == "part-00000.jsonl"


def test_a_receiver_can_tell_who_posted(tmp_path):
    """The signature is of the bytes as they came."""
    with a_receiver() as receiver:
        run(tmp_path, url=receiver.url, secret="a long secret")

    for _, headers, body in receiver.tries:
        digest = hmac.new(b"a long secret", body, hashlib.sha256).hexdigest()
        assert headers["X-Batchrunner-Signature"] == f"sha256={digest}"


@pytest.mark.parametrize("problem", [503, 429, "reset", "hang"])
def test_what_may_pass_is_tried_again(problem):
    """A receiver that got it twice sees that by the delivery's id."""
    with a_receiver(problem, problem) as receiver:
        Webhook(url=receiver.url, events=["on_dead_letter"], timeout=0.5).on_dead_letter(LETTER)

    assert len(receiver.posts) == 1
    assert len(receiver.tries) == 3
    assert len({headers["X-Batchrunner-Delivery"] for _, headers, _ in receiver.tries}) == 1


@pytest.mark.parametrize("status", [404, 301, 307, 400])
def test_what_will_not_pass_is_not_tried_again(status):
    """Nor is a redirect followed: the row and the signature would go to another host."""
    with a_receiver(status) as receiver:
        hook = Webhook(url=f"{receiver.url}/x/secret-path", events=["on_dead_letter"])
        with pytest.raises(ConnectionError, match=f"answered {status}") as error:
            hook.on_dead_letter(LETTER)

    assert len(receiver.tries) == 1
    assert "secret-path" not in str(error.value)


def test_a_receiver_that_is_down_costs_a_warning(tmp_path):
    """Not the run; and the command says which hook it was."""
    a_source(tmp_path / "in")
    a_spec_file(
        tmp_path,
        hooks={"webhook": {"url": "http://127.0.0.1:9/hook", "events": ["on_run_end"]}},
    )

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0
    assert "the hook webhook failed in on_run_end, and the run goes on" in done.stderr


def test_a_row_can_address_no_one_in_a_chat():
    """`<!channel>` in a row would wake a hundred people."""
    letter = DeadLetterKept(
        RUN, "", 7, "in", "byte 3", "read", "E", "<!channel> & <http://x|y>", "r"
    )
    with a_receiver() as receiver:
        Webhook(url=receiver.url, events=["on_dead_letter"]).on_dead_letter(letter)

    text = receiver.posts[0][2]["text"]
    assert text.endswith("&lt;!channel&gt; &amp; &lt;http://x|y&gt;")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "webhook: url must be given"),
        ({"url": "hooks.example"}, "url must begin with http://"),
        ({"url": "ftp://hooks.example/x"}, "url must begin with http://"),
        ({"url": "https://h:x/y"}, "url must begin with http://"),
        ({"url": "https://u:p@hooks.example"}, "no user or password"),
        ({"url": "https://h", "events": ["on_end"]}, 'events has "on_end"; it takes on_run_start'),
        ({"url": "https://h", "events": "on_run_end"}, "events must be a list"),
        ({"url": "https://h", "secret": 12}, "secret must be a string: put it in quotes"),
        ({"url": "https://h", "timeout": "soon"}, "timeout must be a number of seconds"),
        ({"url": "https://h", "event": []}, 'unknown option "event"; did you mean "events"'),
    ],
)
def test_validate_finds_what_is_wrong_with_the_options(tmp_path, options, message):
    """Before the night in which the message should have come."""
    a_source(tmp_path / "in")
    with pytest.raises(InvalidSpecError, match=message):
        a_spec(tmp_path, hooks={"webhook": options})


def test_an_unknown_hook_is_named_with_its_line(tmp_path):
    """And with what was meant."""
    a_spec_file(tmp_path, hooks={"webhok": {"url": "https://h"}})
    done = batchrunner("validate", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 2
    assert 'there is no hook "webhok"; did you mean "webhook"?' in done.stderr
    assert "spec.yaml:" in done.stderr


def test_the_address_and_the_key_of_a_webhook_are_secrets(tmp_path):
    """The path of a chat's webhook is the permission to post; neither is shown or stored."""
    a_source(tmp_path / "in")
    url = "https://hooks.slack.com/services/T0001/B0002/abcdefgh"
    a_spec_file(tmp_path, hooks={"webhook": {"url": url, "secret": "hmac-key-1234", "events": []}})

    shown = batchrunner("validate", "spec.yaml", cwd=tmp_path)
    done = batchrunner("run", "spec.yaml", cwd=tmp_path)
    stored = (tmp_path / "out/_checkpoint/run.json").read_text()

    assert done.returncode == 0, done.stderr
    for text in (shown.stdout, shown.stderr, done.stdout, done.stderr, json.dumps(stored)):
        assert "abcdefgh" not in text
        assert "hmac-key-1234" not in text
