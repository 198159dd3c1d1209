"""A record that a disk or a person damaged: every command says which, and has a way out that ends well."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import orjson
import pytest
import yaml

import damage
from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import Checkpoint, Quarantine
from batchrunner.checkpoint import lease as lease_module
from batchrunner.checkpoint import sentinel_index as ledgers
from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease
from batchrunner.cli.main import _run
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import DamagedOutputError
from batchrunner.storage import open_storage
from batchrunner.verify import repair, verify
from builders import a_source, a_spec, parts, rows, rows_out, write_jsonl

FIELDS = {
    "name": "job",
    "capability": {"target": "capabilities:fails_on_5", "version": "1"},
    "source": "in",
    "sink": {"uri": "out", "format": "parquet"},
    "execution": {"engine": "local"},
    "errors": {"max_row_errors": 5},
}
EXPECTED = [row["id"] for row in rows(0, 16) if row["id"] != 5]
LOOKING = ("status", "errors", "plan", "verify", "clean")
WAYS_OUT = re.compile(
    r"batchrunner (?P<way>verify --repair|retry|run --fresh|run)\b|run with (?P<option>--accept-changes)"
)


def a_spec_file(folder: Path, **changes) -> Path:
    fields = {**FIELDS, **changes, "source": str(folder / "in")}
    fields["sink"] = {**FIELDS["sink"], "uri": str(folder / "out")}
    (folder / "spec.yaml").write_text(yaml.safe_dump(fields))
    return folder / "spec.yaml"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A finished run with each kind of record: it grew by a file and a column, and a change was accepted."""
    folder = tmp_path_factory.mktemp("complete")
    for number in range(3):
        write_jsonl(folder / f"in/{number}.jsonl", rows(number * 4, 4))
    BatchRunner(BatchSpec.from_yaml(a_spec_file(folder))).run()
    write_jsonl(folder / "in/3.jsonl", [{**row, "more": 1} for row in rows(12, 4)])
    changed = {"capability": {**FIELDS["capability"], "version": "2"}}
    spec = BatchSpec.from_yaml(a_spec_file(folder, **changed))
    assert BatchRunner(spec).run(accept_changes=True).ok
    return folder


@pytest.fixture(scope="module")
def interrupted(complete, tmp_path_factory):
    """The same, killed when a shard was set apart, with one still to do and two others committed."""
    folder = tmp_path_factory.mktemp("interrupted")
    moved(complete, folder)
    out, checkpoint = folder / "out", Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    for name in ("part-00000", "part-00002"):
        (out / f"{name}.parquet").unlink()
        (out / f"_checkpoint/sentinels/{name}.json").unlink()
    for name in ("_SUCCESS", "_manifest.json"):
        (out / name).unlink()
    run = checkpoint.run()
    assert run is not None
    checkpoint.quarantine({"part-00002": Quarantine(run.run_uid, 2, "it fails", 3, "s")})
    mark = {"version": 1, "session": "dead", "node": "", "shards": [0]}
    checkpoint.storage.put("attempts/0123.json", orjson.dumps(mark))
    owner = dataclasses.replace(LeaseOwner.this_process("dead"), started="before")
    acquire_lease(checkpoint.storage, owner)
    checkpoint.storage.put("sessions/dead.jsonl", session_events(out))
    return folder


def session_events(out: Path) -> bytes:
    lines = next((out / "_checkpoint/sessions").glob("*.jsonl")).read_bytes().splitlines()
    return b"\n".join(lines[:-1]) + b"\n"


def moved(job: Path, folder: Path) -> Path:
    shutil.copytree(job, folder, dirs_exist_ok=True)
    version = yaml.safe_load((job / "spec.yaml").read_text())["capability"]
    a_spec_file(folder, capability=version)
    return folder


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(_: bytes) -> bytes:
    return b""


def garbage(data: bytes) -> bytes:
    return bytes((byte * 7 + 13) % 256 for byte in data)


