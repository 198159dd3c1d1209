"""What decides the output is compared before a run continues; what does not is free to change."""

import json

import pytest

from batchrunner.capability import Code
from batchrunner.spec import BatchSpec, CapabilitySpec, StageSpec
from batchrunner.spec.diagnosis import section_of
from batchrunner.spec.fingerprint import (
    decisive_fields,
    differences,
    fingerprint,
    legacy_code_field,
)

V1 = Code({"caps.py": '{"*": "1", "f": "1"}'})
FULL = {
    "name": "a",
    "capability": {"target": "a:b", "fn_kwargs": {"x": 1}, "fn_constructor_kwargs": {"y": 1}},
    "source": {"uri": "/in", "shard": {"rows": 10}},
    "sink": {"uri": "/out"},
}
DECISIVE = {
    "capability.target": "c:d",
    "capability.mode": "row",
    "capability.fn_kwargs": {"x": 2},
    "capability.fn_constructor_kwargs": {},
    "capability.version": "2",
    "source.uri": ["/in", "/more"],
    "source.format": "jsonl",
    "source.format_options": {"delimiter": ";"},
    "source.schema_": {"a": "int64"},
    "source.columns": ["a"],
    "source.partitioning": "none",
    "source.limit": 100,
    "source.shard": None,
    "source.shard.rows": 20,
    "source.shard.bytes": "1MiB",
    "source.shard.row_groups": 2,
    "source.shard.files": 1,
    "sink.uri": "/other",
    "sink.format": "parquet",
    "sink.compression": "none",
    "sink.schema_": {"a": "int64"},
    "execution.batch_format": "numpy",
    "errors.on_row_error": "fail",
}
NEUTRAL = {
    "version": 1,
    "name": "b",
    "checkpoint_dir": "/elsewhere",
    "resume": False,
    "tags": {"team": "x"},
    "unsafe_single_writer": True,
    "capability.files": ["/weights"],  # their content decides; it comes in beside the spec
    "capability.deterministic": True,
    "capability.one_to_one": True,
    "source.storage_options": {"anon": True},
    "sink.storage_options": {"anon": True},
    "execution.engine": "local",
    "execution.batch_size": 2,
    "execution.concurrency": 2,
    "execution.num_cpus": 2,
    "execution.num_gpus": 2,
    "execution.memory": 2,
    "execution.accelerator_type": "x",
    "execution.resources": {"a": 1},
    "execution.max_runtime": 2,
    "execution.grace_period": 2,
    "execution.max_concurrency": 2,
    "execution.rate_limit": {"requests": "1/s"},
    "execution.rate_limit.requests": "1/s",
    "execution.rate_limit.tokens": "1/s",
    "execution.rate_limit.in_flight": 1,
    "execution.prices": {"prompt_tokens": "0.15/1M"},
    "execution.max_cost": 25,
    "capability.usage": "response.body.usage",
    "errors.max_row_errors": 5,
    "errors.retry.max_attempts": 2,
    "errors.retry.backoff": 1,
    "errors.retry.backoff.initial": 2,
    "errors.retry.backoff.factor": 3,
    "errors.retry.backoff.max": "5m",
    "errors.retry.retry_on": ["httpx.HTTPError", 429, "5xx"],
    "errors.retry.give_up_on": ["ValueError", 404],
    "errors.retry.max_wait": "1d",
    "errors.batch_timeout": 2,
    "analytics_store": "/store",
    "analytics_store.backend": "parquet",
    "analytics_store.uri": "/store",
    "analytics_store.storage_options": {"anon": True},
    "hooks": {"webhook": {"url": "http://127.0.0.1:1"}},
    "ray.address": "auto",
    "ray.runtime_env": {"pip": []},
}


