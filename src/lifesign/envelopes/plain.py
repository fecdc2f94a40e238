"""Errors of paths that no API owns: a page, or plain text for programs that came here by mistake."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Scope

from lifesign.envelopes.failures import failure_of
from lifesign.http.context import header_of
from lifesign.web.access import sign_in_place, theme_of
from lifesign.web.pages import HEADERS, error_page
from lifesign.web.rules import NotSignedIn

_NOT_FOUND = 404
_SEE_OTHER = 303


def error_response(scope: Scope, error: Exception, *, request_id: str) -> Response:
    """`error` in words."""
    if isinstance(error, NotSignedIn):
        return RedirectResponse(sign_in_place(error.place), _SEE_OTHER, headers=HEADERS)
    request = Request(scope)
    failure = failure_of(error)
    # What is not there is told by a page, whoever asks; other faults happen to programs as well.
    if failure.status == _NOT_FOUND or b"text/html" in (header_of(request, b"accept") or b""):
        return error_page(theme_of(request), failure.status, failure.message, request_id, failure.headers)
    return PlainTextResponse(
        f"{failure.status} {failure.message}\nrequest {request_id}\n", failure.status, dict(failure.headers)
    )
