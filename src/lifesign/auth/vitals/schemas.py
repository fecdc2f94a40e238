"""The words of the Vitals API that all its parts share: its envelope, and what its refusals mean."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from lifesign.http.describe import Envelope, Refusal, operation
from lifesign.http.fields import optional

# Any, throughout: JSON.
Json = dict[str, Any]

MAX_BODY_BYTES = 16_384
"""Of what is not a recording."""


class Good(BaseModel):
    """What every good answer of this API has."""

    success: Literal[True]


class VitalsError(BaseModel):
    """The error envelope of the Vitals API."""

    success: Literal[False]
    message: str = Field(description="A sentence for people.")
    reason: str = optional("Why there is no measurement: a word for programs.")


_REFUSALS = {
    400: Refusal(
        "The body is not a JSON object, or something in the request is wrong; the first fault is told.",
        "BAD_REQUEST",
        "Name is required",
    ),
    401: Refusal(
        "No key, or one that is unknown, revoked or replaced.",
        "UNAUTHORIZED",
        "API key is required",
        header="WWW-Authenticate",
    ),
    413: Refusal(f"The body is larger than {MAX_BODY_BYTES:,} bytes.", "PAYLOAD_TOO_LARGE", "Request body too large"),
    429: Refusal(
        "The address has all its keys: waiting does not help. Or, with `Retry-After`, too many came from one network.",
        "RATE_LIMITED",
        "Maximum 3 API keys per email. Contact support for additional keys.",
    ),
    500: Refusal("A fault of the server, or its database is away.", "INTERNAL_ERROR", "Internal server error"),
}


def _example(_status: int, refusal: Refusal) -> Json:
    reason = {} if refusal.details is None else {"reason": refusal.details}
    return {"success": False, "message": refusal.message, **reason}


def vitals_operation(
    operation_id: str,
    *,
    refusals: Mapping[int, Refusal] | None = None,
    security: str | None = "ApiKeyAuth",
    **told: Any,
) -> dict[str, Any]:  # Any: as `operation` takes them
    """As `operation`, for a route of this API. refusals: what statuses mean here, where that is not the usual."""
    envelope = Envelope(VitalsError, _REFUSALS | dict(refusals or {}), _example)
    never = {403, 503, *(() if security else (401,))} - set(refusals or ())
    return operation(operation_id, envelope=envelope, never=sorted(never), security=security, **told)
