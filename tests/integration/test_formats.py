"""A format that a user adds goes through everything a run does, and travels to its workers."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

import damage
from batchrunner import BatchRunner
from batchrunner.errors import InvalidSpecError
from batchrunner.formats import register, registry
from batchrunner.formats.registry import file_kind, format_named
from batchrunner.verify import Checks, verify
from builders import a_spec, parts, rows
from command import batchrunner, start
from frames_format import HEAD, Frames, frame

TARGET = "frames_format:Frames"
EVERYTHING = Checks(keys=("id",), replay=1)


@pytest.fixture
def frames(monkeypatch):
    """The format, registered for this test only."""
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    monkeypatch.setattr(registry, "_formats", dict(registry._formats))
    register("frames", TARGET)


def write_frames(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(frame, content)))


def read_frames(path):
    """The rows of a file by hand."""
    data, found = path.read_bytes(), []
    while data:
        length, _ = HEAD.unpack_from(data)
        found.append(ast.literal_eval(data[HEAD.size : HEAD.size + length].decode()))
        data = data[HEAD.size + length :]
    return found


def rows_out(folder):
    return [row for part in parts(folder / "out") for row in read_frames(part)]


def a_frames_spec(folder, *, files=2, each=30, **changes):
    for number in range(files):
        content = [{**row, "raw": b"\xff", "pair": (1, "a")} for row in rows(number * each, each)]
        write_frames(folder / f"in/{number}.frames", content)
    return a_spec(
        folder,
        **{
            "source": {"uri": str(folder / "in"), "shard": {"rows": 7}},
            "capability": {"target": "capabilities:echo", "deterministic": True},
            **changes,
        },
    )


def kinds_of(report):
    return [(str(finding.kind), finding.why) for finding in report.findings]


def test_rows_go_through_a_format_that_was_registered(tmp_path, frames):
    """Found by its suffix, cut, read, written with each value as it was, and verified in full."""
    spec = a_frames_spec(tmp_path)
    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_in, report.rows_out, report.shards_new) == (True, 60, 60, 10)
    assert [part.suffix for part in parts(tmp_path / "out")] == [".frames"] * 10
    assert rows_out(tmp_path) == read_frames(tmp_path / "in/0.frames") + read_frames(
        tmp_path / "in/1.frames"
    )
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def recorded_as_it_is(out, data):
    """The part of shard 3 with other bytes, written and recorded that way, of 7 rows."""
    damage.rewritten_by(out, 3, lambda path: path.write_bytes(data) and 7)


@pytest.mark.parametrize("by_tables", [False, True])
def test_verify_sees_rows_that_are_wrong_in_it(tmp_path, frames, by_tables):
    """A lost row, a value that changed, a byte that flipped: by counts, keys, replay and hash."""
    execution = {"engine": "local", "batch_format": "pyarrow" if by_tables else "rows"}
    spec = a_frames_spec(tmp_path, execution=execution)
    if by_tables:
        for path in (tmp_path / "in").iterdir():
            write_frames(path, rows(int(path.stem) * 30, 30))
    BatchRunner(spec).run()
    part = parts(tmp_path / "out")[3]
    whole, content = part.read_bytes(), read_frames(part)
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []

    part.write_bytes(whole[:-1] + b"?")
    assert {kind for kind, _ in kinds_of(verify(spec))} == {"checksum"}
    for data in (whole[:-1], b"".join(map(frame, content[:-1]))):
        recorded_as_it_is(tmp_path / "out", data)
        assert {kind for kind, _ in kinds_of(verify(spec))} == {"rows_out"}
    wrong = [content[0], {**content[1], "id": 999}, *content[2:]]
    recorded_as_it_is(tmp_path / "out", b"".join(map(frame, wrong)))
    found = {kind for kind, _ in kinds_of(verify(spec, checks=EVERYTHING))}
    assert found == {"key_missing", "key_unknown", "replay"}


def test_a_bad_record_and_a_failed_row_are_tried_again_from_where_they_stand(tmp_path, frames):
    """`retry --rows` reads single frames by their positions."""
    mended = tmp_path / "mended"
    spec = a_frames_spec(
        tmp_path,
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(mended)}},
        errors={"max_row_errors": 5},
    )
    content = [{**row, "bad": row["id"] in (3, 11)} for row in rows(0, 30)]
    path = tmp_path / "in/0.frames"
    write_frames(path, content)
    path.write_bytes(path.read_bytes() + HEAD.pack(3, 7) + b"{ }")
    first = BatchRunner(spec).run()
    mended.touch()
    again = BatchRunner(spec).retry(rows=True)

    assert (first.rows_in, first.rows_out, first.rows_failed) == (61, 58, 3)
    assert (again.rows_in, again.rows_out, again.rows_failed) == (61, 60, 1)
    assert sorted(row["id"] for row in rows_out(tmp_path)) == list(range(60))
    assert kinds_of(verify(spec, checks=Checks(keys=("id",)))) == []


def test_a_damaged_file_costs_its_shard_and_is_named(tmp_path, frames):
    """Not the plan, and not the shards of other files."""
    spec = a_frames_spec(tmp_path)
    path = tmp_path / "in/0.frames"
    path.write_bytes(path.read_bytes()[:-5])
    report = BatchRunner(spec).run()

    assert report.shards_new == 5
    (reason,) = {failure.reason for failure in report.failures.values()}
    assert "0.frames" in reason
    assert "cut short" in reason


def test_one_format_can_be_made_of_another(tmp_path, frames):
    """From JSON lines, and into Parquet."""
    spec = a_frames_spec(tmp_path, sink={"uri": str(tmp_path / "mid"), "format": "jsonl"})
    for path in (tmp_path / "in").iterdir():
        write_frames(path, rows(int(path.stem) * 30, 30))
    BatchRunner(spec).run()
    last = a_spec(
        tmp_path,
        source=str(tmp_path / "mid/*.jsonl"),
        sink={"uri": str(tmp_path / "out"), "format": "frames"},
        capability="capabilities:echo",
    )
    assert BatchRunner(last).run().ok

    assert rows_out(tmp_path) == rows(0, 60)
    assert kinds_of(verify(last, checks=Checks(keys=("id",)))) == []


def killed_once_it_has_committed(folder):
    """Start a run in a process of its own, and kill it when it has some parts, but not all."""
    with start("run", "spec.yaml", cwd=folder) as process:
        deadline = time.monotonic() + 60
        while len(parts(folder / "out")) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    return [part.name for part in parts(folder / "out")]


def test_a_spec_that_names_the_class_needs_no_registration(tmp_path):
    """On the command line: validated, run, killed half-way, resumed and verified."""
    a_frames_spec(tmp_path, files=1, each=40)
    spec = {
        "capability": {"target": "capabilities:slow", "version": "1"},
        "source": {"uri": "in", "format": TARGET, "shard": {"rows": 2}},
        "sink": "out",
        "execution": {"engine": "local", "batch_size": 1},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert batchrunner("validate", "spec.yaml", cwd=tmp_path).returncode == 0
    before = killed_once_it_has_committed(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    checked = batchrunner("verify", "spec.yaml", "--key", "id", cwd=tmp_path)

    assert 3 <= len(before) < 20
    assert (resumed.returncode, checked.returncode) == (0, 0), resumed.stderr + checked.stdout
    assert [row["id"] for row in rows_out(tmp_path)] == list(range(40))


def an_installed(packages, entry_points):
    info = packages / "frames-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frames\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[batchrunner.formats]\n{entry_points}\n")


def with_site(folder):
    return os.pathsep.join([str(folder / "site"), *map(str, Path(__file__).parents[1:3])])


def test_an_installed_package_adds_a_format(tmp_path):
    """By its entry point; nothing is registered, and nothing is named but the suffix."""
    an_installed(tmp_path / "site", f"frames = {TARGET}")
    a_frames_spec(tmp_path)
    spec = {"capability": "capabilities:echo", "source": "in", "sink": "out"}
    spec["execution"] = {"engine": "local"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    paths = with_site(tmp_path)
    done = batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=paths)
    schema = batchrunner("schema", cwd=tmp_path, PYTHONPATH=paths)

    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in rows_out(tmp_path)] == list(range(60))
    assert '"frames"' in schema.stdout
    assert json.loads(schema.stdout)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_workers_of_ray_get_the_format_of_the_driver(tmp_path, frames):
    """They never heard of it: its name and where it is travel with the work."""
    spec = a_frames_spec(tmp_path, execution={"engine": "ray"})

    assert BatchRunner(spec).run().ok
    assert [row["id"] for row in rows_out(tmp_path)] == list(range(60))
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_an_unknown_format_is_refused_with_the_ways_out(tmp_path):
    """Before anything is read."""
    with pytest.raises(InvalidSpecError, match="must be 'jsonl' or 'parquet'"):
        a_spec(tmp_path, source={"uri": "/in", "format": "frame"})
    with pytest.raises(InvalidSpecError, match="no format 'frame'; use jsonl or parquet"):
        format_named("frame")


def test_a_class_that_cannot_be_imported_is_named(tmp_path):
    """The spec is valid: its module is the user's, and only a run imports it."""
    a_frames_spec(tmp_path)
    spec = a_spec(tmp_path, source={"uri": str(tmp_path / "in"), "format": "no_such:Format"})

    with pytest.raises(InvalidSpecError, match="no_such:Format cannot be imported"):
        BatchRunner(spec).run()


