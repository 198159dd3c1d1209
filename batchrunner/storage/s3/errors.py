"""Failures of S3 requests: the many codes, statuses and exceptions become a few verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from batchrunner.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
)
from batchrunner.storage.s3.retry import AttemptError


class Verdict(Enum):
    """What a failure means; the value says what the user can do about it."""

    PASSES = "the store did not answer in full; it often passes: run the same line again"
    UNREACHED = "check endpoint_url in storage_options, or AWS_ENDPOINT_URL"
    NO_S3 = (
        "no S3 server answers so: a proxy, a gateway or a login page stands in its place; check "
        "the network and endpoint_url, then run the same line again"
    )
    CONFLICT = "another request for the same key was in the way; run the same line again"
    TAKEN = "another process wrote or removed the object; run the same line again"
    ABSENT = "there is no such object; check the URI"
    NO_BUCKET = (
        "the bucket does not exist, or is not visible with these credentials; check its name, the "
        "credentials and endpoint_url"
    )
    REFUSED = "check the credentials, what they may do there, and endpoint_url"
    SKEWED = "the clock of this machine is off by more than the store allows; set it (NTP)"
    TOO_LARGE = "batchrunner did not write it; move it away"
    FINAL = "the store refused it; check the URI, endpoint_url and storage_options"


# Codes that the status does not show: it is a plain 400, or there is none, as in a partial deletion.
_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "XAmzContentSHA256Mismatch",
    }
)
_REFUSED_CODES = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "TokenRefreshRequired",
    }
)
_OTHER_REGION = (
    "the bucket is in another region; name it in storage_options: "
    "{client_kwargs: {region_name: ...}}"
)
_HINTS = {
    "AccessDenied": "these credentials may not do that there; check the policy of user and bucket",
    "301": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "ExpiredToken": "the session token has expired; get new credentials, then run the same line again",
    "InvalidAccessKeyId": "the store has no such access key; check it, and endpoint_url",
    "NoCredentialsError": "no credentials were found; set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or storage_options: {profile: ...}, or {anon: true}",
    "PermanentRedirect": _OTHER_REGION,
    "SignatureDoesNotMatch": "the secret does not belong to the access key; check both",
}


# A store that restarts refuses connections for a while.
_PASSING = frozenset({Verdict.PASSES, Verdict.UNREACHED, Verdict.CONFLICT, Verdict.NO_S3})


class CallError(AttemptError):
    """One request failed.

    Attributes:
        verdict: What the failure means.
        code: The store's error code, or the name of the exception that was raised here.
        message: The store's error message, or "".
        doing: Boto's name for the request.
        place: URI of the object, or of the bucket.
        region: Region of the bucket, if the store's answer names one.
        unreached: Where nothing answers, and why, if no connection was made.
    """

    doing = ""
    place = ""
    region = ""
    unreached = ""

    def __init__(self, verdict: Verdict, *, code: str, message: str = "") -> None:
        super().__init__(code)
        self.verdict = verdict
        self.code = code
        self.message = message
        self.passes = verdict in _PASSING

    @property
    def says_no_reason(self) -> bool:
        """Return whether the store refused with a status alone, without a code."""
        return self.code.isdigit() and self.verdict in {Verdict.REFUSED, Verdict.FINAL}

    def take_reason(self, other: CallError) -> None:
        """Take the reason from *other*, the failure of an equivalent request."""
        self.verdict, self.code, self.message = other.verdict, other.code, other.message
        self.region = other.region or self.region
        self.unreached = other.unreached


def failures() -> tuple[type[Exception], ...]:
    """Return the types of exceptions that a request raises for the store, the network or s3fs."""
    from aiohttp import ClientError as NetworkError
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (OSError, BotoCoreError, ClientError, NetworkError, ResponseParserError)


def understand(error: Exception) -> CallError:
    """Return the `CallError` for *error*, which s3fs, botocore or aiohttp raised."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            return from_answer(response)
    if unreached := _unreached(error) or _unreached(error.__cause__):
        failure = CallError(Verdict.UNREACHED, code=type(error).__name__)
        failure.unreached = unreached
        return failure
    return CallError(_without_answer(error), code=type(error).__name__)


