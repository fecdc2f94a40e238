"""HTTP of systems, as people and their programs ask it: with an API key."""

from typing import Any, Final, cast, get_args

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller
from lifesign.auth.service import OPERATOR, caller_of
from lifesign.clock import EpochMs
from lifesign.http.answers import json_answer
from lifesign.http.body import read_body
from lifesign.http.context import Context, context_of, header_of
from lifesign.http.describe import Schema, operation
from lifesign.http.paging import cursor_of, key_in
from lifesign.incidents.service import tuning_of
from lifesign.systems import bodies, rules, schemas, service
from lifesign.systems.rules import RESERVED, Flaw, Liveness, NotAuthenticated, Period, ValidationFailed
from lifesign.systems.service import Watched
from lifesign.systems.store import Filters, Position

router = APIRouter(tags=["Systems"])

_DEFAULT_LIMIT, _MAX_LIMIT = 50, 500
_MAX_MINUTES = 60
_MS_PER_MINUTE = 60_000
_LONGEST_NUMBER = 9
_ONCE = {"Cache-Control": "no-store"}
_STATUSES: Final = get_args(Liveness)
_PERIODS: Final[tuple[Period, ...]] = get_args(Period)


class _SystemRef(Convertor[str]):
    """An id or a key in a path: one part of it, and none of the words that mean something else there."""

    regex = rf"(?!(?:{'|'.join(RESERVED)})(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("system", _SystemRef())


async def admin_of(request: Request, scope: str) -> Caller:
    """The caller of an admin route. Raises NotAuthenticated, Unauthorized, MissingScope."""
    header = header_of(request, b"authorization")
    if request.scope.get(OPERATOR) is None:
        if header is None or not header.strip():
            raise NotAuthenticated("authentication required", "Bearer")
        if header[:7].lower() != b"bearer ":
            raise NotAuthenticated("invalid authentication format", "Bearer")
    return await caller_of(request, scope)


def _operation(operation_id: str, **told: Any) -> dict[str, Any]:  # Any: as `operation` takes them
    return operation(operation_id, envelope=schemas.ENVELOPE, **told)


def _system_answer(context: Context, watched: Watched, message: str, now: EpochMs) -> Response:
    shown = schemas.shown(watched, service.windows_of(context.settings), now)
    return json_answer(schemas.answer(200, message, shown))


# One ----------------------------------------------------------------------------------------------------------------
@router.post(
    "/api/systems",
    **_operation(
        "createSystem",
        answer=(201, schemas.MadeSystemAnswer),
        body=bodies.NewSystem,
        examples=bodies.NEW_SYSTEMS,
        errors=(409,),
    ),
)
async def create_system(request: Request) -> Response:
    """Register a machine; the answer holds its secret, once. Nobody waits for it until its first heartbeat."""
    caller = await admin_of(request, "systems:write")
    body = bodies.checked(bodies.NewSystem, await read_body(request))
    context = context_of(request)
    now = context.now()
    secret = body.secret if "secret" in body.model_fields_set else rules.new_secret()
    made = await context.db.write(
        service.create,
        caller,
        bodies.definition_of(body),
        chosen_id=body.id if "id" in body.model_fields_set else None,
        secret=secret,
        origin=body.origin,
        windows=service.windows_of(context.settings),
        max_heartbeats=context.settings.max_heartbeats,
        now=now,
    )
    shown = schemas.shown(made, service.windows_of(context.settings), now) | {"secret": secret}
    return json_answer(schemas.answer(201, "system created successfully", shown), 201, _ONCE)


@router.get(
    "/api/systems/{system:system}", **_operation("getSystem", answer=(200, schemas.SystemAnswer), errors=(404,))
)
async def get_system(request: Request, system: str) -> Response:
    """Read a system by its id or key."""
    caller = await admin_of(request, "systems:read")
    context = context_of(request)
    watched = await context.db.read(service.watched, caller.project_id, system)
    return _system_answer(context, watched, "system retrieved successfully", context.now())


