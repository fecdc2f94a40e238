"""Errors of paths that no API owns: plain text, until there are pages."""

from starlette.responses import PlainTextResponse, Response

from lifesign.envelopes.failures import failure_of


def error_response(error: Exception, *, request_id: str) -> Response:
    """`error` in words."""
    failure = failure_of(error)
    return PlainTextResponse(
        f"{failure.status} {failure.message}\nrequest {request_id}\n", failure.status, dict(failure.headers)
    )
