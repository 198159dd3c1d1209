"""Sends requests to a bucket: some at a time, each with retries, and with typed errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.storage.contract import Options, options_key
from batchrunner.storage.s3.answers import check_answer
from batchrunner.storage.s3.bodies import from_the_start
from batchrunner.storage.s3.errors import CallError, Verdict, failures, typed, understand
from batchrunner.storage.s3.retry import RetryPolicy, retrying
from batchrunner.storage.s3.templates import call_by_template, note

T = TypeVar("T")

_REQUESTS_AT_ONCE = 128
"""Enough that 5,000 small objects at 30 ms each are read in two seconds."""
_BIG_BODIES_AT_ONCE = 4
_CONNECT_SECONDS = 5
_READ_SECONDS = 60


@dataclass(frozen=True, slots=True)
class S3Connection:
    """One s3fs client, shared by all storages of this process with the same options.

    Attributes:
        fs: The `s3fs.S3FileSystem`; it runs on a thread of its own.
        requests: Held during each request.
        big_bodies: Held while a large body is sent.
        proven: Buckets that were seen to refuse a second writer.
    """

    fs: Any
    requests: asyncio.Semaphore
    big_bodies: asyncio.Semaphore
    proven: set[str] = field(default_factory=set)


_connections: dict[tuple[Any, ...], S3Connection] = {}


def connect(options: Options) -> S3Connection:
    """Return this process's connection for the s3fs *options*.

    Raises:
        CannotStartError: s3fs is not installed.
        InvalidSpecError: s3fs does not accept one of the options.
    """
    # The process is part of the key: neither sockets nor threads survive a fork.
    key = (os.getpid(), options_key(options))
    if key not in _connections:
        _connections[key] = _open_connection(options)
    return _connections[key]


def _open_connection(options: Options) -> S3Connection:
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise CannotStartError("s3:// needs s3fs: pip install 's3fs>=2026.1'") from error
    try:
        fs = S3FileSystem(**_without_retries(options))
        fs.connect()
        fs.s3.meta.events.register("before-call.s3.HeadBucket", _redirect_no_further)
        fs.s3.meta.events.register_last("before-call", note)
    except (TypeError, KeyError, ValueError) as error:
        # Only the message about names of options is shown: the others may quote values, even secrets.
        reason = str(error) if "unexpected keyword" in str(error) else type(error).__name__
        raise InvalidSpecError(
            f"storage_options are not what s3fs takes ({reason}): check their names and endpoint_url"
        ) from error
    except failures() as error:
        failure = understand(error)
        failure.doing, failure.place = "connect", "s3://"
        raise typed(failure) from error
    return S3Connection(
        fs,
        requests=asyncio.Semaphore(_REQUESTS_AT_ONCE),
        big_bodies=asyncio.Semaphore(_BIG_BODIES_AT_ONCE),
    )


def _without_retries(options: Options) -> dict[str, Any]:
    """Return *options* with timeouts, and without s3fs's retries: ours are the only ones."""
    config = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "max_pool_connections": _REQUESTS_AT_ONCE,
        **(options.get("config_kwargs") or {}),
        "retries": {"total_max_attempts": 1, "mode": "standard"},
    }
    return {**options, "config_kwargs": config, "skip_instance_cache": True}


def _redirect_no_further(params: dict[str, Any], **_: Any) -> None:
    """Make botocore ask for the region of a bucket only once.

    It asks when it is redirected. Without this it asks again, for ever, if the answer is a redirect, too.
    """
    params["context"].get("s3_redirect", {})["redirected"] = True