@router.patch(
    "/api/systems/{system:system}",
    **_operation(
        "updateSystem",
        answer=(200, schemas.SystemAnswer),
        body=bodies.SystemChanges,
        examples={"every minute": {"interval": 60}},
        errors=(404,),
    ),
)
async def update_system(request: Request, system: str) -> Response:
    """Change a system; a changed interval counts from its last heartbeat."""
    caller = await admin_of(request, "systems:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, system)
    body = bodies.checked(bodies.SystemChanges, await read_body(request))
    now = context.now()
    watched = await context.db.write(
        service.edit,
        caller,
        system,
        bodies.changes_of(body),
        windows=service.windows_of(context.settings),
        tuning=tuning_of(context.settings),
        now=now,
    )
    return _system_answer(context, watched, "system updated successfully", now)


@router.delete(
    "/api/systems/{system:system}", **_operation("deleteSystem", answer=(200, schemas.EmptyAnswer), errors=(404,))
)
async def delete_system(request: Request, system: str) -> Response:
    """Delete a system with its credentials, its heartbeat and its inventory."""
    caller = await admin_of(request, "systems:write")
    context = context_of(request)
    await context.db.write(service.delete, caller, system, tuning=tuning_of(context.settings), now=context.now())
    return json_answer(schemas.answer(200, "system deleted successfully", None))


@router.post(
    "/api/systems/{system:system}/regenerate-secret",
    **_operation("regenerateSystemSecret", answer=(200, schemas.MadeSecretAnswer), errors=(404,)),
)
async def regenerate_secret(request: Request, system: str) -> Response:
    """Give a system a new secret; the old one is dead at once."""
    caller = await admin_of(request, "systems:write")
    context = context_of(request)
    secret = rules.new_secret()
    after = await context.db.write(service.regenerate_secret, caller.project_id, system, secret, context.now())
    made = {"id": after.id, "key": after.key, "secret": secret, "secret_hint": after.secret_hint}
    return json_answer(schemas.answer(200, "system secret regenerated successfully", made), 200, _ONCE)


@router.post(
    "/api/systems/{system:system}/suspend",
    **_operation("suspendSystem", answer=(200, schemas.SystemAnswer), errors=(404,)),
)
async def suspend_system(request: Request, system: str) -> Response:
    """Refuse a system's reports and stop waiting for them."""
    caller = await admin_of(request, "systems:write")
    context = context_of(request)
    now = context.now()
    watched = await context.db.write(service.suspend, caller, system, now)
    return _system_answer(context, watched, "system suspended successfully", now)


@router.post(
    "/api/systems/{system:system}/reactivate",
    **_operation("reactivateSystem", answer=(200, schemas.SystemAnswer), errors=(404,)),
)
async def reactivate_system(request: Request, system: str) -> Response:
    """Take a suspended system's reports again."""
    caller = await admin_of(request, "systems:write")
    context = context_of(request)
    now = context.now()
    watched = await context.db.write(service.reactivate, caller, system, now)
    return _system_answer(context, watched, "system reactivated successfully", now)


# Many ---------------------------------------------------------------------------------------------------------------
_TEXT: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\x00]+$"}
CURSOR: Schema = {
    "name": "cursor",
    "in": "query",
    "description": "`next_cursor` of the page before; opaque.",
    "schema": {"type": "string"},
}


