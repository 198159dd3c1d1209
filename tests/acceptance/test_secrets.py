"""A secret that the spec holds never comes out: not in what is printed, not in a byte that is written."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from batchrunner.testing.fault_proxy import Fault, NetworkFaultKind, fault_proxy
from buckets import Bucket
from builders import a_source, rows
from command import batchrunner, start
from patience import PATIENCE

CANARY = "SECRET-7f3a9c"
SLASHED = "SECRET/7f3a9c+x"
ENVIRONMENT = {"THE_SECRET": CANARY, "THE_OTHER": SLASHED}
SIGNED = f"https://user:{CANARY}@127.0.0.1:1/x.jsonl?X-Amz-Signature={CANARY}"

LITERAL = {"secret": CANARY, "token": CANARY}
NAMED = {"secret": "${THE_SECRET}", "token": "${THE_OTHER}"}


class Scene:
    """A folder, a place in a bucket, and all that came out of either."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder, self.bucket = folder, bucket
        self.said = ""

    def options(self, secrets=LITERAL, *, endpoint=None) -> dict:
        there = self.bucket.storage_options
        return {**there, "endpoint_url": endpoint or there["endpoint_url"], **secrets}

    def write_spec(self, **changes) -> None:
        """From the bucket into the bucket, unless changed."""
        fields = {
            "capability": {
                "target": "capabilities:keeps_its_secrets",
                "fn_kwargs": {"api_key": CANARY, "url": f"https://u:{CANARY}@h/x"},
            },
            "source": {"uri": f"{self.bucket.uri}/in", "storage_options": self.options()},
            "sink": {"uri": f"{self.bucket.uri}/out", "storage_options": self.options(NAMED)},
            "execution": {"engine": "local"},
            "errors": {"max_row_errors": 5},
            "ray": {"runtime_env": {"env_vars": {"API": CANARY}}},
        }
        (self.folder / "spec.yaml").write_text(yaml.safe_dump({**fields, **changes}))

    def do(self, *arguments: str, both: bool = False) -> int:
        """Run a command with `-v`, which says more, or *both* ways; return the code it ends with."""
        codes = set()
        for words in (("-v", *arguments), arguments)[: 1 + both]:
            done = batchrunner(*words, cwd=self.folder, **ENVIRONMENT)
            self.said += done.stdout + done.stderr
            codes.add(done.returncode)
        assert len(codes) == 1
        return codes.pop()

    def leaks(self) -> list[str]:
        """Where a secret came out."""
        written = {
            str(path): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != "spec.yaml"
        }
        written |= {key: self.bucket.get(key) for key in self.bucket.listed()}
        everything = {"output": self.said.encode(), **written}
        return [name for name, data in everything.items() if b"7f3a9c" in data]


@pytest.fixture
def scene(tmp_path, moto, prefix):
    bucket = Bucket(moto, prefix)
    bucket.put_rows("in/0.jsonl", rows(0, 4))
    bucket.put("in/1.jsonl", b'{"id": 5, "text": "5"}\nnot a row\n')
    yield Scene(tmp_path, bucket)
    bucket.close()


def test_a_run_and_all_that_is_said_of_it(scene):
    """Every command, from the plan to the repair, in words and in JSON."""
    scene.write_spec()
    for words in (["validate"], ["plan"], ["run", "-o", "json"], ["status"], ["plan", "-o", "csv"]):
        assert scene.do(*words, "spec.yaml") == 0
    scene.bucket.delete("out/part-00000.jsonl")
    for code, words in [
        (4, ["run"]),
        (5, ["verify", "-o", "jsonl"]),
        (5, ["verify", "--repair"]),
        (0, ["clean", "--force"]),
        (0, ["run"]),
        (0, ["verify"]),
        (0, ["run", "--fresh"]),
    ]:
        assert scene.do(*words, "spec.yaml") == code, scene.said

    assert len(scene.bucket.listed("out/_checkpoint/run-0001/errors/")) == 1
    assert "***" not in scene.said
    assert scene.leaks() == []


def test_another_spec_is_refused_and_the_difference_told_without_the_secret(scene):
    """What changed is a secret, of all things."""
    scene.write_spec()
    assert scene.do("run", "spec.yaml") == 0
    scene.write_spec(
        capability={
            "target": "capabilities:keeps_its_secrets",
            "fn_kwargs": {"api_key": f"other-{CANARY}", "url": f"https://other:{CANARY}@h/x"},
        }
    )

    assert scene.do("run", "spec.yaml") == 4
    assert "fn_kwargs" in scene.said
    assert scene.leaks() == []


PLACES = {
    "no such bucket": {"uri": "s3://no-such-bucket-here/out"},
    "credentials in the URI": {"uri": f"s3://key:{CANARY}@bucket/out"},
    "a signed URL": {"uri": SIGNED},
    "an unknown store": {"uri": f"gs://user:{CANARY}@bucket/x"},
}


@pytest.mark.parametrize("which", ["source", "sink"])
@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_used(scene, which, name):
    """The message names it as far as it may be named."""
    scene.write_spec(**{which: {"storage_options": scene.options(), **PLACES[name]}})

    assert scene.do("run", "spec.yaml", both=True) in (2, 3)
    assert scene.leaks() == []


