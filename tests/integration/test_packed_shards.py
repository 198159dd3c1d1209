"""Many small files, from end to end: few parts, and everything about a file stays that file's."""

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.dead_letters import dead_letters_of
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, verify

FILES, EACH = 300, 3


class Capability:
    """Refuses the rows whose ids it is given."""

    def __init__(self, *bad):
        self.bad = set(bad)

    def __call__(self, rows):
        for row in rows:
            if row["id"] in self.bad:
                raise ValueError("refused")
        return [{**row, "twice": 2 * row["id"]} for row in rows]


class Job:
    def __init__(self, folder, *, kind="jsonl"):
        self.folder, self.kind, self.bad = folder, kind, ()
        (folder / "in").mkdir()
        for number in range(FILES):
            self.write(number, range(number * EACH, (number + 1) * EACH))

    def write(self, number, ids, **more):
        rows = [{"id": i, "of": number, **more} for i in ids]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / f"in/{number:04d}.jsonl").write_text(text)

    def spec(self, **changes):
        return BatchSpec(
            name="many",
            source={"uri": str(self.folder / "in"), **changes},
            sink=str(self.folder / "out"),
            execution={"engine": "local", "batch_size": 64},
            errors={"max_row_errors": 50, "retry": {"max_attempts": 1}},
        )

    def runner(self):
        return BatchRunner(self.spec(), capability=Capability(*self.bad))

    def run(self, **how):
        return self.runner().run(progress=None, **how)

    def rows(self):
        parts = sorted((self.folder / "out").glob("part-*.jsonl"))
        return [json.loads(line) for part in parts for line in part.read_text().splitlines()]

    def ids(self):
        return [row["id"] for row in self.rows()]

    def checkpoint(self):
        return Checkpoint.current(open_storage(str(self.folder / "out/_checkpoint")))

    def dead_letters(self):
        checkpoint = self.checkpoint()
        sentinels = checkpoint.sentinels().good.values()
        return [one for sentinel in sentinels for one in dead_letters_of(checkpoint, sentinel)]

    def verified(self):
        return verify(self.spec(), checks=Checks(keys=("id",)))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_many_small_files_make_few_parts_in_the_order_of_the_source(job):
    """A part and a sentinel for each would be most of the work."""
    report = job.run()

    assert report.ok
    assert 8 <= report.shards <= 10
    assert job.ids() == list(range(FILES * EACH))
    assert job.verified().ok
    assert job.run().shards_new == 0


def test_the_manifest_and_a_file_beside_it_say_which_file_is_in_which_part(job):
    """A user asks where the rows of a file went; a reader of `*.parquet` must not meet the answer."""
    job.run()

    manifest = json.loads((job.folder / "out/_manifest.json").read_text())
    table = pq.read_table(job.folder / "out/_manifest_sources")

    assert manifest["version"] == 2
    assert manifest["sources"]["rows"] == len(table) == FILES
    assert sum(part.get("files", 1) for part in manifest["parts"]) == FILES
    for part, source in zip(table["part"].to_pylist(), table["source"].to_pylist(), strict=True):
        number = int(source.rpartition("/")[2].removesuffix(".jsonl"))
        lines = (job.folder / "out" / part).read_text().splitlines()
        assert sum(json.loads(line)["of"] == number for line in lines) == EACH


@pytest.mark.parametrize("damage", ["gone", "torn", "another"])
def test_a_damaged_list_of_sources_is_found_and_the_next_run_writes_it_again(job, damage):
    """It is part of what `_SUCCESS` vouches for."""
    job.run()
    path = job.folder / "out/_manifest_sources"
    whole = path.read_bytes()
    path.unlink()
    if damage == "torn":
        path.write_bytes(whole[:-9])
    elif damage == "another":
        table = pq.read_table(path.parent / "_checkpoint/plan/0000.parquet")
        pq.write_table(table, path)

    (finding,) = job.verified().findings
    assert finding.part == "_manifest_sources"

    assert job.run().ok
    assert job.verified().ok


def test_a_row_that_fails_is_a_dead_letter_of_its_own_file_and_is_retried_there(job):
    """Its place is what a person opens, and what the retry reads."""
    job.bad = (5, 301, 302, 899)
    report = job.run()

    assert report.rows_failed == 4
    assert {
        (one["source"].rpartition("/")[2], json.loads(one["raw"])["id"])
        for one in job.dead_letters()
    } == {(f"{i // EACH:04d}.jsonl", i) for i in job.bad}
    assert job.verified().ok

    job.bad = ()
    retried = job.runner().retry(rows=True, progress=None)

    assert retried.ok
    assert sorted(job.ids()) == list(range(FILES * EACH))
    assert job.verified().ok


def test_a_row_that_cannot_be_read_has_its_own_file_and_byte(job):
    """Also in the middle of a pack."""
    path = job.folder / "in/0123.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"no json\n" + b"".join(others))

    job.run()

    (one,) = job.dead_letters()
    assert (one["source"], one["unit"], one["at"]) == (str(path), "byte", len(first))
    assert job.verified().ok


