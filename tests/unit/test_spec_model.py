"""What each field accepts, what it becomes, and what is said of the rest."""

import pytest
from pydantic import BaseModel

from batchrunner.errors import BatchRunnerError, InvalidSpecError
from batchrunner.spec import (
    BatchSpec,
    CapabilitySpec,
    ErrorsSpec,
    ExecutionSpec,
    RaySpec,
    ShardSpec,
    SinkSpec,
    SourceSpec,
)


def a_spec(**changes):
    return BatchSpec(**{"source": "/in", "sink": "/out"} | changes)


def refusal_of(make):
    with pytest.raises(InvalidSpecError) as caught:
        make()
    return str(caught.value)


def test_errors_of_python_are_lines_too():
    """A notebook deserves the same words as a file, all of them, and a ValueError."""
    with pytest.raises(ValueError, match="sinc") as caught:
        BatchSpec(source={"uri": "/in", "limit": 0}, sinc="/out", tags={"year": 2026})

    assert isinstance(caught.value, BatchRunnerError)
    assert [
        "BatchSpec(...) does not fit:",
        "  source.limit: must be at least 1",
        '  the key "sink" is missing',
        "  tags.year: must be a string: put it in quotes",
        '  unknown key "sinc"; did you mean "sink"?',
        "4 errors",
    ] == str(caught.value).split("\n")


@pytest.mark.parametrize(
    "kind", [BatchSpec, CapabilitySpec, ExecutionSpec, RaySpec, ShardSpec, SinkSpec, SourceSpec]
)
def test_every_section_raises_our_error(kind):
    """A user need not know which library validates the fields."""
    message = refusal_of(lambda: kind(nope=1))

    assert message.startswith(f"{kind.__name__}(...) does not fit:\n")
    assert 'unknown key "nope"; known here: ' in message


def test_an_error_inside_a_section_has_its_whole_path():
    """Pydantic would call a section's own constructor, and lose where it was."""
    message = refusal_of(lambda: a_spec(source={"uri": "/in", "shard": {"rows": 0}}))

    assert "  source.shard.rows: must be at least 1\n1 error" in message


def test_an_object_as_capability_is_sent_to_the_runner():
    """The spec is data; the object goes beside it."""
    assert "BatchRunner(spec, capability=...)" in refusal_of(lambda: a_spec(capability=print))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "a b"}, "name: must be letters"),
        ({"name": ""}, "name: must be letters"),
        ({"name": ".hidden"}, "name: must be letters"),
        ({"name": "a\n"}, "name: must be letters"),
        ({"name": "é"}, "name: must be letters"),
        ({"name": 12}, "name: must be a string: put it in quotes"),
        ({"version": 2}, "version: must be 1"),
        ({"resume": "maybe"}, "resume: must be true or false"),
        ({"tags": ["a"]}, "tags: must be a mapping"),
        ({"tags": "a"}, "tags: must be a mapping"),
        ({"source": 3}, "source: must be a mapping"),
        ({"source": {"uri": 3}}, "source.uri: must be a string"),
        ({"source": {"uri": "/in", "columns": "a"}}, "source.columns: must be a list"),
        ({"source": {"uri": "/in", "columns": []}}, "source.columns: must not be empty"),
        ({"source": {"uri": "/in", "limit": True}}, "limit: must be a number, not true or false"),
        ({"source": {"uri": "/in", "limit": 1.5}}, "limit: must be a whole number"),
        ({"source": {"uri": "/in", "format": "xls"}}, "format: must be 'jsonl' or 'parquet'"),
        ({"sink": {"uri": "/out", "columns": ["a"]}}, 'sink: unknown key "columns"'),
        ({"ray": {"address": 3}}, "ray.address: must be a string"),
        ({"ray": {"address": " "}}, "ray.address: must be a word"),
        (
            {"ray": {"runtime_env": {"env_vars": {"A": 1}}}},
            "env_vars.A must be a string: put it in",
        ),
        ({"ray": {"runtime_env": {"env_vars": ["A"]}}}, "runtime_env: env_vars must be a mapping"),
        ({"capability": "os.system"}, 'target: must be "package.module:attribute"'),
    ],
)
def test_the_error_of_a_value_says_which_would_fit(fields, says):
    """The message is the documentation that is read."""
    assert says in refusal_of(lambda: a_spec(**fields))


