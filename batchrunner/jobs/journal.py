"""What was submitted and how it ended: durable, beside the analytics store, each written once.

    _jobs/<scope>/runs/<key>/00000001.json          what was submitted: the claim on that number
                            /00000001.attempt-2.json   the job was started again
                            /00000001.log-1.txt        what its first attempt said
                            /00000001.ended.json       how it ended

No object but a log is ever replaced. A job is `<key>-<number>`; only the latest of a key may be alive.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from batchrunner.errors import NewerFormatError, ObjectNotFoundError
from batchrunner.jobs.outcome import Outcome
from batchrunner.spec.analytics import AnalyticsStoreConfig
from batchrunner.storage import Storage, open_storage

FORMAT_VERSION = 1
"""Raised when an older reader would misunderstand; new fields alone do not raise it."""

_NAME = re.compile(r"(?P<key>[0-9a-f]{32})/(?P<number>\d{8})\.(?P<what>[\w.-]+)")
_READERS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster.

    Attributes:
        id: Id of its head node: another one after every start.
        address: host:port of its control store.
        registry: The registry actor that looks after the job: namespace/name.
    """

    id: str
    address: str
    registry: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What was submitted. Without secrets: it is stored.

    Attributes:
        job_id: Names the job.
        key: Names the logical run.
        number: Counts the jobs of that run, from 1.
        name: For people.
        capability_id: What is run.
        created_at: When, by the client's clock. For people, and to list by.
        created_by: user@host.
        cluster: Where it runs.
        store_uri: Where the run is recorded.
        max_retries: How often it may be started again.
        resources: What it asks for.
        versions: The client's.
        nonce: Tells a submission that is sent again from another one.
    """

    job_id: str
    key: str
    number: int
    name: str
    capability_id: str
    created_at: str
    created_by: str
    cluster: Cluster
    store_uri: str
    max_retries: int = 0
    resources: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""

    def to_bytes(self) -> bytes:
        return _bytes(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str) -> Self:
        fields = _fields(data, name=name)
        known = {
            one.name: fields[one.name] for one in dataclasses.fields(cls) if one.name in fields
        }
        try:
            return cls(**{**known, "cluster": Cluster(**fields["cluster"])})
        except (KeyError, TypeError) as error:
            raise _unreadable(name, fields) from error


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the journal knows of a job.

    Attributes:
        submission: What was submitted.
        attempts: How often it was started, as far as is known; at least 1.
        outcome: How it ended; None when it has not.
    """

    submission: Submission
    attempts: int = 1
    outcome: Outcome | None = None


