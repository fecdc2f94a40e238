"""Errors of the surface that clients of Healthchecks speak: plain text for pings, `{"error"}` for the rest."""

from starlette.exceptions import HTTPException
from starlette.responses import Response

from lifesign.db import StorageUnavailable
from lifesign.envelopes.failures import failure_of
from lifesign.http.answers import json_answer
from lifesign.pings.ping_routes import TextAnswer
from lifesign.pings.rules import CheckRefused

_SERVER_ERROR = 500
_CORS = {"Access-Control-Allow-Origin": "*"}


def ping_error(error: Exception) -> Response:
    """`error` as whoever pings is told."""
    failure = failure_of(error)
    if isinstance(error, StorageUnavailable):
        return TextAnswer(failure.status, b"overloaded", (b"retry-after", b"1"))
    return TextAnswer(failure.status, _WORDS.get(failure.status, failure.message.lower()).encode())


def management_error(error: Exception, *, request_id: str) -> Response:
    """`error` as the management API tells it.  Source: spec "Pings", section 5."""
    failure = failure_of(error)
    text = str(error) if isinstance(error, CheckRefused) else _WORDS.get(failure.status, failure.message.lower())
    if isinstance(error, HTTPException):
        text = _WORDS.get(failure.status, text)
    body = {"error": text}
    if failure.status == _SERVER_ERROR:
        body["request_id"] = request_id
    return json_answer(body, failure.status, _CORS | dict(failure.headers))


_WORDS = {
    404: "not found",
    405: "method not allowed",
    413: "request body too large",
    500: "internal server error",
    503: "overloaded",
}