def fields_of(model, path=""):
    """Every field of *model*, and of the sections in it, as dotted paths."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None or field.default is None:
            yield path + name
        if section:
            yield from fields_of(section, f"{path}{name}.")


def changed(path, value):
    """FULL with *value* at *path*, and nothing beside it in a shard."""
    *parents, last = path.split(".")
    spec = inner = {key: dict(v) if isinstance(v, dict) else v for key, v in FULL.items()}
    for parent in parents:
        inner[parent] = {} if parent == "shard" else dict(inner.get(parent) or {})
        inner = inner[parent]
    if parents == ["analytics_store"]:
        inner.setdefault("uri", "/store")
    if path in ("source.format_options", "source.schema_"):
        inner["format"] = "csv"  # which takes them; the next test compares two with it
    inner[last] = value
    return decisive_fields(BatchSpec(**spec), code=V1)


def test_the_tables_of_this_test_name_every_field():
    """An author of a new field must decide whether it decides the output."""
    # These have tests of their own: inputs need mode run, a journal and a time limit of rows mode row, and seconds have no
    # other measure beside them; stages have one beside no target.
    beside = {
        "capability",
        "capability.inputs",
        "capability.stages",
        "errors.row_timeout",
        "execution.journal_answers",
        "source.shard.seconds",
    }
    assert set(fields_of(BatchSpec)) - beside == DECISIVE.keys() | NEUTRAL.keys()
    assert not DECISIVE.keys() & NEUTRAL.keys()


def test_what_a_file_is_read_as_is_decisive():
    """The same bytes are other rows."""

    def of(**source):
        source = {"uri": "/in", "format": "csv", **source}
        return fingerprint(decisive_fields(BatchSpec(**FULL | {"source": source}), code=V1))

    changes = [
        {},
        {"format_options": {"delimiter": ";"}},
        {"format_options": {"nulls": []}},
        {"schema": {"a": "int64"}},
        {"schema": {"a": "int32"}},
    ]
    assert len({of(**change) for change in changes}) == len(changes)
    assert of(format_options={}) == of()


def test_how_long_a_shard_may_take_is_neutral():
    """It is the default with another number, and a run goes on with either."""

    def of(shard):
        return decisive_fields(
            BatchSpec(**FULL | {"source": {"uri": "/in", "shard": shard}}), code=V1
        )

    assert of(None) == of({"seconds": 60}) == of({"seconds": 5})


def test_whether_answers_are_journaled_and_how_long_a_row_may_take_are_neutral():
    """A run that turns out to be dear goes on with a journal."""

    def of(journal):
        spec = {**FULL, "capability": {"target": "a:b", "mode": "row"}}
        spec["execution"] = {"journal_answers": journal}
        spec["errors"] = {"row_timeout": 30} if journal else {}
        return decisive_fields(BatchSpec(**spec), code=V1)

    assert of(True) == of(False)


def test_the_loaders_of_inputs_are_decisive():
    """Another loader gives the same name other data."""

    def loaded_by(loader):
        capability = {"target": "a:b", "mode": "run", "inputs": {"models": loader}}
        spec = BatchSpec(**FULL | {"capability": capability, "analytics_store": "/store"})
        return fingerprint(decisive_fields(spec, code=V1))

    assert loaded_by("a:load") == loaded_by("a:load") != loaded_by("b:load")


@pytest.mark.parametrize("path", DECISIVE)
def test_a_decisive_field_changes_the_fingerprint(path):
    """Going on would mix the rows of two different runs."""
    old = decisive_fields(BatchSpec(**FULL), code=V1)
    new = changed(path, DECISIVE[path])

    assert fingerprint(old) != fingerprint(new)
    assert any(line.startswith(path.rstrip("_")) for line in differences(old, new))


@pytest.mark.parametrize("path", NEUTRAL)
def test_a_neutral_field_does_not(path):
    """A preempted run may go on elsewhere, with other workers."""
    old = decisive_fields(BatchSpec(**FULL), code=V1)

    assert old == changed(path, NEUTRAL[path])


def test_a_new_field_is_decisive_until_someone_says_otherwise():
    """Forgetting to decide must refuse a run, never mix its rows."""

    class Tomorrow(CapabilitySpec):
        temperature: float = 0.5

    spec = BatchSpec(**FULL | {"capability": Tomorrow(target="a:b")})

    assert "0.5" == decisive_fields(spec, code=None)["capability.temperature"]


def test_the_code_counts_unless_a_version_stands_in_for_it():
    """A version is the promise that the output is the same."""

    def fields(code, **capability):
        return decisive_fields(
            BatchSpec(source="/in", sink="/out", capability={"target": "a:b", **capability}),
            code=code,
        )

    a, b = Code({"m.py": '{"*": "a"}'}), Code({"m.py": '{"*": "b"}'})

    assert ["capability.code: m.py: changed"] == differences(fields(a), fields(b))
    assert fields(a, version="1") == fields(b, version="1")
    assert "capability.code" not in str(fields(a, version="1") | fields(None))
    assert '"1"' == fields(a, version="1")["capability.version"]


def test_an_object_as_capability_has_its_code_only():
    """Made in Python, without a target."""
    code = Code({"m.py": "{}"}, {("closure", "K"): "1"})
    fields = decisive_fields(BatchSpec(source="/in", sink="/out"), code=code)

    assert ['capability.code."m.py"', "capability.code.closure.K"] == [
        path for path in fields if path.startswith("capability")
    ]


def test_differences_read_like_a_diff():
    """The refusal shows them, so that one decides without opening two files."""
    old = changed("source.limit", 100)
    new = changed("source.limit", 200)

    assert ["source.limit: 100 -> 200"] == differences(old, new)
    assert ["source.limit: 100 -> none"] == differences(old, changed("source.limit", None))
    assert ["capability.fn_kwargs.x: 1 -> 2"] == differences(
        old, {**old, "capability.fn_kwargs.x": "2"}
    )
    assert [] == differences(old, dict(reversed(old.items())))


def test_the_difference_of_a_changed_file_names_its_definitions():
    """A hash says that something is different; one has to know what."""

    def changes(old, new, field="capability.code"):
        as_fields = ({f'{field}."pkg/m.py"': json.dumps(value)} for value in (old, new))
        return differences(*as_fields)

    lines = changes({"*": "1", "f": "1", "g": "1"}, {"*": "2", "f": "2", "x": "2"})

    assert ["capability.code: pkg/m.py: f changed, removed g, added x"] == lines
    (line,) = changes({"*": "1", "f": "1"}, {"*": "2", "f": "1"})
    assert line.endswith("pkg/m.py: the order of its statements changed")
    (line,) = changes({"*": "1"}, {"*": "2"} | {str(n): "2" for n in range(100)})
    assert line.endswith("added 15, and 92 more")
    assert ["capability.files: pkg/m.py: changed"] == changes("a", "b", "capability.files")
    assert ["capability.code: pkg/m.py: added"] == differences(
        {}, {'capability.code."pkg/m.py"': "{}"}
    )
    assert ["capability.code: pkg/m.py: removed"] == differences(
        {'capability.code."pkg/m.py"': "{}"}, {}
    )


def test_values_under_secret_names_are_not_shown():
    """A closure over a key is common; the checkpoint is stored and shown."""
    values = {
        ("closure", "api_key"): '"canary"',
        ("global", "config", "password"): '"canary"',
        ("closure", "url"): '"https://me:canary@host/"',
    }

    fields = decisive_fields(BatchSpec(source="/in", sink="/out"), code=Code({}, values))

    assert "canary" not in repr(fields)
    assert ["capability.code.closure.api_key: changed"] == differences(
        fields, {**fields, "capability.code.closure.api_key": '"other"'}
    )


def test_differences_are_safe_and_short():
    """Values come from files, and go to a terminal."""
    (line,) = differences({"a": '"\x1b[31m"'}, {"a": '"' + "x" * 5000})

    assert len(line) < 300
    assert line.isprintable()


def test_values_of_different_meaning_differ():
    """A key with a dot is not two keys; text is not a number; null is not nothing."""
    seen = [
        fingerprint(changed("capability.fn_kwargs", kwargs))
        for kwargs in (
            {},
            {"a": None},
            {"a": {}},
            {"a": []},
            {"a": 1},
            {"a": "1"},
            {"a": True},
            {"a": 1.0},
            {"a": {"b": 1}},
            {"a.b": 1},
            {'a"."b': 1},
            {"a": [{"b": 1}]},
            {"a": "sha256:x"},
        )
    ]

    assert len(seen) == len(set(seen))


def test_order_counts_where_it_decides():
    """The order of a schema is the order of the columns; of arguments, nothing."""

    def schema(**columns):
        return fingerprint(changed("sink.schema_", columns))

    def kwargs(**given):
        return fingerprint(changed("capability.fn_kwargs", given))

    assert schema(a="int8", b="int8") != schema(b="int8", a="int8")
    assert kwargs(a={"x": 1, "y": 2}, b=2) == kwargs(b=2, a={"y": 2, "x": 1})
    assert kwargs(a=[{"x": 1, "y": 2}]) == kwargs(a=[{"y": 2, "x": 1}])
    assert kwargs(a=[1, 2]) != kwargs(a=[2, 1])


def test_a_value_of_the_environment_counts_but_is_not_shown():
    """The fields are stored with the run; a variable's value must not be."""

    def fields(text, **environ):
        text = (
            f"capability: {{target: a:b, fn_kwargs: {{x: [1, {text}]}}}}\nsource: /in\nsink: /out\n"
        )
        return decisive_fields(BatchSpec.from_text(text, origin="x", environ=environ), code=None)

    one, two = fields("'${A}'", A="one"), fields("'${A}'", A="two")

    assert "one" not in repr(one)
    assert ["capability.fn_kwargs.x: changed"] == differences(one, two)
    assert [] == differences(one, fields("one"))
    assert fingerprint(one) == fingerprint(fields("one"))


