"""A file that cannot be read costs itself, not the files that share a shard with it."""

import gzip
import io
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import Checkpoint
from batchrunner.driver.additions import Additions
from batchrunner.driver.session import Stop, StopReason
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import LeaseHeldError
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, repair, verify
from batchrunner.views.watching import Watching
from builders import a_spec, rows_out
from command import ENVIRONMENT
from patience import PATIENCE
from privilege import obeying_permissions

FILES, EACH = 200, 3
DAMAGED = (0, 77, 199)


def echo(rows):
    return rows


def ids_of(numbers):
    return [i for number in numbers for i in range(number * EACH, (number + 1) * EACH)]


GOOD = ids_of(n for n in range(FILES) if n not in DAMAGED)


class Source:
    """Files of three rows; damages some, and mends them."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True)
        for number in range(FILES):
            self.write(number)

    def path(self, number):
        return self.folder / f"{number:04d}.{self.kind}"

    def write(self, number):
        rows = [{"id": i, "text": f"row {i}"} for i in ids_of([number])]
        if self.kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), self.path(number))
            return
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self.path(number).write_bytes(gzip.compress(text) if self.kind.endswith("gz") else text)

    def damage(self, number):
        """Cut it in the middle, overwrite its begin, or empty it: as the number says."""
        whole = self.path(number).read_bytes()
        damaged = [whole[: len(whole) - 9], b"no such format" + whole[14:], whole[:5]]
        self.path(number).write_bytes(damaged[DAMAGED.index(number) % 3])


class Job:
    def __init__(self, folder, *, kind="jsonl.gz", **changes):
        self.folder, self.source = folder, Source(folder / "in", kind)
        self.spec = BatchSpec(
            name="damaged",
            **{
                "source": {"uri": str(folder / "in"), "shard": {"files": FILES}},
                "sink": str(folder / "out"),
                "execution": {"engine": "local", "batch_size": 64},
                **changes,
            },
        )
        self.capability = echo

    def runner(self):
        return BatchRunner(self.spec, capability=self.capability)

    def run(self):
        return self.runner().run(progress=None)

    def retry(self, **how):
        return self.runner().retry(progress=None, **how)

    def ids(self):
        found = []
        for part in sorted((self.folder / "out").glob("part-*")):
            if part.suffix == ".parquet":
                found += pq.read_table(part)["id"].to_pylist() if part.stat().st_size else []
            else:
                found += [json.loads(line)["id"] for line in part.read_text().splitlines()]
        return found

    def checkpoint(self):
        return Checkpoint.current(open_storage(str(self.folder / "out/_checkpoint")))

    def plan(self):
        return StoredPlan.of(self.checkpoint().generations())

    def verified(self):
        return verify(self.spec, checks=Checks(keys=("id",)))

    def quarantined_files(self):
        quarantined = self.checkpoint().quarantined()
        shards = [shard for shard in self.plan().active if shard.id in quarantined]
        assert len(shards) == len(quarantined)
        assert all(len(shard.slices) == 1 for shard in shards)
        return [shard.first.uri for shard in shards]


@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_of_a_pack_only_the_damaged_files_are_quarantined(tmp_path, kind):
    """All 200 files waited for three of them."""
    job = Job(tmp_path, kind=kind)
    for number in DAMAGED:
        job.source.damage(number)

    report = job.run()

    assert report.exit_code == 1
    assert (report.shards, report.shards_committed, report.shards_new) == (4, 1, 1)
    assert sorted(job.ids()) == GOOD
    assert job.quarantined_files() == [str(job.source.path(n)) for n in DAMAGED]
    for number, reason in zip(DAMAGED, report.quarantined.values(), strict=True):
        assert job.source.path(number).name in reason
    assert set(report.failures) == set(report.quarantined)
    assert {one.attempts for one in job.checkpoint().quarantined().values()} == {3}

    again = job.run()
    assert (again.exit_code, again.shards_new, len(again.quarantined)) == (1, 0, 3)
    assert len(job.checkpoint().generations()) == 2

    for number in DAMAGED:
        job.source.write(number)
    mended = job.retry()
    assert mended.ok
    assert sorted(job.ids()) == ids_of(range(FILES))
    assert job.verified().ok
    assert job.run().shards_new == 0


@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas", "pyarrow"])
@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_the_rows_of_the_other_files_come_out_as_they_are(tmp_path, kind, batch_format):
    """Also in batches that go over several shards, and where the damaged shard fixes the schema."""
    job = Job(
        tmp_path,
        kind=kind,
        source={"uri": str(tmp_path / "in"), "shard": {"files": 60}},
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        capability={"target": "capabilities:echo", "one_to_one": True},
        execution={"engine": "local", "batch_size": 256, "batch_format": batch_format},
    )
    job.capability = None
    for number in DAMAGED:
        job.source.damage(number)

    report = job.run()

    table = pa.concat_tables(
        pq.read_table(part) for part in sorted((tmp_path / "out").glob("part-*"))
    )
    assert report.shards_committed == 4
    assert table.schema.equals(pa.schema([("id", pa.int64()), ("text", pa.string())]))
    assert sorted(table.to_pylist(), key=lambda row: row["id"]) == [
        {"id": i, "text": f"row {i}"} for i in GOOD
    ]
    assert len(job.quarantined_files()) == 3


def test_a_file_that_vanishes_or_changes_while_the_run_goes_on_costs_itself(tmp_path):
    """The others are read; the next session lists anew what these two have become."""
    job = Job(tmp_path, kind="jsonl")
    changed, gone = job.source.path(150), job.source.path(170)

    def meddles(rows):
        if gone.exists():
            gone.unlink()
            changed.write_text('{"id": 9000}\n')
        return rows

    job.capability = meddles
    report = job.run()

    lost = {*ids_of([150, 170])}
    assert report.exit_code == 1
    assert sorted(job.ids()) == [i for i in ids_of(range(FILES)) if i not in lost]
    assert job.quarantined_files() == [str(changed)]

    job.capability = echo
    assert job.runner().run(accept_changes=True, progress=None).ok
    assert sorted(job.ids()) == [i for i in [*ids_of(range(FILES)), 9000] if i not in lost]
    assert job.verified().ok


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_files_that_are_all_damaged_are_each_quarantined(tmp_path, engine, request):
    """The only shard has nothing that can be read; each file says what is wrong with it."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    job = Job(tmp_path, execution={"engine": engine})
    for number in range(FILES):
        if number in DAMAGED:
            job.source.damage(number)
        else:
            job.source.path(number).unlink()

    report = job.run()

    assert (report.exit_code, report.shards, report.shards_committed) == (1, 3, 0)
    assert job.quarantined_files() == [str(job.source.path(n)) for n in DAMAGED]
    for number in DAMAGED:
        job.source.write(number)
    assert job.retry().ok
    assert sorted(job.ids()) == ids_of(DAMAGED)
    assert job.verified().ok


