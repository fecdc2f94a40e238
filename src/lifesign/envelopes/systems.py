"""The envelope of `/api`: `{"code","message","data"}`."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from lifesign.auth.rules import MissingScope, Unauthorized
from lifesign.db import StorageUnavailable
from lifesign.db.database import ReadersBusy, WriterBusy
from lifesign.envelopes.failures import INTERNAL, failure_of
from lifesign.faults import InvalidInput
from lifesign.heartbeats.rules import HeartbeatLimitReached
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.systems.rules import ValidationFailed
from lifesign.systems.schemas import answer, shown_flaws

# What this API calls failures that others know by other words.
_MESSAGES: dict[type, str] = {
    BodyTooLarge: "request body too large",
    HeartbeatLimitReached: "heartbeat limit reached",
    InvalidInput: "validation failed",
    MissingScope: "insufficient permissions",
    ReadersBusy: "service unavailable",
    Unauthorized: "invalid token",
    WriterBusy: "service unavailable",
}
_HTTP = {404: "api not found", 405: "method not allowed"}


def error_response(error: Exception) -> Response:
    """`error` as spec "Systems", section 1 wants it."""
    failure = failure_of(error)
    if isinstance(error, StorageUnavailable) and type(error) not in _MESSAGES:
        # A queue that is full empties by itself; storage that fails is a fault of the server, here.
        failure = INTERNAL
    message = next((_MESSAGES[kind] for kind in type(error).__mro__ if kind in _MESSAGES), failure.message)
    if isinstance(error, HTTPException):
        message = _HTTP.get(failure.status, message)
    return json_answer(answer(failure.status, message.lower(), _data(error)), failure.status, failure.headers)


def _data(error: Exception) -> dict[str, Any] | None:  # Any: JSON
    if isinstance(error, ValidationFailed):
        return shown_flaws(error)
    if isinstance(error, InvalidInput):
        errors = [{"key": each.field, "message": "invalid_value", "value": ""} for each in error.faults]
        return {"type": "validation_error", "errors": errors}
    return None
