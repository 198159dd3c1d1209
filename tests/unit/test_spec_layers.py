"""One spec out of several texts: files that extend others, profiles, and overrides."""

import json
import os
import pickle

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec
from batchrunner.spec.fingerprint import decisive_fields
from batchrunner.spec.layers import Main, Variation
from batchrunner.spec.override import as_words
from batchrunner.spec.secrets import HIDDEN
from batchrunner.spec.yaml_text import block, flow

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"
CANARY = "hunter2-7f3a"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(**files):
    """Write *files* into the current folder; a `__` in a name is a slash."""
    from pathlib import Path

    for name, text in files.items():
        path = Path(f"{name.replace('__', '/')}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refusal(path="s.yaml", **how):
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_yaml(path, **how)
    assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))
    return caught.value


def test_a_spec_extends_another_and_its_own_values_count():
    """Ten specs that differ in one line share the other thirty."""
    written(
        base=MINIMAL + "execution: {batch_size: 8, engine: local}\ntags: {a: b}\n",
        s="extends: base.yaml\nexecution: {batch_size: 9}\ntags: {c: d}\nsource: [x, y]\n",
    )
    spec = BatchSpec.from_yaml("s.yaml")

    assert (9, "local") == (spec.execution.batch_size, spec.execution.engine)
    assert {"a": "b", "c": "d"} == spec.tags
    assert ["x", "y"] == [uri.rpartition("/")[2] for uri in spec.source.uris]
    assert "s" == spec.name


def test_a_file_that_is_extended_is_found_beside_the_one_that_names_it():
    """A run is started from anywhere."""
    written(
        specs__team__s="extends: ../base.yaml\nname: a\n",
        specs__base="extends: shared/most.yaml\nsource: [a]\n",
        specs__shared__most=MINIMAL,
    )
    assert "a" == BatchSpec.from_yaml("specs/team/s.yaml").name
    assert BatchSpec.from_yaml("specs/team/s.yaml").source.uris[0].endswith("/a")


def test_files_that_extend_each_other_are_refused_with_the_way():
    """The chain shows where to cut it."""
    written(a="extends: b.yaml\n" + MINIMAL, b="extends: c.yaml\n", c="extends: ./a.yaml\n")

    assert (
        "c.yaml:1:10: extends: the files extend each other: a.yaml -> b.yaml -> c.yaml -> a.yaml"
        in str(refusal("a.yaml"))
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("none.yaml", "none.yaml: the spec cannot be read: No such file"),
        ("[a, b]", "must be the name of a file"),
        ("''", "must be the name of a file"),
        ("${NOWHERE}", "must be the name of a file, without ${...}"),
        ("${HOME}/base.yaml", "must be the name of a file, without ${...}"),
        ('"\\0"', "must be the name of a file"),
        (".", "cannot be read"),
    ],
)
def test_what_cannot_be_extended_is_shown_where_it_is_named(text, what):
    """The line to correct is that of `extends`."""
    written(s=f"extends: {text}\n{MINIMAL}")
    message = str(refusal())

    assert message.startswith("s.yaml:1:")
    assert what in message


def test_each_error_names_the_line_of_the_file_it_is_in():
    """With four files, a message without a name is a search."""
    written(
        base="capability: a:b\nsource: in\nsink: out\nexecution:\n  batch_size: many\n",
        s="extends: base.yaml\nnmae: x\nprofiles:\n  dev:\n    errors: {max_row_errors: lots}\n",
    )
    error = refusal(profile="dev", overrides=["execution.num_cpus=all", "ray.adress=x"])
    text = str(error)

    assert "base.yaml:5:15: execution.batch_size: must be a whole number" in text
    assert 's.yaml:2:1: unknown key "nmae"; did you mean "name"?' in text
    assert "s.yaml:5:30: errors.max_row_errors" in text
    assert "--set: execution.num_cpus: must be" in text
    assert '--set: ray: unknown key "adress"; did you mean "address"?' in text
    assert text.endswith("5 errors in s.yaml")  # of several files, the one that was named
    assert {"base.yaml", "s.yaml", "--set"} == {problem.file for problem in error.problems}