ENDPOINTS = {
    "nobody listens": f"http://user:{CANARY}@127.0.0.1:1",
    "no such host": f"http://user:{CANARY}@nowhere.invalid:1/?X-Amz-Signature={CANARY}",
    "no URL at all": f"ht!tp:/user:{CANARY}@h",
    "no port": f"http://user:{CANARY}@h:port/x",
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_that_cannot_be_reached(scene, name):
    """Botocore quotes it in its errors, which `-v` prints."""
    options = scene.options(endpoint=ENDPOINTS[name])
    scene.write_spec(source={"uri": f"{scene.bucket.uri}/in", "storage_options": options})

    assert scene.do("run", "spec.yaml", both=name != "nobody listens") in (2, 3)
    assert scene.leaks() == []


def test_a_key_that_is_refused(scene, moto):
    """The store answers with what it was sent."""
    code = "SignatureDoesNotMatch"
    said = f"<AWSAccessKeyId>{CANARY}</AWSAccessKeyId><StringToSign>{CANARY}</StringToSign>"
    body = f"<Error><Code>{code}</Code><Message>no</Message>{said}</Error>"
    with fault_proxy(moto) as proxy:
        proxy.inject(Fault(NetworkFaultKind.STATUS, status=403, code=code, body=body))
        options = scene.options(endpoint=proxy.server.endpoint)
        scene.write_spec(sink={"uri": f"{scene.bucket.uri}/out", "storage_options": options})

        assert scene.do("run", "spec.yaml") == 3
    assert code in scene.said
    assert scene.leaks() == []


OPTIONS = {
    "unknown": {"secrets": CANARY, "passwd": CANARY},
    "wrong types": {"client_kwargs": {"aws_secret_access_key": CANARY, "nothing": CANARY}},
    "wrong config": {"config_kwargs": {"token": CANARY, "signature_version": [CANARY]}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_the_store_does_not_know(scene, name):
    """Whatever s3fs says of them."""
    options = {**scene.options(), **OPTIONS[name]}
    scene.write_spec(source={"uri": f"{scene.bucket.uri}/in", "storage_options": options})

    assert scene.do("run", "spec.yaml") != 0
    assert scene.leaks() == []


SPECS = {
    "no YAML": "source: {uri: x, storage_options: {secret: 'SECRET-7f3a9c}\n",
    "a tab": "source:\n  storage_options:\n\tsecret: SECRET-7f3a9c\n",
    "an unknown key": "source: {uri: x, storage_option: {secret: SECRET-7f3a9c}}\nsink: y\n",
    "a wrong place": "source: {uri: x, storage_options: SECRET-7f3a9c}\nsink: y\n",
    "twice": "source: {uri: x, storage_options: {secret: SECRET-7f3a9c, secret: SECRET-7f3a9c}}\n",
    "a list of URLs": f"source: ['{SIGNED}', '{SIGNED}']\nsink: ${{THE_SECRET}}\n",
    "no such variable": "source: {uri: x, storage_options: {token: '${NOPE:?ask}${THE_SECRET}'}}\n",
    "no number": "source: x\nsink: y\nexecution: {batch_size: '${THE_SECRET}'}\n",
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_that_cannot_be_read(scene, name):
    """The line is shown, and the secret on it is not."""
    (scene.folder / "spec.yaml").write_text(SPECS[name])

    assert scene.do("validate", "spec.yaml", both=True) == 2
    assert scene.leaks() == []


def test_shards_that_fail_and_are_set_apart(scene):
    """The reasons are recorded, shown and reported."""
    scene.write_spec(
        capability={
            "target": "capabilities:fails_on_5",
        },
        errors={"max_row_errors": 5, "on_row_error": "fail"},
    )

    assert scene.do("run", "spec.yaml", "-o", "json") == 1
    scene.do("status", "spec.yaml")
    assert scene.leaks() == []


def test_a_capability_that_cannot_be_built(scene):
    """It is given a secret, and its weights are not there."""
    capability = {
        "target": "capabilities:Unbuildable",
        "fn_constructor_kwargs": {"api_key": CANARY},
    }
    scene.write_spec(capability=capability)

    assert scene.do("run", "spec.yaml") != 0
    assert scene.leaks() == []


def test_a_driver_that_is_killed(tmp_path):
    """What it was writing when it died is looked at, too."""
    a_source(tmp_path / "in", shards=20)
    scene_spec = {
        "capability": {"target": "capabilities:slow", "fn_kwargs": {}},
        "source": {"uri": "in", "storage_options": LITERAL},
        "sink": {"uri": "out", "storage_options": NAMED},
        "execution": {"engine": "local"},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(scene_spec))
    with start("-v", "run", "spec.yaml", cwd=tmp_path, **ENVIRONMENT) as process:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("out/_checkpoint/attempts/*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        said = "".join(process.communicate())

    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "spec.yaml"]
    assert len(written) > 3
    assert [path for path in written if b"7f3a9c" in path.read_bytes()] == []
    assert "7f3a9c" not in said