def test_a_name_stands_for_one_format(frames):
    """A second registration of the same is no mistake; of another one it is."""
    register("frames", TARGET)
    with pytest.raises(InvalidSpecError, match="'frames' is registered already"):
        register("frames", Frames)
    with pytest.raises(InvalidSpecError, match="'jsonl' is registered already"):
        register("jsonl", TARGET)
    with pytest.raises(InvalidSpecError, match="cannot be called 'a:b'"):
        register("a:b", TARGET)
    register("other", dict)
    with pytest.raises(InvalidSpecError, match="must be a subclass of RowFormat or"):
        file_kind("a.unknown")


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return request.param


@pytest.mark.parametrize(
    ("fault", "failed", "why"),
    [
        ("ReadRaises", {0, 1, 2, 3, 4}, r"raised KeyError: 'width', at .*broken_formats.py:\d+$"),
        ("WriterRaises", {1}, r"raised ValueError: another header, at .*broken_formats.py:\d+$"),
    ],
)
def test_what_the_code_of_a_format_raises_costs_its_shard(tmp_path, engine, fault, failed, why):
    """With shard, format and line, on every engine; not the run, and not as an internal error."""
    target = f"broken_formats:{fault}"
    spec = a_frames_spec(
        tmp_path,
        files=1,
        source={"uri": str(tmp_path / "in"), "format": target, "shard": {"rows": 7}},
        capability="capabilities:echo",
        execution={"engine": engine},
    )
    report = BatchRunner(spec).run()

    assert report.failures.keys() == failed
    assert report.shards_new == 5 - len(failed)
    for shard, failure in report.failures.items():
        assert failure.reason.startswith(f"shard {shard} (")
        assert re.search(f"the format {target} {why}", failure.reason)
        assert "Error: " in failure.traceback


