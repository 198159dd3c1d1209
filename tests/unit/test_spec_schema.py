"""The JSON Schema: what an editor accepts is what a run accepts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

import batchrunner.spec
from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, spec_schema

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"
GOOD = [
    MINIMAL,
    "capability: [a:b, {target: a:c, batch_size: 64, num_gpus: 1}, {processor: a:d}]\nsource: in\nsink: out\n",
    "capability: {stages: [a:b], deterministic: true}\nsource: in\nsink: out\n",
    MINIMAL + "execution:\nray:\n",
    MINIMAL + "version: 1\nname: a\nresume: false\ntags: {a: b}\ncheckpoint_dir: x\n",
    "capability: ${CAP:-a:b}\nsource: [a, b]\nsink: {uri: out, format: parquet, schema: {a: int8}}\n",
    """
capability: a:b
source: in
sink:
  uri: out
  schema:
    a: "list<item: struct<b: int64>>"
    b: {c: string not null, d: ["timestamp[ns, tz=UTC]"], e: [{f: "null"}]}
    g: decimal128(10, 2)
    h: ${KIND:-uuid}
    i: " fixed_size_list< float >[3] not null"
""",
    """
capability: {target: a:b, mode: row, fn_kwargs: {a: [1]}, version: v}
source: {uri: [a], format: jsonl, columns: [x], limit: 3, shard: {bytes: 64MiB}}
sink: {uri: out, compression: none, storage_options: {key: x}}
""",
    MINIMAL + "execution: {concurrency: [1, 2], max_runtime: 3h50m, memory: 1.5GB, num_gpus: .5}\n",
    MINIMAL + "execution: {concurrency: 2, max_runtime: 90, memory: 1024, resources: {a: 1}}\n",
    MINIMAL
    + "execution: {batch_size: '${A:-1}', concurrency: [1, '${A:-1}'], engine: '${A:-ray}'}\n",
    MINIMAL + "execution: {max_runtime: '${A:-1h}', memory: '${A:-1GB}'}\nresume: ${A:-no}\n",
    MINIMAL + "execution: {accelerator_type: null, memory: null}\nname: ${A:-x}\n",
    MINIMAL + "errors: {max_row_errors: 10%}\n",
    MINIMAL + "execution: {rate_limit: {requests: 500/min, tokens: 200k/min, in_flight: 64}}\n",
    MINIMAL
    + "execution: {rate_limit: 0.5/s, prices: {a: 0.15/1M, b: 1/k, c: '${P:-2}'}, max_cost: 25}\n",
    "capability: {target: a:b, usage: response.body.usage}\nsource: in\nsink: out\n",
    MINIMAL + "hooks: {webhook: {url: 'http://h/x', events: [on_run_end]}, 'mod:Hook': {a: 1}}\n",
    MINIMAL + "hooks:\n  openlineage:\n",
    MINIMAL + "hooks: null\ntags:\nresume: null\nexecution: {batch_size: null, resources: null}\n",
    "capability: {target: a:b, fn_kwargs: null}\nsource: {uri: a, storage_options: }\nsink: b\n",
]
EXTENDING = [
    "extends: base.yaml\n",
    "extends: base.yaml\nsource: {limit: 3}\nsink: {format: parquet}\nprofiles: {dev: {execution:}}\n",
    "capability: a:b\nsource: in\nprofiles:\n  dev: {sink: {uri: out}}\n  prod:\n",
    "profiles: {dev: {source: {limit: '${N:-3}'}, execution: {batch_size: 8}}}\n",
]
MISLEADING = [
    "extends: base.yaml\nnope: 1\n",
    "extends: [base.yaml]\n",
    "extends: base.yaml\nexecution: {batch_size: 0}\n",
    "profiles: {dev: {nope: 1}}\n",
    "profiles: {dev: {execution: {batch_size: many}}}\n",
    "profiles: {dev: {profiles: {}}}\n",
    "profiles: [dev]\n",
]
BAD = [
    "capability: a:b\nsource: {limit: 3}\nsink: out\n",
    "capability: {version: v}\nsource: in\nsink: out\n",
    "capability: []\nsource: in\nsink: out\n",
    "capability: [{target: a:b, nope: 1}]\nsource: in\nsink: out\n",
    "capability: [a:b, {target: a:c, batch_size: 0}]\nsource: in\nsink: out\n",
    "capability: a:b\nsource: in\nsink: {format: parquet}\n",
    "source: a\nsink: b\n",
    "capability:\nsource: a\nsink: b\n",
    MINIMAL + "nope: 1\n",
    MINIMAL + "hooks: {webhook: {url: 'http://h/x', event: []}}\n",
    MINIMAL + "hooks: {webhook: {secret: abcdefgh}}\n",
    MINIMAL + "execution: {nope: 1}\n",
    MINIMAL + "execution: {batch_size: 0}\n",
    MINIMAL + "execution: {batch_size: many}\n",
    MINIMAL + "execution: {engine: spark}\n",
    MINIMAL + "execution: {concurrency: [1, 2, 3]}\n",
    MINIMAL + "execution: {max_runtime: 1w}\n",
    MINIMAL + "execution: {memory: 1M}\n",
    MINIMAL + "execution: {rate_limit: {requests: 500}}\n",
    MINIMAL + "execution: {rate_limit: 500/week}\n",
    MINIMAL + "execution: {rate_limit: {in_flight: 0}}\n",
    MINIMAL + "execution: {prices: {a: cheap}}\n",
    MINIMAL + "execution: {max_cost: 0}\n",
    "capability: {target: a:b, usage: a..b}\nsource: in\nsink: out\n",
    MINIMAL + "name: a b\n",
    MINIMAL + "version: 2\n",
    *(
        f"capability: a:b\nsource: in\nsink: {{uri: out, schema: {{a: {kind}}}}}\n"
        for kind in (
            "in64",
            "1",
            "null",
            "[]",
            "[int8, int8]",
            "{}",
            "{b: in64}",
            "[in64]",
            "int64s",
        )
    ),
    "capability: a:b\nsource: in\nsink: {uri: out, schema: {}}\n",
    MINIMAL + "tags: {a: 1}\n",
    "capability: nope\nsource: a\nsink: b\n",
    "capability: a:b\nsource: []\nsink: b\n",
    "capability: a:b\nsource: a\nsink: [b]\n",
    "capability: a:b\nsource: {uri: a, limit: 0}\nsink: b\n",
]


def editor_accepts(text):
    return jsonschema.Draft202012Validator(spec_schema()).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("text", GOOD)
def test_what_runs_is_not_underlined(text):
    """A schema that complains about good specs is switched off."""
    BatchSpec.from_text(text, origin="x.yaml", environ={})

    assert editor_accepts(text)


@pytest.mark.parametrize("text", BAD)
def test_what_is_underlined_does_not_run(text):
    """The editor says it while the line is written."""
    with pytest.raises(InvalidSpecError):
        BatchSpec.from_text(text, origin="x.yaml", environ={})

    assert not editor_accepts(text)


@pytest.mark.parametrize("text", EXTENDING)
def test_what_stands_in_another_file_is_not_missed(text):
    """The editor sees one file; of what the others hold, it cannot complain."""
    assert editor_accepts(text)


@pytest.mark.parametrize("text", MISLEADING)
def test_in_a_part_of_a_spec_a_slip_is_underlined_as_well(text):
    """A profile is written once and read by few."""
    assert not editor_accepts(text)


def test_the_package_has_the_schema_as_a_file():
    """An editor, a form or a check in CI reads it without running anything of ours."""
    file = Path(batchrunner.spec.__file__).with_name("spec.schema.json")

    assert spec_schema() == json.loads(file.read_text())
    assert spec_schema()["$id"].startswith("urn:batchrunner:spec")


def test_the_schema_is_valid_and_plain():
    """It is shown to people: no titles made of names, no constraints that JSON Schema lacks."""
    schema = spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)

    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert 1 == text.count('"title"')
    for noise in ('"ge"', "<one>", "schema_", "_written", 'anyOf": [{"anyOf', '"default": null'):
        assert noise not in text


def test_the_schema_knows_every_key_and_what_it_is_for():
    """The editor completes keys and shows their descriptions."""
    schema = spec_schema()
    kinds = [
        schema,
        *(form for kind in schema["$defs"].values() for form in kind.get("anyOf", [kind])),
    ]
    properties = {
        name: inner for kind in kinds for name, inner in kind.get("properties", {}).items()
    }

    assert {"batch_size", "uri", "schema", "target", "address", "rows"} <= properties.keys()
    assert [] == [name for name, inner in properties.items() if "description" not in inner]


def test_every_process_prints_the_same_schema():
    """The printed schema is committed beside specs; an order of its own per process would be a diff."""
    code = "import json, batchrunner.spec as s; print(json.dumps(s.spec_schema()))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