def test_errors_of_one_file_are_counted_there():
    """The last line of a message is the one that is read."""
    written(base=f"{MINIMAL}nmae: x\ntaags: x\n", s="extends: base.yaml\n")

    assert str(refusal()).endswith("2 errors in base.yaml")


@pytest.mark.parametrize("key", ["extends", "profiles"])
def test_what_a_spec_is_made_of_stands_at_the_top_of_a_file_only(key):
    """`unknown key "extends"; did you mean "extends"?` helps no one."""
    written(s=f"profiles: {{dev: {{{key}: x}}}}\n{MINIMAL}")
    said = f'unknown key "{key}"; it stands at the top of a file only'

    assert said in str(refusal(profile="dev"))
    assert said in str(refusal(overrides=[f"{key}=x"]))


def test_what_is_no_regular_file_is_not_extended():
    """A pipe that no process writes into would be read forever."""
    os.mkfifo("pipe.yaml")
    written(s=f"extends: pipe.yaml\n{MINIMAL}")

    assert (
        "s.yaml:1:10: extends: pipe.yaml: the spec cannot be read: this is no regular file"
        in str(refusal())
    )


@pytest.mark.parametrize(
    "off",
    [
        "hooks",
        "hooks.webhook",
        "tags",
        "capability.fn_kwargs",
        "source.storage_options",
        "execution.resources",
        "ray.runtime_env",
        "execution.batch_size",
        "errors.max_row_errors",
        "resume",
        "name",
    ],
)
def test_null_switches_off_what_is_inherited(off):
    """In a profile or by an option, as often as one likes: the default counts."""
    written(
        base="capability: {target: a:b, fn_kwargs: {a: 1}}\n"
        "source: {uri: in, storage_options: {anon: true}}\nsink: out\ntags: {a: b}\n"
        "hooks: {webhook: {url: 'http://h/x'}}\nresume: false\nname: x\n"
        "execution: {batch_size: 7, resources: {a: 1}}\nerrors: {max_row_errors: 3}\n"
        "ray: {runtime_env: {pip: [a]}}\n",
        s="extends: base.yaml\n",
        plain="capability: a:b\nsource: in\nsink: out\n",
    )
    spec = BatchSpec.from_yaml("s.yaml", overrides=[f"{off}=null", f"{off}=null"])
    inherited, default = BatchSpec.from_yaml("s.yaml"), BatchSpec.from_yaml("plain.yaml")
    for step in off.split(".")[: 1 if off == "hooks.webhook" else None]:
        spec, inherited, default = (getattr(one, step) for one in (spec, inherited, default))

    assert spec != inherited
    assert spec == default if off != "name" else spec == "s"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: a\nsink: b\0\n", "base.yaml:2:8: the character U+0000"),
        ("# c\n%YAML 1.2\n---\nname: a\n", "base.yaml:2:1: directives (%)"),
        (f"name: a\ntags: {'[' * 60}{']' * 60}\n", "base.yaml:2:57: nested deeper than 50"),
    ],
)
def test_what_exceeds_a_limit_is_shown_in_the_file_it_is_in(text, where):
    """The place is one of the extended file; the main file has no such line."""
    written(base=text, s=f"extends: base.yaml\n{MINIMAL}")

    assert where in str(refusal())


@pytest.mark.parametrize("value", ["1", "", "{a: 1}"])
def test_an_override_with_too_many_steps_is_named(value):
    """It is no line of the file."""
    written(s=MINIMAL)

    assert str(refusal(overrides=[f"tags{'.a' * 60}={value}"])).startswith("--set: ")


