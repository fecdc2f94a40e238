"""Which error envelope owns which path, and what every exception of the domain looks like in it."""

from starlette.responses import Response
from starlette.types import Scope

from lifesign.auth.service import OPERATOR
from lifesign.clock import EpochMs
from lifesign.envelopes import bots, heartbeats, pings, plain, systems, telemetry, vitals

__all__ = ["error_response"]


def error_response(scope: Scope, error: Exception, *, request_id: str, now: EpochMs) -> Response:
    """The answer to `error` in the envelope of the API that owns the path that was asked for."""
    path: str = scope["path"]
    if telemetry.is_telemetry(path):
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), None)
        return telemetry.error_response(path, error, request_id=request_id, content_type=content_type)
    if vitals.is_vitals(path):
        return vitals.error_response(error)
    if bots.is_bots(path):
        return bots.error_response(error, request_id=request_id)
    if OPERATOR in scope and path.startswith("/admin/"):
        return heartbeats.error_response(error, request_id=request_id, now=now)
    # Of a request that is so broken that it has no path, JSON is the best guess.
    if path in {"", "/v1"} or path.startswith(("/v1/", "/_test/")):
        return heartbeats.error_response(error, request_id=request_id, now=now)
    if path.startswith("/ping/"):
        return pings.ping_error(error)
    if path.startswith(("/api/v1/", "/api/v2/", "/api/v3/")):
        return pings.management_error(error, request_id=request_id)
    if path == "/api" or path.startswith("/api/"):
        return systems.error_response(error)
    return plain.error_response(scope, error, request_id=request_id)