def test_rows_that_are_not_encoded_to_bytes_fail(tmp_path):
    """An error of `encode` costs its rows, and names the method."""
    report = BatchRunner(frames_named(tmp_path, "EncodesText")).run()

    assert not report.ok
    assert {
        re.search(r"EncodesText.encode returned str; it must return bytes", failure.reason) is None
        for failure in report.failures.values()
    } == {False}


def frames_named(folder, fault):
    return a_frames_spec(
        folder, source={"uri": str(folder / "in"), "format": f"broken_formats:{fault}"}
    )


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("CutsNothing", "cut it wrongly: it returned None; it must return a list of Cut"),
        ("CutRaises", r"cannot be cut: the format .*CutRaises raised KeyError: 'size', at .*:\d+$"),
        ("CutTakesLess", r"cannot be cut: .*unexpected keyword argument"),
        (
            "CutDoubles",
            r"cut it wrongly: slices must join: one goes from 0 to [\d,]+, and the ones before it end at",
        ),
        ("HasNoSuffixes", r"HasNoSuffixes.suffixes is None; it must be a tuple"),
        ("HasOneSuffix", r"HasOneSuffix.suffixes is '.frames'; it must be a tuple"),
        ("LacksMethods", r"LacksMethods\(\) cannot be made: .*abstract methods"),
        ("TakesArguments", r"TakesArguments\(\) cannot be made: .*separator.* no arguments"),
    ],
)
def test_a_format_that_breaks_its_contract_is_refused(tmp_path, fault, why):
    """Before anything is written, by the name of the class or method: its author can mend it."""
    with pytest.raises(InvalidSpecError, match=why):
        BatchRunner(frames_named(tmp_path, fault)).run()
    assert not parts(tmp_path / "out")