def test_what_the_whole_lacks_is_missing_in_the_file_that_was_named():
    """Any of the files could have it; that one is the user's."""
    written(base="source: in\ntags: {a: b}\n", s="# mine\nextends: base.yaml\n")
    text = str(refusal(overrides=["name=x"]))

    assert 's.yaml:2:1: the key "capability" is missing' in text
    assert 's.yaml:2:1: the key "sink" is missing' in text


def test_limits_hold_for_all_files_together():
    """Bounds that each file could use up once would be none."""
    many = "fn_kwargs: {x: [" + "a, " * 9_000 + "a]}"
    written(
        base=f"capability: {{target: a:b, {many}}}\nsource: in\nsink: out\n",
        s=f"extends: base.yaml\ncapability: {{{many.replace('x:', 'y:')}}}\n",
        t=f"extends: s.yaml\ncapability: {{{many.replace('x:', 'z:')}}}\n",
    )
    assert BatchSpec.from_yaml("s.yaml")
    assert "larger than 20,000 values" in str(refusal("t.yaml"))

    written(long0=MINIMAL + "#" * 600_000, long1="extends: long0.yaml\n" + "#" * 600_000)
    assert "larger than 1 MiB together" in str(refusal("long1.yaml"))

    written(**{f"c{n}": f"extends: c{n - 1}.yaml\n" for n in range(1, 30)}, c0=MINIMAL)
    assert BatchSpec.from_yaml("c19.yaml")
    assert "at most 20 files" in str(refusal("c29.yaml"))

    deep = ".".join("abcdefghij" * 5)
    written(s=MINIMAL)
    assert "deeper than 50" in str(refusal(overrides=[f"tags.{deep}={{a: {{b: c}}}}"]))


def test_a_profile_is_a_part_of_a_spec_and_counts_over_the_files():
    """One spec for the laptop and the cluster."""
    written(
        base=MINIMAL + "profiles:\n  dev: {execution: {engine: local, batch_size: 2}}\n",
        s="extends: base.yaml\nexecution: {batch_size: 5}\n"
        "profiles:\n  dev: {execution: {batch_size: 3}, source: {limit: 7}}\n  prod:\n",
    )
    spec = BatchSpec.from_yaml("s.yaml", profile="dev")

    assert ("local", 3, 7) == (spec.execution.engine, spec.execution.batch_size, spec.source.limit)
    assert spec.source.uris[0].endswith("/in.jsonl")
    assert 5 == BatchSpec.from_yaml("s.yaml").execution.batch_size
    assert 5 == BatchSpec.from_yaml("s.yaml", profile="prod").execution.batch_size


def test_a_profile_that_is_not_there_is_refused():
    """To run without it would be to run something else."""
    written(s=MINIMAL + "profiles: {dev: {}, prod: {}}\n", t=MINIMAL)

    assert 's.yaml has no such profile; did you mean "prod"?' in str(refusal(profile="prd"))
    assert "it has dev, prod" in str(refusal(profile="zzzz"))
    assert "it has none" in str(refusal("t.yaml", profile="dev"))
    written(s=MINIMAL + "profiles: [dev]\n", t=MINIMAL + "profiles: {dev: 3}\n")
    assert "s.yaml:4:11: profiles: must be a mapping" in str(refusal(profile="dev"))
    assert "t.yaml:4:17: profiles.dev: must be a mapping" in str(refusal("t.yaml", profile="dev"))


def test_a_variable_counts_only_where_its_value_does():
    """The laptop has no credentials of production, and needs none."""
    written(
        s=MINIMAL.replace("out", "${NOWHERE}")
        + "profiles: {dev: {sink: out}, prod: {name: '${NOT}'}}\n"
    )
    assert BatchSpec.from_yaml("s.yaml", profile="dev").sink.uri.endswith("/out")
    assert "NOT is not set" in str(refusal(profile="prod", overrides={"sink": "o"}))
    assert "s.yaml:3:7: the variable NOWHERE is not set" in str(refusal())


