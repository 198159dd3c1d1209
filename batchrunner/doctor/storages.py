"""Looks at the storage of a spec: what is there, what may be written, and the clock of the server."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from batchrunner.checkpoint.location import checkpoint_storage, sink_storage
from batchrunner.doctor.machine import disk_at
from batchrunner.doctor.results import Check, CheckResult, fail, ok, warn
from batchrunner.driver.source_files import list_source
from batchrunner.errors import UnsafeStorageError
from batchrunner.spec import AnalyticsStoreConfig, BatchSpec, redact_uri
from batchrunner.storage import Storage, open_storage
from batchrunner.storage.contract import Options
from batchrunner.views.report_words import bytes_of, counted

_NOWHERE = "_doctor"
"""A folder without objects: listing it takes one request, however large the sink is."""
_FOLDER = ".batchrunner-doctor-"
_CONNECT_SECONDS = 5.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_MUCH_SKEW, _MOST_SKEW = 30.0, 900.0
"""Seconds: S3 refuses requests beyond a quarter of an hour."""


def storage_checks(spec: BatchSpec) -> Iterator[Check]:
    """Yield a check for each place that *spec* names."""
    options, first = spec.source.storage_options, spec.source.uris[0]
    yield Check("source", lambda: _deaf("source", first, options) or [_source(spec)])
    yield _check("sink", sink_storage(spec), spec.sink.storage_options, spec=spec)
    if spec.checkpoint_dir is not None:
        place = checkpoint_storage(spec)
        yield _check("checkpoint", place, spec.sink.storage_options, spec=spec)
    if (store := spec.analytics_store) is not None:
        yield _check("analytics store", _store(store), store.storage_options, spec=spec)


def _check(name: str, storage: Storage, options: Options, *, spec: BatchSpec) -> Check:
    probe = ".staging/probe-…" if "://" in storage.uri else f"{_FOLDER}…"
    return Check(
        name,
        lambda: _deaf(name, storage.uri, options) or _writable(name, storage, spec=spec),
        leaves=f"its own {storage.uri}/{probe}",
    )


def _deaf(check: str, uri: str, options: Options) -> Sequence[CheckResult]:
    """Return a failure if nothing listens at the endpoint of *options*: S3's client tries for minutes."""
    url = urlsplit(_endpoint(options))
    if "://" not in uri or not url.hostname or any(map(os.environ.get, _PROXIES)):
        return []
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname, port), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        fact = f"{url.hostname}:{port} refuses connections"
        return [fail(check, fact, "start what should listen there, or correct endpoint_url")]
    except OSError:  # it may be slow: the check itself finds out
        pass
    return []


def _endpoint(options: Options) -> str:
    client = options.get("client_kwargs") or {}
    variable = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return str(options.get("endpoint_url") or client.get("endpoint_url") or variable or "")


def _store(config: AnalyticsStoreConfig) -> Storage:
    return open_storage(config.uri, storage_options=config.storage_options)


def _source(spec: BatchSpec) -> CheckResult:
    files = list_source(spec.source).files
    named = redact_uri(", ".join(spec.source.uris))
    if not files:
        return fail("source", f"{named}: there is no file to read", "correct source.uri")
    size = sum(file.size for file in files)
    return ok("source", f"{named}: {counted(len(files), 'file')}, {bytes_of(size)}")


def _writable(check: str, storage: Storage, *, spec: BatchSpec) -> Sequence[CheckResult]:
    if "://" in storage.uri:
        return [_bucket(check, storage, spec), *_clock(check, storage)]
    return [_folder(check, Path(storage.uri))]


def _bucket(check: str, storage: Storage, spec: BatchSpec) -> CheckResult:
    """List, then put an object of our own, put it again if absent, and delete it."""
    list(storage.list(_NOWHERE))
    try:
        storage.check_conditional_writes()
    except UnsafeStorageError as error:
        if spec.unsafe_single_writer:
            return warn(check, str(error), "unsafe_single_writer accepts it: start one driver only")
        return fail(check, str(error))
    return ok(check, f"{storage.uri}: lists, writes, refuses a second writer, deletes")


def _clock(check: str, storage: Storage) -> Iterator[CheckResult]:
    server_time = getattr(storage, "server_time", None)
    if server_time is None:
        return
    began = time.time()
    there = server_time()
    # The header counts whole seconds.
    ahead = max(0.0, there - time.time()) - max(0.0, began - there - 1)
    yield clock_finding(f"clock of {check}", ahead, whose="the server's")


def clock_finding(check: str, ahead: float, *, whose: str) -> CheckResult:
    """Judge a clock that is *ahead* of this machine's by so many seconds, or behind if negative."""
    if abs(ahead) < 1:
        return ok(check, f"{whose} clock and this machine's agree")
    fact = f"{whose} clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) > _MOST_SKEW:
        return fail(check, fact, "set the wrong one by NTP: S3 refuses requests that far off")
    if abs(ahead) > _MUCH_SKEW:
        return warn(check, fact, "set the wrong one by NTP")
    return ok(check, fact)


def _folder(check: str, folder: Path) -> CheckResult:
    """Look at the folder, or at the one in which it would be made."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir():
        return fail(check, f"{there} is no folder", f"move it away, or change {check}")
    room = disk_at(check, str(there))
    if room.status != "ok":
        return room
    with tempfile.TemporaryDirectory(dir=there, prefix=_FOLDER) as probe:
        open_storage(probe).check_conditional_writes()
    new = "" if there == folder else f" (to be made in {there})"
    return ok(check, f"{folder}{new} can be written, and refuses a second writer; {_free(room)}")


def _free(room: CheckResult) -> str:
    return room.fact.rpartition(": ")[2]
