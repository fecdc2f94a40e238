"""The envelope of the Telemetry API: `{"ok":false,"error","message"}`, and what exporters are told in its place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lifesign.auth.rules import KeyExpired, KeyMissing, KeyRevoked, MissingScope, Unauthorized, WrongKeyKind
from lifesign.clock import rfc3339
from lifesign.db import StorageUnavailable
from lifesign.envelopes.failures import Failure, failure_of
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.http.ok import NO_STORE, refusal_body
from lifesign.projects.rules import ProjectNotFound

PREFIXES = frozenset(
    f"/v1/{word}"
    for word in (
        "traces",
        "telemetry",
        "sessions",
        "runs",
        "dashboard",
        "reports",
        "provision",
        "signup",
        "recover",
        "issues",
        "logs",
        "metrics",
    )
)
_DOCUMENTS = frozenset({"/llms.txt", "/quickstart.md", "/agents.md", "/openapi.json", "/contact.json"})
_SCHEMAS = "/schema/"
_OTLP = frozenset({"/v1/traces", "/v1/logs", "/v1/metrics"})
_OTHER_SIGNALS = _OTLP - {"/v1/traces"}
_PROTOBUF = frozenset({"application/x-protobuf", "application/protobuf"})
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lifesign"'}
_NOT_FOUND = 404
# From HTTP to google.rpc.Code, as exporters know it.
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 12, 405: 12, 408: 4, 409: 6, 413: 8, 415: 3, 429: 8, 500: 13, 503: 14}
_UNKNOWN = 2


def is_telemetry(path: str) -> bool:
    """Whether a path belongs to this API: `/v1/runs` and what is below it, but not `/v1/heartbeats/{id}/runs`."""
    return _prefix(path) in PREFIXES


def takes_head(path: str) -> bool:
    """Whether `HEAD` works where `GET` does: in this API, and for the documents that tell of it."""
    return is_telemetry(path) or path in _DOCUMENTS or path.startswith(_SCHEMAS)


def error_response(path: str, error: Exception, *, request_id: str, content_type: bytes | None) -> Response:
    """`error` as spec "Telemetry", section 1 wants it; where exporters send to, in the form of their request."""
    failure = _failure(path, error)
    headers = {**NO_STORE, **failure.headers}
    is_otlp = _prefix(path) in _OTLP
    rpc_code = _RPC_CODES.get(failure.status, _UNKNOWN)
    if is_otlp and (content_type or b"").partition(b";")[0].strip().lower().decode("latin-1") in _PROTOBUF:
        status = Status(code=rpc_code, message=failure.message).SerializeToString()
        return Response(status, failure.status, headers, media_type="application/x-protobuf")
    body = refusal_body(failure.code, failure.message)
    if failure.code == "internal_error":
        body["request_id"] = request_id
    if is_otlp:
        body["code"] = rpc_code
    return json_answer(body, failure.status, headers)


def _prefix(path: str) -> str:
    return "/".join(path.split("/", 3)[:3])


def _failure(path: str, error: Exception) -> Failure:
    if isinstance(error, HTTPException) and error.status_code == _NOT_FOUND and path in _OTHER_SIGNALS:
        return Failure(
            _NOT_FOUND,
            "not_found",
            "Only traces are accepted here; set OTEL_LOGS_EXPORTER=none / OTEL_METRICS_EXPORTER=none",
        )
    for kind in type(error).__mro__:
        if kind in _TOLD:
            return _TOLD[kind](error)
    failure = failure_of(error)
    return replace(failure, code=failure.code.lower())


def _unauthorized(code: str, message: str) -> Failure:
    return Failure(401, code, message, headers=_CHALLENGE)


# What others know by other words. Any: each entry is called with its own exception only.
_TOLD: dict[type[BaseException], Callable[[Any], Failure]] = {
    KeyMissing: lambda _: _unauthorized("missing_key", "Authorization: Bearer <key> is required"),
    KeyRevoked: lambda _: _unauthorized("revoked_key", "This key was revoked"),
    KeyExpired: lambda error: _unauthorized("expired_key", f"This key expired at {rfc3339(error.expires_at)}"),
    Unauthorized: lambda _: _unauthorized("invalid_key", "This key is not known"),
    WrongKeyKind: lambda error: _unauthorized("wrong_key_kind", f"This route {error}"),
    MissingScope: lambda _: _unauthorized("wrong_key_kind", "This route needs another key"),
    BodyTooLarge: lambda _: Failure(413, "body_too_large", "The body is too large", headers={"Connection": "close"}),
    ProjectNotFound: lambda _: Failure(404, "project_not_found", "No such project"),
    StorageUnavailable: lambda _: Failure(
        503, "storage_unavailable", "Storage is not available, try again", headers={"Retry-After": "5"}
    ),
}
