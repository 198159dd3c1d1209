"""What was submitted and how it ended: durable, beside the analytics store, each written once.

    _jobs/<scope>/runs/<key>/00000001.json          what was submitted: the claim on that number
                            /00000001.attempt-2.json   the job was started again
                            /00000001.log-1.txt        what its first attempt said
                            /00000001.payload          its call, sealed, while it is kept (vault.py)
                            /00000001.ended.json       how it ended

No object but a log is ever replaced. A job is `<scope>-<key>-<number>`, so that the ids of two scopes in
one store differ; stored is `<key>-<number>`. Only the latest of a key may be alive.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from batchrunner.errors import NewerFormatError, ObjectNotFoundError
from batchrunner.jobs.entries import Record, Submission, fields_of, to_json, unreadable
from batchrunner.jobs.outcome import Outcome
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.storage import Storage, open_storage

_NAME = re.compile(r"(?P<key>[0-9a-f]{32})/(?P<number>\d{8})\.(?P<what>[\w.-]+)")
_ID = re.compile(r"(?:(?P<tag>[0-9a-f]{12})-)?(?P<key>[0-9a-f]{32})-(?P<number>[1-9]\d{0,7})")
_TAG_LETTERS, _KEY_LETTERS = 12, 32
_READERS = 16
_log = logging.getLogger(__name__)


class Journal:
    """The history of one scope. Safe with any number of writers, on any number of machines.

    Args:
        storage: Where it is.
        tag: Stands for the scope in the ids of its jobs; "" leaves them without.
    """

    def __init__(self, storage: Storage, *, tag: str = "") -> None:
        self._storage, self._tag = storage, tag

    @classmethod
    def of(cls, config: AnalyticsStoreConfig, *, scope: str) -> Self:
        """Open the journal of *scope* beside an analytics store."""
        place = f"{config.uri.rstrip('/')}/_jobs/{scope_folder(scope)}"
        storage = open_storage(place, storage_options=config.storage_options)
        return cls(storage, tag=scope_folder(scope)[-_TAG_LETTERS:])

    def id_of(self, key: str, number: int) -> str:
        """Return the id of a job."""
        return f"{self._tag}-{key}-{number}" if self._tag else f"{key}-{number}"

    def latest(self, key: str) -> Record | None:
        """Return the latest job of a logical run."""
        found = self._listed(key)
        return self._read(key, max(found), found[max(found)]) if found else None

    def read(self, job_id: str) -> Record | None:
        """Return what is known of a job; None when there is no such job in this scope."""
        match = _ID.fullmatch(job_id)
        if match is None or match["tag"] not in (None, self._tag):
            return None
        key, number = match["key"], int(match["number"])
        found = self._listed(key)
        return self._read(key, number, found[number]) if number in found else None

    def claim(self, submission: Submission) -> Submission:
        """Make *submission* durable, unless its number is taken; return what is there then."""
        name = _object(submission.key, submission.number, "json")
        if self._storage.put_if_absent({name: submission.to_bytes()}):
            return submission
        return Submission.from_bytes(self._storage.get(name), name=name, job_id=submission.job_id)

    def note_attempt(self, submission: Submission, attempt: int) -> None:
        """Make durable that a job is started once more. Idempotent."""
        name = _object(submission.key, submission.number, f"attempt-{attempt}.json")
        self._storage.put_if_absent({name: to_json({"attempt": attempt})})

    def end(self, job_id: str, outcome: Outcome) -> Outcome:
        """Make durable how a job ended; return that, or how it had ended before: the first counts."""
        name = _place(job_id, "ended.json")
        if self._storage.put_if_absent({name: to_json(outcome.to_dict())}):
            return outcome
        return self._outcome(name)

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended; None when it has not."""
        try:
            return self._outcome(_place(job_id, "ended.json"))
        except ObjectNotFoundError:
            return None

    def jobs(self) -> dict[str, bool]:
        """Return the id of every job, and whether it has ended. Reads a listing only."""
        found: dict[str, bool] = {}
        for key, number, what in self._names("runs", recursive=True):
            job_id = self.id_of(key, number)
            if what in ("json", "ended.json"):
                found[job_id] = found.get(job_id, False) or what == "ended.json"
        return found

    def read_many(self, job_ids: list[str]) -> Iterator[Record]:
        """Yield what is known of *job_ids*, several at a time. What cannot be read is warned of."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from filter(None, pool.map(self._read_or_warn, job_ids))

    def forget(self, job_id: str) -> None:
        """Remove everything about a job, its end last: until then it does not look alive."""
        ended = _place(job_id, "ended.json")
        self._storage.delete([name for name in self._objects(job_id) if name != ended])
        self._storage.delete([ended])

    def write_log(self, job_id: str, attempt: int, text: bytes) -> None:
        """Keep what an attempt said so far, in place of what was kept before."""
        self._storage.put(_place(job_id, f"log-{attempt}.txt"), text)

    def read_log(self, job_id: str) -> bytes:
        """Return what the attempts of a job said, one after the other."""
        logs = [name for name in self._objects(job_id) if ".log-" in name]
        return b"".join(map(self._storage.get, sorted(logs, key=lambda name: (len(name), name))))

    def keep_payload(self, job_id: str, sealed: bytes) -> None:
        """Make durable what a job is to be started again with."""
        self._storage.put(_place(job_id, "payload"), sealed)

    def payload(self, job_id: str) -> bytes | None:
        """Return what was kept; None when it was not."""
        entry = self._storage.head(_place(job_id, "payload"))
        if entry is None:
            return None
        with self._storage.open(entry) as file:  # `get` is for records, and refuses what is large
            return file.read()

    def drop_payload(self, job_id: str) -> None:
        """Remove what was kept. Idempotent."""
        self._storage.delete([_place(job_id, "payload")])

    def _objects(self, job_id: str) -> list[str]:
        name = _place(job_id, "")
        listed = self._storage.list(name.rpartition("/")[0])
        return [entry.key for entry in listed if entry.key.startswith(name)]

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
        job_id = self.id_of(key, number)
        submission = Submission.from_bytes(self._storage.get(name), name=name, job_id=job_id)
        again = [int(what[8:-5]) for what in names if re.fullmatch(r"attempt-\d+\.json", what)]
        ended = "ended.json" in names
        outcome = self._outcome(_object(key, number, "ended.json")) if ended else None
        return Record(submission, max([1, *again]), outcome)

    def _outcome(self, name: str) -> Outcome:
        fields = fields_of(self._storage.get(name), name=name)
        try:
            return Outcome.from_dict(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(name, fields) from error


def scope_folder(scope: str) -> str:
    """Return a name for *scope* that any file system and any actor can have."""
    digest = hashlib.sha256(scope.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', scope)[:40]}-{digest}"


def _place(job_id: str, what: str) -> str:
    key, _, number = job_id.rpartition("-")
    return _object(key[-_KEY_LETTERS:], int(number), what)


def _object(key: str, number: int, what: str) -> str:
    return f"runs/{key}/{number:08d}.{what}"
