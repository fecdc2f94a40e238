"""Wire models of the Telemetry API, as `/openapi.json` has them."""

from typing import Any

from pydantic import BaseModel, Field

from lifesign.http.describe import EXAMPLE_REQUEST_ID, Envelope, Refusal, operation
from lifesign.http.fields import optional
from lifesign.http.ok import Json, OkBody, TelemetryError, refusal_body


# Spans in -----------------------------------------------------------------------------------------------------------
class ExportBody(BaseModel):
    """An ExportTraceServiceRequest of OTLP, in its JSON."""

    resourceSpans: list[Any] = Field(  # Any: every member of it may be left out, and unknown ones are ignored
        description="Spans by what made them, as the specification of OpenTelemetry has it."
    )


class PartialSuccess(BaseModel):
    """Which spans were left out."""

    rejectedSpans: str = Field(description="How many, as decimal text.")
    errorMessage: str = Field(description="How many for which reason, and the first of them.")


class ExportAnswer(OkBody):
    """The spans are on disk. This is an ExportTraceServiceResponse as well."""

    accepted: int = Field(description="Spans that are stored now; those that were before count, too.")
    rejected: int
    partialSuccess: PartialSuccess = optional("When spans were left out.")


class ExportError(TelemetryError):
    """The error envelope of the Telemetry API and a `google.rpc.Status` in one."""

    code: int = Field(description="Of `google.rpc.Code`.")


_EXAMPLE_SPAN: Json = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "chat",
    "kind": 3,
    "startTimeUnixNano": "1767614400000000000",
    "endTimeUnixNano": "1767614401500000000",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "a-model"}},
        {"key": "session.id", "value": {"stringValue": "s-1"}},
    ],
}
_EXPORTS = {
    "One span": {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                "scopeSpans": [{"spans": [_EXAMPLE_SPAN]}],
            }
        ]
    }
}
_CODES = {400: 3, 401: 16, 413: 8, 415: 3, 429: 8, 500: 13, 503: 14}
_REFUSALS = {
    400: Refusal(
        "The body is compressed and broken (`invalid_encoding`), or not decodable (`invalid_otlp`).",
        "invalid_otlp",
        "The body must have an array resourceSpans",
    ),
    401: Refusal(
        "No key, or one that is unknown, revoked, expired or no producer key; `error` tells which.",
        "missing_key",
        "Authorization: Bearer <key> is required",
        header="WWW-Authenticate",
    ),
    413: Refusal("The body is too large, as sent or as inflated.", "body_too_large", "The body is too large"),
    415: Refusal(
        "Neither JSON nor protobuf (`unsupported_media_type`), or compressed in another way than by gzip or deflate "
        "(`unsupported_encoding`).",
        "unsupported_media_type",
        "Content-Type must be application/json or application/x-protobuf",
    ),
    429: Refusal(
        "The quota of the project is used up: none of the new spans was stored.",
        "quota_exceeded",
        "The quota of this project is used up for this month; nothing was stored",
        header="Retry-After",
    ),
    500: Refusal("A fault of the server; its log has the `request_id`.", "internal_error", "Internal server error"),
    503: Refusal(
        "Too much is being received (`overloaded`), or the storage did not take it (`storage_unavailable`): nothing "
        "was stored, try again after `Retry-After` seconds.",
        "storage_unavailable",
        "Storage is not available, try again",
        header="Retry-After",
    ),
}


def _example(status: int, refusal: Refusal) -> Json:
    body = refusal_body(refusal.code, refusal.message) | {"code": _CODES[status]}
    return body | {"request_id": EXAMPLE_REQUEST_ID} if status == _INTERNAL else body


_INTERNAL = 500
EXPORT_TRACES = operation(
    "exportTraces",
    answer=(202, ExportAnswer),
    body=ExportBody,
    examples=_EXPORTS,
    errors=(415, 429),
    never=(403,),
    envelope=Envelope(ExportError, _REFUSALS, _example),
)
_PROTOBUF = {"schema": {"type": "string", "format": "binary", "description": "An ExportTraceServiceRequest."}}
EXPORT_TRACES["openapi_extra"]["requestBody"]["content"]["application/x-protobuf"] = _PROTOBUF
