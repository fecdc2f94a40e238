"""How the Telemetry API speaks: answers with `ok`, small JSON bodies in which null is absent, plain integers."""

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from lifesign.http.answers import json_answer
from lifesign.http.body import read_body
from lifesign.http.describe import EXAMPLE_REQUEST_ID, Envelope, Refusal, operation
from lifesign.http.fields import optional

MAX_BODY_BYTES = 65_536
NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store"}
_MAX_DIGITS = 20
_INTERNAL = 500

# Any, throughout: JSON.
Json = dict[str, Any]


class InvalidJson(Exception):
    """The body is not JSON, or not an object."""


class InvalidParameter(Exception):
    """A number is none, or out of its range."""

    def __init__(self, name: str, low: int, high: int) -> None:
        super().__init__(f"{name} must be an integer from {low} to {high}")
        self.name = name


class MalformedParameter(InvalidParameter):
    """Another parameter that is none of what it may be. rule: how the sentence goes on after its name."""

    def __init__(self, name: str, rule: str) -> None:
        Exception.__init__(self, f"{name} {rule}")
        self.name = name


# In -----------------------------------------------------------------------------------------------------------------
async def read_object(request: Request, *, is_required: bool = True) -> Json:
    """The members of the body that have a value, whatever its Content-Type says. Raises BodyTooLarge, InvalidJson.

    is_required: whether a blank body is one too few, and not `{}`.
    """
    raw = await read_body(request, MAX_BODY_BYTES)
    if not is_required and not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error.msg}") from error
    if not isinstance(body, dict):
        raise InvalidJson("The body must be a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def integer_of(body: Mapping[str, Any], name: str, low: int, high: int, *, default: int) -> int:
    """A JSON integer, not `"60"`, `true` or `60.0`. Raises InvalidParameter."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidParameter(name, low, high)
    return value


def query_integer(request: Request, name: str, low: int, high: int, *, default: int) -> int:
    """A query parameter of decimal digits only. Raises InvalidParameter."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and low <= int(text) <= high):
        raise InvalidParameter(name, low, high)
    return int(text)


# Out ----------------------------------------------------------------------------------------------------------------
def ok_answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` with `"ok":true`."""
    return json_answer({"ok": True, **body}, status, headers)


def refusal_body(code: str, message: str) -> Json:
    """The body of every error."""
    return {"ok": False, "error": code, "message": message}


# Described ----------------------------------------------------------------------------------------------------------
class OkBody(BaseModel):
    """What every good answer of this API has."""

    ok: Literal[True]


class TelemetryError(BaseModel):
    """The error envelope of the Telemetry API."""

    ok: Literal[False]
    error: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")
    request_id: str = optional("With 500: the answer's `X-Request-Id`; the server's log has it too.")


_REFUSALS = {
    400: Refusal(
        "The body is not a JSON object, or a field of it is wrong.", "invalid_json", "The body must be a JSON object"
    ),
    401: Refusal(
        "No key, or one that is unknown, revoked, expired or of the other kind; `error` tells which.",
        "missing_key",
        "Authorization: Bearer <key> is required",
        header="WWW-Authenticate",
    ),
    413: Refusal("The body is larger than 65,536 bytes.", "body_too_large", "The body is too large"),
    500: Refusal("A fault of the server; its log has the `request_id`.", "internal_error", "Internal server error"),
    503: Refusal(
        "The storage did not take it and nothing was written: try again after `Retry-After` seconds.",
        "storage_unavailable",
        "Storage is not available, try again",
        header="Retry-After",
    ),
}


def _example(status: int, refusal: Refusal) -> Json:
    body = refusal_body(refusal.code, refusal.message)
    return body | {"request_id": EXAMPLE_REQUEST_ID} if status == _INTERNAL else body


def ok_operation(
    operation_id: str, *, refusals: Mapping[int, Refusal] | None = None, **told: Any
) -> dict[str, Any]:  # Any: as `operation` takes them
    """As `operation`, for a route of this API. refusals: what statuses mean here, where that is not the usual."""
    envelope = Envelope(TelemetryError, _REFUSALS | dict(refusals or {}), _example)
    never = {*told.pop("never", ()), *({403} if 403 not in (refusals or {}) else ())}  # noqa: PLR2004 - Forbidden
    return operation(operation_id, envelope=envelope, never=sorted(never), **told)
