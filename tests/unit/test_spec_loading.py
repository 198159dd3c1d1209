"""A spec file becomes a spec, or one clear line."""

import json
import pickle

import pytest

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, CapabilitySpec, SinkSpec, SourceSpec
from privilege import as_nobody

MINIMAL = "capability: pkg.mod:attr\nsource: in.jsonl\nsink: out\n"


def read(text, **environ):
    return BatchSpec.from_text(text, origin="hello.yaml", environ=environ)


def a_file(folder, content=MINIMAL, *, name="my spec.v2.yaml"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal_of(path):
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_yaml(path)
    return str(caught.value)


def test_short_forms_say_the_same_as_long_ones(tmp_path):
    """Three lines are enough to start; a user who needs more writes the mapping."""
    long = "capability: {target: pkg.mod:attr}\nsource: {uri: in.jsonl}\nsink: {uri: out}\n"

    assert read(MINIMAL) == read(long)
    assert read(MINIMAL) == BatchSpec(
        name="hello",
        capability=CapabilitySpec(target="pkg.mod:attr"),
        source=SourceSpec(uri="in.jsonl"),
        sink=SinkSpec(uri="out"),
    )


def test_a_list_of_sources_is_kept_in_order():
    """Shards are numbered in the order of the sources."""
    source = read(MINIMAL.replace("in.jsonl", "[/b.jsonl, /a.jsonl]")).source

    assert ("/b.jsonl", "/a.jsonl") == source.uri == source.uris
    assert ("/b.jsonl",) == SourceSpec(uri="/b.jsonl").uris


def test_the_name_is_the_file_s_unless_given(tmp_path):
    """A report names its run even when the user gave no name."""
    assert "my-spec.v2" == BatchSpec.from_yaml(a_file(tmp_path)).name
    assert "batch" == BatchSpec.from_yaml(a_file(tmp_path, name="….yaml")).name
    assert "given" == BatchSpec.from_yaml(a_file(tmp_path, "name: given\n" + MINIMAL)).name
    assert "batch" == BatchSpec(source="in", sink="out").name


def test_a_section_whose_lines_are_all_commented_out_has_its_defaults():
    """Commenting out the last line of a section must not break the file."""
    assert read(MINIMAL) == read(MINIMAL + "execution:\n  # num_gpus: 1\nray:\n")


def test_a_file_needs_a_capability_but_python_does_not():
    """In Python the object itself is handed to BatchRunner; a file can only name it."""
    without = MINIMAL.partition("\n")[2]

    assert BatchSpec(source="in", sink="out").capability is None
    for text in (without, "capability:\n" + without):
        with pytest.raises(
            InvalidSpecError, match=r'hello\.yaml:1:1: the key "capability" is miss'
        ):
            read(text)


def test_the_checkpoint_is_in_the_sink_unless_given(tmp_path):
    """The default survives moving the sink as one folder."""
    assert "s3://b/out/_checkpoint" == BatchSpec(source="in", sink="s3://b/out/").checkpoint_uri
    assert "s3://b/_checkpoint" == BatchSpec(source="in", sink="s3://b").checkpoint_uri
    given = BatchSpec(source="in", sink="out", checkpoint_dir=tmp_path)
    assert str(tmp_path) == given.checkpoint_uri


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"---\n", "is empty"),
        (b"- a\n- b\n", "holds no mapping"),
        (b"just words\n", "holds no mapping"),
        (b"name: \xff\n", "not UTF-8 from byte 6 on"),
        ("name: x\n".encode("utf-16"), "not UTF-8 from byte 0 on"),
        (b"#" * (1 << 20) + b"#", "larger than 1 MiB"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, content, says):
    """A mistyped path must not print a screen of text."""
    path = a_file(tmp_path, content)
    message = refusal_of(path)

    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    """The reason is the system's, in words; the name is safe to print."""
    assert "No such file" in refusal_of(tmp_path / "missing.yaml")
    assert "Is a directory" in refusal_of(tmp_path)
    assert r"a\x1b[31m.yaml: the spec cannot be read" in refusal_of("a\x1b[31m.yaml")
    assert "no file's name" in refusal_of("a\0b")


