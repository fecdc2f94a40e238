"""What every route of the Bots API does first: who calls, for which project, with which fields, and may they.

Source: spec/bots.md, section 2, "Order of checks".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection
from starlette.requests import Request

from lifesign.audit import service as audit
from lifesign.auth.rules import Caller, MissingScope
from lifesign.auth.service import any_caller_of
from lifesign.bots import bodies, rules, store
from lifesign.bots.asking import Ask
from lifesign.bots.bodies import Fields
from lifesign.bots.rules import CallsLimited, InvalidBody, InvalidField, MissingField, Plan, ProjectForbidden
from lifesign.bots.watching import Watchers
from lifesign.channels.delivery import Courier
from lifesign.clock import EpochMs
from lifesign.http.body import read_body
from lifesign.http.context import context_of
from lifesign.http.paging import cursor_of, key_in
from lifesign.incidents.service import tuning_of
from lifesign.projects import service as projects
from lifesign.projects.rules import DEFAULT_PROJECT, ProjectNotFound

MAX_BODY_BYTES = 1_048_576
_MINUTE_MS, _DAY_MS = 60_000, 86_400_000
_FROM_BODY = frozenset({"POST", "PUT"})
_LARGEST_PAGE = 1_000_000
_LONGEST_QUERY = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """A call that may be answered. fields: of the body, on GET and DELETE of the query."""

    caller: Caller
    ask: Ask
    fields: Fields
    body: Mapping[str, Any]  # Any, here and below: JSON of the caller
    query: Mapping[str, str]
    is_body_first: bool

    @property
    def project_id(self) -> str:
        """The project that the call is about."""
        return self.ask.project_id

    @property
    def now(self) -> EpochMs:
        """When the call came."""
        return self.ask.now

    def id(self, name: str) -> Any:
        """An id, from where this verb has it, else from the other place; None when absent."""
        return _id_in(name, self.body, self.query, is_body_first=self.is_body_first)

    def bot_ref(self) -> str | int:
        """The bot that the call names. Raises MissingField."""
        return ref_of(self.required("bot_id"))

    def required(self, name: str) -> Any:
        """An id that must be there. Raises MissingField."""
        value = self.id(name)
        if value is None:
            raise MissingField(name)
        return value

    def text_id(self, name: str) -> str:
        """An id that is a text. Raises MissingField."""
        return bodies.text_of(self.required(name))


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list: a page by number, or what follows a cursor."""

    limit: int
    page: int | None
    after: str | None

    @property
    def offset(self) -> int:
        """How many rows are before the page."""
        return 0 if self.page is None else (self.page - 1) * self.limit


def ref_of(value: Any) -> str | int:
    """A bot, member or schedule as callers name it: the id, the number, or the number as text."""
    found = bodies.integer_in(value)
    if found is not None and 0 <= found < 2**31:
        return found
    return bodies.text_of(value)


async def call_of(request: Request, scope: str) -> Call:
    """The call, which holds `scope`. Raises in the order of section 2."""
    caller = await any_caller_of(request)
    context = context_of(request)
    now = context.now()
    await _count(request, caller, now)
    body = await _body(request)
    query = {
        name: value[:_LONGEST_QUERY] for name, value in request.query_params.items() if not bodies.is_absent(value)
    }
    is_body_first = request.method in _FROM_BODY
    wanted = _id_in("project_id", body, query, is_body_first=is_body_first)
    if wanted is None:
        raise MissingField("project_id")
    if not await _is_own(request, caller, wanted):
        raise ProjectForbidden
    if not caller.allows(scope):
        raise MissingScope([scope])
    fields = Fields(body if is_body_first else query)
    return Call(caller, ask_of(request, caller, now), fields, body, query, is_body_first)