def test_a_changed_file_costs_the_shard_it_is_in_and_no_other(job):
    """The parts of the others stay as they are, byte for byte."""
    first = job.run()
    before = {p.name: p.stat().st_ino for p in (job.folder / "out").glob("part-*")}
    job.write(150, [900, 901, 902])

    report = job.run()

    after = {p.name: p.stat().st_ino for p in (job.folder / "out").glob("part-*")}
    assert report.ok
    assert report.shards == first.shards
    assert len(before.items() - after.items()) == 1
    assert sorted(job.ids()) == sorted(
        [i for i in range(FILES * EACH) if i // EACH != 150] + [900, 901, 902]
    )
    assert job.verified().ok


def test_new_and_vanished_files_are_those_files_alone(job):
    """A new one makes a shard; a vanished one takes its rows out, and its neighbours stay."""
    job.run()
    job.write(FILES, [5_000])
    (job.folder / "in/0007.jsonl").unlink()

    report = job.run(accept_changes=True)

    assert report.ok
    gone = set(range(7 * EACH, 8 * EACH))
    assert sorted(job.ids()) == sorted([*(set(range(FILES * EACH)) - gone), 5_000])
    assert job.verified().ok


def test_a_touched_file_with_the_same_bytes_is_found_by_the_hash_of_its_slice(job):
    """A folder that was checked out again costs a comparison, and no row."""
    job.run()
    touched = [job.folder / f"in/{number:04d}.jsonl" for number in (0, 17, 299)]
    for path in touched:
        os.utime(path, ns=(1, 1))

    plan = job.runner().plan()

    assert plan.pending == ()
    assert plan.notes == (
        "3 files have another time and the same bytes (compared 3 committed slices)",
    )
    assert job.run().shards_new == 0
    assert job.runner().plan().notes == ()
    assert job.verified().ok


def test_a_shard_that_is_made_again_for_a_file_names_that_file(job):
    """All files can be read, and one has changed: a user asks which one costs the others."""
    job.run()
    changed, gone = (job.folder / f"in/{number:04d}.jsonl" for number in (45, 100))
    with changed.open("a") as file:
        file.write('{"id": 5000}\n')
    gone.unlink()
    job.write(FILES, [9000])

    survey = job.runner().plan(accept_changes=True)

    near = "was in a shard with a file that "
    reasons = {survey.why(shard) for shard in survey.pending}
    assert f"one of its files changed: {changed}" in reasons
    assert reasons <= {
        f"one of its files changed: {changed}",
        f"{near}changed: {changed}",
        f"{near}is no longer read: {gone}",
        "its file is new",
    }
    assert survey.notes == (f"1 file changed: {changed}",)


def test_a_run_that_moved_is_read_at_its_new_place(job, tmp_path):
    """All files of a pack have moved with it."""
    job.bad = (5, 301)
    job.run()
    shutil.move(job.folder / "in", tmp_path / "moved_in")
    shutil.move(job.folder / "out", tmp_path / "moved_out")
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "moved_in", tmp_path / "there/in")
    shutil.move(tmp_path / "moved_out", tmp_path / "there/out")
    job.folder, job.bad = tmp_path / "there", ()

    assert job.verified().ok
    assert job.runner().retry(rows=True, progress=None).ok

    assert sorted(job.ids()) == list(range(FILES * EACH))
    assert job.verified().ok


def test_what_is_said_of_a_pack_in_one_line_is_its_first_file_and_how_many_there_are(job):
    """By the plan, by hooks and in the report: a list of a thousand names helps no reader."""
    heard = []

    class Hook:
        def on_shard_committed(self, event):
            heard.append(event)

    runner = BatchRunner(job.spec(), capability=Capability(), hooks=[Hook()])
    planned = runner.plan().pending
    runner.run(progress=None)

    (first, *_) = sorted(heard, key=lambda event: event.shard)
    assert first.source == planned[0].first.uri == f"{job.folder}/in/0000.jsonl"
    assert planned[0].extent == ("files", 0, first.files)
    assert sum(event.files for event in heard) == FILES
    shard = runner.report().shards[0]
    assert (shard.source, shard.slicing, shard.stop) == (first.source, "files", first.files)


def test_a_pack_is_read_again_as_it_was_when_it_is_replayed(job):
    """The rows of its files, one after the other, through the second reader."""
    spec = BatchSpec(
        name="many",
        source=str(job.folder / "in"),
        sink=str(job.folder / "out"),
        capability={"target": "capabilities:echo", "deterministic": True},
        execution={"engine": "local"},
    )
    BatchRunner(spec).run(progress=None)

    verification = verify(spec, checks=Checks(replay=1.0))

    assert verification.ok
    assert verification.left_out == 0
