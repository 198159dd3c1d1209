"""Nothing that prints, records or fails shows a secret; what runs has it."""

import json
import pickle
import traceback
from functools import partial
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, SourceSpec, redact_uri, redacted, scrubbed
from batchrunner.spec.batch_spec import Main
from batchrunner.spec.fingerprint import decisive_fields, differences
from batchrunner.spec.layers import Variation
from batchrunner.spec.override import shown
from batchrunner.spec.secrets import looks_secret

CANARY = "SECRET-7f3a"
SPEC = f"""\
capability: {{target: a:b, fn_constructor_kwargs: {{api_key: {CANARY}, model: m, db: "pg://u:{CANARY}@h/x"}}}}
source:
  uri: in.jsonl
  storage_options:
    key: {CANARY}
    client_kwargs: {{aws_secret_access_key: "{CANARY}", endpoint_url: "http://u:{CANARY}@h:1/x"}}
    nested: [{{password: {CANARY}}}]
sink: {{uri: out, storage_options: {{token: "${{TOKEN}}", "sas": '${{TOKEN}}x', anon: false}}}}
ray: {{runtime_env: {{env_vars: {{HARMLESS: {CANARY}, N: "1"}}, pip: ["git+https://{CANARY}@h/x"]}}}}
"""


def a_spec():
    return BatchSpec.from_text(SPEC, origin="x.yaml", environ={"TOKEN": CANARY})


@pytest.mark.parametrize(
    "key",
    [
        *("key", "secret", "token", "password", "credential", "credentials", "KEY", "Password"),
        *("aws_secret_access_key", "aws_access_key_id", "api_key", "apikey", "APIKey", "sas_token"),
        *(
            "secretKey",
            "accessKeyId",
            "session-token",
            "accesskeyid",
            "sessiontoken",
            "account.key",
            "db_passwd",
            "passphrase",
        ),
        *("authorization", "X-Amz-Signature", "sig", "api_keys", "GITHUB_TOKEN", "client_secrets"),
    ],
)
def test_these_keys_name_secrets(key):
    """Whatever the store or the library calls it."""
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        *("keys_per_page", "max_tokens", "tokenizer", "keyboard", "anon", "endpoint_url", "author"),
        *("monkey_patch", "region", "use_ssl", "profile", "", "tokens_per_second", "assign"),
    ],
)
def test_these_keys_do_not(key):
    """A report that hides everything is of no use."""
    assert not looks_secret(key)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"s3://key:{CANARY}@bucket/x", "s3://***@bucket/x"),
        (f"s3://key:a/{CANARY}@bucket/x", "s3://***@bucket/x"),
        (f"https://{CANARY}@host/x", "https://***@host/x"),
        (f"https://u:p@{CANARY}@host/x", "https://***@host/x"),
        (f"redis://:{CANARY}@host:6379/0", "redis://***@host:6379/0"),
        (f"https://h/x?X-Amz-Signature={CANARY}&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        (f"see http://u:{CANARY}@h and http://h", "see http://***@h and http://h"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
        ("/local/a@b", "/local/a@b"),
    ],
)
def test_the_credentials_of_a_uri_are_hidden(uri, shown):
    """The rest stays, so that people see which place is meant."""
    assert shown == redact_uri(uri)
    assert {"a": [shown]} == redacted({"a": [uri]})


@given(st.text())
def test_redacting_twice_changes_nothing(text):
    """Logs may be redacted by more than one layer."""
    assert redact_uri(text) == redact_uri(redact_uri(text))


def test_what_runs_has_the_real_values():
    """Hiding a secret from the store itself would be a denial of service."""
    for spec in (a_spec(), pickle.loads(pickle.dumps(a_spec()))):
        assert CANARY == spec.source.storage_options["key"]
        assert CANARY == spec.sink.storage_options["token"]
        assert CANARY == spec.ray.runtime_env["env_vars"]["HARMLESS"]
        assert CANARY == spec.model_dump()["capability"]["fn_constructor_kwargs"]["api_key"]


def test_nothing_that_is_shown_or_kept_has_them():
    """Repr and str end up in logs; the kept text and the fingerprint in the checkpoint."""
    spec = a_spec()
    shown = [
        *(repr(spec), str(spec), f"{spec}", repr([spec.source]), str(spec.ray), repr(spec.shown())),
        *(spec.kept_text, BatchSpec(**dict(spec)).kept_text),
        repr(decisive_fields(spec, code=None)),
    ]

    assert [] == [text for text in shown if CANARY in text]
    assert "***" in repr(spec.source)
    assert "'model': 'm'" in repr(spec.capability)
    assert "'anon': False" in repr(spec.sink)


def test_the_kept_text_hides_what_is_spelled_out_and_keeps_what_is_named():
    """`${TOKEN}` names the variable to set; a literal token would publish the token."""
    kept = a_spec().kept_text

    assert 'token: "${TOKEN}"' in kept
    assert """"sas": "***\"""" in kept
    assert (
        BatchSpec.from_text(kept, origin="x", environ={"TOKEN": ""}).sink
        == a_spec()
        .model_copy(
            update={
                "sink": {
                    "uri": "out",
                    "storage_options": {"token": "", "sas": "***", "anon": False},
                }
            }
        )
        .sink
    )