def from_answer(response: Mapping[str, Any]) -> CallError:
    """Return the error that an S3 error response describes.

    With its verdict, code, message, the bucket's region, and the delay before a retry.
    """
    said, meta = response["Error"], response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    code = str(said.get("Code") or status)
    headers = meta.get("HTTPHeaders", {})
    verdict = Verdict.NO_S3 if is_web_page(headers) else _verdict(code, status)
    failure = CallError(verdict, code=code, message=str(said.get("Message", "")))
    seconds = str(headers.get("retry-after", ""))
    failure.retry_after = float(seconds) if seconds.isdigit() else 0.0
    failure.region = str(said.get("Region") or headers.get("x-amz-bucket-region", ""))
    return failure


def is_web_page(headers: Mapping[str, Any]) -> bool:
    """Return whether *headers* are those of a web page, with none that only stores send."""
    is_html = str(headers.get("content-type", "")).startswith("text/html")
    is_a_stores = any(name.startswith(("x-amz", "x-goog", "x-guploader")) for name in headers)
    return is_html and headers.get("content-length") != "0" and not is_a_stores


def _verdict(code: str, status: int) -> Verdict:
    by_code = {"NoSuchBucket": Verdict.NO_BUCKET, "RequestTimeTooSkewed": Verdict.SKEWED}
    if code in by_code:
        return by_code[code]
    if code in _REFUSED_CODES or status in {401, 403}:
        return Verdict.REFUSED
    if code in _PASSING_CODES or status in {408, 429}:
        return Verdict.PASSES
    if status in {302, 303, 307, 308} and code == str(status):
        return Verdict.NO_S3
    by_status = {404: Verdict.ABSENT, 409: Verdict.CONFLICT, 412: Verdict.TAKEN, 501: Verdict.FINAL}
    return by_status.get(status, Verdict.PASSES if status >= 500 else Verdict.FINAL)


def _unreached(error: BaseException | None) -> str:
    """Return where nothing answers, and why; empty if a connection was made."""
    from aiohttp import ClientConnectorDNSError, ClientConnectorError
    from botocore import exceptions as boto

    if not isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError):
        return ""
    url, cause = error.kwargs.get("endpoint_url", ""), error.kwargs.get("error")
    if isinstance(error, boto.ConnectTimeoutError):
        return f"{_origin(url)} (no answer in time)"
    if isinstance(cause, ClientConnectorDNSError):
        return f"{_origin(url)} (no such host)"
    # botocore calls a connection that broke off the same: that one had been made.
    if not isinstance(cause, ClientConnectorError):
        return ""
    refused = isinstance(cause.os_error, ConnectionRefusedError)
    return f"{_origin(url)} ({'connection refused' if refused else 'no connection'})"


def _origin(url: str) -> str:
    """Return the scheme, host and port of *url*: what else it has may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _without_answer(error: Exception) -> Verdict:
    from aiohttp import ClientError
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    no_answer = (
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.ChecksumError,
        boto.FlexibleChecksumError,
        ClientError,
        OSError,
    )
    no_credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.ProfileNotFound,
        boto.SSOError,
        boto.LoginError,
    )
    if isinstance(error, ResponseParserError):
        return Verdict.NO_S3
    if isinstance(error, no_answer):
        return Verdict.PASSES
    return Verdict.REFUSED if isinstance(error, no_credentials) else Verdict.FINAL


_TYPES: dict[Verdict, type[StorageError]] = {
    Verdict.TAKEN: ObjectChangedError,
    Verdict.ABSENT: ObjectNotFoundError,
    Verdict.REFUSED: StorageAccessError,
    Verdict.SKEWED: StorageAccessError,
}


def typed(failure: CallError) -> StorageError:
    """Return the `StorageError` for *failure*, with the way out. It holds no secrets."""
    times = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
    said = f"{failure.code}: {failure.message}" if failure.message else failure.code
    way_out = _HINTS.get(failure.code, failure.verdict.value)
    if failure.unreached:
        way_out = f"nothing answers at {failure.unreached}: {way_out}"
    if way_out is _OTHER_REGION and failure.region:
        way_out = (
            f"the bucket is in the region {failure.region}; say so in storage_options: "
            f"{{client_kwargs: {{region_name: {failure.region}}}}}"
        )
    kind = _TYPES.get(failure.verdict, StorageError)
    return kind(f"{failure.place}: {failure.doing} failed{times} ({said}): {way_out}")
