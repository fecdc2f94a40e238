"""The envelope of `/api`: `{"code","message","data"}`."""

from starlette.responses import Response

from lifesign.envelopes.failures import failure_of
from lifesign.http.answers import json_answer

NOT_FOUND = 404


def error_response(error: Exception) -> Response:
    """`error` in the envelope of unclaimed paths under `/api`."""
    failure = failure_of(error)
    message = "api not found" if failure.status == NOT_FOUND else failure.message
    body = {"code": failure.status, "message": message, "data": None}
    return json_answer(body, failure.status, failure.headers)