def test_a_mapping_is_merged_into_a_short_form():
    """`source: in.jsonl` is `source: {uri: in.jsonl}`; null empties a section."""
    written(s=MINIMAL + "execution: {batch_size: 3}\n")
    spec = BatchSpec.from_yaml(
        "s.yaml", overrides=["source.limit=3", "capability.version=v", "execution=", "sink=other"]
    )

    assert (3, "in.jsonl") == (spec.source.limit, spec.source.uris[0].rpartition("/")[2])
    assert ("v", 1024) == (spec.called.version, spec.execution.batch_size)
    assert spec.sink.uri.endswith("/other")


def test_the_value_of_a_text_is_yaml_and_that_of_python_is_itself(monkeypatch):
    """On the command line `3` is a number and `${VAR}` a variable; in Python each is what it is."""
    monkeypatch.setenv("TEAM", "ml")
    written(s=MINIMAL)
    kwargs = "capability.fn_kwargs"
    texts = [
        f"{kwargs}.a=3",
        f"{kwargs}.b='3'",
        f"{kwargs}.c=${{TEAM}}",
        f'{kwargs}."d.e"=[1, {{f: no}}]',
    ]
    of_text = BatchSpec.from_yaml("s.yaml", overrides=texts).called.fn_kwargs
    of_python = BatchSpec.from_yaml(
        "s.yaml", overrides={f"{kwargs}.a": "${TEAM}", f"{kwargs}.b": "3"}
    )

    assert {"a": 3, "b": "3", "c": "ml", "d.e": [1, {"f": "no"}]} == of_text
    assert {"a": "${TEAM}", "b": "3"} == of_python.called.fn_kwargs


@pytest.mark.parametrize("text", ["foo", "=3", "a..b=3", ".a=3", "a b=3", "a.=3", '"a=3'])
def test_a_text_that_is_no_override_is_refused(text):
    """The form is in the message."""
    written(s=MINIMAL)

    assert "--set: write key=value, such as execution.batch_size=64" in str(
        refusal(overrides=[text])
    )


def test_an_object_that_yaml_cannot_hold_is_refused():
    """`model_copy` takes it."""
    written(s=MINIMAL)

    assert "sink.schema: a object cannot be written as YAML" in str(
        refusal(overrides={"sink.schema": object()})
    )


@pytest.mark.parametrize(
    "override",
    [
        f"sink.storage_options.secret={CANARY}",
        f"sink.storage_options={{secret: {CANARY}}}",
        f"sink.storage_options={CANARY}",
        f"sink=s3://me:{CANARY}@host/x",
        f"ray.runtime_env={{env_vars: {{A: {CANARY}}}}}",
        f"tags.token=[{CANARY}",
        f"capability=\n target: a:b\n fn_kwargs:\n  api_key: {CANARY}",
        f"capability=!!map {{target: a:b, fn_kwargs: {{api_key: {CANARY}}}}}",
        f"capability.fn_kwargs=&a {{api_key: {CANARY}}}",
        f"capability.fn_kwargs=# c\n {{api_key: {CANARY}}}",
        f"tags.a=b # api_key: {CANARY}",
        f'ray.runtime_env={{"env\\x5fvars": {{A: {CANARY}}}}}',
        f"tags.token={CANARY}: [",
        f"tags.a={{token: {CANARY}",
        f"tags.token {CANARY}",
        f'"tags.token={CANARY}',
    ],
)
def test_a_secret_given_as_an_override_is_neither_kept_nor_shown(override):
    """It is in the shell's history already; not in a run's record, too."""
    written(s=MINIMAL)
    error, spec = "", None
    try:
        spec = BatchSpec.from_yaml("s.yaml", overrides=[override])
    except InvalidSpecError as refused:
        error = str(refused)
    if spec is not None:
        with pytest.raises(InvalidSpecError) as caught:
            raise spec.refusal(("sink", "storage_options"), "no")
        error = f"{spec.kept_text} {caught.value} {spec!r}"

    assert error
    assert CANARY not in error