def test_rows_that_no_slice_holds_are_not_lost_in_silence(tmp_path):
    """A cut that begins behind the first rows is wrong, whatever else it gets right."""
    spec = a_frames_spec(
        tmp_path,
        source={
            "uri": str(tmp_path / "in"),
            "format": "broken_formats:CutSkips",
            "shard": {"rows": 7},
        },
    )
    with pytest.raises(
        InvalidSpecError, match=r"one goes from \d+ to \d+, and the ones before it end at 0"
    ):
        BatchRunner(spec).run()


def test_verify_names_the_class_without_a_second_reader(tmp_path):
    """`verify` needs what a run does not."""
    spec = frames_named(tmp_path, "HasNoSecondReader")
    assert BatchRunner(spec).run().ok

    with pytest.raises(InvalidSpecError, match=r"HasNoSecondReader\.second_reader returned None"):
        verify(spec)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("SecondReaderExits", "SystemExit"),
        ("SecondReaderCountsWords", "returned 'many' from count_part; it must return an int"),
        ("SecondReaderLacksAKey", "raised KeyError: 'width'"),
    ],
)
def test_a_second_reader_that_does_not_read_is_no_clean_bill(tmp_path, fault, said):
    """`sys.exit(0)` in a reader must not end `verify` with the code for a sound output."""
    spec = frames_named(tmp_path, fault)
    assert BatchRunner(spec).run().ok

    findings = verify(spec).findings

    assert findings
    assert all(said in finding.why for finding in findings)


def test_a_comparison_that_raises_is_refused_with_its_line(tmp_path):
    """A file that was touched is compared before anything is dispatched."""
    spec = frames_named(tmp_path, "ComparisonRaises")
    assert BatchRunner(spec).run().ok
    os.utime(tmp_path / "in/0.frames", (1, 1))

    with pytest.raises(
        InvalidSpecError, match=r"cannot be compared: .*KeyError: 'hash', at .*:\d+$"
    ):
        BatchRunner(spec).run()


def test_a_broken_format_of_another_package_ends_no_run(tmp_path):
    """It is left out, with a warning; a spec that names it is refused."""
    an_installed(tmp_path / "site", f"broken = no_such:Format\nframes = {TARGET}")
    a_frames_spec(tmp_path)
    spec = {"capability": "capabilities:echo", "source": "in", "sink": "out"}
    spec["execution"] = {"engine": "local"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=with_site(tmp_path))
    (tmp_path / "named.yaml").write_text(
        yaml.safe_dump({**spec, "source": {"uri": "in", "format": "broken"}})
    )
    named = batchrunner("run", "named.yaml", cwd=tmp_path, PYTHONPATH=with_site(tmp_path))

    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in rows_out(tmp_path)] == list(range(60))
    assert named.returncode == 2
    assert "no_such:Format cannot be imported" in named.stderr