def test_a_block_of_text_is_hidden_as_a_whole():
    """A key file is often pasted as a block."""
    text = (
        f"capability: a:b\nsource: in\nsink:\n  storage_options:\n    key: |\n      {CANARY}\n"
        f"      {CANARY}\n    anon: true\n  uri: out\n"
    )
    kept = BatchSpec.from_text(text, origin="x").kept_text

    assert CANARY not in kept
    assert 'key: "***"\n    anon: true\n' in kept


BROKEN = {
    "an unknown key beside it": "sink: {uri: o, storage_options: {key: CANARY}, nope: 1}",
    "an unknown key around it": "storage_option: {key: CANARY}",
    "a bad tag on it": "sink: {uri: out, storage_options: {key: !x CANARY}}",
    "a reference in it": "sink: {uri: out, storage_options: {key: 'CANARY${'}}",
    "a reference after it": "sink: {uri: out, storage_options: {key: 'CANARY', x: '${UNSET}'}}",
    "a duplicate of it": "sink: {uri: out, storage_options: {key: CANARY, key: CANARY}}",
    "an alias of what it names": "tags: {a: &a CANARY, a: x}\nray: {env_vars: *a}",
    "a number": "sink: {uri: out, storage_options: {key: 73, nope: !x y}, port: 1}",
    "env_vars": "ray: {runtime_env: {env_vars: {A: CANARY, A: CANARY}}}",
    "a URI": "sink: s3://key:CANARY@bucket",
    "a URI with a slash in it": "sink: s3://key:a/CANARY@bucket/x",
    "a URI of no store": "sink: http://key:CANARY@host",
    "a list of URIs": "sink: [s3://key:CANARY@bucket]",
    "syntax after it": "sink: {storage_options: {key: CANARY, [}}",
    "syntax before it": "sink: {a: [}, storage_options: {key: CANARY}}",
    "syntax in it": "sink: {uri: out, storage_options: {key: CANARY: x}}",
    "no end of it": 'sink: {uri: out, storage_options: {key: "CANARY',
    "no end of it, at the margin": 'sink: {uri: out, storage_options: {key: "x\nx\nCANARY',
    "no end of it, in lines": "sink:\n  storage_options:\n    key: 'CANARY\n     CANARY\n",
    "syntax in env_vars": "ray:\n  runtime_env:\n    env_vars:\n      A: CANARY\n      B: CANARY: x\n",
    "syntax around env_vars": "ray:\n  runtime_env:\n    env_vars:#\n      A: CANARY\n",
    "a key inside a value": "sink:\n  client_kwargs: {secret_key: 'CANARY', x: y\n  uri: o\n",
    "a key after a bad quote": "sink:\n  'client_kwargs: {secret_key: 'CANARY', x: y}\n",
    "a line break before it": "sink: {storage_options: {secret: x\n'CANARY, x: y}}\n",
    "a value at the margin": "sink:\n  api_key:\n'CANARY'\n",
    "a tag on the key": "sink: {uri: o, storage_options: {!x key: CANARY}}",
    "a comment": "nope: x # s3://u:CANARY@bucket",
    "a URI as a key": "s3://u:CANARY@bucket: x",
    "a tab": "sink:\n  storage_options:\n\tkey: CANARY\n",
    "syntax before a URI": "sink: {a: [}, uri: s3://key:CANARY@bucket}",
    "a key of several lines": "? [key: CANARY]\n: x\n",
}