def test_thousands_of_damaged_files_are_not_thousands_of_shards(tmp_path, monkeypatch):
    """Of a source in another format than the spec says, each file would be quarantined by itself."""
    monkeypatch.setattr("batchrunner.driver.damaged_files.MOST_ALONE", 100)
    job = Job(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"files": 50}})
    for number in range(FILES):
        if number % 50 or number >= 100:  # all of two shards, and all but one of two others
            job.source.path(number).write_bytes(b"no gzip")

    report = job.run()

    assert (report.shards, report.shards_committed, len(report.quarantined)) == (6, 2, 4)
    assert sorted(job.ids()) == ids_of([0, 50])
    assert "49 more files of its shard cannot be read" in report.quarantined[2]
    assert job.run().shards_new == 0
    for number in range(FILES):
        job.source.write(number)
    assert job.retry().ok
    assert sorted(job.ids()) == ids_of(range(FILES))
    assert job.verified().ok


def test_a_capability_that_fails_its_shard_divides_nothing(tmp_path):
    """The files of the shard are sound."""
    job = Job(tmp_path, errors={"on_row_error": "fail"})

    def fails(rows):
        raise ValueError("no")

    job.capability = fails
    report = job.run()

    assert (report.exit_code, report.shards, len(report.quarantined)) == (1, 1, 1)
    assert len(job.checkpoint().generations()) == 1


def test_the_good_rows_are_given_to_the_capability_once_more_and_no_more(tmp_path):
    """Each attempt at the whole pack would pay for its calls again."""
    job = Job(tmp_path, execution={"engine": "local", "batch_size": 10})
    job.source.damage(199)
    given = []

    def counts(rows):
        given.extend(row["id"] for row in rows)
        return rows

    job.capability = counts
    job.run()

    assert set(given) == set(ids_of(range(199)))
    assert len(given) <= 2 * 199 * EACH + EACH * 3  # what can be read of the damaged one, thrice


def test_dead_letters_stay_with_their_files_when_their_shard_is_divided(tmp_path):
    """Their slice has another number in the new shard; a retry reads them there."""
    job = Job(tmp_path, errors={"max_row_errors": 10, "retry": {"max_attempts": 1}})
    bad = {4, 300, 590}

    def refuses(rows):
        if any(row["id"] in bad for row in rows):
            raise ValueError("refused")
        return rows

    job.capability = refuses
    for number in (0, 77):
        job.source.damage(number)
    report = job.run()

    assert (report.rows_failed, len(report.quarantined)) == (3, 2)
    bad.clear()
    assert job.retry(rows=True).rows_failed == 0
    for number in (0, 77):
        job.source.write(number)
    assert job.retry().ok
    assert sorted(job.ids()) == ids_of(range(FILES))
    assert job.verified().ok