DAMAGES = {"half": half, "empty": empty, "garbage": garbage}
RECORDS = {
    "run record": "_checkpoint/run.json",
    "accepted change": "_checkpoint/changes/0001.json",
    "first plan": "_checkpoint/plan/0000.parquet",
    "last plan": "_checkpoint/plan/0001.parquet",
    "first schema": "_checkpoint/schema.arrow",
    "last schema": "_checkpoint/schema/0001.arrow",
    "sentinel": "_checkpoint/sentinels/part-00001.json",
    "dead letters": "_checkpoint/errors/*",
    "sentinel_index": "_checkpoint/sentinel_index/*",
    "session": "_checkpoint/sessions/*.jsonl",
    "lease": "_checkpoint/lease/*",
    "owner": "_owner.json",
    "part": "part-00001.parquet",
}
OF_COMPLETE = {**RECORDS, "manifest": "_manifest.json", "success": "_SUCCESS"}
OF_INTERRUPTED = {
    **RECORDS,
    "quarantine": "_checkpoint/quarantine/*",
    "mark": "_checkpoint/attempts/*",
}
SILENT = {"session", "sentinel_index", "mark", "lease", "success", "owner"}
"""What a command that looks may pass over, since the run does not need it."""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)


class Terminal:
    """The command line in this process, and what it says."""

    def __init__(self, spec: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self._spec, self._capfd = spec, capfd

    def __call__(self, command: str) -> tuple[int, str]:
        self._capfd.readouterr()
        code = _run([*command.split(), str(self._spec)])
        said = "".join(self._capfd.readouterr())
        assert "internal error" not in said, (command, said)
        assert "Traceback" not in said, (command, said)
        return code, said

    def follow(self, commands: list[str]) -> list[str]:
        """Do *commands*, and then what is said, until a run is complete; return what was done."""
        done: list[str] = []
        while commands:
            command = commands.pop(0)
            assert len(done) < 8, done
            done.append(command)
            code, said = self(command)
            if code == 0 and not command.startswith("verify"):
                return done
            told = WAYS_OUT.finditer(said.partition("next: ")[2] or said)
            ways = [way["way"] or f"run {way['option']}" for way in told]
            commands = [way for way in ways if way not in done[-1:]]
        raise AssertionError(f"a dead end: {done}: {said}")


@pytest.fixture
def terminal(job, capfd):
    """The command line, with the spec of *job* in a file."""
    fields = {"name": "test", "capability": "capabilities:double", "source": str(job / "in")}
    fields |= {"sink": str(job / "out"), "execution": {"engine": "local"}}
    (job / "spec.yaml").write_text(yaml.safe_dump(fields))
    return Terminal(job / "spec.yaml", capfd)


def check(folder: Path, where: str, how: str, capfd, *, silent: bool) -> list[str]:
    """Damage a record; look with every command; follow what is said; return which commands that were."""
    before = {path.read_bytes() for path in (folder / "out").glob("part-*")}
    path = max((folder / "out").glob(where))
    before -= {path.read_bytes()}
    if path.name == "run.json":  # a change that was accepted since would count in its place
        shutil.move(path.parent / "changes/0001.json", path)
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    terminal = Terminal(folder / "spec.yaml", capfd)
    for command in LOOKING:
        code, said = terminal(command)
        assert code in (0, 4, 5), (command, said)
        if code == 4:
            assert str(path.parent) in said, (command, said)
            assert path.name in said, (command, said)
            assert WAYS_OUT.search(said), (command, said)
        if command == "verify":
            assert silent or (code == 5 and path.name in said), said
    done = terminal.follow(["run"])
    if terminal("verify")[0]:  # what only a look at every byte finds
        done += terminal.follow(["verify --repair", "run"])
    assert sorted(row["id"] for row in rows_out(folder / "out")) == EXPECTED
    assert (folder / "out/_SUCCESS").exists()
    assert terminal("verify")[0] == 0
    assert before <= {path.read_bytes() for path in (folder / "out").rglob("part-*")}, done
    return done


def spread(records):
    """Each record with one damage in turn; a soak has all of them."""
    names = list(DAMAGES)
    for number, record in enumerate(records):
        for turn in range(3):
            damage = names[(number + turn) % 3]
            yield pytest.param(record, damage, marks=[pytest.mark.soak] if turn else [])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("record", "damage"), [*spread(OF_COMPLETE)])