def test_fields_of_a_short_form_that_came_from_the_environment_are_not_shown():
    """`source: ${BUCKET}` is the whole section."""
    text = "capability: '${C}'\nsource: ['/x/${B}']\nsink: '/out/${B}'\n"
    spec = BatchSpec.from_text(text, origin="x", environ={"B": "canary", "C": "canary:x"})

    assert "canary" not in repr(decisive_fields(spec, code=None))


def test_the_fingerprint_is_fixed():
    """Checkpoints hold it: another value for the same spec would orphan every one of them."""
    fields = decisive_fields(BatchSpec(**FULL), code=V1)

    assert list(fields) == sorted(fields)
    assert {
        "capability.fn_constructor_kwargs.y": "1",
        "capability.fn_kwargs.x": "1",
        "capability.mode": '"batch"',
        "capability.target": '"a:b"',
        "execution.batch_format": '"rows"',
        "sink.uri": '"/out"',
        "source.shard.rows": "10",
        "source.uri": '"/in"',
    }.items() < fields.items()
    assert "c7adc853f7c70b15a5a66b9c742f0ab1288d7710c6357c26edbdc1af89ff85d6" == fingerprint(fields)
    before = decisive_fields(BatchSpec(**FULL), code=None) | legacy_code_field("v1")
    assert "9ddd84fec155c145641123dcbdbc3880873870cbd3a590e92f715c0430e96a16" == fingerprint(before)


