"""Records, addresses, layout: what of the analytics store needs no store."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import ClassVar, Literal, Optional, Union

import pydantic
import pytest

from batchrunner.analytics import (
    AnalyticsStoreConfig,
    CapabilityRunRef,
    CompletedRun,
    Provenance,
    Record,
    open_store,
)
from batchrunner.analytics.comparison import compare
from batchrunner.analytics.layout import stem_of
from batchrunner.analytics.record import columns_of
from batchrunner.analytics.table_files import SharedFile
from batchrunner.errors import InvalidRecordError, InvalidSpecError, SchemaConflictError
from batchrunner.spec import secrets
from batchrunner.testing.memory import MemoryStorage


class Everything(Record, table_name="everything"):
    text: str
    whole: int
    real: float
    yes: bool
    raw: bytes
    moment: datetime
    maybe: int | None = None
    old_style: Optional[str] = None  # noqa: UP045 - as people write it
    either: Union[int, float] = 0  # noqa: UP007 - likewise
    one_of: Literal["a", "b"] = "a"


def everything(uid="run", **changes):
    values = {
        "text": "naïve 日本\0語",
        "whole": -(2**63),
        "real": float("inf"),
        "yes": True,
        "raw": b"\0\xff",
        "moment": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2))),
    }
    return Everything(run_uid=uid, **{**values, **changes})


def a_store(tmp_path, *records):
    store = open_store(tmp_path / "store")
    store.write([CompletedRun("run", "tests.Capability", records)])
    return store


# Records


def test_a_class_of_records_says_its_columns():
    """They are the table's, and known without any row."""
    assert [*columns_of(Everything).values()] == [
        "string",
        "timestamp",
        "string",
        "int64",
        "double",
        "bool",
        "binary",
        "timestamp",
        "int64",
        "string",
        "double",
        "string",
    ]


@pytest.mark.parametrize("annotation", [list[int], dict, object, str | int, Record])
def test_a_nested_field_is_refused_when_the_class_is_made(annotation):
    """Not when the first run was paid for."""
    with pytest.raises(InvalidRecordError, match=r"Nested\.field"):
        type(
            "Nested",
            (Record,),
            {"__annotations__": {"field": annotation}, "__module__": __name__},
            table_name="nested",
        )


@pytest.mark.parametrize("name", ["runs", "", "Upper", "1st", "a-b", "a/b", "_schema", "x" * 101])
def test_a_name_that_cannot_be_a_tables_is_refused(name):
    """It is a folder, and a word of SQL."""
    with pytest.raises(InvalidRecordError):

        class Named(Record, table_name=name):
            pass


def test_a_class_without_a_table_is_refused():
    """Its records would have no table to go to."""
    with pytest.raises(InvalidRecordError, match="names no table"):

        class Homeless(Record):
            value: float


def test_a_class_of_a_notebook_can_be_sent_to_a_worker(tmp_path):
    """By value: no other process can import it."""
    from ray import cloudpickle

    class Local(Record, table_name="local"):
        value: float

    data = cloudpickle.dumps(Local(run_uid="run", value=1.5))
    del Local
    a_store(tmp_path, cloudpickle.loads(data))

    (found,) = open_store(tmp_path / "store").read_run("run").records["local"]
    assert found["value"] == 1.5


def test_values_come_back_as_they_were(tmp_path):
    """To the microsecond and the last bit; a moment as the same moment in UTC."""
    record = everything()

    (found,) = a_store(tmp_path, record).read_run("run").records["everything"]

    assert found == {**record.model_dump(), "moment": record.moment.astimezone(UTC)}


def test_a_moment_without_a_time_zone_is_one_in_utc(tmp_path):
    """Records that were made elsewhere have such, and are not refused for it."""
    record = everything(moment=datetime(2026, 1, 2))  # noqa: DTZ001 - that is the point

    (found,) = a_store(tmp_path, record).read_run("run").records["everything"]

    assert found["moment"] == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("wrong", [{"whole": 2**63}, {"text": "\ud800"}])
def test_a_value_that_does_not_fit_is_refused_not_rounded(tmp_path, wrong):
    """With the table and the column; and nothing is written."""
    (column,) = wrong
    record = everything().model_copy(update=wrong)

    with pytest.raises(InvalidRecordError, match=f"'everything', column '{column}'"):
        a_store(tmp_path, record)
    assert not (tmp_path / "store").exists()


