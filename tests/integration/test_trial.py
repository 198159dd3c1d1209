"""A trial: the spec over a few rows, while the run itself, its sink and its records stay as they are."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from batchrunner.analytics import open_store
from batchrunner.errors import ForeignOutputError, InvalidSpecError
from batchrunner.storage import open_storage
from batchrunner.verify import verify
from buckets import Bucket
from builders import a_spec, parts, read_part, rows
from frames_format import Frames, frame  # noqa: F401 - the format that the spec names

pytestmark = pytest.mark.long


def write_source(folder, kind):
    folder.mkdir(parents=True)
    for number in range(3):
        some = [{**row, "bad": row["id"] == 7} for row in rows(number * 20, 20)]
        if kind == "parquet":
            pq.write_table(
                pa.Table.from_pylist(some), folder / f"{number}.parquet", row_group_size=5
            )
        elif kind == "frames":
            (folder / f"{number}.frames").write_bytes(b"".join(map(frame, some)))
        else:
            text = "".join(json.dumps(row) + "\n" for row in some).encode()
            data = gzip.compress(text) if kind == "jsonl.gz" else text
            (folder / f"{number}.{kind}").write_bytes(data)


def a_job(folder, *, kind="jsonl", engine="local", **changes):
    write_source(folder / "in", kind)
    source = {"uri": str(folder / "in")}
    if kind == "frames":
        source = {"uri": f"{folder / 'in'}/*", "format": "frames_format:Frames"}
    return a_spec(
        folder,
        **{
            "capability": "capabilities:raises_on_bad",
            "source": source,
            "execution": {"engine": engine, "concurrency": 1},
            "errors": {"max_row_errors": 5, "retry": {"max_attempts": 1}},
            "analytics_store": str(folder / "store"),
            **changes,
        },
    )


def everything_in(folder):
    """Bytes and time of each file; of logs, the bytes: workers of Ray close theirs after the run."""
    return {
        path.relative_to(folder): (
            path.read_bytes(),
            0 if path.suffix == ".log" else path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("local", {"limit": 10}),
        ("local", {"sample": 10}),
        ("local", {"sample": "50%"}),
        pytest.param("ray", {"sample": 10}, marks=pytest.mark.ray),
    ],
)
def test_a_trial_leaves_every_byte_of_the_run_alone(tmp_path, how, engine, request):
    """It is meant for the minute before the run, and for the week in which it runs."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    spec = a_job(tmp_path, engine=engine)
    report = BatchRunner(spec).run()
    sink, store = everything_in(tmp_path / "out"), everything_in(tmp_path / "store")
    trial = BatchRunner(spec).trial(**how).run()

    assert report.ok
    assert trial.ok
    assert sink == everything_in(tmp_path / "out")
    assert store == everything_in(tmp_path / "store")
    assert str(tmp_path / "_trial-out") == trial.sink
    assert {"in", "out", "store", "_trial-out"} == {path.name for path in tmp_path.iterdir()}
    assert verify(spec).ok
    assert not BatchRunner(spec).plan().pending


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "frames"])
@pytest.mark.parametrize("how", [{"limit": 10}, {"sample": 10}])
def test_a_trial_of_ten_rows_has_ten_rows_in_every_format(tmp_path, kind, how):
    """The dead letters among them are what a trial is for."""
    spec = a_job(tmp_path, kind=kind)
    first = BatchRunner(spec).trial(**how).run()
    again = BatchRunner(spec).trial(**how).run()

    assert first.ok
    assert 10 == first.rows_in == first.rows_out + first.rows_failed
    assert (10, first.rows_out) == (again.rows_in, again.rows_out)
    assert again.run_uid != first.run_uid
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()
    if how == {"limit": 10}:
        assert 1 == first.rows_failed


def test_a_trial_starts_over_also_where_the_amount_or_the_code_changed(tmp_path):
    """A trial that refused a changed spec would be one more thing to clear away."""
    spec = a_job(tmp_path)
    BatchRunner(spec).trial(limit=10).run()
    trial = BatchRunner(spec.model_copy(update={"capability": "capabilities:echo"})).trial(
        sample=30
    )

    assert 30 == trial.run().rows_out
    assert 30 == sum(len(read_part(part)) for part in parts(tmp_path / "_trial-out"))
    assert trial.plan().pending


