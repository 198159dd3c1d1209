"""Sends GETs and PUTs by the template of an earlier one: half of the work, if the object is small.

botocore resolves parameters, endpoint and options of every request anew, which takes most of the time
of a small one. They are the same for each object of a bucket: what is left is to write the key into the
URL, to add what differs, and to sign. botocore signs, and its connections are used.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

from batchrunner.storage.s3.bodies import from_the_start

Send = Callable[[Any], Awaitable[Any]]

_HEADERS = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match", "Range": "Range"}
"""Parameters in which two requests differ, and the header that each becomes."""
_DIFFER = {"Bucket", "Key", "Body", "Metadata", *_HEADERS}
_SMALL = 1 << 20
"""Bytes of a body that is sent at once."""
_METADATA = "x-amz-meta-"
_OPERATIONS = {"get_object": "GetObject", "put_object": "PutObject"}
"""The requests that have templates, with botocore's name of each."""


@dataclass(frozen=True, slots=True)
class Template:
    """How botocore sends one kind of request to the objects of a bucket.

    Attributes:
        method: The HTTP method.
        start: The URL up to the key.
        signed_start: The path up to the key, as the oldest way of signing wants it.
        headers: Those that every such request has.
        context: What botocore's signer, and its checks of checksums, look at.
        model: botocore's model of the request.
        signer: botocore's signer. It renews credentials.
    """

    method: str
    start: str
    signed_start: str
    headers: Mapping[str, str]
    context: Mapping[str, Any]
    model: Any
    signer: Any

    def filled_in(self, parameters: Mapping[str, Any]) -> Any:
        """Return botocore's request for *parameters*, which is not signed yet."""
        from aiobotocore.httpchecksum import apply_request_checksum
        from botocore.awsrequest import create_request_object

        key, body = _encoded(parameters["Key"]), from_the_start(parameters.get("Body", b""))
        request = {
            "method": self.method,
            "url": self.start + key,
            "auth_path": self.signed_start + key,
            "headers": {**self.headers, **_own_headers(parameters)},
            "body": body,
            "context": {**self.context, "checksum": dict(self.context.get("checksum", {}))},
        }
        if isinstance(body, bytes) and len(body) <= _SMALL:
            # To wait until the store asks for the body costs a round trip; to send it costs less.
            request["headers"].pop("Expect", None)
        elif isinstance(body, bytes):
            request["body"] = io.BytesIO(body)  # aiohttp warns of large ones that are plain
        apply_request_checksum(request)
        made = create_request_object(request)
        made.stream_output = self.model.has_streaming_output
        return made


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The template that the next request of this task is to leave in *known*."""

    known: dict[Any, Template]
    kind: tuple[str, ...]
    parameters: Mapping[str, Any]


_templates: WeakKeyDictionary[Any, dict[Any, Template]] = WeakKeyDictionary()
"""The templates of botocore's clients, by bucket, method and names of parameters."""
_wanted: ContextVar[_Wanted | None] = ContextVar("_wanted", default=None)