def limit_parameter(most: int, default: int) -> Schema:
    """How `limit` is described."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return {"name": "limit", "in": "query", "description": "Rows per page.", "schema": schema}


_FILTERS: tuple[Schema, ...] = (
    {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(_STATUSES)}},
    {"name": "suspended", "in": "query", "schema": {"type": "boolean"}},
    {"name": "type", "in": "query", "description": "Exactly this type.", "schema": _TEXT},
    {"name": "tag", "in": "query", "schema": {"type": "string", "pattern": f"^{bodies.TAG.pattern}$"}},
    {"name": "search", "in": "query", "description": "Part of name, fqdn, key or id, in any case.", "schema": _TEXT},
)


@router.get(
    "/api/systems",
    **_operation(
        "listSystems",
        answer=(200, schemas.SystemPageAnswer),
        parameters=(limit_parameter(_MAX_LIMIT, _DEFAULT_LIMIT), CURSOR, *_FILTERS),
        errors=(400,),
    ),
)
async def list_systems(request: Request) -> Response:
    """List systems; all filters must match."""
    caller = await admin_of(request, "systems:read")
    context = context_of(request)
    now, windows = context.now(), service.windows_of(context.settings)
    limit = number_of(request, "limit", low=1, high=_MAX_LIMIT, default=_DEFAULT_LIMIT)
    after = _position_of(request)
    found = await context.db.read(
        service.list_watched,
        caller.project_id,
        _filters_of(request),
        windows=windows,
        limit=limit + 1,
        after=after,
        now=now,
    )
    page: dict[str, Any] = {"systems": [schemas.shown(each, windows, now) for each in found[:limit]]}
    if len(found) > limit:
        last = found[limit - 1].system
        page["next_cursor"] = cursor_of(f"{last.created_at}:{last.id}")
    return json_answer(schemas.answer(200, "systems retrieved successfully", page))


def number_of(request: Request, name: str, *, low: int, high: int, default: int) -> int:
    """A whole number of the query. Raises ValidationFailed."""
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise flawed(name, "invalid_type", text)
    if len(digits) > _LONGEST_NUMBER or not low <= int(text) <= high:
        raise flawed(name, "out_of_range", text)
    return int(text)


def flawed(name: str, word: rules.Word, text: str) -> ValidationFailed:
    """The refusal of a parameter of the query."""
    return ValidationFailed(Flaw(name, word, bodies.shown_value(text)))


def decoded_cursor(request: Request) -> str | None:
    """What the server wrote into the cursor of a page. Raises ValidationFailed."""
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return None
    key = key_in(cursor)
    if key is None:
        raise flawed("cursor", "invalid_format", cursor)
    return key


def _position_of(request: Request) -> Position | None:
    text = decoded_cursor(request)
    if text is None:
        return None
    at, _, system_id = text.partition(":")
    if not (at.isdigit() and len(at) <= 15) or rules.normalized_ref(system_id) != system_id:  # noqa: PLR2004 - what the year 9999 has
        raise flawed("cursor", "invalid_format", request.query_params["cursor"])
    return Position(EpochMs(int(at)), system_id)


def word_of(request: Request, name: str, allowed: tuple[str, ...]) -> str | None:
    """A word of the query, out of those that are allowed. Raises ValidationFailed."""
    text = request.query_params.get(name)
    if text is not None and text not in allowed:
        raise flawed(name, "invalid_value", text)
    return text


def _text_of(request: Request, name: str) -> str | None:
    text = request.query_params.get(name)
    if text is not None and (not text or "\x00" in text):
        raise flawed(name, "invalid_value", text)
    return text


def _filters_of(request: Request) -> Filters:
    suspended = word_of(request, "suspended", ("true", "false"))
    tag = request.query_params.get("tag")
    if tag is not None and not bodies.TAG.fullmatch(tag):
        raise flawed("tag", "invalid_format", tag)
    return Filters(
        status=cast("Liveness | None", word_of(request, "status", _STATUSES)),
        is_suspended=None if suspended is None else suspended == "true",
        type=_text_of(request, "type"),
        tag=tag,
        search=_text_of(request, "search"),
    )


_TIMEOUT: Schema = {
    "name": "timeout",
    "in": "query",
    "description": "Minutes after which a silent system counts as dead, instead of the usual.",
    "schema": {"type": "integer", "minimum": 1, "maximum": _MAX_MINUTES},
}


@router.get(
    "/api/systems/totals",
    **_operation("systemTotals", answer=(200, schemas.SystemTotalsAnswer), parameters=(_TIMEOUT,), errors=(400,)),
)
async def system_totals(request: Request) -> Response:
    """Count systems by state."""
    caller = await admin_of(request, "systems:read")
    context = context_of(request)
    timeout = number_of(request, "timeout", low=1, high=_MAX_MINUTES, default=0)
    alive_ms = timeout * _MS_PER_MINUTE or service.windows_of(context.settings).alive_ms
    totals = await context.db.read(
        service.totals, caller.project_id, alive_ms=alive_ms, is_for_all=timeout > 0, now=context.now()
    )
    shown = schemas.shown_totals(totals, -(-alive_ms // _MS_PER_MINUTE))
    return json_answer(schemas.answer(200, "system totals retrieved successfully", shown))


_PERIOD: Schema = {
    "name": "period",
    "in": "query",
    "description": "Days: 7 and 30 have a point for each day, 180 for each week, 365 for each month.",
    "schema": {"type": "integer", "enum": list(_PERIODS), "default": 7},
}


@router.get(
    "/api/systems/trend",
    **_operation("systemTrend", answer=(200, schemas.SystemTrendAnswer), parameters=(_PERIOD,), errors=(400,)),
)
async def system_trend(request: Request) -> Response:
    """Tell how many systems existed over time."""
    caller = await admin_of(request, "systems:read")
    context = context_of(request)
    asked = request.query_params.get("period", "7")
    period = next((each for each in _PERIODS if str(each) == asked), None)
    if period is None:
        raise flawed("period", "invalid_value", asked)
    trend = await context.db.read(service.trend, caller.project_id, period, context.now())
    return json_answer(schemas.answer(200, "system trend retrieved successfully", schemas.shown_trend(trend, period)))