def test_what_retries_the_rows_of_a_divided_shard_goes_with_it(tmp_path):
    """`verify --repair` took the shard back; then one of its files was damaged, with time and size as before."""
    job = Job(tmp_path, errors={"max_row_errors": 10, "retry": {"max_attempts": 1}})
    bad = {4}

    def refuses(rows):
        if any(row["id"] in bad for row in rows):
            raise ValueError("refused")
        return rows

    job.capability = refuses
    assert job.run().ok
    bad.clear()
    assert job.retry(rows=True).ok
    (part, _) = sorted((tmp_path / "out").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-5])
    repair(job.spec)
    path = job.source.path(77)
    whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(stamp, stamp))

    report = job.run()

    assert (report.shards, report.shards_committed, report.rows_failed) == (2, 1, 0)
    assert sorted(job.ids()) == ids_of(n for n in range(FILES) if n != 77)
    path.write_bytes(whole)
    os.utime(path, ns=(stamp, stamp))
    assert job.retry().ok
    assert sorted(job.ids()) == ids_of(range(FILES))
    assert job.verified().ok


@pytest.mark.parametrize("instant", ["before", "after"])
def test_a_driver_that_is_displaced_as_the_plan_grows_hands_nothing_more_out(
    tmp_path, monkeypatch, instant
):
    """The other driver may know the shard as it was: both would write the rows of its files."""
    job, given = Job(tmp_path, execution={"engine": "local", "batch_size": 10}), []
    job.source.damage(199)
    link, lease = os.link, tmp_path / "out/_checkpoint/lease/00000002.json"

    def take_over():
        lease.touch()
        given.clear()

    def linked(source, target, **how):
        grows = str(target).endswith("plan/0001.parquet")
        if grows and instant == "before":
            take_over()
        link(source, target, **how)
        if grows and instant == "after":
            take_over()

    def notes(rows):
        given.extend(rows)
        return rows

    monkeypatch.setattr(os, "link", linked)
    job.capability = notes
    with pytest.raises(LeaseHeldError):
        job.run()

    assert lease.exists()
    assert given == job.ids() == []


def test_a_driver_that_was_displaced_before_leaves_the_plan_as_it_is(tmp_path):
    """The one that took over has surveyed it."""
    job = Job(tmp_path)
    job.source.damage(199)

    def displaced(rows):
        (tmp_path / "out/_checkpoint/lease/00000002.json").touch()
        return rows

    job.capability = displaced
    with pytest.raises(LeaseHeldError):
        job.run()

    assert len(job.checkpoint().generations()) == 1


def test_a_stop_keeps_what_was_found_out_and_begins_no_further_shard(tmp_path):
    """The next session goes on with the files that can be read."""
    job = Job(tmp_path)
    job.source.damage(199)
    stop, built = Stop(max_runtime=None), []

    class Stops:
        def __init__(self):
            built.append(self)

        def __call__(self, rows):
            stop.request(StopReason.MAX_RUNTIME)
            return rows

    job.capability = Stops
    report = job.runner().run(stop=stop, progress=None)

    assert (report.exit_code, report.shards, report.shards_committed) == (75, 2, 0)
    assert (len(built), report.quarantined) == (1, {})
    plan = job.plan()
    assert [Additions(plan).why(shard) for shard in plan.active] == [
        f"was in a shard with a file that cannot be read: {job.source.path(199)}",
        "its file cannot be read",
    ]
    job.capability = echo
    assert job.run().shards_new == 1
    assert sorted(job.ids()) == ids_of(range(199))
    assert job.quarantined_files() == [str(job.source.path(199))]


def test_hooks_events_and_figures_are_of_the_plan_as_it_has_become(tmp_path):
    """Three of one shard would be more than all."""
    heard, seen = {}, []

    class Hook:
        def on_run_start(self, event):
            heard["start"] = event.shards

        def on_run_end(self, event):
            heard["end"] = (event.shards, event.shards_committed, event.rows_in)

    class Display:
        def show(self, progress):
            seen.append(progress)

        def close(self):
            pass

    job = Job(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"files": 100}})
    job.source.damage(0)
    runner = BatchRunner(job.spec, capability=echo, hooks=[Hook()])
    report = runner.run(progress=Display())

    assert heard == {"start": 2, "end": (3, 2, 199 * EACH)}
    assert (report.shards, report.shards_committed) == (3, 2)
    first, last = seen[2], seen[-1]
    assert (last.shards, last.committed, last.failed, last.ids) == (3, 2, 1, (1, 2, 3))
    assert (first.weight, last.states) == (last.weight, b"##x")
    log = next((tmp_path / "out/_checkpoint/sessions").glob("*.jsonl")).read_text()
    (grew,) = [e for e in map(json.loads, log.splitlines()) if e["action"] == "plan_grew"]
    assert (grew["generation"], grew["shards"], grew["retired"]) == (1, 2, 1)


