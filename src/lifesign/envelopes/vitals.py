"""The envelope of the Vitals API: `{"success":false,"message"}`, and `reason` where a failure has one."""

from dataclasses import replace

from starlette.exceptions import HTTPException
from starlette.responses import Response

from lifesign.db import StorageUnavailable
from lifesign.envelopes.failures import INTERNAL, Failure, failure_of
from lifesign.http.answers import json_answer
from lifesign.usage.rules import prefix_of

_NOT_FOUND = 404


def is_vitals(path: str) -> bool:
    """Whether a path belongs to this API: `/api/keys` and what is below it, but not `/api/keysmith`."""
    return prefix_of(path) is not None


def error_response(error: Exception) -> Response:
    """`error` as spec "Usage", section 1 wants it. The `details` of a failure, where it is a text, are its `reason`."""
    failure = _failure(error)
    body = {"success": False, "message": failure.message}
    if isinstance(failure.details, str):
        body["reason"] = failure.details
    return json_answer(body, failure.status, failure.headers)


def _failure(error: Exception) -> Failure:
    if isinstance(error, HTTPException):
        # There is no 405 here, and so nothing to say of other methods.
        return Failure(_NOT_FOUND, "NOT_FOUND", "Not found")
    if isinstance(error, StorageUnavailable):
        return INTERNAL
    failure = failure_of(error)
    return replace(failure, message="Request body too large") if failure.status == 413 else failure  # noqa: PLR2004 - the one status that others word differently