async def call_by_template(
    client: Any,
    method: str,
    parameters: Mapping[str, Any],
    *,
    otherwise: Callable[[], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Return the answer to the request *method* with *parameters*, of botocore's *client*.

    Of the answer only the fields that are looked at are there. The first request of its kind in a bucket
    is sent by *otherwise*, as botocore does, and so is one that no template can express.

    Raises:
        ClientError: The store refused; as botocore raises it.
    """
    send = _sender_of(client)
    if send is None or method not in _OPERATIONS or not parameters.keys() <= _DIFFER:
        return await otherwise()
    kind = (parameters["Bucket"], method, *sorted(parameters))
    known = _templates.setdefault(client, {})
    if kind in known:
        answer = await _answer_by(known[kind], parameters, client=client, send=send)
        if answer is not None:
            return answer
    token = _wanted.set(_Wanted(known, kind, parameters))
    try:
        return await otherwise()
    finally:
        _wanted.reset(token)


def note(*, params: Mapping[str, Any] = MappingProxyType({}), **event: Any) -> None:
    """Keep the template of a request: a handler of botocore's event `before-call`, the last one."""
    wanted, model, signer = _wanted.get(), event.get("model"), event.get("request_signer")
    # To follow a redirection, botocore sends other requests in between.
    if wanted is None or getattr(model, "name", "") != _OPERATIONS[wanted.kind[1]]:
        return
    # A botocore that announces its requests in other words gets no templates.
    if signer is None or not params.keys() >= {"method", "url", "auth_path", "headers", "context"}:
        return
    template = _template_of(wanted.parameters, params, model=model, signer=signer)
    if template is not None:
        wanted.known[wanted.kind] = template


def _template_of(
    parameters: Mapping[str, Any], request: Mapping[str, Any], *, model: Any, signer: Any
) -> Template | None:
    key = _encoded(parameters["Key"])
    start, signed_start = (request[name].removesuffix(key) for name in ("url", "auth_path"))
    if not start.endswith("/") or not signed_start.endswith("/"):
        return None
    own = {name.lower() for name in _own_headers(parameters)}
    headers = {name: text for name, text in request["headers"].items() if name.lower() not in own}
    return Template(
        method=request["method"],
        start=start,
        signed_start=signed_start,
        headers=headers,
        context=dict(request["context"]),
        model=model,
        signer=signer,
    )


def _own_headers(parameters: Mapping[str, Any]) -> dict[str, str]:
    metadata = parameters.get("Metadata", {})
    headers = {_HEADERS[name]: text for name, text in parameters.items() if name in _HEADERS}
    return headers | {f"{_METADATA}{name}": text for name, text in metadata.items()}


def _encoded(key: str) -> str:
    from botocore.utils import percent_encode

    return str(percent_encode(key, safe="/~"))


def _sender_of(client: Any) -> Send | None:
    """Return what sends requests over the connections of *client*, with its TLS and its proxies."""
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    return getattr(session, "send", None)


async def _answer_by(
    template: Template, parameters: Mapping[str, Any], *, client: Any, send: Send
) -> dict[str, Any] | None:
    """Return the answer, or None if the store is elsewhere now: botocore can follow it."""
    from aiobotocore.endpoint import convert_to_response_dict
    from aiobotocore.httpchecksum import handle_checksum_body
    from aiobotocore.parsers import create_parser
    from botocore.exceptions import ClientError

    request, model = template.filled_in(parameters), template.model
    await template.signer.sign(model.name, request)
    http = await send(request.prepare())
    answer = await convert_to_response_dict(http, model)
    if 300 <= answer["status_code"] < 400:
        return None
    if answer["body"] and not model.has_streaming_output:
        await _find_error(answer, model, client=client)
    if answer["status_code"] >= 400:
        raise ClientError(await create_parser("rest-xml").parse(answer, None), model.name)
    await handle_checksum_body(http, answer, request.context, model)
    return _as_parsed(answer, has_body=model.has_streaming_output)


async def _find_error(answer: dict[str, Any], model: Any, *, client: Any) -> None:
    """Let botocore make a 500 of a success whose body is an error: a store may say 200 too early."""
    name = f"before-parse.{model.service_model.service_id.hyphenize()}.{model.name}"
    await client.meta.events.emit(
        name, operation_model=model, response_dict=answer, customized_response_dict={}
    )


def _as_parsed(answer: Mapping[str, Any], *, has_body: bool) -> dict[str, Any]:
    headers = answer["headers"]
    meta = {"HTTPHeaders": dict(headers), "HTTPStatusCode": answer["status_code"]}
    parsed: dict[str, Any] = {"ResponseMetadata": meta}
    if "etag" in headers:
        parsed["ETag"] = headers["etag"]
    if "content-length" in headers:
        parsed["ContentLength"] = int(headers["content-length"])
    if has_body:
        parsed["Body"] = answer["body"]
    return parsed
