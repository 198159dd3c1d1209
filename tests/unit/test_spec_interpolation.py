"""`${VAR}` in parsed values: what a variable holds is one value, never YAML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"


def read(text, **environ):
    return BatchSpec.from_text(text, origin="x.yaml", environ=environ)


def tag_of(written, **environ):
    return read(f"{MINIMAL}tags: {{a: {written}}}\n", **environ).tags["a"]


def refusal_of(text, **environ):
    with pytest.raises(InvalidSpecError) as caught:
        read(text, **environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${A}", "one"),
        ("pre-${A}-${A}post", "pre-one-onepost"),
        ("${A:-default}", "one"),
        ("${A:?needed}", "one"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${UNSET:-default}", "default"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:-b?c}", "a:-b?c"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$$${A}", "$one"),
        ("^a$", "^a$"),
        ("$A", "$A"),
        ("${LOOP}", "${A}"),
    ],
)
def test_references_are_replaced_once(written, value):
    """As in a shell, but what a variable holds is not looked at again."""
    assert value == tag_of(f'"{written}"', A="one", EMPTY="", LOOP="${A}")


@pytest.mark.parametrize("written", ["${A}", '"${A}"', "'${A}'", "|-\n  ${A}", ">-\n  ${A}"])
def test_every_way_to_write_a_string_takes_references(written):
    """Quotes are YAML's affair."""
    assert "one" == read(f"{MINIMAL}name: {written}\n", A="one").name


@pytest.mark.parametrize(
    "value",
    [
        "a\nname: evil",
        '"',
        "'",
        "a: b",
        "- x",
        "}",
        "#",
        "*x",
        "&x",
        "!!python/name:os.x",
        "null",
        "12",
    ],
)
def test_a_variable_cannot_inject_yaml(value):
    """A variable sets one value and cannot add keys to the spec."""
    assert value == tag_of('"${A}"', A=value)
    assert value == read(MINIMAL + "tags:\n  a: ${A}\n", A=value).tags["a"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_arrives_as_it_is(value):
    """Not a character is lost or read as syntax."""
    assert f"<{value}>" == tag_of('"<${A}>"', A=value)


def test_a_reference_becomes_the_type_of_its_field():
    """The environment has strings only; the field knows what it wants."""
    text = MINIMAL + (
        "resume: ${RESUME}\n"
        "execution:\n"
        "  batch_size: ${BS:-32}\n"
        '  concurrency: ["1", "${N}"]\n'
        "  num_gpus: ${GPUS}\n"
        "  memory: ${MEMORY}\n"
        "  max_runtime: ${RUNTIME}\n"
    )
    spec = read(text, N="4", GPUS="0.5", MEMORY="1024", RUNTIME="90", RESUME="false")
    execution = spec.execution

    assert (32, (1, 4), 0.5) == (execution.batch_size, execution.concurrency, execution.num_gpus)
    assert (1024, 90.0, False) == (execution.memory, execution.max_runtime, spec.resume)


def test_keys_are_taken_as_they_are():
    """A key that comes from outside could be any key."""
    assert {"${A}": "x"} == read(MINIMAL + "tags: {'${A}': x}\n", A="one").tags


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("${UNSET}", "x.yaml:4:7: the variable UNSET is not set: set it, or write ${UNSET:-def"),
        ("in/${A}/${UNSET}", "x.yaml:4:15: the variable UNSET is not set"),
        ("${UNSET:?ask the team}", "x.yaml:4:7: the variable UNSET is not set: ask the team"),
        ("${EMPTY:?must be full}", "the variable EMPTY is not set: must be full"),
        ("${A:-${B}}", "x.yaml:4:7: ${...} inside ${...} is not supported"),
        ("${}", "x.yaml:4:7: write ${NAME}, ${NAME:-default} or ${NAME:?message}"),
        ("${1A}", "write ${NAME}"),
        ("${A B}", "write ${NAME}"),
        ("${A:+x}", "write ${NAME}"),
        ("${A-x}", "write ${NAME}"),
        ("${A", "write ${NAME}"),
        ("x ${", "x.yaml:4:9: write ${NAME}"),
    ],
)
def test_a_bad_reference_is_an_error_at_its_place(written, says):
    """The caret is under the reference, not only under the value it is in."""
    assert says in refusal_of(MINIMAL + f"name: {written}\n", A="SECRET-7f3a", EMPTY="")


def test_every_reference_that_fails_is_reported():
    """Setting variables one failure at a time is slow."""
    assert "3 errors" in refusal_of(MINIMAL + "tags:\n  a: ${A}\n  b: ${B}\n  c: ${C}\n")


def test_the_value_of_a_variable_is_in_no_error():
    """Errors go to logs; the variable may be a password, wherever it was put by mistake."""
    fields = [
        "name: ${A}",
        "resume: ${A}",
        "checkpoint_dir: gs://${A}",
        "version: ${A}",
        "source: ['${A}://x', 's3://${A}@x']",
        "execution:",
        "  {batch_size: '${A}', engine: '${A}', memory: '${A}', max_runtime: '${A}',",
        "  concurrency: ['${A}', 1], num_cpus: '${A}', resources: {x: '${A}'}}",
        "capability: {target: '${A}', mode: '${A}'}",
        "ray: ${A}",
        "tags: ${A}",
        "sink: {uri: '*${A}', format: '${A}', compression: '${A}', schema: '${A}'}",
    ]
    message = refusal_of("\n".join(fields), A="SECRET 7f3a")

    assert "21 errors" in message
    assert "7f3a" not in message