STAGES = [{"target": "a:f"}, {"target": "a:g"}]
DECISIVE_OF_A_STAGE = {
    "target": "a:h",
    "processor": "a:p",
    "mode": "row",
    "fn_kwargs": {"x": 1},
    "fn_constructor_kwargs": {"x": 1},
    "version": "2",
    "batch_format": "numpy",
}
NEUTRAL_OF_A_STAGE = {
    "name": "other",
    "files": ["/weights"],
    "one_to_one": True,
    "batch_size": 2,
    "num_cpus": 2,
    "num_gpus": 2,
    "memory": 2,
    "accelerator_type": "x",
    "resources": {"a": 1},
    "concurrency": 2,
    "max_concurrency": 2,
    "rate_limit": {"requests": "1/s"},
    "usage": "meta.usage",
}


def with_second_stage(stage):
    spec = {**FULL, "capability": [STAGES[0], stage]}
    return decisive_fields(BatchSpec(**spec), code=V1)


def test_these_tables_name_every_field_of_a_stage():
    """An author of a new field of a stage decides it, too."""
    assert StageSpec.model_fields.keys() == DECISIVE_OF_A_STAGE.keys() | NEUTRAL_OF_A_STAGE.keys()


@pytest.mark.parametrize(("field", "value"), DECISIVE_OF_A_STAGE.items())
def test_what_decides_in_a_stage_is_named_by_the_number_of_the_stage(field, value):
    """A refusal says which of ten stages it is."""
    before = with_second_stage(STAGES[1])
    stage = {field: value} if field == "processor" else {**STAGES[1], field: value}
    lines = differences(before, with_second_stage(stage))

    assert lines
    assert any(line.startswith(f"capability.stages.1.{field}") for line in lines)
    assert all(line.startswith("capability.stages.1.") for line in lines)


@pytest.mark.parametrize(("field", "value"), NEUTRAL_OF_A_STAGE.items())
def test_how_fast_a_stage_goes_decides_nothing(field, value):
    """A run goes on with other workers and batches than it began with."""
    after = with_second_stage({**STAGES[1], field: value})

    assert after == with_second_stage(STAGES[1])


def test_the_order_of_stages_decides():
    """The same two, the other way round, make other rows."""
    spec = {**FULL, "capability": STAGES[::-1]}

    assert differences(with_second_stage(STAGES[1]), decisive_fields(BatchSpec(**spec), code=V1))


def test_how_long_a_call_with_a_row_may_take_is_neutral():
    """It goes with mode row only, so it has a test of its own."""
    capability = {**FULL["capability"], "mode": "row"}
    spec = {**FULL, "capability": capability}
    limited = {**spec, "errors": {"row_timeout": 30}}

    assert decisive_fields(BatchSpec(**spec), code=V1) == decisive_fields(
        BatchSpec(**limited), code=V1
    )
