"""The envelope of the Heartbeats API: `{"error":{...},"requestId","timestamp"}`."""

from starlette.responses import Response

from lifesign.clock import EpochMs, rfc3339
from lifesign.envelopes.failures import failure_of
from lifesign.http.answers import json_answer


def error_response(error: Exception, *, request_id: str, now: EpochMs) -> Response:
    """`error` as spec "Heartbeats", section 1 wants it."""
    failure = failure_of(error)
    body = {"code": failure.code, "message": failure.message, "statusCode": failure.status}
    if failure.details is not None:
        body["details"] = failure.details
    return json_answer(
        {"error": body, "requestId": request_id, "timestamp": rfc3339(now)}, failure.status, failure.headers
    )