@pytest.mark.parametrize("target", ["a:b", "pkg.mod:attr", "_a.b1:C.method", "pkg.mod:_private"])
def test_a_target_is_a_module_and_an_attribute(target):
    """Nested attributes are fine; nothing is imported to find out."""
    assert target == CapabilitySpec(target=target).target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "a",
        "a.b",
        ":b",
        "a:",
        "a:b:c",
        "a/b:c",
        "a b:c",
        "a..b:c",
        "a:b()",
        "aé:b",
        "a:b\n",
        "1:b",
    ],
)
def test_what_is_no_target_is_refused(target):
    """Found before anything is started, and before anything is imported."""
    assert "target: must be" in refusal_of(lambda: CapabilitySpec(target=target))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3h50m", 13_800.0),
        ("90s", 90.0),
        ("2d", 172_800.0),
        ("1d2h3m4s", 93_784.0),
        ("1.5h", 5_400.0),
        ("0.1s", 0.1),
        ("250ms", 0.25),
        ("1m1500ms", 61.5),
        ("600", 600.0),
        (600, 600.0),
        (0.5, 0.5),
    ],
)
def test_a_duration_becomes_seconds(value, seconds):
    """One unit inside, whatever was written."""
    found = ExecutionSpec(max_runtime=value).max_runtime

    assert (float, seconds) == (type(found), found)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "h",
        "50m3h",
        "5ms1s",
        "0ms",
        "1h1h",
        "-1h",
        "1 h",
        "1w",
        "1H",
        "0s",
        0,
        -1,
        True,
        [],
        "٣s",
        "9" * 99 + "s",
        float("nan"),
        float("inf"),
        "nan",
        "1e3s",
        "1h\n",
    ],
)
def test_what_is_no_duration_is_refused(value):
    """Minutes read as months end a run too late."""
    assert "must be a duration" in refusal_of(lambda: ExecutionSpec(max_runtime=value))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("1GB", 10**9),
        ("1.1GB", 1_100_000_000),
        ("1.5KiB", 1536),
        ("2TiB", 2 << 40),
        ("4096B", 4096),
        ("4096", 4096),
        (4096, 4096),
        (4096.0, 4096),
    ],
)
def test_a_size_becomes_bytes(value, size):
    """MiB are powers of 1024, MB of 1000; the difference is a tenth at a terabyte."""
    found = ExecutionSpec(memory=value).memory

    assert (int, size) == (type(found), found)


@pytest.mark.parametrize(
    "value",
    ["", "MiB", "1M", "1Mi", "1.0001KB", "0.5B", "-1KB", "0", 0, 1.5, True, [], "1KBs", "1\n"],
)
def test_what_is_no_size_is_refused(value):
    """A million is what 1M means to one reader, 1,048,576 to the next."""
    assert "must be a size in bytes" in refusal_of(lambda: ExecutionSpec(memory=value))


@pytest.mark.parametrize(
    ("value", "allowed"),
    [("10%", 0.1), ("0.1%", 0.001), ("100%", 1.0), ("0%", 0.0), ("10", 10), ("0.5", 0.5), (0, 0)],
)
def test_a_budget_is_a_count_a_share_or_per_cent(value, allowed):
    """People write 10%."""
    found = ErrorsSpec(max_row_errors=value).max_row_errors

    assert (type(allowed), pytest.approx(allowed)) == (type(found), found)


@pytest.mark.parametrize(
    "value", ["150%", "-1%", "%", "10 %", "ten", "", "1e400", "nan", -1, 1.5, True, []]
)
def test_what_is_no_budget_is_refused_in_words(value):
    """Not in Python's."""
    said = refusal_of(lambda: ErrorsSpec(max_row_errors=value))

    assert "max_row_errors: must be a count" in said
    assert "literal" not in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_cpus": 0.00001}, "num_cpus: must have at most 4 decimals"),
        ({"num_gpus": 1.5}, "num_gpus: must be whole above 1"),
        ({"resources": {"CPU": 2}}, "resources: must not have CPU: give num_cpus"),
        ({"resources": {"memory": 5}}, "resources: must not have memory: give memory"),
        ({"resources": {"": 1}}, "resources: must name each resource"),
        ({"accelerator_type": ""}, "accelerator_type: must be a word"),
        ({"batch_size": 2**60 + 1}, "batch_size: must be at most 2^60"),
        ({"memory": "999999999999999GB"}, "memory: must be a size"),
    ],
)
def test_what_ray_and_counters_cannot_hold_is_refused_at_once(fields, says):
    """Ray says so half a minute later, by an internal error, or waits for ever."""
    assert says in refusal_of(lambda: ExecutionSpec(**fields))


def test_a_call_may_take_as_long_as_a_pipe_can_wait():
    """Beyond 24 days the wait itself failed, and so each row."""
    assert ErrorsSpec(batch_timeout="24d").batch_timeout == 24 * 86_400
    assert 'must be at most "24d"' in refusal_of(lambda: ErrorsSpec(batch_timeout="25d"))


def test_a_shard_has_exactly_one_measure():
    """Two measures could contradict each other."""
    assert 4096 == ShardSpec(bytes="4096").bytes
    assert 1 == ShardSpec(files=1).files
    for wrong in ({}, {"rows": 1, "bytes": "1MB"}):
        assert "exactly one of rows, bytes" in refusal_of(lambda wrong=wrong: ShardSpec(**wrong))
    assert "bytes: must be at least 4096" in refusal_of(lambda: ShardSpec(bytes="4095B"))
    assert "files: must be at least 1" in refusal_of(lambda: ShardSpec(files=0))


