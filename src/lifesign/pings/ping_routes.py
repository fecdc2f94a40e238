"""HTTP of ping URLs: plain Starlette, as hot as check-ins, and answered in plain text."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

import structlog
from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lifesign import schedule
from lifesign.auth.rules import Caller, Unauthorized
from lifesign.auth.service import Keyring
from lifesign.clock import EpochMs
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.bodies import MAX_TAGS, MAX_TAGS_CHARACTERS
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import HeartbeatNotFound
from lifesign.http.context import Context, context_of, header_of
from lifesign.http.direct import Asked, DirectRoute, Work
from lifesign.http.fields import is_tag
from lifesign.pings import rules
from lifesign.pings.rules import MAX_BODY_BYTES, MAX_UA, NOT_FOUND, PING_SCOPES, PingRefused, Target
from lifesign.pings.service import Ping, Pinged, Pings

log = structlog.get_logger("lifesign.pings")

METHODS = frozenset({"HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_S = 1000
_USUAL_PERIOD_S, _USUAL_GRACE_S = 86_400, 3600
_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0, no-cache, no-store, must-revalidate, private"),
]


class TextAnswer(Response):
    """Plain text, with the headers of every ping URL."""

    def __init__(self, status: int, text: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status_code = status
        self.body = text
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(text)), *_HEADERS, *headers]


async def ping(request: Request) -> Response:
    """Take one ping, of whatever verb. Answered once it is on disk."""
    if request.method == "OPTIONS":
        return TextAnswer(204, b"")
    context = context_of(request)
    try:
        item = await _read(request)
        pings = cast("Pings", request.app.state.pings)
        pinged: Pinged = await pings.patience.wait(context.db.write_batched(pings.record, item))
    except PingRefused as refused:
        return _refused(refused)
    return _taken(context, pinged)


def direct_ping(state: State) -> DirectRoute:
    """The same for pings that are plainly right."""
    context = cast("Context", state.context)
    keyring, pings = cast("Keyring", state.keyring), cast("Pings", state.pings)
    body_limit = context.settings.ping_body_limit or MAX_BODY_BYTES

    def work(asked: Asked) -> Work | None:
        target = rules.target_of(asked.path.removeprefix("/ping/"))
        if target is None or target.is_bad:
            return None
        caller = None
        if target.key is not None:
            caller = keyring.known_caller(b"Bearer " + target.key.encode())
            if caller is None or caller.scopes != PING_SCOPES:
                return None
        sender = _sender_of(asked.headers, asked.scheme, asked.peer)
        body = asked.body[:body_limit]
        item = _ping_of(target, caller, sender, method=asked.method, body=body, stamp=context.now())
        return Work(pings.record, item, partial(_taken, context), failed)

    def failed(error: Exception) -> Response:
        if not isinstance(error, PingRefused):
            raise error
        return _refused(error)

    methods = frozenset(each.encode() for each in METHODS - {"OPTIONS"})
    return DirectRoute(methods, _PLAIN_PING, _PLAIN_BYTES, work, lambda: pings.patience)


_PLAIN_PING = re.compile(rb"/ping/[A-Za-z0-9._~/-]+")
_PLAIN_BYTES = 65_536


def _refused(refused: PingRefused) -> Response:
    return TextAnswer(refused.status, str(refused).encode())


def _taken(context: Context, pinged: Pinged) -> Response:
    context.db.failpoints.hit("checkin.after_commit")
    limit = context.settings.ping_body_limit
    told = [(b"ping-body-limit", b"%d" % limit)] if limit else []
    if pinged.is_repeat:
        told.append((b"ping-duplicate", b"1"))
    return TextAnswer(201, b"Created", *told) if pinged.is_created else TextAnswer(200, b"OK", *told)


def _ping_of(
    target: Target,
    caller: Caller | None,
    sender: "_Sender",
    *,
    method: str,
    body: bytes,
    stamp: EpochMs,
    rid: str | None = None,
    creation: Definition | None = None,
) -> Ping:
    return Ping(
        ping_id=target.ping_id,
        project_id="" if caller is None else caller.project_id,
        slug=target.slug or "",
        key_id="" if caller is None else caller.key_id,
        action=target.action,
        is_bare=target.action == "success" and target.exit_status is None,
        exit_status=target.exit_status,
        rid=rid,
        scheme=sender.scheme,
        method=method,
        remote_addr=sender.remote_addr,
        ua=sender.ua,
        body=body,
        stamp=stamp,
        creation=creation,
    )


async def _read(request: Request) -> Ping:
    """The ping that a request is, in the order in which it is judged. Raises PingRefused, ClientDisconnect."""
    target = rules.target_of(request.scope["path"].removeprefix("/ping/"))
    if target is None:
        raise PingRefused(*NOT_FOUND)
    caller = None if target.key is None else await _caller(request, target.key)
    query: Mapping[str, str] = {}
    if request.scope["query_string"]:
        query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    context = context_of(request)
    creates = caller is not None and query.get("create") == "1" and context.settings.ping_create
    try:
        rid = _run_id(target, query)
        creation = _creation_of(target, query) if creates else None
        body = await _kept_body(request, context.settings.ping_body_limit)
    except PingRefused:
        # What is not there is told before what is wrong; only what is wrong pays for looking.
        await _require(request, target, caller, is_made=creates)
        raise
    scope = request.scope
    sender = _sender_of(scope["headers"], scope["scheme"], scope["client"][0] if scope.get("client") else "")
    stamp = context.now()
    return _ping_of(target, caller, sender, method=request.method, body=body, stamp=stamp, rid=rid, creation=creation)


def _run_id(target: Target, query: Mapping[str, str]) -> str | None:
    """The run id of a ping, if it has one. Raises PingRefused, also for a URL that says what cannot be said."""
    if target.is_bad:
        raise PingRefused(400, "invalid url format")
    if "rid" not in query:
        return None
    rid = rules.run_id_of(query["rid"])
    if rid is None:
        raise PingRefused(400, "invalid uuid format")
    return rid


async def _caller(request: Request, key: str) -> Caller:
    """Whose key stands in a URL. Raises PingRefused for all but one that may ping and nothing else."""
    keyring = cast("Keyring", request.app.state.keyring)
    try:
        caller = await keyring.caller(b"Bearer " + key.encode("ascii", "replace"))
    except Unauthorized:
        raise PingRefused(*NOT_FOUND) from None
    if caller.scopes != PING_SCOPES:
        # It stands in a URL now, where it does not belong.
        log.warning("ping_key.too_powerful", key=caller.key_id)
        raise PingRefused(*NOT_FOUND)
    return caller


async def _require(request: Request, target: Target, caller: Caller | None, *, is_made: bool) -> None:
    """Raise PingRefused when a ping names nothing. A bad slug of a good key is told as such."""
    db = context_of(request).db
    if target.ping_id is not None:
        if await db.read(heartbeats.id_of_ping, target.ping_id) is None:
            raise PingRefused(*NOT_FOUND)
    elif caller is not None and not is_made and rules.is_slug(target.slug or ""):
        try:
            await db.read(heartbeats.get, caller.project_id, target.slug or "")
        except HeartbeatNotFound:
            raise PingRefused(*NOT_FOUND) from None


class _Sender(NamedTuple):
    scheme: str
    remote_addr: str
    ua: str


def _sender_of(headers: Sequence[tuple[bytes, bytes]], scheme: str, peer: str) -> _Sender:
    forwarded, ua = None, ""
    for name, value in headers:
        if name == b"user-agent":
            ua = value.decode("latin-1")[:MAX_UA]
        elif name == b"x-forwarded-for" and forwarded is None:
            # Of several the first: together they are one list.
            forwarded = value.decode("latin-1")
        elif name == b"x-forwarded-proto" and value in {b"http", b"https"}:
            scheme = value.decode()
    return _Sender(scheme, rules.remote_address(forwarded, peer), ua)


async def _kept_body(request: Request, limit: int) -> bytes:
    """The first `limit` bytes of the body (0: all); the rest is read and dropped. Raises PingRefused."""
    limit = limit or MAX_BODY_BYTES
    announced = header_of(request, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise PingRefused(413, "body too large")
    kept, size, has_more = b"", 0, True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise PingRefused(413, "body too large")
        if len(kept) < limit:
            kept += chunk[: limit - len(kept)]
        has_more = message.get("more_body", False)
    return kept


# Creating by ping ---------------------------------------------------------------------------------------------------
def _creation_of(target: Target, query: Mapping[str, str]) -> Definition:
    """What a first ping makes. Raises PingRefused.  Source: spec "Pings", section 3."""
    period = _seconds(query, "period", shortest=1)
    grace = _seconds(query, "grace", shortest=0)
    cron = query.get("schedule")
    timezone = query.get("tz", "UTC")
    if not schedule.is_timezone(timezone):
        raise PingRefused(400, "invalid tz")
    if cron is not None:
        try:
            cron = schedule.normalized(cron, timezone)
        except schedule.BadSchedule:
            raise PingRefused(400, "invalid schedule") from None
        if period is not None:
            raise PingRefused(400, "invalid schedule")
    return Definition(
        name=target.slug or "",
        mode="recurring" if cron is None else "scheduled",
        slug=target.slug,
        interval_ms=(_USUAL_PERIOD_S if period is None else period) * _S if cron is None else None,
        schedule=cron,
        timezone=timezone,
        grace_ms=(_USUAL_GRACE_S if grace is None else grace) * _S,
        tags=_tags(query.get("tags", "")),
    )


def _seconds(query: Mapping[str, str], name: str, *, shortest: int) -> int | None:
    if name not in query:
        return None
    seconds = rules.seconds_of(query[name], shortest=shortest)
    if seconds is None:
        raise PingRefused(400, f"invalid {name}")
    return seconds


def _tags(text: str) -> tuple[str, ...]:
    # A plus of the query is a blank by now.
    tags = tuple(dict.fromkeys(text.replace(",", " ").replace("+", " ").split()))
    if len(tags) > MAX_TAGS or len(" ".join(tags)) > MAX_TAGS_CHARACTERS or not all(map(is_tag, tags)):
        raise PingRefused(400, "invalid tags")
    return tags
