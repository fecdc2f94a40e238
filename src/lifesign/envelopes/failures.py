"""What each exception means in HTTP, before any envelope: a status, a code, words, details."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

from lifesign.auth.rules import KeyNotFound, MissingScope, Unauthorized
from lifesign.channels.rules import ChannelInUse, ChannelNotFound, NotificationNotFound, NotRetryable, TooManyTests
from lifesign.db import StorageUnavailable
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats.rules import HeartbeatLimitReached, HeartbeatNotFound, Managed, StateRefused
from lifesign.http.body import BodyTooLarge, is_short
from lifesign.incidents.rules import IncidentNotFound, PolicyInUse, PolicyNotFound
from lifesign.inventory.rules import Overtaken
from lifesign.maintenance.rules import WindowNotFound
from lifesign.pings.rules import CheckRefused, PingRefused
from lifesign.projects.rules import ProjectNotFound
from lifesign.runs.rules import RunNotFound, RunRefused
from lifesign.systems.rules import (
    INVALID_CREDENTIALS,
    InventoryNotFound,
    NotAuthenticated,
    StaleCredential,
    SystemExists,
    SystemIdMismatch,
    SystemNotFound,
    ValidationFailed,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way out. `details` is JSON, None when there are none."""

    status: int
    code: str
    message: str
    details: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _fault(fault: Fault) -> dict[str, Any]:
    shown = {"field": fault.field, "message": fault.message}
    return shown | {"value": fault.value} if fault.has_value and is_short(fault.value) else shown


def _invalid(error: InvalidInput) -> Failure:
    first = error.faults[0]
    return Failure(
        400, "BAD_REQUEST", f"Invalid request: {first.field} {first.message}", [_fault(each) for each in error.faults]
    )


def _in_use(name: str, users: list[dict[str, str]], total: int) -> Failure:
    return Failure(409, "CONFLICT", name, {"users": users, "total": total})


def _channel_in_use(error: ChannelInUse) -> Failure:
    return _in_use(
        str(error), [{"type": user.type, "id": user.id, "name": user.name} for user in error.users], error.total
    )


def _policy_in_use(error: PolicyInUse) -> Failure:
    return _in_use(
        str(error), [{"type": "heartbeat", "id": key, "name": name} for key, name in error.users], error.total
    )


def _rate_limited(error: TooManyTests) -> Failure:
    return Failure(429, "RATE_LIMITED", str(error), headers={"Retry-After": str(-(-error.retry_after_ms // 1000))})


def _not_found(_error: Exception) -> Failure:
    return Failure(404, "NOT_FOUND", "Resource not found")


def _not_authenticated(message: str, scheme: str) -> Failure:
    challenge = 'Basic realm="System Authentication"' if scheme == "Basic" else scheme
    return Failure(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": challenge})


# Any: each entry is called with its own exception only.
TABLE: dict[type[Exception], Callable[[Any], Failure]] = {
    InvalidInput: _invalid,
    StateRefused: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    Managed: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    RunRefused: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    NotRetryable: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    Unauthorized: lambda _: Failure(
        401, "UNAUTHORIZED", "Missing or invalid API key", headers={"WWW-Authenticate": "Bearer"}
    ),
    MissingScope: lambda error: Failure(403, "FORBIDDEN", str(error), {"scopes": error.scopes}),
    HeartbeatLimitReached: lambda error: Failure(403, "FORBIDDEN", str(error)),
    HeartbeatNotFound: _not_found,
    PolicyNotFound: _not_found,
    IncidentNotFound: _not_found,
    ChannelNotFound: _not_found,
    NotificationNotFound: _not_found,
    KeyNotFound: _not_found,
    RunNotFound: _not_found,
    WindowNotFound: _not_found,
    ProjectNotFound: _not_found,
    ChannelInUse: _channel_in_use,
    PolicyInUse: _policy_in_use,
    BodyTooLarge: lambda _: Failure(
        413, "PAYLOAD_TOO_LARGE", "Request body is too large", headers={"Connection": "close"}
    ),
    TooManyTests: _rate_limited,
    ValidationFailed: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    NotAuthenticated: lambda error: _not_authenticated(str(error), error.scheme),
    StaleCredential: lambda _: _not_authenticated(INVALID_CREDENTIALS, "Basic"),
    SystemIdMismatch: lambda _: Failure(403, "FORBIDDEN", "system_id mismatch"),
    SystemNotFound: lambda _: Failure(404, "NOT_FOUND", "system not found"),
    InventoryNotFound: lambda _: Failure(404, "NOT_FOUND", "inventory not found"),
    SystemExists: lambda _: Failure(409, "CONFLICT", "system already exists"),
    PingRefused: lambda error: Failure(error.status, "BAD_REQUEST", str(error)),
    CheckRefused: lambda error: Failure(error.status, "BAD_REQUEST", str(error)),
    # Seen only by whoever stores an inventory, and tries again.
    Overtaken: lambda _: Failure(409, "CONFLICT", "another inventory came first"),
    StorageUnavailable: lambda _: Failure(
        503, "UNAVAILABLE", "Storage is not available, try again", headers={"Retry-After": "1"}
    ),
}
_HTTP = {404: ("NOT_FOUND", "Resource not found"), 405: ("METHOD_NOT_ALLOWED", "Method not allowed")}
INTERNAL = Failure(500, "INTERNAL_ERROR", "Internal server error")


def failure_of(error: Exception) -> Failure:
    """What `error` means. Anything unknown is a fault of the server, and says nothing about itself."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    if isinstance(error, HTTPException) and error.status_code in _HTTP:
        code, message = _HTTP[error.status_code]
        return Failure(error.status_code, code, message, headers=error.headers or {})
    return INTERNAL