@pytest.mark.parametrize("why", BROKEN)
def test_no_error_shows_one(why):
    """The line of the file is shown, and secrets stand on lines too."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(BROKEN[why].replace("CANARY", CANARY), origin="x.yaml", environ={})
    everything = "".join(traceback.format_exception(caught.value))

    assert CANARY not in everything
    assert caught.value.__context__ is None
    assert "73" not in str(caught.value)


def test_no_error_of_python_shows_one():
    """In a notebook the traceback is what is shared."""
    wrong = {"uri": "in", "storage_options": {"key": CANARY}, "limit": CANARY}
    for make in (
        lambda: SourceSpec(**wrong),
        lambda: BatchSpec(source=wrong, sink=f"s3://key:{CANARY}@bucket"),
        lambda: BatchSpec(source="in", sink="out", ray={"runtime_env": CANARY}),
    ):
        with pytest.raises(InvalidSpecError) as caught:
            make()
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_changed_secret_is_a_difference_that_is_not_shown():
    """`fn_kwargs: {key: column}` may decide the output, so it counts; but it is never printed."""

    def fields(value):
        capability = {"target": "a:b", "fn_kwargs": {"api_key": value}}
        return decisive_fields(BatchSpec(source="in", sink="out", capability=capability), code=None)

    assert ["capability.fn_kwargs.api_key: changed"] == differences(fields("a"), fields(CANARY))


def test_what_others_wrote_is_scrubbed_of_the_secrets_of_the_specs_that_were_read():
    """A library quotes what it was given, in messages that are not ours."""
    BatchSpec.from_text(
        "capability: a:b\nsource: {uri: x, storage_options: {secret: 'hunter-22', nested: "
        "{password: [hunter-2233]}, region: eu-west-3, key: abc}}\nsink: y\n",
        origin="x.yaml",
    )

    said = scrubbed("hunter-22 and hunter-2233 at http://u:p@h in eu-west-3, with abc")

    assert said == "*** and *** at http://***@h in eu-west-3, with abc"


def in_one_line(text):
    return " ".join(text.split())


PEM = "-----BEGIN KEY-----\nMIIBVgIBADANBgkq7f3a9c\n-----END KEY-----\n"


@pytest.mark.parametrize("secret", ["a/b+7f3a9c", 'it\'s "7f3a9c"', PEM, "ünder-7f3a9c"])
@pytest.mark.parametrize("form", [str, repr, json.dumps, partial(quote, safe=""), in_one_line])
def test_a_secret_is_known_in_the_forms_that_messages_have_it_in(secret, form):
    """A KeyError quotes for Python, a client for URLs, and a report puts lines together."""
    BatchSpec(
        source="x", sink="y", capability={"target": "a:b", "fn_kwargs": {"token": secret}}
    ).remember_secrets()

    assert "7f3a9c" not in scrubbed(f"401 for {form(secret)}.")


@pytest.mark.parametrize("value", ["SECRET-7f3a", "'SECRET-7f3a'", "[SECRET-7f3a]", "[SECRET-7f3a"])
def test_a_lone_value_in_the_place_of_options_is_not_shown(value):
    """A user who meant `storage_options: {secret: ...}` finds the mistake without the secret."""
    text = f"capability: a:b\nsource: {{uri: x, storage_options: {value}}}\nsink: y\n"

    with pytest.raises(InvalidSpecError) as refusal:
        BatchSpec.from_text(text, origin="x.yaml")

    assert CANARY not in str(refusal.value)


PERMIT = "X1Permit9c1e"
HOOK = f"https://chat.internal.corp/services/T0/B0/{PERMIT}"


@pytest.mark.parametrize(
    "text",
    [
        f"hooks:\n  webhook:\n    url: {HOOK}\n    events: [on_run_end]\n",
        f"hooks: {{webhook: {{url: '{HOOK}'}}}}\n",
        f"tags: {{a: &url '{HOOK}'}}\nhooks: {{webhook: {{url: *url}}}}\n",
    ],
)
def test_the_path_of_a_webhook_is_hidden_whatever_its_host(text):
    """It is the permission to post; a chat of the house has a host of any name."""
    spec = BatchSpec.from_text(f"capability: a:b\nsource: in\nsink: out\n{text}", origin="x.yaml")
    spec.tags.clear()

    for said in (repr(spec), repr(spec.shown()), spec.kept_text, scrubbed(f"404 for {HOOK}.")):
        assert PERMIT not in said
    assert spec.shown()["hooks"]["webhook"]["url"] == "https://chat.internal.corp/***"
    assert scrubbed(f"404 for {HOOK}.") == "404 for https://chat.internal.corp/***."
    assert spec.hooks["webhook"]["url"] == HOOK


@pytest.mark.parametrize(
    "text",
    [
        f"hooks.webhook.url={HOOK}",
        f"hooks.webhook={{url: '{HOOK}'}}",
        f"hooks={{webhook: {{url: '{HOOK}'}}}}",
    ],
)
def test_the_path_of_a_webhook_is_hidden_in_an_option(text):
    """A command to paste into a chat has options in it."""
    assert PERMIT not in shown(text)
    main = "capability: a:b\nsource: in\nsink: out\n"
    spec = BatchSpec._of(Main(main, "x.yaml"), variation=Variation(overrides=(text,)))
    assert spec.hooks["webhook"]["url"] == HOOK
    assert PERMIT not in spec.kept_text
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec._of(Main(main, "x.yaml"), variation=Variation(overrides=(text, text + ": [")))
    assert PERMIT not in str(caught.value)


@pytest.mark.parametrize("rest", [", nope: 1}", ": [}", ""])
def test_the_path_of_a_webhook_is_hidden_in_an_error(rest):
    """Which is shown with the line of the spec."""
    text = f"capability: a:b\nsource: in\nsink: out\nhooks: {{webhook: {{url: '{HOOK}'{rest}"

    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(text, origin="x.yaml")

    assert PERMIT not in str(caught.value)


def test_a_webhook_without_a_path_has_no_secret():
    """`http://localhost:8000` is what one tries first."""
    assert redacted({"webhook": {"url": "http://h:1/"}}) == {"webhook": {"url": "http://h:1/"}}
