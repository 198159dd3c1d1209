"""The journal of a scope: a durable record of its jobs, beside the analytics store.

    _jobs/<scope>/runs/<key>/00000001.json          the submission, which claims the number 1
                            /00000001.attempt-2.json   the job was retried
                            /00000001.log-1.txt        output and log of the first attempt
                            /00000001.payload          the call, encrypted, while it is kept (launching.py)
                            /00000001.ended.json       how the job ended

Only logs are ever replaced. A job's id is `<scope>-<key>-<number>`, so that the ids of two scopes in one
store differ; entries contain `<key>-<number>`. Only the latest job of a key may be alive.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from batchrunner.errors import NewerFormatError, ObjectNotFoundError
from batchrunner.jobs.entries import JournaledJob, Submission, fields_of, to_json, unreadable
from batchrunner.jobs.outcome import Outcome
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.storage import Storage, open_storage

_ENTRY = re.compile(r"(?P<key>[0-9a-f]{32})/(?P<number>\d{8})\.(?P<what>[\w.-]+)")
_ID = re.compile(r"(?:(?P<tag>[0-9a-f]{12})-)?(?P<key>[0-9a-f]{32})-(?P<number>[1-9]\d{0,7})")
_TAG_LETTERS, _KEY_LETTERS = 12, 32
_READERS = 16
_log = logging.getLogger(__name__)


class Journal:
    """The history of one scope. Safe with any number of writers, on any number of machines.

    Args:
        storage: The storage of the journal.
        tag: A prefix of the ids of its jobs that identifies the scope; "" for none.
    """

    def __init__(self, storage: Storage, *, tag: str = "") -> None:
        self._storage, self._tag = storage, tag

    @classmethod
    def of(cls, config: AnalyticsStoreConfig, *, scope: str) -> Self:
        """Open the journal of *scope* beside an analytics store."""
        folder = f"{config.uri.rstrip('/')}/_jobs/{scope_folder(scope)}"
        storage = open_storage(folder, storage_options=config.storage_options)
        return cls(storage, tag=scope_folder(scope)[-_TAG_LETTERS:])

    def id_of(self, key: str, number: int) -> str:
        """Return the id of a job."""
        return f"{self._tag}-{key}-{number}" if self._tag else f"{key}-{number}"

    def latest(self, key: str) -> JournaledJob | None:
        """Return the latest job of the run with this *key*; None if it has none."""
        listed = self._listed(key)
        return self._read(key, max(listed), listed[max(listed)]) if listed else None

    def read(self, job_id: str) -> JournaledJob | None:
        """Return a job; None when there is no such job in this scope."""
        match = _ID.fullmatch(job_id)
        if match is None or match["tag"] not in (None, self._tag):
            return None
        key, number = match["key"], int(match["number"])
        listed = self._listed(key)
        return self._read(key, number, listed[number]) if number in listed else None

    def claim(self, submission: Submission) -> Submission:
        """Store *submission* unless its number is taken; return the one stored. Atomic, durable."""
        name = _entry(submission.request.key, submission.number, "json")
        if self._storage.put_if_absent({name: submission.to_bytes()}):
            return submission
        return Submission.from_bytes(self._storage.get(name), name=name, job_id=submission.job_id)

    def add_attempt(self, submission: Submission, attempt: int) -> None:
        """Record durably that attempt number *attempt* of a job begins. Idempotent."""
        name = _entry(submission.request.key, submission.number, f"attempt-{attempt}.json")
        self._storage.put_if_absent({name: to_json({"attempt": attempt})})

    def end(self, job_id: str, outcome: Outcome) -> Outcome:
        """Store durably how a job ended, unless an end is stored already; return the stored end."""
        name = _entry_of(job_id, "ended.json")
        if self._storage.put_if_absent({name: to_json(outcome.to_dict())}):
            return outcome
        return self._outcome(name)

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended; None if no end is stored."""
        try:
            return self._outcome(_entry_of(job_id, "ended.json"))
        except ObjectNotFoundError:
            return None

    def jobs(self) -> dict[str, bool]:
        """Return the id of every job, and whether it has ended. Reads a listing only."""
        ended: dict[str, bool] = {}
        for key, number, what in self._names("runs", recursive=True):
            job_id = self.id_of(key, number)
            if what in ("json", "ended.json"):
                ended[job_id] = ended.get(job_id, False) or what == "ended.json"
        return ended

    def read_many(self, job_ids: list[str]) -> Iterator[JournaledJob]:
        """Yield the jobs of *job_ids*, reading several at a time. Warns of unreadable entries."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from filter(None, pool.map(self._read_or_warn, job_ids))

    def remove(self, job_id: str) -> None:
        """Remove a job. Its end goes last: without an end, a reader would take the job for lost."""
        ended = _entry_of(job_id, "ended.json")
        self._storage.delete([name for name in self._objects(job_id) if name != ended])
        self._storage.delete([ended])

    def write_log(self, job_id: str, attempt: int, text: bytes) -> None:
        """Store the log of an attempt, in place of an earlier one."""
        self._storage.put(_entry_of(job_id, f"log-{attempt}.txt"), text)

    def read_log(self, job_id: str) -> bytes:
        """Return the logs of a job's attempts, one after the other."""
        logs = [name for name in self._objects(job_id) if ".log-" in name]
        return b"".join(map(self._storage.get, sorted(logs, key=lambda name: (len(name), name))))

    def put_payload(self, job_id: str, sealed: bytes) -> None:
        """Store, durably, the encrypted call that a job can be restarted with."""
        self._storage.put(_entry_of(job_id, "payload"), sealed)

    def payload(self, job_id: str) -> bytes | None:
        """Return the encrypted call; None when there is none."""
        entry = self._storage.head(_entry_of(job_id, "payload"))
        if entry is None:
            return None
        with self._storage.open(entry) as file:  # `get` is for documents, and refuses large objects
            return file.read()

    def remove_payload(self, job_id: str) -> None:
        """Remove the encrypted call. Idempotent."""
        self._storage.delete([_entry_of(job_id, "payload")])

    def _objects(self, job_id: str) -> list[str]:
        name = _entry_of(job_id, "")
        listed = self._storage.list(name.rpartition("/")[0])
        return [entry.key for entry in listed if entry.key.startswith(name)]

    def _read_or_warn(self, job_id: str) -> JournaledJob | None:
        try:
            return self.read(job_id)
        except NewerFormatError as error:
            _log.warning("%s", error, extra={"action": "job_passed_over", "job_id": job_id})
        except ObjectNotFoundError:
            pass  # removed a moment ago
        return None

    def _listed(self, key: str) -> dict[int, set[str]]:
        by_number: dict[int, set[str]] = {}
        for _, number, what in self._names(f"runs/{key}"):
            by_number.setdefault(number, set()).add(what)
        # A job without its submission is half removed.
        return {number: names for number, names in by_number.items() if "json" in names}

    def _names(self, folder: str, *, recursive: bool = False) -> Iterator[tuple[str, int, str]]:
        for entry in self._storage.list(folder, recursive=recursive):
            match = _ENTRY.fullmatch(entry.key.removeprefix("runs/"))
            if match:
                yield match["key"], int(match["number"]), match["what"]

    def _read(self, key: str, number: int, names: set[str]) -> JournaledJob:
        name = _entry(key, number, "json")
        job_id = self.id_of(key, number)
        submission = Submission.from_bytes(self._storage.get(name), name=name, job_id=job_id)
        retries = [int(what[8:-5]) for what in names if re.fullmatch(r"attempt-\d+\.json", what)]
        ended = "ended.json" in names
        outcome = self._outcome(_entry(key, number, "ended.json")) if ended else None
        return JournaledJob(submission, max([1, *retries]), outcome)

    def _outcome(self, name: str) -> Outcome:
        fields = fields_of(self._storage.get(name), name=name)
        try:
            return Outcome.from_dict(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(name, fields) from error


def scope_folder(scope: str) -> str:
    """Return a name made from *scope* that is valid for a folder and for an actor."""
    digest = hashlib.sha256(scope.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', scope)[:40]}-{digest}"


def _entry_of(job_id: str, what: str) -> str:
    key, _, number = job_id.rpartition("-")
    return _entry(key[-_KEY_LETTERS:], int(number), what)


def _entry(key: str, number: int, what: str) -> str:
    return f"runs/{key}/{number:08d}.{what}"