def test_the_kept_text_of_several_texts_is_one_spec_that_says_what_it_is_made_of(monkeypatch):
    """A colleague who finds it in a run's record can run it; so it holds no value of a variable."""
    monkeypatch.setenv("TEAM", CANARY)
    written(
        base=MINIMAL + "tags: {team: '${TEAM}', price: 5$$, odd: 0o17, when: '${TEAM}'}\n",
        s="extends: base.yaml\nsink: {uri: out, storage_options: {secret: '${TEAM}', key: k2345678}}\n"
        "profiles: {dev: {name: dev}}\n",
    )
    spec = BatchSpec.from_yaml("s.yaml", profile="dev", overrides=["tags.odd='0o17'", "resume=off"])
    kept = spec.kept_text

    assert (
        "# made of s.yaml, base.yaml, profile dev, --set tags.odd='0o17', --set resume=off\n"
        in kept
    )
    assert CANARY not in kept
    assert "k2345678" not in kept
    again = BatchSpec.from_text(kept.replace("***", "k2345678"), origin="x.yaml")
    assert again == spec
    assert again.from_environment == spec.from_environment
    assert ("tags", "team") in spec.from_environment


def test_a_spec_is_the_same_however_it_is_put_together():
    """A run resumes when its lines move into a base or a profile."""
    written(
        whole="capability: pkg.mod:attr\nsource: {uri: in.jsonl, limit: 3}\nsink: out\nname: s\n",
        base="capability: pkg.mod:attr\nsource: in.jsonl\n",
        s="extends: base.yaml\nprofiles: {dev: {sink: out}}\n",
    )
    whole = BatchSpec.from_yaml("whole.yaml")
    made = BatchSpec.from_yaml("s.yaml", profile="dev", overrides={"source.limit": 3})

    assert whole == made
    assert decisive_fields(whole, code=None) == decisive_fields(made, code=None)


def test_a_spec_of_several_texts_survives_the_way_to_a_worker():
    """Its errors, too, name the file and line."""
    written(base=MINIMAL, s="extends: base.yaml\nsink: {uri: out, compression: gzip}\n")
    spec = pickle.loads(
        pickle.dumps(BatchSpec.from_yaml("s.yaml", overrides=["sink.compression=gz"]))
    )
    with pytest.raises(InvalidSpecError, match=r"^--set: sink\.compression: the format parquet"):
        spec.check_parts("parquet")


some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | some_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(some_text, inner, max_size=3),
    max_leaves=8,
)
of_yaml = st.sampled_from(
    ["0o17", "1e5", ".5", "0x1f", "no", "null", "~", "<<", "=", "- a", "a: b", "#", "\x85", "\u2028",
     "\x7f", "\ufeff", "$", "$$", "${A}", "!x", "&a", "*a", "%", "@", "`", "|", ">", "a #b", "'", '"', "\t"]
)  # fmt: skip


@settings(max_examples=200, deadline=60_000)
@given(st.dictionaries(some_text | of_yaml, plain | of_yaml, min_size=1, max_size=4))
def test_what_is_written_as_yaml_is_read_as_it_was(value):
    """The kept text and `show` are specs again."""
    text = (
        f"capability: {{target: 'a:b', fn_kwargs: {flow(value, escape='$')}}}\nsource: i\nsink: o\n"
    )
    read = BatchSpec.from_text(text, origin="x").called.fn_kwargs
    lines = f"{MINIMAL.partition(chr(10))[2]}capability:\n  target: a:b\n  fn_kwargs:\n" + "".join(
        f"    {line}\n" for line in block(_doubled(value)).splitlines()
    )

    assert json.dumps(value) == json.dumps(read)
    assert json.dumps(value) == json.dumps(BatchSpec.from_text(lines, origin="x").called.fn_kwargs)