def test_a_field_that_the_class_does_not_declare_is_refused(tmp_path):
    """It would be lost in silence."""

    class Open(Record, table_name="open"):
        model_config = pydantic.ConfigDict(extra="allow")

    with pytest.raises(InvalidRecordError, match="'extra' is not declared"):
        a_store(tmp_path, Open(run_uid="run", extra=1))


def test_two_classes_of_one_table_must_agree(tmp_path):
    """In one call as in two."""

    class Other(Record, table_name="everything"):
        text: int

    with pytest.raises(InvalidRecordError, match="text is string in one class"):
        a_store(tmp_path, everything(), Other(run_uid="run", text=1))


def test_columns_that_differ_in_case_only_are_refused(tmp_path):
    """They are one column to SQL."""

    class Other(Record, table_name="everything"):
        Text: str

    store = a_store(tmp_path, everything())
    with pytest.raises(SchemaConflictError, match="one column to SQL"):
        store.write([CompletedRun("b", "tests", [Other(run_uid="b", Text="x")])])


# Runs of another package, by their shape alone


class ForeignRecord(pydantic.BaseModel):
    """Stands for the base class of a package that we do not import."""

    model_config = pydantic.ConfigDict(extra="forbid")
    table_name: ClassVar[str]
    run_uid: str
    created_at: datetime = pydantic.Field(default_factory=lambda: datetime.now(UTC))

    def __init_subclass__(cls, table_name: str = "") -> None:
        super().__init_subclass__()
        cls.table_name = table_name


class Cleaning(ForeignRecord, table_name="dataeval_cleaning"):
    dataset_id: str
    ratio: float
    duplicates: int | None = None


class ForeignRun(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    capability_id: str
    dataset_metadata: list[Mapping]
    model_metadata: list[Mapping] = []
    metric_metadata: list[Mapping] = []

    @cached_property
    def run_uid(self):
        return hashlib.sha256(self.capability_id.encode()).hexdigest()

    def extract(self):
        return [
            Cleaning(run_uid=self.run_uid, dataset_id=d["id"], ratio=0.5)
            for d in self.dataset_metadata
        ]


def test_a_run_of_another_package_is_recorded_unchanged(tmp_path):
    """Its classes know nothing of ours."""
    run = ForeignRun(capability_id="pkg.Cleaning", dataset_metadata=[{"id": "cifar"}])
    store = open_store(tmp_path / "store")

    (ref,) = store.write_with_receipt([run]).refs

    (found,) = store.read_run(ref).records["dataeval_cleaning"]
    assert (found["dataset_id"], found["ratio"], found["duplicates"]) == ("cifar", 0.5, None)
    assert store.read_run(ref).runs[0]["entity_id"] == "cifar"


# Addresses and configuration


@pytest.mark.parametrize("uid", ["a" * 64, "a b/c#d?e%f", "日本"])
def test_a_ref_is_small_and_survives_pickling(tmp_path, uid):
    """It is all that crosses the wire."""
    store = open_store(tmp_path / "store")
    (ref,) = store.write_with_receipt([CompletedRun(uid, "tests.Capability")]).refs

    copy = pickle.loads(pickle.dumps(ref))

    assert copy == ref
    assert len(pickle.dumps(ref)) < 600
    assert open_store(copy).read_run(copy).run_uid == uid


def test_a_relative_place_is_made_absolute_where_it_is_configured(tmp_path, monkeypatch):
    """A worker has another current directory, where the store would be lost."""
    monkeypatch.chdir(tmp_path)
    config = AnalyticsStoreConfig(uri="results")

    assert config.uri == str(tmp_path / "results")
    assert open_store("results").uri == open_store({"uri": "results"}).uri == config.uri


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"uri": "s3://key:hunter2@bucket/x"},
        {"uri": "x", "storage_option": {"secret": "hunter2"}},
        {"uri": "x", "backend": "delta"},
        {"uri": "a#b"},
        {"uri": "a/*"},
    ],
)
def test_a_wrong_configuration_is_refused_and_not_quoted(wrong):
    """At once, not when the work is done."""
    with pytest.raises(InvalidSpecError) as caught:
        open_store(wrong)

    assert "hunter2" not in str(caught.value)