def test_a_trial_is_found_by_the_spec_with_its_sink(tmp_path):
    """`batchrunner errors spec.yaml --set sink.uri=...` lists its dead letters."""
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.checkpoint.location import checkpoint_storage
    from batchrunner.views.dead_letters import read_dead_letters

    spec = a_job(tmp_path, checkpoint_dir=str(tmp_path / "elsewhere"))
    report = BatchRunner(spec).trial(limit=10).run()
    place = spec.model_copy(update={"sink": report.sink, "checkpoint_dir": None})
    (dead_letter,) = read_dead_letters(Checkpoint.current(checkpoint_storage(place)))

    assert '"id": 7' in dead_letter["raw"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_trial_in_which_too_much_fails_says_so(tmp_path):
    """Its end is that of a run."""
    spec = a_job(tmp_path, errors={"max_row_errors": 0})
    report = BatchRunner(spec).trial(limit=10).run()

    assert 1 == report.exit_code
    assert report.stopped == "max_row_errors"


def test_runs_of_a_trial_go_into_a_store_of_their_own(tmp_path):
    """The analytics store is for results."""
    (tmp_path / "in").mkdir()
    content = [{"datasets": ["d"], "models": ["m"], "config": {"n": n}} for n in range(4)]
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    spec = a_spec(
        tmp_path,
        capability={"target": "evaluations:Evaluation", "mode": "run"},
        analytics_store=str(tmp_path / "store"),
    )
    trial = BatchRunner(spec).trial(limit=2)

    assert str(tmp_path / "_trial-out-runs") == trial.spec.analytics_store.uri
    assert not open_store(str(tmp_path / "store")).list_tables()


@pytest.mark.parametrize("sink", ["s3://bucket", "s3://bucket/", "/"])
def test_a_sink_with_nothing_beside_it_has_no_trial(tmp_path, sink):
    """A trial inside the sink would be seen by its readers."""
    with pytest.raises(InvalidSpecError, match="a trial writes into a folder beside the sink"):
        BatchRunner(a_spec(tmp_path, sink=sink)).trial(limit=1)


@pytest.mark.parametrize("how", [{}, {"limit": 1, "sample": 1}, {"limit": 0}, {"sample": 0}])
def test_a_trial_takes_one_amount(tmp_path, how):
    """A trial of nothing, or of two amounts, is a slip."""
    with pytest.raises(InvalidSpecError):
        BatchRunner(a_spec(tmp_path)).trial(**how)


def test_a_sample_is_not_retried(tmp_path):
    """A retry goes on with a plan, and new files of the source would join it."""
    with pytest.raises(InvalidSpecError, match="it starts over each time: call run"):
        BatchRunner(a_job(tmp_path)).trial(sample=3).retry()


def test_a_trial_in_a_bucket_lies_beside_the_sink_and_not_below_its_prefix(moto, prefix, tmp_path):
    """`out-trial` would be in every listing of `out`, as a reader of S3 may ask for it."""
    bucket = Bucket(moto, prefix)
    bucket.put_rows("in/a.jsonl", rows(0, 40))
    with_options = {"storage_options": bucket.storage_options}
    spec = a_spec(
        tmp_path,
        source={"uri": f"{bucket.uri}/in", **with_options},
        sink={"uri": f"{bucket.uri}/out/", **with_options},
    )
    trial = BatchRunner(spec).trial(sample=10).run()
    bucket.close()

    assert 10 == trial.rows_out
    assert f"{bucket.uri}/_trial-out" == trial.sink
    assert [] == list(open_storage(f"{bucket.uri}/out", **with_options).list(recursive=True))


def test_a_trial_removes_no_run_whose_sink_has_the_name_of_a_trial(tmp_path):
    """Two specs in one folder, and the sink of one happens to be `_trial-out`."""
    spec = a_job(tmp_path)
    real = a_spec(tmp_path, sink=str(tmp_path / "_trial-out"))
    BatchRunner(real).run()
    before = everything_in(tmp_path / "_trial-out")
    with pytest.raises(ForeignOutputError, match="which is no trial, and a trial would remove"):
        BatchRunner(spec).trial(limit=3).run()

    assert before == everything_in(tmp_path / "_trial-out")


@pytest.mark.parametrize("damage", ["", "unlink"])
def test_a_trial_removes_no_run_whose_record_is_lost(tmp_path, damage):
    """What a damaged record says of its run is no permission."""
    spec = a_job(tmp_path)
    BatchRunner(spec).trial(limit=3).run()
    (record,) = (tmp_path / "_trial-out").rglob("run.json")
    record.write_bytes(b"{") if not damage else record.unlink()
    with pytest.raises(ForeignOutputError, match="a run whose record is lost"):
        BatchRunner(spec).trial(limit=3).run()


@pytest.mark.parametrize("how", [{"limit": 10}, {"sample": 10}, {"sample": "50%"}])
def test_a_trial_is_no_run_to_go_on_with_but_can_be_verified(tmp_path, how):
    """`done: 10 of 10` over ten rows of sixty would be taken for the whole."""
    spec = a_job(tmp_path, analytics_store=None)
    trial = BatchRunner(spec).trial(**how).run()
    there = spec.model_copy(update={"sink": trial.sink})
    for call in (BatchRunner(there).run, BatchRunner(there).retry):
        with pytest.raises(ForeignOutputError, match="is the checkpoint of a trial"):
            call(accept_changes=True)
    found = verify(there)

    assert found.ok, found.findings
    assert found.trial == "--{} {}".format(*next(iter(how.items())))
    assert trial.rows_out == found.rows_out
    assert 60 == BatchRunner(there).run(fresh=True).rows_in


def test_an_empty_source_can_be_started_over(tmp_path):
    """With no part, `_SUCCESS` and manifest name no run; the owner of the sink does."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("")
    spec = a_spec(tmp_path)
    reports = [BatchRunner(spec).run(), *(BatchRunner(spec).run(fresh=True) for _ in range(2))]
    trials = [BatchRunner(spec).trial(limit=3).run() for _ in range(2)]

    assert all(report.ok and not report.shards for report in [*reports, *trials])
