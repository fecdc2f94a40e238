"""HTTP of `/v1/traces`, as exporters of OpenTelemetry speak it. Spec "Telemetry", section 3."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lifesign.auth.rules import PRODUCER_SCOPE
from lifesign.auth.service import telemetry_caller
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.http.context import context_of, header_of
from lifesign.settings import Settings
from lifesign.telemetry.budget import Lease
from lifesign.telemetry.inflate import Encoding
from lifesign.telemetry.receiver import Body, Form, Receiver, Taken
from lifesign.telemetry.rules import TooSlow, UnsupportedEncoding, UnsupportedMediaType

PATH: Final = "/v1/traces"
_FORMS: Final[Mapping[str, Form]] = {
    "application/json": "json",
    "application/x-protobuf": "protobuf",
    "application/protobuf": "protobuf",
}
_ENCODINGS: Final[Mapping[str, Encoding]] = {"identity": "identity", "gzip": "gzip", "deflate": "deflate"}
_PROTOBUF: Final = "application/x-protobuf"

# A body takes room from its announcement on, so it must come at some pace: this long, and a second more for each
# 32 KiB that have come, but not for ever.
FIRST_S: Final = 10.0
_LEAST_BYTES_PER_S: Final = 32 * 1024
_LONGEST_S: Final = 60.0

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "authorization, content-type, content-encoding",
    "Access-Control-Max-Age": "7200",
}


async def export_traces(request: Request) -> Response:
    """Take spans, in JSON or protobuf. Answers once they are on disk."""
    origins = cast("Origins", request.app.state.otlp_origins)
    request.scope["state"]["headers"] = origins.headers_for(header_of(request, b"origin"))
    caller = await telemetry_caller(request, PRODUCER_SCOPE)
    form, encoding = _form_of(request), _encoding_of(request)
    receiver = cast("Receiver", request.app.state.receiver)
    settings = context_of(request).settings
    announced = _announced_bytes(request, settings.otlp_max_body_bytes)
    with receiver.budget.lease() as lease:
        await lease.grow_to(announced)
        # No name for the body: it goes as soon as it is decoded, and not when the spans are on disk.
        taken = await receiver.receive(
            caller.project_id,
            Body(await _read(request, lease, settings.otlp_max_body_bytes), form, encoding),
            lease,
        )
    return _answer(taken, form, settings.otlp_json_success_status)


async def allow_origin(request: Request) -> Response:
    """Tell a browser what its page may send. Only there where origins are set."""
    origins = cast("Origins", request.app.state.otlp_origins)
    request.scope["state"]["headers"] = origins.headers_for(header_of(request, b"origin"))
    return Response(status_code=204, headers=_PREFLIGHT)


# In -----------------------------------------------------------------------------------------------------------------
def _form_of(request: Request) -> Form:
    told = (header_of(request, b"content-type") or b"").partition(b";")[0].strip().lower()
    form = _FORMS.get(told.decode("latin-1"))
    if form is None:
        raise UnsupportedMediaType
    return form


def _encoding_of(request: Request) -> Encoding:
    told = [value for name, value in request.scope["headers"] if name == b"content-encoding"]
    names = [name for value in told for each in value.split(b",") if (name := each.strip().lower().decode("latin-1"))]
    encoding = _ENCODINGS.get(names[0] if names else "identity")
    if encoding is None or len(names) > 1:
        raise UnsupportedEncoding
    return encoding


def _announced_bytes(request: Request, most: int) -> int:
    """The length of the body, 0 where it is not known. Raises BodyTooLarge."""
    told = header_of(request, b"content-length")
    announced = int(told) if told is not None and told.isdigit() else 0
    if announced > most:
        raise BodyTooLarge
    return announced


async def _read(request: Request, lease: Lease, most: int) -> bytes:
    """The body as it was sent. Raises BodyTooLarge, Overloaded, TooSlow, ClientDisconnect."""
    chunks: list[bytes] = []
    size = 0
    has_more = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(FIRST_S) as patience:
            while has_more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk: bytes = message.get("body", b"")
                has_more = message.get("more_body", False)
                size += len(chunk)
                if size > most:
                    raise BodyTooLarge
                patience.reschedule(began + min(FIRST_S + size / _LEAST_BYTES_PER_S, _LONGEST_S))
                await lease.grow_to(size)
                chunks.append(chunk)
    except TimeoutError:
        raise TooSlow from None
    return b"".join(chunks)


# Out ----------------------------------------------------------------------------------------------------------------
def _answer(taken: Taken, form: Form, json_status: int) -> Response:
    if form == "protobuf":
        answer = ExportTraceServiceResponse()
        if taken.rejected:
            answer.partial_success.rejected_spans = taken.rejected
            answer.partial_success.error_message = taken.message
        return Response(answer.SerializeToString(), media_type=_PROTOBUF)
    body: dict[str, Any] = {"ok": True, "accepted": taken.accepted, "rejected": taken.rejected}  # Any: JSON
    if taken.rejected:
        body["partialSuccess"] = {"rejectedSpans": str(taken.rejected), "errorMessage": taken.message}
    return json_answer(body, json_status)


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of pages that may send from browsers; none: nobody's."""

    allowed: frozenset[bytes]

    @classmethod
    def of(cls, settings: Settings) -> "Origins":
        """What the operator set."""
        told = settings.otlp_cors_origins.split(",")
        return cls(frozenset(each.strip().encode() for each in told if each.strip()))

    def headers_for(self, origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer to a page of this origin carries."""
        if not self.allowed:
            return ()
        vary = (b"vary", b"Origin")
        if origin is None or not (origin in self.allowed or b"*" in self.allowed):
            return (vary,)
        return (b"access-control-allow-origin", origin), vary