class Journal:
    """The history of one scope. Safe with any number of writers, on any number of machines."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @classmethod
    def of(cls, config: AnalyticsStoreConfig, *, scope: str) -> Self:
        """Open the journal of *scope* beside an analytics store."""
        place = f"{config.uri.rstrip('/')}/_jobs/{scope_folder(scope)}"
        return cls(open_storage(place, storage_options=config.storage_options))

    def latest(self, key: str) -> Record | None:
        """Return the latest job of a logical run."""
        found = self._listed(key)
        return self._read(key, max(found), found[max(found)]) if found else None

    def read(self, job_id: str) -> Record | None:
        """Return what is known of a job; None when there is no such job."""
        key, _, number = job_id.rpartition("-")
        if not re.fullmatch(r"[0-9a-f]{32}-[1-9]\d{0,7}", job_id):
            return None
        found = self._listed(key)
        return self._read(key, int(number), found[int(number)]) if int(number) in found else None

    def claim(self, submission: Submission) -> Submission:
        """Make *submission* durable, unless its number is taken; return what is there then."""
        name = _object(submission.key, submission.number, "json")
        if self._storage.put_if_absent({name: submission.to_bytes()}):
            return submission
        return Submission.from_bytes(self._storage.get(name), name=name)

    def note_attempt(self, submission: Submission, attempt: int) -> None:
        """Make durable that a job is started once more. Idempotent."""
        name = _object(submission.key, submission.number, f"attempt-{attempt}.json")
        self._storage.put_if_absent({name: _bytes({"attempt": attempt})})

    def end(self, job_id: str, outcome: Outcome) -> Outcome:
        """Make durable how a job ended; return that, or how it had ended before: the first counts."""
        key, _, number = job_id.rpartition("-")
        name = _object(key, int(number), "ended.json")
        if self._storage.put_if_absent({name: _bytes(outcome.to_dict())}):
            return outcome
        return self._outcome(name)

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended; None when it has not."""
        key, _, number = job_id.rpartition("-")
        try:
            return self._outcome(_object(key, int(number), "ended.json"))
        except ObjectNotFoundError:
            return None

    def jobs(self) -> dict[str, bool]:
        """Return the id of every job, and whether it has ended. Reads a listing only."""
        found: dict[str, bool] = {}
        for key, number, what in self._names("runs", recursive=True):
            job_id = f"{key}-{number}"
            if what in ("json", "ended.json"):
                found[job_id] = found.get(job_id, False) or what == "ended.json"
        return found

    def read_many(self, job_ids: list[str]) -> Iterator[Record]:
        """Yield what is known of *job_ids*, several at a time. What cannot be read is warned of."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from filter(None, pool.map(self._read_or_warn, job_ids))

    def forget(self, job_id: str) -> None:
        """Remove everything about a job, its end last: until then it does not look alive."""
        key, _, number = job_id.rpartition("-")
        names = [
            entry.key
            for entry in self._storage.list(f"runs/{key}")
            if f"/{int(number):08d}." in entry.key
        ]
        ended = _object(key, int(number), "ended.json")
        self._storage.delete([name for name in names if name != ended])
        self._storage.delete([ended])

    def write_log(self, job_id: str, attempt: int, text: bytes) -> None:
        """Keep what an attempt said so far, in place of what was kept before."""
        key, _, number = job_id.rpartition("-")
        self._storage.put(_object(key, int(number), f"log-{attempt}.txt"), text)

    def read_log(self, job_id: str) -> bytes:
        """Return what the attempts of a job said, one after the other."""
        key, _, number = job_id.rpartition("-")
        logs = [
            name
            for name in (entry.key for entry in self._storage.list(f"runs/{key}"))
            if f"/{int(number):08d}.log-" in name
        ]
        return b"".join(map(self._storage.get, sorted(logs, key=lambda name: (len(name), name))))

    def _read_or_warn(self, job_id: str) -> Record | None:
        try:
            return self.read(job_id)
        except NewerFormatError as error:
            _log.warning("%s", error, extra={"action": "job_passed_over", "job_id": job_id})
        except ObjectNotFoundError:
            pass  # removed a moment ago
        return None

    def _listed(self, key: str) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for _, number, what in self._names(f"runs/{key}"):
            found.setdefault(number, set()).add(what)
        return {number: names for number, names in found.items() if "json" in names}

    def _names(self, folder: str, *, recursive: bool = False) -> Iterator[tuple[str, int, str]]:
        for entry in self._storage.list(folder, recursive=recursive):
            match = _NAME.fullmatch(entry.key.removeprefix("runs/"))
            if match:
                yield match["key"], int(match["number"]), match["what"]

    def _read(self, key: str, number: int, names: set[str]) -> Record:
        name = _object(key, number, "json")
        submission = Submission.from_bytes(self._storage.get(name), name=name)
        again = [int(what[8:-5]) for what in names if re.fullmatch(r"attempt-\d+\.json", what)]
        ended = "ended.json" in names
        outcome = self._outcome(_object(key, number, "ended.json")) if ended else None
        return Record(submission, max([1, *again]), outcome)

    def _outcome(self, name: str) -> Outcome:
        fields = _fields(self._storage.get(name), name=name)
        try:
            return Outcome.from_dict(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(name, fields) from error


def scope_folder(scope: str) -> str:
    """Return a name for *scope* that any file system and any actor can have."""
    digest = hashlib.sha256(scope.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', scope)[:40]}-{digest}"


def _object(key: str, number: int, what: str) -> str:
    return f"runs/{key}/{number:08d}.{what}"


def _bytes(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"version": FORMAT_VERSION, **fields})


def _fields(data: bytes, *, name: str) -> dict[str, Any]:
    try:
        fields = orjson.loads(data)
    except ValueError as error:
        raise NewerFormatError(f"the journal's {name} is not readable: {data[:80]!r}") from error
    if not isinstance(fields, dict) or fields.get("version", 0) > FORMAT_VERSION:
        raise _unreadable(name, fields if isinstance(fields, dict) else {})
    return fields


def _unreadable(name: str, fields: Mapping[str, Any]) -> NewerFormatError:
    return NewerFormatError(
        f"the journal's {name} is of format {fields.get('version')!r}; this batchrunner reads "
        f"{FORMAT_VERSION}. Use the version that wrote it"
    )