def test_a_file_without_permission_is_one_line(tmp_path):
    """As any other file that cannot be read."""
    path = a_file(tmp_path)
    path.chmod(0)

    with as_nobody():
        assert "Permission denied" in refusal_of(path)


def test_a_byte_order_mark_moves_nothing(tmp_path):
    """Some editors write one; the caret must still point at the culprit."""
    assert (
        "hello" == BatchSpec.from_yaml(a_file(tmp_path, "\ufeff" + MINIMAL, name="hello.yml")).name
    )
    with pytest.raises(InvalidSpecError, match="x:2:1: unknown"):
        BatchSpec.from_text("\ufeffname: x\nnamee: y\n" + MINIMAL, origin="x")
    with pytest.raises(InvalidSpecError, match="x:1:1: unknown"):
        BatchSpec.from_text("\ufeff\ufeffnamee: y\n" + MINIMAL, origin="x")
    assert ":1:1: unknown" in refusal_of(a_file(tmp_path, "\ufeffnamee: x\n" + MINIMAL))


def test_a_spec_survives_pickling_with_all_it_knows():
    """Ray moves specs between processes; workers need the real values."""
    text = MINIMAL + "ray: {runtime_env: {env_vars: {A: '${A}'}}}\n"
    spec = read(text, A="real")
    copy = pickle.loads(pickle.dumps(spec))

    assert copy == spec
    assert "real" == copy.ray.runtime_env["env_vars"]["A"]
    assert text == copy.kept_text
    assert copy.from_environment == spec.from_environment != frozenset()


def test_the_kept_text_is_what_was_written():
    """It is stored with the run: a variable's value must not be in it, comments may."""
    text = "# why\n" + MINIMAL + "tags: {team: '${TEAM}'}\n"

    assert text == read(text, TEAM="secret-team").kept_text


def test_the_kept_text_of_python_is_json():
    """A spec made in Python has no text, but its run is recorded all the same."""
    spec = BatchSpec(
        source="/in", sink={"uri": "/out", "format": "parquet", "schema": {"a": "int8"}}
    )
    kept = json.loads(spec.kept_text)

    assert {"a": "int8"} == kept["sink"]["schema"]
    assert spec.kept_text == BatchSpec(**kept).kept_text


def test_the_kept_text_survives_values_that_json_does_not_know():
    """Store options may hold any object; recording a run must not fail for that."""
    spec = BatchSpec(source={"uri": "/in", "storage_options": {"session": object()}}, sink="/out")

    assert '"session": "<object>"' in spec.kept_text
    spec = BatchSpec(source={"uri": "/in", "storage_options": {"x": ["\udc80"]}}, sink="/out")
    assert rb"\udc80" in spec.kept_text.encode()


def test_a_changed_copy_is_checked_and_its_text_says_so():
    """The record of a run must not claim a text that was not what ran."""
    spec = read(MINIMAL)
    copy = spec.model_copy(update={"name": "other", "resume": "no"})

    assert ("other", False) == (copy.name, copy.resume)
    assert MINIMAL + "# changed in Python: name, resume\n" == copy.kept_text
    assert spec.model_copy() == spec
    assert 3 == spec.source.model_copy(update={"limit": 3}).limit
    with pytest.raises(InvalidSpecError, match=r"source.limit: must be at least 1|limit: must be"):
        spec.source.model_copy(update={"limit": 0})
    with pytest.raises(InvalidSpecError, match='unknown key "nmae"'):
        spec.model_copy(update={"nmae": "x"})


def test_equality_is_of_values_not_of_texts():
    """A comment does not make another spec."""
    assert read(MINIMAL) == read("# comment\n" + MINIMAL)
    assert read(MINIMAL) != read(MINIMAL + "resume: false\n")
    assert read(MINIMAL) != "a spec"


def test_a_spec_is_frozen():
    """What was checked stays what it was."""
    spec = read(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        spec.resume = False
    with pytest.raises(ValueError, match="frozen"):
        spec.source.limit = 3