def test_secrets_are_shown_nowhere():
    """Neither by the config nor by what holds it; a pickle needs them."""
    options = {"key": "AK", "secret": "hunter2", "client_kwargs": {"aws_session_token": "hunter2"}}
    store = open_store("s3://bucket/x", storage_options=options)

    assert "hunter2" not in f"{store!r} {store.config!r} {store.config}"
    assert pickle.loads(pickle.dumps(store)).config.storage_options == options


def test_provenance_is_what_is_given_and_what_this_process_knows():
    """A job passes its submission; the rest is filled in."""
    given = Provenance.here({"job_id": "j", "submitted_at": datetime(2026, 1, 1, tzinfo=UTC)})

    assert (given.job_id, given.submitted_at.year) == ("j", 2026)
    assert given.user
    assert given.completed_at.tzinfo == UTC
    with pytest.raises(InvalidSpecError, match="time zone"):
        Provenance.here({"submitted_at": datetime(2026, 1, 1)})  # noqa: DTZ001 - that is the point


# Layout


def test_files_are_named_by_the_runs_they_hold():
    """The same runs in any order, never others."""
    assert stem_of(["a", "b"]) == stem_of(["b", "a", "a"])
    assert stem_of(["a"]).startswith("run-")
    assert len({stem_of(uids) for uids in (["a"], ["b"], ["a", "b"], ["ab"], ["a", "bb"])}) == 5


def test_a_write_reads_no_data_and_lists_no_table(monkeypatch):
    """So it costs the same in a store of ten files and of a hundred thousand."""
    store = open_store("memory://flat/store")
    store.write([CompletedRun("first", "tests", [everything("first")])])
    calls = []
    for name in ("list", "get", "open", "head"):
        real = getattr(MemoryStorage, name)

        def counted(self, *args, _name=name, _real=real, **kwargs):
            calls.append((_name, *args))
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(MemoryStorage, name, counted)

    store.write([CompletedRun("second", "tests", [everything("second")])])
    assert calls == []
    open_store("memory://flat/store").write([CompletedRun("third", "tests", [everything("third")])])
    assert {call[1].partition("/")[0] for call in calls} == {"_schema"}


class Scored(Record, table_name="scored"):
    model: str
    dataset: str
    value: float


def scored(store, model, **values):
    """Write a run of *model* over some datasets, whose records name both."""
    entities = {"model_metadata": [{"id": model}], "dataset_metadata": [{"id": d} for d in values]}
    rows = [Scored(run_uid=model, model=model, dataset=d, value=v) for d, v in values.items()]
    store.write([CompletedRun(model, "tests", rows, **entities)])
    return store.read_run(model)


def test_two_models_are_compared_on_the_data_that_they_share(tmp_path):
    """The natural record names its model: that must not keep everything apart."""
    store = open_store(tmp_path / "store")
    first = scored(store, "resnet", coco=0.5, cifar=0.75)
    second = scored(store, "vit", cifar=1.0, coco=0.25)

    found = compare(first, second)

    assert {(one.where, one.column, one.change) for one in found} == {
        ("dataset=coco", "value", -0.25),
        ("dataset=cifar", "value", 0.25),
    }
    assert compare(first, second, on=["dataset"]) == found
    with pytest.raises(InvalidSpecError, match="no record of these runs has a column 'datset'"):
        compare(first, second, on=["datset"])


def test_runs_are_compared_record_by_record(tmp_path):
    """Paired by their texts; a record that only one of them has is a difference too."""
    store = open_store(tmp_path / "store")
    for uid, real in (("a", 1.0), ("b", 1.5)):
        records = [everything(uid, real=real), everything(uid, text="same", real=0)]
        store.write([CompletedRun(uid, "tests", records[: 2 if uid == "a" else 1])])

    found = compare(store.read_run("a"), store.read_run("b"))

    assert found[0].where.startswith("text=naïve")
    assert (found[0].column, found[0].first, found[0].second, found[0].change) == (
        "real",
        1.0,
        1.5,
        0.5,
    )
    assert {one.second for one in found[1:]} == {None}
    assert CapabilityRunRef("a", "b", "c").outputs_uri is None


# Reports