class S3Calls:
    """Sends requests to *bucket* with s3fs's *options*, retried by the policy *retry*."""

    def __init__(self, bucket: str, *, options: Options, retry: RetryPolicy) -> None:
        self.bucket = bucket
        self._options = options
        self._retry = retry

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run *work* on the connection's thread, wait, and return its result.

        Raises:
            StorageError: *work* raised a `CallError`, of which this is the typed form.
        """
        loop = connect(self._options).fs.loop
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return future.result()
        except CallError as failure:
            raise typed(failure) from failure.__cause__
        except BaseException:  # interrupted while waiting: no request may go on after that
            future.cancel()
            raise

    async def request(
        self, method: str, *, most: int | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Send one request and return the answer, with its body read to the end.

        Args:
            method: Boto's name for the request, such as "put_object".
            most: The largest body to read, in bytes.
            parameters: Boto's parameters of the request, without the bucket.

        Raises:
            CallError: The request and its retries failed, or the body has more than *most* bytes.
        """

        async def attempt(seconds: float) -> dict[str, Any]:
            connection = connect(self._options)
            try:
                async with connection.requests, asyncio.timeout(seconds):
                    answer = await _call(connection.fs, method, Bucket=self.bucket, **parameters)
                    check_answer(method, answer, parameters)
                    return await _in_full(answer, most=most)
            except failures() as error:
                raise understand(error) from error

        try:
            return await retrying(attempt, policy=self._retry)
        except CallError as failure:
            failure.doing = method
            failure.place = f"s3://{self.bucket}/{parameters.get('Key', '')}".rstrip("/")
            if method == "head_object" and failure.says_no_reason:
                await self._add_reason(failure, parameters["Key"])
            raise

    async def _add_reason(self, failure: CallError, key: str) -> None:
        """Add the reason for a refused HEAD, whose answer has no body, from a GET of the object."""
        try:
            await self.request("get_object", Key=key, Range="bytes=0-0", most=1)
        except CallError as other:
            if other.verdict in (Verdict.REFUSED, Verdict.SKEWED, Verdict.FINAL, Verdict.NO_BUCKET):
                failure.take_reason(other)

    async def pages(
        self, method: str, *, of: str, markers: dict[str, str], **parameters: Any
    ) -> list[dict[str, Any]]:
        """Return the items of all pages of a listing.

        Args:
            method: Boto's name for the request, such as "list_objects_v2".
            of: Name of the field of a page that holds its items, such as "Contents".
            markers: Parameters of the request for the next page, each with the page's field to copy.
            parameters: Boto's parameters of the first request, without the bucket.

        Raises:
            CallError: A page cannot be read.
        """
        items: list[dict[str, Any]] = []
        while True:
            page = await self.request(method, **parameters)
            items += page.get(of, [])
            if not page.get("IsTruncated"):
                return items
            parameters |= {name: page[where] for name, where in markers.items()}

    def big_body(self) -> asyncio.Semaphore:
        """Return the semaphore to hold while a large body is sent: each needs its share of the line."""
        return connect(self._options).big_bodies

    def proven_buckets(self) -> set[str]:
        """Return the buckets of this connection that were seen to refuse a second writer."""
        return connect(self._options).proven


async def _call(fs: Any, method: str, **parameters: Any) -> dict[str, Any]:
    """Send a request as `S3FileSystem.call_s3` does, without its retries and translated errors."""
    await fs.set_session()
    client = await fs.get_s3(parameters["Bucket"])

    async def in_full() -> Any:
        call = getattr(client, method)
        from_the_start(parameters.get("Body"))
        return await call(**fs._get_s3_method_kwargs(call, **parameters))  # noqa: SLF001 -- the user's s3fs options

    return await call_by_template(client, method, parameters, otherwise=in_full)


async def _in_full(answer: dict[str, Any], *, most: int | None) -> dict[str, Any]:
    if "Body" not in answer:
        return answer
    size = answer["ContentLength"]
    async with answer["Body"] as body:
        if most is not None and size > most:
            raise CallError(
                Verdict.TOO_LARGE, code="TooLarge", message=f"{size} bytes, at most {most} are read"
            )
        data = await body.read()
    if len(data) != size:
        raise CallError(Verdict.PASSES, code="CutShort", message=f"{len(data)} of {size} bytes")
    return {**answer, "Body": data}


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run *work* concurrently and return the results; the first failure cancels the rest."""
    # Not a TaskGroup: it would wrap the failure in an ExceptionGroup, and callers look at its verdict.
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