def test_progress_events_name_shards_by_their_ids_also_once_the_plan_has_grown():
    """The place of a shard in the plan is another one then."""
    from batchrunner.driver.progress import Progress
    from batchrunner.views.json_display import JsonDisplay
    from batchrunner.views.json_events import JsonEvents

    stream, clock = io.StringIO(), itertools.count(0, 2)
    display = JsonDisplay(JsonEvents(stream), clock=lambda: next(clock))
    begun = replace(Progress.before_the_survey(), states=b"..", ids=(0, 1))
    for states, ids in [(b"..", (0, 1)), (b"x.", (0, 1)), (b"#.x", (1, 2, 3)), (b"##x", (1, 2, 3))]:
        display.show(replace(begun, states=states, ids=ids))

    events = [e for e in map(json.loads, stream.getvalue().splitlines()) if e["event"] == "shard"]
    assert [(e["shard"], e["state"]) for e in events] == [
        *[(0, "failed"), (1, "committed"), (3, "failed"), (2, "committed")]
    ]


def test_a_shard_without_rows_waits_for_the_columns_of_the_shards_that_come_of_a_divided_one(
    tmp_path,
):
    """Its part has the columns of all others."""
    job = Job(
        tmp_path,
        source={"uri": str(tmp_path / "in"), "shard": {"files": 100}},
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
    )
    job.source.damage(199)
    job.capability = lambda rows: [row if row["id"] >= 100 * EACH else {} for row in rows]

    report = job.run()

    assert report.shards_committed == 2
    bare = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert bare.to_pylist() == [{"id": None, "text": None}] * 100 * EACH


def test_who_watches_sees_the_plan_grow(tmp_path, monkeypatch):
    """Four of three shards would be committed."""
    monkeypatch.setattr("batchrunner.driver.session.RENEW_SECONDS", 0.05)
    job, watching = Job(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"files": 100}}), []
    job.source.damage(199)

    def watched(rows):
        if not watching:
            watching.append(Watching(job.checkpoint()))
        deadline = time.monotonic() + PATIENCE
        while len(job.checkpoint().generations()) > 1 and time.monotonic() < deadline:
            watching[0].refresh()
            if watching[0].progress.shards == 3:
                return rows
            time.sleep(0.02)
        return rows

    job.capability = watched
    job.run()

    assert watching[0].progress.shards == 3
    assert watching[0].progress.ids == (0, 2, 3)


def test_a_file_that_may_not_be_read_costs_itself_and_is_read_once_it_may(tmp_path):
    """It is not damaged: the environment is to be mended, and says so with 3."""
    job = Job(tmp_path, kind="jsonl")
    (tmp_path / "spec.yaml").write_text(
        f"name: damaged\ncapability: capabilities:echo\nsink: out\n"
        f"source: {{uri: in, shard: {{files: {FILES}}}}}\nexecution: {{engine: local}}\n"
    )
    job.source.path(7).chmod(0)
    command = [sys.executable, "-m", "batchrunner", "run", "spec.yaml"]

    done = subprocess.run(
        obeying_permissions(command),
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, len(job.ids())) == (3, (FILES - 1) * EACH), done.stderr
    assert "0007.jsonl: cannot read: permission denied" in done.stderr
    job.source.path(7).chmod(0o644)
    again = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    assert sorted(job.ids()) == ids_of(range(FILES))


@pytest.mark.parametrize("is_moved", [True, False])
def test_what_the_reason_of_a_damaged_file_advises_ends_the_run(tmp_path, is_moved):
    """It said to leave the file out of `source.uri`, which is a folder."""
    whole = gzip.compress(b'{"id": 3}\n')
    (tmp_path / "in").mkdir()
    for name, data in (("a", gzip.compress(b'{"id": 1}\n{"id": 2}\n')), ("b", whole[:20])):
        (tmp_path / f"in/{name}.jsonl.gz").write_bytes(data)
    runner = BatchRunner(a_spec(tmp_path, capability="capabilities:echo"))
    [reason] = runner.run().quarantined.values()
    assert "or move it away, then `batchrunner retry --accept-changes`" in reason
    assert "replace it with a whole file" in reason

    if is_moved:
        (tmp_path / "in/b.jsonl.gz").unlink()
    else:
        (tmp_path / "in/b.jsonl.gz").write_bytes(whole)
    report = runner.retry(accept_changes=is_moved)

    assert report.ok
    assert [row["id"] for row in rows_out(tmp_path / "out")] == ([1, 2] if is_moved else [1, 2, 3])