def ask_of(request: Request, caller: Caller, now: EpochMs) -> Ask:
    """Who asks, with what services need besides."""
    courier: Courier = request.app.state.courier
    return Ask(
        project_id=caller.project_id,
        key_id=caller.key_id,
        is_admin=caller.allows("bots:admin"),
        watchers=watchers_of(request, caller),
        guard=courier.kit.guard,
        box=courier.kit.box,
        now=now,
        offers=request.app.state.bot_offers(caller.project_id),
    )


def watchers_of(request: Request, caller: Caller) -> Watchers:
    """What keeping heartbeats that watch schedules needs, in the name of `caller`."""
    settings = context_of(request).settings
    return Watchers(caller, tuning_of(settings), settings.max_heartbeats)


def _id_in(name: str, body: Mapping[str, Any], query: Mapping[str, str], *, is_body_first: bool) -> Any:
    places: tuple[Mapping[str, Any], Mapping[str, Any]] = (body, query) if is_body_first else (query, body)
    return next((value for place in places if not bodies.is_absent(value := place.get(name))), None)


async def _body(request: Request) -> Mapping[str, Any]:
    raw = await read_body(request, MAX_BODY_BYTES)
    if not raw.strip() and request.method not in _FROM_BODY:
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidBody from error
    if not isinstance(body, dict):
        raise InvalidBody
    return body


async def _is_own(request: Request, caller: Caller, wanted: object) -> bool:
    if str(wanted) == caller.project_id:
        return True
    if wanted != DEFAULT_PROJECT:
        return False
    try:
        return await context_of(request).db.read(projects.id_of, DEFAULT_PROJECT) == caller.project_id
    except ProjectNotFound:
        return False


# Plans with limits --------------------------------------------------------------------------------------------------
async def _count(request: Request, caller: Caller, now: EpochMs) -> None:
    db = context_of(request).db
    plan = rules.PLANS[(await db.read(store.settings_of, caller.project_id)).plan]
    if plan.per_minute is None or plan.per_day is None:
        return
    with audit.unnoted():
        in_minute, in_day = await db.write(_counted, caller.project_id, now)
    minute_ends, day_ends = now - now % _MINUTE_MS + _MINUTE_MS, now - now % _DAY_MS + _DAY_MS
    is_day_over = in_day > plan.per_day
    resets_at = day_ends if is_day_over else minute_ends
    remaining = max(0, min(plan.per_minute - in_minute, plan.per_day - in_day))
    _tell(request, plan, remaining, resets_at // 1000)
    if is_day_over or in_minute > plan.per_minute:
        raise CallsLimited(max(1, -(-(resets_at - now) // 1000)))


def _counted(conn: Connection, project_id: str, now: EpochMs) -> tuple[int, int]:
    minute, day = (
        store.count_call(conn, project_id, span, EpochMs(now - now % span)) for span in (_MINUTE_MS, _DAY_MS)
    )
    return minute, day


def _tell(request: Request, plan: Plan, remaining: int, resets_at_s: int) -> None:
    told = {"limit": plan.per_minute, "remaining": remaining, "reset": resets_at_s}
    request.scope["state"]["headers"] = [
        (f"x-ratelimit-{name}".encode(), str(value).encode()) for name, value in told.items()
    ]


# Lists --------------------------------------------------------------------------------------------------------------
def paging_of(call: Call, *, per_page: int, most: int = 100) -> Paging:
    """The part of a list that a call asks for. Raises InvalidField."""
    page = call.fields.integer("page", 1, _LARGEST_PAGE)
    size = call.fields.integer("per_page", 1, most)
    limit = call.fields.integer("limit", 1, most)
    cursor = call.fields.raw("cursor")
    if limit is None and cursor is None:
        return Paging(size or per_page, page or 1, None)
    if cursor is None:
        return Paging(limit or per_page, None, None)
    after = key_in(str(cursor))
    if after is None or not after.isprintable():
        raise InvalidField("cursor", "is not a cursor of this list")
    return Paging(limit or per_page, None, after)


def next_cursor(key: str) -> str:
    """The cursor of a page that ends with the row of this key."""
    return cursor_of(key)