class Reporting:
    """A run that makes a report, in the ways in which runs of evaluation packages do."""

    run_uid, capability_id, records = "a/b", "tests.Reporting", ()

    def __init__(self, made):
        self.made = made

    def extract(self):
        return []

    def collect_md_report(self, threshold):
        if isinstance(self.made, BaseException):
            raise self.made
        return self.made


class Made:
    def __init__(self, **fields):
        vars(self).update(fields)


@pytest.mark.parametrize("made", ["# naïve\n", Made(content="# naïve\n", filename="x.md")])
def test_the_report_of_a_run_is_kept_beside_its_records(tmp_path, made):
    """Markdown for people; the address leads to it, also for the second writer of the run."""
    store = open_store(tmp_path / "store")
    ref = store.write_with_receipt([Reporting(made)]).refs[0]
    again = store.write_with_receipt([Reporting("# another")]).refs[0]

    assert ref.outputs_uri == store.report_uri(ref) == again.outputs_uri
    assert store.read_report(ref) == "# naïve\n"
    store.compact(clear=True)
    assert store.read_report("a/b") == "# naïve\n"


@pytest.mark.parametrize(
    ("made", "is_wrong"),
    [(NotImplementedError(), 0), ("", 0), (ValueError("no font"), 1), (SystemExit(1), 1), (5, 1)],
)
def test_a_run_without_a_report_is_recorded_all_the_same(tmp_path, made, is_wrong, caplog):
    """Its records count more; why there is no report is said when something went wrong."""
    store = open_store(tmp_path / "store")
    ref = store.write_with_receipt([Reporting(made)]).refs[0]

    assert (ref.outputs_uri, store.read_report(ref), store.report_uri(ref)) == (None, None, None)
    assert caplog.text.count("without its report") == is_wrong


def test_a_secret_in_a_report_is_not_kept(tmp_path, monkeypatch):
    """Reports are for people, who are not all let into the cluster."""
    monkeypatch.setattr(secrets, "_remembered", {"s3cr3t-word"})
    store = open_store(tmp_path / "store")
    ref = store.write_with_receipt([Reporting("the token: s3cr3t-word\n")]).refs[0]

    assert store.read_report(ref) == "the token: ***\n"


def test_a_report_with_a_letter_that_no_file_can_hold_is_kept_escaped(tmp_path):
    """The run is recorded with it, rather than not at all."""
    store = open_store(tmp_path / "store")
    ref = store.write_with_receipt([Reporting("bad \ud800 letter\n")]).refs[0]

    assert store.read_report(ref) == "bad \\ud800 letter\n"


def test_a_report_that_lies_elsewhere_is_pointed_to(tmp_path):
    """And the place that the run names for its files counts before that of its report."""
    store = open_store(tmp_path / "store")
    run = Reporting(Made(uri="s3://bucket/report.pdf"))
    assert store.write_with_receipt([run]).refs[0].outputs_uri == "s3://bucket/report.pdf"

    own = CompletedRun("own", "tests.Capability", outputs_uri="s3://files", report="# text")
    ref = store.write_with_receipt([own]).refs[0]
    assert (ref.outputs_uri, store.read_report(ref)) == ("s3://files", "# text")


def test_scans_of_one_file_at_once_do_not_move_each_other():
    """Arrow seeks to the end for the size of a file, while another scan of the query reads it."""
    file = SharedFile(io.BytesIO(b"0123456789"))
    file.seek(2)

    with ThreadPoolExecutor(1) as other:
        assert other.submit(file.seek, 0, os.SEEK_END).result() == 10

    assert file.read(3) == b"234"
    assert file.tell() == 5


class Loose:
    """A run of a user's own class, with a mistake."""

    capability_id = "c"

    def __init__(self, run_uid, records):
        self.run_uid, self.extract = run_uid, lambda: records


@pytest.mark.parametrize("wrong", [Loose(7, []), Loose("run", None)])
def test_a_run_that_is_none_is_refused_with_what_is_wrong(tmp_path, wrong):
    """A TypeError from within would name neither the run nor what to do."""
    with pytest.raises(InvalidRecordError, match=r"run_uid 7; it needs|returned None; return"):
        open_store(tmp_path).write([wrong])


def test_a_limit_below_zero_is_refused(tmp_path):
    """Arrow's message names a k that the caller never passed."""
    with pytest.raises(InvalidSpecError, match="-1 runs cannot be listed"):
        open_store(tmp_path).list_runs(limit=-1)
