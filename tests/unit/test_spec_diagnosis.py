"""Every error at once, in the order of the file, each with its line and a caret under the culprit."""

import pytest

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"


def diagnosed(text, *, origin="hello.yaml", **environ):
    """The message's lines, in groups of three, and the count that ends it."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(text, origin=origin, environ=environ)
    *lines, count = str(caught.value).split("\n")
    return [tuple(lines[at : at + 3]) for at in range(0, len(lines), 3)], count


def culprit(problem):
    """What the caret stands under, to the end of the line."""
    _, line, caret = problem
    return line[caret.index("^") :]


def test_every_error_is_reported_at_once_in_the_order_of_the_file():
    """Fixing a file one error per run takes a run per error."""
    text = (
        "nmae: hello\n"
        "capability: {target: foo, mode: btach}\n"
        "source:\n"
        "  format: jsonl\n"
        "  limit: 0\n"
        "sink: out\n"
        "execution: {concurrency: [8, 1], batch_size: ${BS}}\n"
        "tags: {a: x, a: y}\n"
        "resume: !yes true\n"
    ).replace("${BS}", '"${BS}"')
    problems, count = diagnosed(text)

    assert [
        'hello.yaml:1:1: unknown key "nmae"; did you mean "name"?',
        'hello.yaml:2:22: capability.target: must be "package.module:attribute"',
        "hello.yaml:2:33: capability.mode: must be 'batch', 'row' or 'run'",
        'hello.yaml:3:1: source: the key "uri" is missing',
        "hello.yaml:5:10: source.limit: must be at least 1",
        "hello.yaml:7:26: execution.concurrency: must be [min, max] with min <= max",
        "hello.yaml:7:47: the variable BS is not set: set it, or write ${BS:-default}",
        'hello.yaml:8:14: duplicate key "a"; the first is at line 8, column 8',
        "hello.yaml:9:9: the tag !yes is not supported: a spec holds plain values only",
    ] == [where for where, _, _ in problems]
    assert "9 errors in hello.yaml" == count
    assert ["nmae: hello", "foo, mode: btach}", "btach}", "source:"] == list(
        map(culprit, problems[:4])
    )


def test_one_error_is_counted_as_one():
    """The count shows scripts and people how much is left to fix."""
    assert "1 error in hello.yaml" == diagnosed(MINIMAL + "nmae: x")[1]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("sinc: x", 'unknown key "sinc"; did you mean "sink"?'),
        ("batch_size: 3", 'unknown key "batch_size"; did you mean "execution.batch_size"?'),
        ("target: a:b", 'unknown key "target"; did you mean "capability.target"?'),
        (
            "execution: {sink: x}",
            'execution: unknown key "sink"; it stands at the top of the spec',
        ),
        ("Execution: {}", 'unknown key "Execution"; did you mean "execution"?'),
        (
            "execution: {batchSize: 3}",
            'execution: unknown key "batchSize"; did you mean "batch_size"?',
        ),
        ("zzzz: 3", 'unknown key "zzzz"; known here: version, name, capability, source, sink,'),
        ("'<one>': 3", 'unknown key "<one>"; known here'),
        ("'[key]': 3", 'unknown key "[key]"; known here'),
        ('"": 3', 'unknown key ""; known here'),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(line, hint):
    """A typo is seen at once when the right word stands beside it."""
    assert hint in diagnosed(MINIMAL + line)[0][0][0]


def test_an_unknown_key_inside_a_shard_is_compared_with_the_shard_s_keys():
    """The nearest key is one that would work at that place."""
    text = MINIMAL.replace("in.jsonl", "{uri: in.jsonl, shard: {row: 10}}")

    assert 'source.shard: unknown key "row"; did you mean "rows"?' in diagnosed(text)[0][0][0]


def test_what_is_missing_points_at_the_mapping_that_lacks_it():
    """The top's place is the first key; a section's is its name."""
    problems, _ = diagnosed("name: x\ncapability: {mode: row}\nsource: {format: jsonl}\n")

    assert [
        'hello.yaml:1:1: the key "sink" is missing',
        'hello.yaml:2:1: capability: the key "target" is missing',
        'hello.yaml:3:1: source: the key "uri" is missing',
    ] == [where for where, _, _ in problems]


def test_an_item_of_a_list_is_pointed_at():
    """In a list of thirty URIs, which one?"""
    text = "capability: a:b\nsource:\n  - a.jsonl\n  - gs://x\nsink: out\n"
    problems, _ = diagnosed(text)

    assert ["gs://x"] == [culprit(problem) for problem in problems]
    assert "hello.yaml:4:5: source.uri.1: " in problems[0][0]


def test_an_error_in_a_value_that_was_an_alias_points_at_the_alias():
    """The anchored value may be right where it stands first."""
    text = MINIMAL + "tags: {n: &n many}\nexecution:\n  batch_size: *n\n"

    assert ["*n"] == [culprit(problem) for problem in diagnosed(text)[0]]


def test_a_value_known_to_be_wrong_is_not_complained_about_twice():
    """The echo of an error sends people to the wrong place."""
    problems, _ = diagnosed(MINIMAL + "execution: !fast {batch_size: x, nope: 1}\n")

    assert 1 == len(problems)


def test_a_syntax_error_comes_with_those_before_it():
    """Reading stops there, but what was found is not forgotten."""
    problems, _ = diagnosed("name: !x y\nsource: [a\nsink: out\n")

    assert 2 == len(problems)
    assert "hello.yaml:3:" in problems[1][0]


def test_a_tab_that_indents_is_named():
    """A tab looks like the spaces it should be."""
    assert (
        "hello.yaml:5:1: a tab cannot indent"
        in diagnosed(MINIMAL + "execution:\n\tbatch_size: 1\n")[0][0][0]
    )


def test_a_reference_that_breaks_the_syntax_gets_a_hint():
    """In a flow list `${N}` opens a mapping: the parser's own message would not help."""
    (problem,), _ = diagnosed(MINIMAL + "execution: {concurrency: [1, ${N}]}\n")

    assert '"${...}" needs quotes' in problem[0]


