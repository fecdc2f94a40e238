"""HTTP of the management API: the routes of Healthchecks under `/api/v1`, `/api/v2` and `/api/v3`.

One small router of its own: paths with and without a slash at the end, three versions alike, and errors in one shape.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lifesign.auth.rules import Caller, Unauthorized
from lifesign.auth.service import Keyring, noted
from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge, read_body
from lifesign.http.context import base_url, context_of
from lifesign.http.paging import cursor_of, is_id, key_in
from lifesign.incidents.service import tuning_of
from lifesign.pings import badges, checks, schemas
from lifesign.pings.checks import Editing
from lifesign.pings.rules import CheckRefused
from lifesign.pings.schemas import Version, View

# Any, throughout: JSON.
_CORS = {"Access-Control-Allow-Origin": "*"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MIN_KEY = 16
_MAX_LIST, _MAX_PINGS, _PINGS = 10_000, 1000, 100
_LATEST_S, _YEAR_S = 10_000_000_000, 31_536_000
_S = 1000
_KINDS = {"pagerduty": "pd"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what it wants, of what, and by which version of the API. `body`: `{}` where there is none."""

    request: Request
    version: Version
    found: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def now(self) -> EpochMs:
        return context_of(self.request).now()

    async def caller(self, scope: str) -> Caller:
        """Whose key it is. Raises CheckRefused."""
        key = self.request.headers.get("x-api-key") or self.body.get("api_key")
        if not isinstance(key, str) or len(key) < _MIN_KEY:
            raise CheckRefused(401, "missing api key")
        keyring = cast("Keyring", self.request.app.state.keyring)
        try:
            caller = await keyring.caller(b"Bearer " + key.encode())
        except Unauthorized:
            raise CheckRefused(401, "wrong api key") from None
        if not caller.allows(scope):
            raise CheckRefused(401, "wrong api key")
        return noted(caller)

    def view(self, caller: Caller) -> View:
        """How checks are shown to this caller."""
        return View(self.version, caller.allows("heartbeats:write"), base_url(self.request), self.now)

    def editing(self, caller: Caller) -> Editing:
        """Under what the caller may change checks."""
        settings = context_of(self.request).settings
        return Editing(caller, self.version, tuning_of(settings), settings.max_heartbeats, self.now)

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number of the query. Raises CheckRefused."""
        text = self.request.query_params.get(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise CheckRefused(400, f"invalid {name}")
        return int(text)


Handler = Callable[[Asked], Awaitable[Response]]


def _answer(body: Mapping[str, Any], status: int = 200) -> Response:
    return json_answer(body, status, _CORS)


def _shown(asked: Asked, caller: Caller, heartbeat: Heartbeat) -> dict[str, Any]:
    return asked.view(caller).shown(heartbeat)


# Checks -------------------------------------------------------------------------------------------------------------
async def _list_checks(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:read")
    query = asked.request.query_params
    tags = query.getlist("tag")
    limit, after = asked.number("limit", 1, _MAX_LIST), _cursor(asked)
    slug = query.get("slug") or None
    rows = await context_of(asked.request).db.read(checks.all_of, caller.project_id, tags=tags, slug=slug)
    if after is not None:
        rows = [row for row in rows if row.id > after]
    page = rows if limit is None else rows[:limit]
    view = asked.view(caller)
    body: dict[str, Any] = {"checks": [view.shown(row) for row in page]}
    if len(page) < len(rows):
        body["next_cursor"] = cursor_of(page[-1].id)
    return _answer(body)


def _cursor(asked: Asked) -> str | None:
    cursor = asked.request.query_params.get("cursor")
    if cursor is None:
        return None
    after = key_in(cursor)
    if after is None or not is_id("hb")(after):
        raise CheckRefused(400, "invalid cursor")
    return after


async def _create_check(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:write")
    wanted = schemas.wanted_of(asked.body, asked.version)
    made, is_new = await context_of(asked.request).db.write(checks.create, asked.editing(caller), wanted)
    return _answer(_shown(asked, caller, made), 201 if is_new else 200)


async def _found(asked: Asked, caller: Caller) -> Heartbeat:
    db = context_of(asked.request).db
    if "key" in asked.found:
        return await db.read(checks.by_unique_key, caller, asked.found["key"])
    return await db.read(checks.by_uuid, caller, asked.found["uuid"])


async def _get_check(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:read")
    return _answer(_shown(asked, caller, await _found(asked, caller)))


async def _update_check(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:write")
    await _found(asked, caller)
    wanted = schemas.wanted_of(asked.body, asked.version)
    after = await context_of(asked.request).db.write(checks.update, asked.editing(caller), asked.found["uuid"], wanted)
    return _answer(_shown(asked, caller, after))


def _acting(act: Callable[[Connection, Editing, str], Heartbeat]) -> Handler:
    async def handle(asked: Asked) -> Response:
        caller = await asked.caller("heartbeats:write")
        after = await context_of(asked.request).db.write(act, asked.editing(caller), asked.found["uuid"])
        return _answer(_shown(asked, caller, after))

    return handle


# History ------------------------------------------------------------------------------------------------------------
async def _list_pings(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:write")
    limit, before = asked.number("limit", 1, _MAX_PINGS), asked.number("before", 0, 10**15)
    heartbeat = await _found(asked, caller)
    context = context_of(asked.request)
    rows = await context.db.read(
        checks.list_pings,
        heartbeat,
        limit=_PINGS if limit is None else limit,
        before=before,
        bodies_kept=context.settings.ping_bodies_kept,
    )
    url = f"{base_url(asked.request)}/api/v{asked.version}/checks/{heartbeat.ping_id}/pings"
    return _answer({"pings": [_shown_ping(row, url) for row in rows]})


def _shown_ping(row: checks.ShownPing, url: str) -> dict[str, Any]:
    told = row.told
    shown = {
        "type": row.kind,
        "date": schemas.precise_time(row.at),
        "n": row.n,
        "scheme": told.get("scheme", ""),
        "remote_addr": told.get("remote", ""),
        "method": told.get("method", ""),
        "ua": told.get("ua", ""),
        "rid": told.get("rid"),
        "body_url": f"{url}/{row.n}/body" if row.has_body else None,
    }
    if "exit" in told:
        shown["exitstatus"] = told["exit"]
    if "durationMs" in told:
        shown["duration"] = told["durationMs"] / _S
    return shown


async def _ping_body(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:write")
    heartbeat = await _found(asked, caller)
    context = context_of(asked.request)
    n = asked.found["n"]
    if len(n) > 15:  # noqa: PLR2004 - no check was pinged so often
        raise CheckRefused(404, "not found")
    body = await context.db.read(checks.ping_body, heartbeat, int(n), bodies_kept=context.settings.ping_bodies_kept)
    # Whatever it looks like, a browser must not take it for a page of this server.
    headers = _CORS | {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    # No charset: nobody knows it.
    return Response(body, headers=headers | {"Content-Type": "text/plain"})


async def _list_flips(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:read")
    start, end = asked.number("start", 0, _LATEST_S), asked.number("end", 0, _LATEST_S)
    seconds = asked.number("seconds", 0, _YEAR_S)
    heartbeat = await _found(asked, caller)
    since = EpochMs((start or 0) * _S)
    if seconds:
        since = EpochMs(max(since, asked.now - seconds * _S))
    until = EpochMs((end or _LATEST_S) * _S)
    flips = await context_of(asked.request).db.read(checks.list_flips, heartbeat, start=since, end=until)
    shown = [{"timestamp": schemas.precise_time(at)[:19] + "+00:00", "up": up} for at, up in flips]
    return _answer({"flips": shown})


# The rest -----------------------------------------------------------------------------------------------------------
async def _list_channels(asked: Asked) -> Response:
    try:
        caller = await asked.caller("heartbeats:write")
    except CheckRefused:
        caller = await asked.caller("channels:read")
    rows = await context_of(asked.request).db.read(checks.list_channels, caller.project_id)
    shown = [{"id": row.id, "name": row.name, "kind": _KINDS.get(row.type, row.type)} for row in rows]
    return _answer({"channels": shown})


async def _list_badges(asked: Asked) -> Response:
    caller = await asked.caller("heartbeats:read")
    rows = await context_of(asked.request).db.read(checks.all_of, caller.project_id)
    tags = sorted({tag for row in rows for tag in row.tags})
    signer = badges.signer_of(asked.request)
    urls = {tag: signer.urls(base_url(asked.request), caller.project_id, tag) for tag in tags}
    return _answer({"badges": {"*": signer.urls(base_url(asked.request), caller.project_id, None), **urls}})


async def _status(asked: Asked) -> Response:
    try:
        await context_of(asked.request).db.read(_answers)
    except StorageUnavailable:
        # Not 503 as elsewhere, which says to come again: this is the answer to what was asked.
        raise CheckRefused(500, "internal server error") from None
    return Response("OK", headers=_CORS, media_type="text/plain")


def _answers(conn: Connection) -> None:
    heartbeats.id_of_ping(conn, "")


async def _metrics(asked: Asked) -> Response:
    wanted = context_of(asked.request).settings.metrics_key
    sent = asked.request.headers.get("x-metrics-key", "")
    if wanted is None or not badges.is_equal(sent, wanted.get_secret_value()):
        raise CheckRefused(403, "forbidden")
    now = asked.now
    return _answer({"ts": now // _S, "max_ping_id": None, "max_notification_id": None, "num_unprocessed_flips": 0})


async def _notification_status(asked: Asked) -> Response:
    # Providers that call back do so elsewhere; this one is here for those who were told to call it.
    del asked
    return Response(b"", headers=_CORS)


_UUID = r"(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_KEY = r"(?P<key>[0-9a-f]{40})"
_PATHS: dict[str, dict[str, Handler]] = {
    "checks": {"GET": _list_checks, "POST": _create_check},
    f"checks/{_UUID}": {"GET": _get_check, "POST": _update_check, "DELETE": _acting(checks.delete)},
    f"checks/{_KEY}": {"GET": _get_check},
    f"checks/{_UUID}/pause": {"POST": _acting(checks.pause)},
    f"checks/{_UUID}/resume": {"POST": _acting(checks.resume)},
    f"checks/{_UUID}/pings": {"GET": _list_pings},
    f"checks/{_UUID}/pings/(?P<n>[0-9]+)/body": {"GET": _ping_body},
    f"checks/{_UUID}/flips": {"GET": _list_flips},
    f"checks/{_KEY}/flips": {"GET": _list_flips},
    "channels": {"GET": _list_channels},
    "badges": {"GET": _list_badges},
    # What asks whether the server lives, such as `wget --spider`, often asks for the head alone.
    "status": {"GET": _status, "HEAD": _status},
    "metrics": {"GET": _metrics},
    f"notifications/{_UUID}/status": {"POST": _notification_status},
}
_TABLE = [(re.compile(pattern + "/?"), handlers) for pattern, handlers in _PATHS.items()]


async def _handle(request: Request) -> Response:
    """Find what a request wants, and do it."""
    version = cast("Version", int(request.url.path[6]))
    rest = request.path_params["rest"]
    found = ((pattern.fullmatch(rest), handlers) for pattern, handlers in _TABLE)
    match, handlers = next(((match, handlers) for match, handlers in found if match), (None, {}))
    if match is None:
        raise CheckRefused(404, "not found")
    if request.method == "OPTIONS":
        allowed = ", ".join([*handlers, "OPTIONS"])
        told = {"Access-Control-Allow-Headers": "X-Api-Key", "Access-Control-Allow-Methods": allowed}
        return Response(status_code=204, headers=_CORS | told | {"Access-Control-Max-Age": "600"})
    handler = handlers.get(request.method)
    if handler is None:
        refusal = {"error": "method not allowed"}
        return json_answer(refusal, 405, _CORS | {"Allow": ", ".join([*handlers, "OPTIONS"])})
    # Providers that call back send forms.
    body = await _body(request) if request.method == "POST" and handler is not _notification_status else {}
    return await handler(Asked(request, version, match.groupdict(), body))


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a POST. Raises CheckRefused."""
    try:
        raw = await read_body(request)
    except BodyTooLarge:
        raise CheckRefused(413, "request body too large") from None
    if not raw:
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise CheckRefused(400, "could not parse request body") from None
    if not isinstance(body, dict):
        raise CheckRefused(400, "json validation error: value is not an object")
    return body


routes = [Route(f"/api/v{version}/{{rest:path}}", _handle, methods=_METHODS) for version in (1, 2, 3)]