def _doubled(value):
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _doubled(inner) for key, inner in value.items()}
    return [_doubled(inner) for inner in value] if isinstance(value, list) else value


BASE = {
    "capability": {"target": "a:b", "fn_kwargs": {"x": {"y": 1}}},
    "source": {"uri": "in", "limit": 9},
    "sink": {"uri": "out"},
    "execution": {"batch_size": 7, "engine": "local"},
    "tags": {"a": "b"},
}
name = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
count = st.integers(1, 1000)
VALUES = {
    "name": name,
    "resume": st.booleans(),
    "capability.target": st.just("m.n:o"),
    "capability.mode": st.sampled_from(["batch", "row"]),
    "capability.fn_kwargs.x": plain,
    "capability.fn_kwargs.x.y": plain,
    "capability.fn_kwargs.q": plain,
    "source.uri": name | st.lists(name, min_size=1, max_size=3),
    "source.limit": st.none() | count,
    "source.shard.rows": count,
    "sink": name,
    "sink.uri": name,
    "execution.batch_size": count,
    "execution.max_runtime": st.sampled_from(["3h", 90, "1.5h"]),
    "execution.concurrency": count | st.just([1, 4]),
    "errors.retry.max_attempts": count,
    "tags.a": name,
    "tags.z": name,
}
overrides = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda path: st.tuples(st.just(path), VALUES[path])),
    max_size=5,
    unique_by=lambda pair: pair[0],
).map(dict)


def with_value(node, steps, value):
    """The value written in the file: one dict, with one value in another place."""
    if not steps:
        return value
    inner = node if isinstance(node, dict) else {"uri": node} if node == BASE["sink"] else {}
    return {**inner, steps[0]: with_value(inner.get(steps[0]), steps[1:], value)}


@settings(max_examples=150, deadline=60_000)
@given(overrides)
@example({"capability.fn_kwargs.q": [{"Key": None}]})
def test_an_override_is_the_value_written_in_the_file(tmp_path_factory, changes):
    """Nothing else changes, and neither does anything for the fingerprint."""
    folder = tmp_path_factory.mktemp("specs")
    # An override of a mapping is merged, so the fuzz gives a mapping only where none is.
    changes = {path: v for path, v in changes.items() if not isinstance(v, dict)}
    if "sink" in changes:
        changes.pop("sink.uri", None)
    if not isinstance(changes.get("capability.fn_kwargs.x", {}), dict):
        changes.pop("capability.fn_kwargs.x.y", None)
    content = BASE
    for path, value in changes.items():
        content = with_value(content, path.split("."), value)
    (folder / "a.yaml").write_text(json.dumps(BASE))
    (folder / "whole").mkdir()
    (folder / "whole" / "a.yaml").write_text(_json_without_references(content))
    made = BatchSpec.from_yaml(folder / "a.yaml", overrides=changes)
    whole = BatchSpec.from_yaml(folder / "whole" / "a.yaml")
    texts = [f"{path}={flow(value, escape='$')}" for path, value in changes.items()]

    assert whole == made == BatchSpec.from_yaml(folder / "a.yaml", overrides=texts)
    assert decisive_fields(whole, code=None) == decisive_fields(made, code=None)
    assume(HIDDEN not in made.kept_text)  # a value under a key that looks secret is not kept
    assert whole == BatchSpec.from_text(made.kept_text, origin="a.yaml")


def _json_without_references(content):
    return flow(content, escape="$")