def test_tabs_and_wide_characters_keep_the_caret_in_place():
    """A terminal moves a tab to its stop, and gives 漢 two columns."""
    (_, line, caret), *_ = diagnosed(MINIMAL + 'execution: {"漢é\u0301":\t\t1}\n')[0]
    assert line.index('"漢') == caret.index("^")

    (problem,), _ = diagnosed(MINIMAL + "tags: {漢字: e\u0301,\t\te\u0301: 1}\n")
    assert "  " + "       " + "    " + "  " + " " + " " + "\t\t" + " " + "  " + "^" == problem[2]


@pytest.mark.parametrize("at", [0, 10, 150, 199, 200, 201, 5000, 50_000])
def test_a_long_line_is_cut_around_the_caret(at):
    """A line of a megabyte must not fill the screen, and the culprit must be in what is left."""
    padding = "".join(f"k{n}: 1, " for n in range(at // 4))[:at].rpartition(", ")[0]
    text = MINIMAL + "ray: {runtime_env: {" + padding + "}, nope: 1, address: " + "x" * 5000 + "}\n"
    (problem,), _ = diagnosed(text)

    assert culprit(problem).startswith("nope")
    assert len(problem[1]) <= 2 + 200
    assert "…" == problem[1][-1]


def test_a_line_of_two_hundred_characters_is_whole():
    """What fits is not cut."""
    line = "nope: " + "x" * 194
    assert line == diagnosed(MINIMAL + line)[0][0][1].strip()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends_of_either_kind_count_as_one(newline):
    """A file from Windows has the same lines."""
    text = (MINIMAL + "nope: 1\nname: x\n").replace("\n", newline)
    (problem,), _ = diagnosed(text)

    assert "hello.yaml:4:1: " in problem[0]
    assert "  nope: 1" == problem[1]


def test_nothing_of_the_file_can_steer_the_terminal():
    """A spec from elsewhere must not clear the screen, or reorder what is read."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(
            MINIMAL + '"\u202ekey\\e[31m\\n": 1 # \u200f \u2028\n'
            'tags: {a: "${X:?\u202e}"}\nray: !tag {}\n',
            origin="a\x1b[2J.yaml",
            environ={},
        )
    message = str(caught.value)

    assert all(char.isprintable() for char in message.replace("\n", ""))
    assert r'unknown key "\u202ekey\u001b[31m\n"' in message
    assert r"a\x1b[2J.yaml:4:1" in message
    assert 10 == len(message.split("\n"))


def test_a_control_character_is_refused_at_its_place():
    """YAML does not allow it; the parser's own message has no line."""
    (problem,), _ = diagnosed(MINIMAL + "name: a\x07b\n")

    assert "hello.yaml:4:8: the character U+0007 is not allowed" in problem[0]
    assert r"  name: a\x07b" == problem[1]


def test_a_thousand_errors_are_counted_and_a_hundred_shown():
    """The count is of all; more than a hundred is no longer read."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(
            MINIMAL + "".join(f"nope{n}: 1\n" for n in range(1000)), origin="x", environ={}
        )
    lines = str(caught.value).split("\n")

    assert ["... and 900 more", "1000 errors in x"] == lines[-2:]
    assert 302 == len(lines)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('capability: "a:b\nsource: in\nsink: out\n', 'capability: "a:b'),
        ("capability: a:b\nsource: 'in\nsink: out\ntags: {a: b}\n", "source: 'in"),
        ('capability: a:b\nsource: "in\n---\nsink: out\n', 'source: "in'),
    ],
)
def test_a_quote_that_is_not_closed_is_reported_where_it_opens(text, line):
    """At the end of the file, where the parser notices, there is nothing to mend."""
    (problem,), _ = diagnosed(text)

    assert "the quote that opens here is not closed" in problem[0]
    assert f"  {line}" == problem[1]
    assert culprit(problem)[0] in "\"'"


def test_what_follows_an_open_quote_stays_secret():
    """Pointing at the quote must not show what it opened."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(
            MINIMAL + 'sink: {uri: out, storage_options: {secret: "hunter2\n',
            origin="x",
            environ={},
        )

    assert "is not closed" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("place", ["$HOME/out", "s3://$BUCKET/out", "out-$DAY", "$$x/$HOME"])
def test_a_variable_without_braces_is_no_name_of_a_folder(place):
    """No user wants a folder named `$HOME`, nor looks for the rows there."""
    (problem,), _ = diagnosed(f"capability: a:b\nsource: in\nsink: {place}\n")

    name = place.rpartition("$")[2].partition("/")[0]
    assert f"sink.uri: ${name} is not replaced: write ${{{name}}}" in problem[0]
    assert f"$${name}" in problem[0]


def test_two_dollars_are_one_and_other_values_keep_theirs():
    """Some folders do have one in their name; and a pattern is no place."""
    text = "capability: {target: 'a:b', fn_kwargs: {pattern: 'x$y', template: $name}}\nsource: $$in\nsink: /o\n"
    spec = BatchSpec.from_text(text, origin="x", environ={})

    assert spec.source.uris[0].endswith("/$in")
    assert spec.capability.fn_kwargs == {"pattern": "x$y", "template": "$name"}


def test_what_is_wrong_is_there_for_programs_too():
    """Line, column and message, as the text says them."""
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(MINIMAL + "nmae: x\nversion: 2\n", origin="x", environ={})

    assert [tuple(problem) for problem in caught.value.problems] == [
        (4, 1, 'unknown key "nmae"; did you mean "name"?'),
        (5, 10, "version: must be 1"),
    ]


def test_what_the_files_show_too_late_has_its_place_all_the_same():
    """The parts' format is known once the source is listed; the mistake is in the file still."""
    text = "capability: a:b\nsource: in\nsink: {uri: o, compression: gzip, storage_options: {key: k1}}\n"
    spec = BatchSpec.from_text(text, origin="hello.yaml", environ={})
    with pytest.raises(InvalidSpecError) as caught:
        spec.check_parts("jsonl")

    assert str(caught.value).startswith("hello.yaml:3:29: sink.compression: the format jsonl takes")
    assert "k1" not in str(caught.value)
    changed = spec.model_copy(update={"name": "other"})
    assert "hello.yaml" not in refusal_without_place(changed)


def refusal_without_place(spec):
    with pytest.raises(InvalidSpecError, match=r"sink\.compression: the format") as caught:
        spec.check_parts("jsonl")
    return str(caught.value)