def test_a_damaged_record_of_a_finished_run_is_no_dead_end(
    complete, tmp_path, capfd, record, damage
):
    """It ended every command with exit code 4, without a path, for ever."""
    folder = moved(complete, tmp_path)

    check(folder, OF_COMPLETE[record], damage, capfd, silent=record in SILENT)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("record", "damage"), [*spread(OF_INTERRUPTED)])
def test_a_damaged_record_of_an_interrupted_run_is_no_dead_end(
    interrupted, tmp_path, capfd, record, damage
):
    """A user who wants to go on has more to lose: what is committed stays, or is moved aside."""
    folder = moved(interrupted, tmp_path)

    check(folder, OF_INTERRUPTED[record], damage, capfd, silent=record in SILENT)


@pytest.fixture
def job(tmp_path):
    """Three shards of JSON lines; the last one is still to do."""
    a_source(tmp_path / "in")
    BatchRunner(a_spec(tmp_path)).run()
    for key in ("part-00002.jsonl", "_checkpoint/sentinels/part-00002.json", "_SUCCESS"):
        (tmp_path / "out" / key).unlink()
    return tmp_path


def tear(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(half(whole))
    return whole


def generations(job: Path):
    return Checkpoint(open_storage(str(job / "out/_checkpoint"))).generations()


def test_a_damaged_plan_is_made_again_if_every_committed_shard_proves_it(job):
    """Weeks of a cluster's work are in the parts: they stay as they are, and the rest is done."""
    planned, kept = generations(job), parts(job / "out")
    before = [path.stat().st_ino for path in kept]
    tear(job / "out/_checkpoint/plan/0000.parquet")

    done = repair(a_spec(job))

    assert (done.rebuilt, done.hopeless) == (("plan/0000.parquet",), ())
    assert generations(job) == planned
    assert BatchRunner(a_spec(job)).run().shards_new == 1
    assert [path.stat().st_ino for path in kept] == before
    assert verify(a_spec(job)).ok


@pytest.mark.parametrize(
    "change", ["other bytes", "another file first", "other shards", "no source"]
)
def test_a_damaged_plan_is_not_made_again_from_a_source_that_proves_nothing(job, change):
    """A plan that was guessed would take rows for done that no worker did."""
    spec = a_spec(job)
    if change == "other bytes":
        write_jsonl(job / "in/in-000.jsonl", rows(50, 4))
    elif change == "another file first":
        write_jsonl(job / "in/first.jsonl", rows(50, 4))
    elif change == "other shards":
        spec = a_spec(job, source={"uri": str(job / "in"), "shard": {"rows": 2}})
    else:
        shutil.move(job / "in", job / "away")
    tear(job / "out/_checkpoint/plan/0000.parquet")

    done = repair(spec)

    assert done.rebuilt == ()
    assert [finding.part for finding in done.hopeless] == ["plan/0000.parquet"]


def test_starting_over_without_a_plan_moves_the_parts_aside(job):
    """Without it nothing vouches for what they are, so no command removes them."""
    before = {path.read_bytes() for path in parts(job / "out")}
    tear(job / "out/_checkpoint/plan/0000.parquet")

    assert BatchRunner(a_spec(job)).run(fresh=True).shards_new == 3

    assert {path.read_bytes() for path in job.glob("out/_damaged/*/part-*")} == before
    assert verify(a_spec(job)).ok


GONE = {
    "plan": ("_checkpoint/plan/0000.parquet", ["run", "verify --repair", "run"]),
    "run record": ("_checkpoint/run.json", ["run", "run --fresh"]),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("record", GONE)
def test_a_record_that_is_gone_is_named_with_the_way_that_helps(job, terminal, record):
    """The message was that there is no run, or that the sink is another run's: no command led on."""
    key, ways = GONE[record]
    before = {path.read_bytes() for path in parts(job / "out")}
    (job / "out" / key).unlink()

    for command in ("run", "status", "verify"):
        code, said = terminal(command)
        assert (code, key in said) == (5 if command == "verify" else 4, True), (command, said)
    assert terminal.follow(["run"]) == ways

    assert before <= {path.read_bytes() for path in (job / "out").rglob("part-*")}
    assert [row["id"] for row in rows_out(job / "out")] == list(range(0, 24, 2))
    assert terminal("verify")[0] == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("record", GONE)
def test_starting_over_without_a_record_moves_the_parts_aside(job, record):
    """Removed, they would be lost by one command that was to help."""
    before = {path.read_bytes() for path in parts(job / "out")}
    (job / "out" / GONE[record][0]).unlink()

    assert BatchRunner(a_spec(job)).run(fresh=True).shards_new == 3

    assert {path.read_bytes() for path in job.glob("out/_damaged/*/part-*")} == before
    assert verify(a_spec(job)).ok


@pytest.mark.usefixtures("impatient")
def test_a_torn_run_record_is_not_said_to_be_mended(job, terminal):
    """Two commands each named the other, and none of them could help."""
    tear(job / "out/_checkpoint/run.json")

    for command in ("run", "status", "verify", "verify --repair"):
        said = terminal(command)[1]
        assert "run --fresh" in said, (command, said)
        assert "verify --repair" not in said, (command, said)
        assert "RunRecord" not in said, (command, said)
    assert terminal.follow(["run"]) == ["run", "run --fresh"]


def test_a_damaged_addition_to_the_plan_of_which_nothing_is_done_is_put_aside(job):
    """The next run adds it once more; what the plan had before is not touched."""
    write_jsonl(job / "in/later.jsonl", rows(12, 4))
    BatchRunner(a_spec(job)).run(stop=at_once())
    tear(job / "out/_checkpoint/plan/0001.parquet")

    done = repair(a_spec(job))

    assert (done.moved, done.hopeless) == (("plan/0001.parquet",), ())
    assert BatchRunner(a_spec(job)).run().ok
    assert [row["id"] for row in rows_out(job / "out")] == list(range(0, 32, 2))


def at_once() -> Stop:
    stop = Stop(max_runtime=None)
    stop.request(StopReason.MAX_RUNTIME)
    return stop


def test_a_ledger_is_never_larger_than_a_record_may_be(job, monkeypatch):
    """It could not be read again: every later session ended with exit code 3."""
    monkeypatch.setattr(ledgers, "_LINES", 1)
    BatchRunner(a_spec(job)).run()
    folder = job / "out/_checkpoint/sentinel_index"
    shutil.rmtree(folder)
    write_jsonl(job / "in/later.jsonl", rows(12, 4))

    BatchRunner(a_spec(job)).run()

    assert [path.read_bytes().count(b"write_id") for path in folder.iterdir()] == [1] * 4
    found = Checkpoint(open_storage(str(job / "out/_checkpoint"))).sentinels()
    assert (len(found.good), len(found.unindexed)) == (4, 0)


def test_a_sentinel_that_is_too_large_to_read_is_one_damaged_shard(job):
    """Reading it was refused, as if the store had failed: exit code 3, for ever."""
    damage.a_huge_sentinel(job / "out")

    with pytest.raises(DamagedOutputError, match=r"part-00001\.json is damaged: 67,108,865 bytes"):
        BatchRunner(a_spec(job)).run()
    assert repair(a_spec(job)).to_recompute == [1]
    assert BatchRunner(a_spec(job)).run().ok