def test_each_value_has_an_origin(monkeypatch):
    """Why the batch size is 7 has one answer, and a line."""
    monkeypatch.setenv("TEAM", "ml")
    written(
        base="capability: pkg.mod:attr\nsource: in.jsonl\nexecution:\n  batch_size: 3\n",
        s="extends: base.yaml\nsink: out\ntags: {team: '${TEAM}'}\n"
        "profiles:\n  dev:\n    execution: {engine: local}\n",
    )
    origins = BatchSpec.from_yaml("s.yaml", profile="dev", overrides=["source.limit=3"]).origins

    assert "base.yaml:1" == origins.of(("capability", "target"))
    assert "base.yaml:2" == origins.of(("source", "uri"))
    assert "base.yaml:4" == origins.of(("execution", "batch_size"))
    assert "s.yaml:2" == origins.of(("sink", "uri"))
    assert "s.yaml:3, ${TEAM}" == origins.of(("tags", "team"))
    assert "profile dev, s.yaml:6" == origins.of(("execution", "engine"))
    assert "--set" == origins.of(("source", "limit"))
    for default in (("name",), ("resume",), ("sink", "format"), ("execution", "num_gpus")):
        assert "default" == origins.of(default)
    assert "Python" == BatchSpec(source="in", sink="out").origins.of(("source", "uri"))


def test_a_resolved_spec_is_a_spec_again():
    """What is shown is what runs."""
    written(s=MINIMAL + "tags: {price: 5$$}\nexecution: {concurrency: [1, 4], max_runtime: 3h}\n")
    spec = BatchSpec.from_yaml("s.yaml")
    again = BatchSpec.from_text(block(spec.shown(), escape="$"), origin="x.yaml")

    assert spec == again
    assert "5$" == again.tags["price"]


TOKENS = [
    *"a[]{},:'\"#|>?-&*!%$~.= \t\n\\",
    *(
        "source",
        "sink",
        "uri",
        "tags",
        "secret",
        "storage_options",
        "execution.batch_size",
        "token",
    ),
    *(
        "a: ",
        "- ",
        "&x ",
        "*x",
        "!!str ",
        "${A}",
        "${A:-",
        "}",
        "<<: ",
        "---\n",
        "://u:p@h/",
        "\x00",
    ),
    *(
        "extends: ",
        "profiles: ",
        "s.yaml",
        "base.yaml",
        "\n  ",
        "\n",
        "dev",
        "null",
        "\ufeff",
        "\x85",
    ),
]
any_text = st.text(max_size=20) | st.lists(st.sampled_from(TOKENS), max_size=25).map("".join)


@settings(max_examples=250, deadline=60_000)
@given(st.lists(any_text, min_size=1, max_size=3), any_text)
def test_any_text_is_an_override_or_an_invalid_spec(tmp_path_factory, texts, base):
    """Whatever is typed, or stands in a base, nothing else comes out: printable, and without a variable."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "base.yaml").write_text(MINIMAL + base.replace("\r", ""), "utf-8", "replace")
    text = f"extends: base.yaml\nprofiles:\n  dev:\n    name: x\n{base}"
    kept, error, spec = "", None, None
    environ = {"A": CANARY}
    try:
        variation = Variation("dev", tuple(texts))
        spec = BatchSpec._of(
            Main(text, str(folder / "s.yaml")), environ=environ, variation=variation
        )
        kept = spec.kept_text
    except InvalidSpecError as refused:
        error = refused
    shown = str(error) if error else ""

    assert shown == (str(pickle.loads(pickle.dumps(error))) if error else "")
    assert "***" in kept or not spec or spec == BatchSpec._of(Main(kept, "s.yaml"), environ=environ)
    assert CANARY not in kept + shown
    assert all(char.isprintable() or char == "\t" for char in shown.replace("\n", ""))
    assert CANARY not in as_words("", texts)


def test_the_last_of_two_overrides_counts():
    """As for every option; and null, then a mapping, is how a mapping is replaced."""
    written(s=MINIMAL + "tags: {a: b}\n")
    overrides = ["tags=null", "tags={c: d}", "name=x", "name=y"]

    assert {"c": "d"} == BatchSpec.from_yaml("s.yaml", overrides=overrides).tags
    assert "y" == BatchSpec.from_yaml("s.yaml", overrides=overrides).name
