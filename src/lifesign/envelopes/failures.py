"""What each exception means in HTTP, before any envelope: a status, a code, words, details."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

from lifesign.auth.rules import (
    KeyExpired,
    KeyMissing,
    KeyNotFound,
    KeyRevoked,
    KeyUnknown,
    MissingScope,
    Unauthorized,
    WrongKeyKind,
)
from lifesign.auth.vitals.rules import (
    ApiKeyInvalid,
    ApiKeyMissing,
    KeyLimitReached,
    VitalsKeyNotFound,
    WishRefused,
)
from lifesign.bots.rules import (
    BelowPlanMinimum,
    BotNotFound,
    BotRunNotFound,
    BotsRefusal,
    CallsLimited,
    EntryNotFound,
    HeartbeatDisabled,
    InvalidBody,
    InvalidField,
    LeaseLost,
    MissingField,
    NotWaiting,
    PlanForbids,
    PlanFull,
    ProjectForbidden,
    ScheduleNotFound,
    Trifecta,
)
from lifesign.channels.rules import (
    ChannelInUse,
    ChannelNotFound,
    NotificationNotFound,
    NotRetryable,
    SecretUnreadable,
    TooManyTests,
)
from lifesign.db import StorageUnavailable
from lifesign.diagnosis.refusals import (
    DiagnosisBusy,
    DiagnosisTimeout,
    IssueNotFound,
    PacketNotFound,
    WindowOverlapsPacket,
)
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats.rules import HeartbeatLimitReached, HeartbeatNotFound, Managed, StateRefused, Suspended
from lifesign.http.body import BodyTooLarge
from lifesign.http.ok import InvalidJson, InvalidParameter
from lifesign.http.protocol import RequestBroken
from lifesign.http.validation import is_short
from lifesign.incidents.rules import IncidentNotFound, PolicyInUse, PolicyNotFound
from lifesign.inventory.rules import Overtaken
from lifesign.maintenance.rules import WindowNotFound
from lifesign.pings.rules import CheckRefused, PingRefused
from lifesign.projects.rules import (
    CodeRequired,
    CodesSwitchedOff,
    NameClaimed,
    NameInvalid,
    NameRequired,
    NotProjectKey,
    NotSandbox,
    ProjectAmbiguous,
    ProjectNotFound,
    ProjectProtected,
    RateLimited,
    RecoveryFieldsRequired,
    WrongRecoveryCode,
    WrongUpgradeCode,
    retry_after_s,
)
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
from lifesign.telemetry.otlp import InvalidOtlp
from lifesign.telemetry.rules import (
    InflatesTooFar,
    InvalidCursor,
    InvalidEncoding,
    Overloaded,
    QuotaExceeded,
    SessionNotFound,
    TooSlow,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from lifesign.telemetry.store import StoreUnavailable
from lifesign.usage.rules import InvalidPage, InvalidRange
from lifesign.vitals.rules import (
    AnalysisDied,
    DemoLimitReached,
    DemoSwitchedOff,
    ExtraMissing,
    FieldRefused,
    InvalidTraces,
    MeasurementNotFound,
    ModelError,
    NoPulse,
    NotEnoughFrames,
    ServerBusy,
    StreamNotFound,
    TooManySamples,
    UnsupportedMedia,
    UploadTooSlow,
    VideoError,
    WatchedNotFound,
    WatchInvalid,
    WatchNotAllowed,
)
from lifesign.web.rules import (
    FormForged,
    LinkUnknown,
    LinkUsed,
    NoProject,
    NotAMember,
    NotSignedIn,
    RoleRefused,
    TooManyPasswords,
    UserNotFound,
)
from lifesign.web.status import SlugTaken, StatusPageNotFound


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way out. `details` is JSON, None when there are none."""

    status: int
    code: str
    message: str
    details: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


INTERNAL = Failure(500, "INTERNAL_ERROR", "Internal server error")


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