@pytest.mark.parametrize(
    ("sink_format", "known"),
    [("jsonl", {"none", "gz", "zst"}), ("parquet", {"none", "snappy", "zstd", "gzip"})],
)
def test_a_compression_fits_its_format(sink_format, known):
    """Found at once, not after the first shard was computed."""
    for compression in ("none", "gz", "zst", "snappy", "zstd", "gzip"):
        sink = {"uri": "/out", "compression": compression}
        assert compression == SinkSpec(**sink).compression
        if compression in known:
            assert compression == SinkSpec(format=sink_format, **sink).compression
            continue
        with pytest.raises(InvalidSpecError, match=f"the format {sink_format} takes these"):
            SinkSpec(format=sink_format, **sink)
        with pytest.raises(InvalidSpecError, match=f"sink: the format {sink_format} takes these"):
            a_spec(source={"uri": "/in", "format": sink_format}, sink=sink)
    assert "compression: must be 'none'" in refusal_of(
        lambda: SinkSpec(uri="/out", compression="rar")
    )


def test_a_schema_is_for_parquet():
    """A schema that is not applied would be a false promise."""
    columns = {"b": "int64", "a": "string"}
    sink = SinkSpec(uri="/out", format="parquet", schema=columns)

    assert list(columns) == list(sink.schema_)
    assert sink == SinkSpec(uri="/out", format="parquet", schema_=columns)
    assert "sink.schema: a schema needs the format parquet" in refusal_of(
        lambda: a_spec(sink={"uri": "/out", "format": "jsonl", "schema": columns})
    )
    assert "sink.schema.a: must be a type such as int64" in refusal_of(
        lambda: a_spec(sink={"uri": "/out", "schema": {"a": 1}})
    )


@pytest.mark.parametrize("value", [1, 8, (1, 8), [2, 2], None])
def test_concurrency_is_a_number_or_a_range(value):
    """As Ray Data has it."""
    expected = tuple(value) if isinstance(value, list) else value
    assert expected == ExecutionSpec(concurrency=value).concurrency


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "concurrency: must be at least 1"),
        ([2, 1], r"concurrency: must be \[min, max\] with min <= max"),
        ([0, 1], "concurrency.0: must be at least 1"),
        ([1], "concurrency: has too few items"),
        ([1, 2, 3], "concurrency: has too many items"),
        ("many", "concurrency: must be a whole number"),
        (True, "concurrency: must be a number"),
    ],
)
def test_what_is_no_concurrency_is_refused(value, says):
    """One message for one mistake, not one for each thing it might have been."""
    with pytest.raises(InvalidSpecError, match=says) as caught:
        ExecutionSpec(concurrency=value)
    assert str(caught.value).endswith("\n1 error")


def test_resources_are_shares():
    """A GPU may be split, and nothing is negative or endless."""
    execution = ExecutionSpec(num_gpus=0.5, num_cpus=0, resources={"tpu": 1})

    assert (0.5, 0.0, {"tpu": 1.0}) == (execution.num_gpus, execution.num_cpus, execution.resources)
    for wrong in (-1, float("inf"), float("nan"), True, "x"):
        message = refusal_of(
            lambda wrong=wrong: ExecutionSpec(
                num_gpus=wrong, num_cpus=wrong, resources={"t": wrong}
            )
        )
        assert "3 errors" in message


def test_arguments_of_the_capability_are_plain_values():
    """They are compared with the last run's, and move between processes."""
    kwargs = {"a": [1, 2.5, None, True, "x", {"b": (1, 2)}]}
    assert kwargs == CapabilitySpec(target="a:b", fn_kwargs=kwargs).fn_kwargs

    loop = []
    loop.append(loop)
    for wrong, says in (
        ({"a": object()}, "fn_kwargs: must hold plain values; make the object inside"),
        ({"a": [{1: 2}]}, "fn_kwargs: must have strings as keys"),
        ({"a": ["\udc80"]}, "fn_kwargs: must be Unicode text"),
        ({"a": {"\udc80": 1}}, "fn_kwargs: must be Unicode text"),
        ({"a": loop}, "fn_kwargs: must not be nested deeper than 50 levels"),
    ):
        assert says in refusal_of(lambda wrong=wrong: CapabilitySpec(target="a:b", fn_kwargs=wrong))


def test_sections_do_not_share_their_defaults():
    """A dict that one spec's user changes must not be another's."""
    assert a_spec().tags is not a_spec().tags
    assert a_spec().execution.resources is not a_spec().execution.resources


def sections_of(model):
    yield model
    for kind in model.__subclasses__():
        yield from sections_of(kind)


def test_every_field_is_described():
    """The descriptions are the reference page and the editor's help."""
    undescribed = [
        f"{kind.__name__}.{name}"
        for kind in sections_of(BaseModel)
        if kind.__module__.startswith("batchrunner.spec")
        for name, field in kind.model_fields.items()
        if not (field.description or "").endswith((".", "..."))
    ]

    assert [] == undescribed
