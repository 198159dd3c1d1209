"""YAML 1.2's scalars, no surprises of YAML's own, and no file that costs more than it should."""

import json
import math
import pickle
import subprocess
import sys
import time
import tracemalloc

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, text
from batchrunner.spec.tree import MAX_NODES

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"
KWARGS = "source: in.jsonl\nsink: out\ncapability:\n  target: pkg.mod:attr\n  fn_kwargs:\n"


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def parser(request, monkeypatch):
    """The parser in C where PyYAML has it, the one in Python where it has not."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(text, "LOADER", getattr(yaml, request.param))


def read(written, **environ):
    return BatchSpec.from_text(written, origin="x.yaml", environ=environ)


def value_of(scalar):
    return read(f"{KWARGS}    value: {scalar}\n").capability.fn_kwargs["value"]


def refusal_of(written, **environ):
    with pytest.raises(InvalidSpecError) as caught:
        read(written, **environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("0x", "0x"),
        ("1e", "1e"),
        (".", "."),
        ("[-1]", [-1]),
        ("nUll", "nUll"),
        ("tRUE", "tRUE"),
        ("=", "="),
        ("٣", "٣"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+12", 12),
        ("-0", 0),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5E-3", -0.0015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ('"010"', "010"),
        ("'true'", "true"),
        ("|\n      12", "12\n"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ('!!int "12"', 12),
        ("!!float 1", 1.0),
        ("!!null ''", None),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("{a: [{b: c}, []]}", {"a": [{"b": "c"}, []]}),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(written, value):
    """Norway is a country, and half past twelve no number."""
    found = value_of(written)

    assert (type(value), value) == (type(found), found)


def test_nan_is_a_number():
    """It is of the core schema too."""
    assert math.isnan(value_of(".nan"))


@pytest.mark.parametrize(
    "written",
    [
        "!!python/object/apply:os.system ['touch {path}']",
        "!!python/object/new:os.system ['touch {path}']",
        "!!python/name:os.system",
        "!foo bar",
        "!!binary aGVsbG8=",
        "!!timestamp 2026-01-01",
        "!!set {{a}}",
        "!!omap [a: 1]",
        "!!int x",
        "!!bool 1",
        "!!map []",
        "!!seq {{}}",
        "!<tag:example.org,2000:x> y",
        "1e999",
        "9" * 500,
    ],
)
def test_what_is_no_plain_value_is_an_error_at_its_place(tmp_path, written):
    """A tag could name any code; none is ever looked up."""
    message = refusal_of(f"{KWARGS}    value: {written.format(path=tmp_path / 'pwned')}\n")

    assert message.startswith("x.yaml:6:12: ")
    assert message.endswith("\n1 error in x.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("tags: {a: x, a: y}", 'x.yaml:4:14: duplicate key "a"; the first is at line 4, column 8'),
        ("sink: other", 'x.yaml:4:1: duplicate key "sink"; the first is at line 3, column 1'),
        ('"sink": other', 'x.yaml:4:1: duplicate key "sink"'),
        ("tags: {<<: {a: x}}", "x.yaml:4:8: merge keys (<<) are not supported"),
        ("tags: {1: x}", "x.yaml:4:8: a key must be a string: put it in quotes"),
        ("tags: {true: x}", "x.yaml:4:8: a key must be a string"),
        ("tags: {~: x}", "x.yaml:4:8: a key must be a string"),
        ("tags: {[a]: x}", "x.yaml:4:8: a key must be a plain string"),
        ("tags: {!!str a: x}", "x.yaml:4:8: a key must be a string"),
        ("tags: {a: *b}", "x.yaml:4:11: the alias *b leads nowhere: no anchor"),
        ("ray: {runtime_env: &a {b: *a}}", "x.yaml:4:27: the alias *a leads nowhere: a value can"),
        ("---\nname: second", "x.yaml:4:1: a second document starts here"),
        ("...\n---\n", "x.yaml:5:1: a second document starts here"),
    ],
)
def test_what_yaml_allows_and_people_do_not_mean_is_refused(written, says):
    """Each of these loses a value in silence in some other reader."""
    assert says in refusal_of(MINIMAL + written + "\n")


@pytest.mark.parametrize("directive", ["%YAML 1.2\n---\n", "# hello\n\n%TAG ! x:\n---\n"])
def test_directives_are_refused(directive):
    """A megabyte of them takes the parser four seconds."""
    assert "directives (%) are not supported" in refusal_of(directive + MINIMAL)


def test_quoted_keys_are_strings_whatever_they_look_like():
    """The way out that the error names must work."""
    assert {"1": "x", "<<": "y"} == read(MINIMAL + "tags: {'1': x, '<<': y}\n").tags


def test_an_alias_is_its_anchor_s_value():
    """Writing a long list of options twice is asking for a difference."""
    written = (
        "capability: a:b\nsource: {uri: in, storage_options: &store {anon: true}}\n"
        "sink: {uri: out, storage_options: *store}\n"
    )

    assert {"anon": True} == read(written).sink.storage_options


def laughs(levels, *, wide):
    """Each level holds the one above it *wide* times."""
    lines = (
        f"    l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * wide)}]\n"
        for level in range(1, levels)
    )
    return f"{MINIMAL}ray:\n  runtime_env:\n    l0: &l0 [x]\n{''.join(lines)}"


HOSTILE = {
    "billion laughs": laughs(10, wide=9),
    "laughs, one wide": laughs(60, wide=1),
    "one long string, often": KWARGS
    + "    s: &s "
    + "x" * 900_000
    + "\n    l: ["
    + ", ".join(["*s"] * 15_000)
    + "]\n",
    "flow depth 5000": KWARGS + "    d: " + "[" * 5000 + "]" * 5000 + "\n",
    "block depth 5000": KWARGS + "    d:\n      " + "- " * 5000 + "x\n",
    "mappings, depth 5000": KWARGS + "    d: " + "{a: " * 5000 + "}" * 5000 + "\n",
    "half a megabyte of brackets": "[" * 500_000,
    "many values": KWARGS + "    l: [" + "1," * 400_000 + "]\n",
    "many keys": "".join(f"k{n}: 1\n" for n in range(80_000)),
    "many directives": "".join(f"%TAG !a{n}! x\n" for n in range(60_000)) + "---\na: 1\n",
    "over a megabyte": "#" * (2 << 20),
}


def seconds_to_refuse(written):
    began = time.process_time()
    refusal_of(written)
    return time.process_time() - began


@pytest.mark.parametrize("parser", ["CSafeLoader"], indirect=True)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_at_once(name):
    """A service that accepts specs must not be stopped by one."""
    took = min(seconds_to_refuse(HOSTILE[name]) for _ in range(3))
    tracemalloc.start()
    message = refusal_of(HOSTILE[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert took < 0.4  # four times what the longest takes alone; a bomb takes minutes
    assert peak < 50_000_000
    assert len(message) < 2_000
    assert any(word in message for word in ("larger than", "deeper than", "directives"))


@pytest.mark.parametrize("parser", ["CSafeLoader"], indirect=True)
def test_a_huge_file_is_not_read(tmp_path):
    """A hundred megabytes, sparse: in a process of its own, to see its memory."""
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    code = (
        "import resource, sys; from batchrunner.spec import BatchSpec\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: BatchSpec.from_yaml(sys.argv[1])\n"
        "except ValueError as error: assert 'larger than 1 MiB' in str(error)\n"
        "else: raise SystemExit('accepted')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    ).stdout

    assert int(grown) * 1024 < 20_000_000


def test_what_is_just_inside_the_limits_is_read():
    """The limits refuse attacks, not large specs."""
    deep = "[" * 47 + "]" * 47
    wide = ", ".join(["x"] * (MAX_NODES - 100))
    kwargs = read(f"{KWARGS}    deep: {deep}\n    wide: [{wide}]\n").capability.fn_kwargs

    assert MAX_NODES - 100 == len(kwargs["wide"])
    assert "deeper than 50 levels" in refusal_of(f"{KWARGS}    deep: {'[' * 50 + ']' * 50}\n")


TOKENS = [
    *"a[]{},:'\"#|>?-&*!%$~\t\r\n\\ ",
    *("a: ", "- ", "\n  ", "&x ", "*x", "!!str ", "${A}", "${A:-", "}", "<<: ", "---\n", "...\n"),
    *("source: ", "sink: ", "capability: ", "execution: ", "tags: ", "name: ", "secret: "),
    *(
        "\ufeff",
        "\u2028",
        "\x85",
        "\x00",
        "é",
        "😀",
        "\ud800",
        "1e3",
        "0o7",
        "://u:p@h/",
        "~",
        "~/x",
    ),
    *('"\\U99999999"', '"\\ud800"', "!%ff ", "9" * 5000),
]
CANARY = "SECRET-7f3a: \n- x"
any_text = st.text() | st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)


@settings(
    max_examples=300,
    deadline=60_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(any_text)
def test_any_text_is_a_spec_or_an_invalid_spec(written):
    """Whatever is in the file, nothing but an InvalidSpecError comes out, printable."""
    error, kept = None, ""
    try:
        kept = read(written, A=CANARY).kept_text
    except InvalidSpecError as refused:
        error = refused
    lines = str(error).replace("\n", "")

    assert CANARY not in lines + kept
    assert all(char.isprintable() or char == "\t" for char in lines)
    assert str(error) == str(pickle.loads(pickle.dumps(error)))


# YAML folds some of these where JSON does not; "$" is ours; surrogates are no characters.
some_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="$\ufffe\uffff"),
    max_size=8,
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | some_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(some_text, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_json_is_read_as_itself(value):
    """JSON is YAML: a spec that a machine wrote has the values it was written with."""
    capability = {"target": "a:b", "fn_kwargs": {"v": value}}
    written = json.dumps(
        {"source": "in", "sink": "out", "capability": capability}, ensure_ascii=False
    )

    assert value == read(written).capability.fn_kwargs["v"]