def _no_key(_error: Exception) -> Failure:
    return Failure(401, "UNAUTHORIZED", "Missing or invalid API key", headers={"WWW-Authenticate": "Bearer"})


def _calls_limited(error: RateLimited) -> Failure:
    headers = {"Retry-After": str(retry_after_s(error.wait_ms))}
    return Failure(429, f"{error.limiter}_rate_limited", str(error), headers=headers)


def _no_vitals_key(message: str) -> Failure:
    return Failure(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": 'ApiKey realm="Vitals"'})


def _not_found(_error: Exception) -> Failure:
    return Failure(404, "NOT_FOUND", "Resource not found")


def _not_authenticated(message: str, scheme: str) -> Failure:
    challenge = 'Basic realm="System Authentication"' if scheme == "Basic" else scheme
    return Failure(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": challenge})


def _video(error: VideoError) -> Failure:
    if error.code == "unsupported":
        return Failure(415, "UNSUPPORTED_MEDIA_TYPE", f"Unsupported media type: {error}")
    return Failure(422, "UNPROCESSABLE", f"The video cannot be read: {error}", "decode_failed")


def _nothing_here(_error: Exception) -> Failure:
    return Failure(404, "NOT_FOUND", "Not found")


def _of_bots(status: int) -> Callable[[BotsRefusal], Failure]:
    return lambda error: Failure(status, error.code, str(error))


# Parsers may quote what they could not read.
_LONGEST_REASON = 1000

# Any: each entry is called with its own exception only.
TABLE: dict[type[Exception], Callable[[Any], Failure]] = {
    InvalidInput: _invalid,
    StateRefused: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    Managed: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    Suspended: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    RunRefused: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    NotRetryable: lambda error: Failure(400, "INVALID_STATE", str(error), {"status": error.status}),
    Unauthorized: _no_key,
    KeyMissing: _no_key,
    KeyUnknown: _no_key,
    KeyRevoked: _no_key,
    KeyExpired: _no_key,
    WrongKeyKind: _no_key,
    MissingScope: lambda error: Failure(403, "FORBIDDEN", str(error), {"scopes": error.scopes}),
    HeartbeatLimitReached: lambda error: Failure(403, "FORBIDDEN", str(error)),
    HeartbeatNotFound: _not_found,
    PolicyNotFound: _not_found,
    IncidentNotFound: _not_found,
    ChannelNotFound: _not_found,
    NotificationNotFound: _not_found,
    # A key of the server is lost or a row is damaged: for its log, and nothing that whoever asked could mend.
    SecretUnreadable: lambda _: INTERNAL,
    KeyNotFound: _not_found,
    RunNotFound: _not_found,
    WindowNotFound: _not_found,
    ProjectNotFound: _not_found,
    ChannelInUse: _channel_in_use,
    PolicyInUse: _policy_in_use,
    BodyTooLarge: lambda _: Failure(
        413, "PAYLOAD_TOO_LARGE", "Request body is too large", headers={"Connection": "close"}
    ),
    RequestBroken: lambda error: Failure(400, "BAD_REQUEST", str(error), headers={"Connection": "close"}),
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
    # Of the Bots API, whose words for programs are in lower case.
    BotsRefusal: _of_bots(400),
    InvalidBody: _of_bots(400),
    MissingField: _of_bots(400),
    InvalidField: _of_bots(400),
    BelowPlanMinimum: _of_bots(400),
    Trifecta: _of_bots(400),
    ProjectForbidden: _of_bots(403),
    HeartbeatDisabled: _of_bots(403),
    PlanForbids: _of_bots(403),
    PlanFull: _of_bots(403),
    BotNotFound: _of_bots(404),
    ScheduleNotFound: _of_bots(404),
    BotRunNotFound: _of_bots(404),
    EntryNotFound: _of_bots(404),
    LeaseLost: _of_bots(409),
    NotWaiting: _of_bots(409),
    CallsLimited: lambda error: Failure(429, error.code, str(error), headers={"Retry-After": str(error.wait_s)}),
    # Of the Telemetry API, whose words for programs are in lower case.
    InvalidJson: lambda error: Failure(400, "invalid_json", str(error)),
    InvalidParameter: lambda error: Failure(400, "invalid_parameter", str(error)),
    NameRequired: lambda _: Failure(400, "project_name_required", "project_name is required"),
    NameInvalid: lambda error: Failure(400, f"{error.field}_invalid", str(error)),
    NotProjectKey: lambda _: Failure(403, "not_project_key", "The provided key does not authorize this project"),
    NameClaimed: lambda _: Failure(
        409, "name_claimed", "Name was claimed by another mint; resume with one of its keys"
    ),
    RateLimited: _calls_limited,
    CodesSwitchedOff: lambda error: Failure(503, f"{error.what}_unavailable", str(error)),
    CodeRequired: lambda _: Failure(400, "code_required", "code is required"),
    RecoveryFieldsRequired: lambda _: Failure(
        400, "recovery_fields_required", "project_id and recovery_code are required"
    ),
    NotSandbox: lambda _: Failure(403, "not_sandbox", "This project did not make itself: it has no codes"),
    WrongUpgradeCode: lambda _: Failure(403, "invalid_code", "Upgrade code verification failed"),
    WrongRecoveryCode: lambda _: Failure(403, "invalid_recovery_code", "Recovery code verification failed"),
    SessionNotFound: lambda _: Failure(404, "session_not_found", "Session not found in window"),
    PacketNotFound: lambda _: Failure(404, "packet_not_found", "Packet not found"),
    IssueNotFound: lambda _: Failure(404, "issue_not_found", "The packet holds no such issue"),
    WindowOverlapsPacket: lambda _: Failure(
        400, "window_overlaps_packet", "until must lie behind the end of the packet's window"
    ),
    DiagnosisBusy: lambda _: Failure(
        503, "busy", "Another diagnosis of this project is running, try again", headers={"Retry-After": "5"}
    ),
    DiagnosisTimeout: lambda _: Failure(
        503,
        "diagnosis_timeout",
        "The diagnosis took longer than 60 s; ask for a shorter window",
        headers={"Retry-After": "5"},
    ),
    InvalidCursor: lambda _: Failure(400, "invalid_cursor", "cursor is not a cursor of this list"),
    StoreUnavailable: lambda _: Failure(
        503,
        "store_unavailable",
        "The store of telemetry is not available, try again",
        headers={"Retry-After": "5"},
    ),
    UnsupportedMediaType: lambda _: Failure(
        415, "unsupported_media_type", "Content-Type must be application/json or application/x-protobuf"
    ),
    UnsupportedEncoding: lambda _: Failure(
        415, "unsupported_encoding", "Content-Encoding must be one of identity, gzip and deflate, or absent"
    ),
    Overloaded: lambda _: Failure(
        503, "overloaded", "Too much is being received at this moment, try again", headers={"Retry-After": "1"}
    ),
    TooSlow: lambda _: Failure(408, "body_too_slow", "The body comes too slowly", headers={"Connection": "close"}),
    InflatesTooFar: lambda _: Failure(413, "body_too_large", "The body is too large once it is inflated"),
    InvalidEncoding: lambda error: Failure(400, "invalid_encoding", str(error)),
    InvalidOtlp: lambda error: Failure(400, "invalid_otlp", str(error)[:_LONGEST_REASON]),
    QuotaExceeded: lambda error: Failure(
        429, "quota_exceeded", str(error), headers={"Retry-After": str(error.retry_after_s)}
    ),
    # Of the Vitals API, whose callers are told a sentence, and as `reason` the text in `details` where there is one.
    ApiKeyMissing: lambda error: _no_vitals_key(str(error)),
    ApiKeyInvalid: lambda error: _no_vitals_key(str(error)),
    WishRefused: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    # Without `Retry-After`: waiting does not help.
    KeyLimitReached: lambda error: Failure(429, "RATE_LIMITED", str(error)),
    VitalsKeyNotFound: _not_found,
    InvalidRange: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    InvalidPage: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    ExtraMissing: lambda error: Failure(501, "NOT_IMPLEMENTED", str(error)),
    ModelError: lambda error: Failure(501, "NOT_IMPLEMENTED", str(error)),
    TooManySamples: lambda _: Failure(413, "PAYLOAD_TOO_LARGE", "Request body is too large"),
    InvalidTraces: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    VideoError: _video,
    FieldRefused: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    WatchInvalid: lambda error: Failure(400, "BAD_REQUEST", str(error)),
    WatchNotAllowed: lambda error: Failure(403, "FORBIDDEN", str(error)),
    WatchedNotFound: lambda error: Failure(404, "NOT_FOUND", str(error)),
    MeasurementNotFound: _nothing_here,
    StreamNotFound: _nothing_here,
    DemoSwitchedOff: _nothing_here,
    UnsupportedMedia: lambda error: Failure(415, "UNSUPPORTED_MEDIA_TYPE", str(error)),
    AnalysisDied: lambda error: Failure(422, "UNPROCESSABLE", str(error), "decode_failed"),
    NotEnoughFrames: lambda error: Failure(422, "UNPROCESSABLE", str(error), "not_enough_frames"),
    NoPulse: lambda error: Failure(422, "UNPROCESSABLE", str(error), error.reason),
    DemoLimitReached: lambda error: Failure(
        429, "RATE_LIMITED", str(error), headers={"Retry-After": str(error.retry_after_s)}
    ),
    UploadTooSlow: lambda error: Failure(408, "REQUEST_TIMEOUT", str(error), headers={"Connection": "close"}),
    ServerBusy: lambda error: Failure(503, "UNAVAILABLE", str(error), headers={"Retry-After": "5"}),
    ProjectProtected: lambda error: Failure(409, "CONFLICT", str(error)),
    ProjectAmbiguous: lambda error: Failure(409, "CONFLICT", str(error)),
    # Of pages, and of the operator's commands about people.
    NotSignedIn: lambda error: Failure(401, "UNAUTHORIZED", str(error)),
    FormForged: lambda error: Failure(403, "FORBIDDEN", str(error)),
    RoleRefused: lambda error: Failure(403, "FORBIDDEN", str(error)),
    NoProject: lambda error: Failure(403, "FORBIDDEN", str(error)),
    NotAMember: lambda error: Failure(403, "FORBIDDEN", str(error)),
    LinkUnknown: _not_found,
    StatusPageNotFound: _not_found,
    # Shown beside the field of the form.
    SlugTaken: lambda error: Failure(409, "CONFLICT", f"slug {error}"),
    LinkUsed: lambda _: Failure(410, "GONE", "This link is used"),
    TooManyPasswords: lambda error: Failure(
        429, "RATE_LIMITED", str(error), headers={"Retry-After": str(error.retry_after_s)}
    ),
    UserNotFound: lambda error: Failure(404, "NOT_FOUND", str(error)),
    # Seen only by whoever stores an inventory, and tries again.
    Overtaken: lambda _: Failure(409, "CONFLICT", "another inventory came first"),
    StorageUnavailable: lambda _: Failure(
        503, "UNAVAILABLE", "Storage is not available, try again", headers={"Retry-After": "1"}
    ),
}
_HTTP = {404: ("NOT_FOUND", "Resource not found"), 405: ("METHOD_NOT_ALLOWED", "Method not allowed")}


def failure_of(error: Exception) -> Failure:
    """What `error` means. Anything unknown is a fault of the server, and says nothing about itself."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    if isinstance(error, HTTPException) and error.status_code in _HTTP:
        code, message = _HTTP[error.status_code]
        return Failure(error.status_code, code, message, headers=error.headers or {})
    return INTERNAL
