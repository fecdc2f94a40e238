"""The envelope of the Bots API: `{"error":{"status","code","field"?,"request_id"},"message"}`."""

from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from lifesign.auth.rules import MissingScope, Unauthorized
from lifesign.bots.rules import BotsRefusal
from lifesign.db import StorageUnavailable
from lifesign.envelopes.failures import Failure, failure_of
from lifesign.faults import InvalidInput
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.http.protocol import RequestBroken

PREFIX = "/v1/bot"
_HTTP = {404: ("not_found", "Not found"), 405: ("method_not_allowed", "Method not allowed")}


def is_bots(path: str) -> bool:
    """Whether a path belongs to this API."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def error_response(error: Exception, *, request_id: str) -> Response:
    """`error` as spec "Bots", section 2 wants it."""
    failure = _failure(error)
    told: dict[str, Any] = {"status": failure.status, "code": failure.code}  # Any: JSON
    field = getattr(error, "field", None) if isinstance(error, BotsRefusal) else failure.details
    if field is not None:
        told["field"] = field
    told["request_id"] = request_id
    return json_answer({"error": told, "message": failure.message}, failure.status, failure.headers)


def _failure(error: Exception) -> Failure:
    if isinstance(error, BotsRefusal):
        return failure_of(error)
    if isinstance(error, HTTPException) and error.status_code in _HTTP:
        code, message = _HTTP[error.status_code]
        return Failure(error.status_code, code, message, headers=error.headers or {})
    for kind, make in _TOLD.items():
        if isinstance(error, kind):
            return make(error)
    return Failure(500, "internal", "Internal error")


# Any: each entry is called with its own exception only.
_TOLD: dict[type[Exception], Callable[[Any], Failure]] = {
    Unauthorized: lambda _: Failure(
        401, "unauthorized", "Unauthorized: Invalid API key", headers={"WWW-Authenticate": "Bearer"}
    ),
    MissingScope: lambda error: Failure(403, "forbidden", f"This key lacks the scope {error.scopes[0]}"),
    BodyTooLarge: lambda _: Failure(
        413, "too_large", "Request body is larger than 1 MiB", headers={"Connection": "close"}
    ),
    RequestBroken: lambda error: Failure(400, "bad_request", str(error), headers={"Connection": "close"}),
    InvalidInput: lambda error: Failure(
        400, "invalid_field", f"{error.faults[0].field}: {error.faults[0].message}", error.faults[0].field
    ),
    StorageUnavailable: lambda _: Failure(
        503, "unavailable", "Storage is not available, try again", headers={"Retry-After": "1"}
    ),
}
